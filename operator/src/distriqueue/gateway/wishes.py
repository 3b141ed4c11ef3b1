"""What people may want of a job that is there: its end, another run, a pause; and what of its spec that changes.

Each function reads a job and returns the change of its spec, or None when the job is so already. Guarantees: pure.
Fails with `Conflict` where the state of the job does not allow it, with what to do instead.
"""

from typing import Any

from distriqueue.api.phases import FINAL_JOB_PHASES, JobPhase
from distriqueue.api.raw import RawJob
from distriqueue.gateway.problems import Conflict

Spec = dict[str, Any]
"""Fields of a spec, as a merge patch has them."""


def _name_of(job: RawJob) -> str:
    return job["metadata"]["name"]


def _phase_of(job: RawJob) -> str:
    return (job.get("status") or {}).get("phase", JobPhase.PENDING)


def cancel(job: RawJob) -> Spec | None:
    """It is to end; again and again is fine."""
    phase = _phase_of(job)
    if job["spec"].get("cancel") or phase == JobPhase.CANCELLED:
        return None
    if phase in FINAL_JOB_PHASES and not _retry_is_due(job):
        raise Conflict(f"job {_name_of(job)!r} is over ({phase}): there is nothing to cancel")
    return {"cancel": True}


def retry(job: RawJob) -> Spec | None:
    """It is to run again; while one retry is not yet taken up, another is the same."""
    if job["spec"].get("cancel"):
        raise Conflict(f"job {_name_of(job)!r} was cancelled, and that is for good: submit it as a new job")
    if job["metadata"].get("deletionTimestamp"):
        raise Conflict(f"job {_name_of(job)!r} is being deleted: submit it as a new job")
    if _retry_is_due(job):
        return None
    return {"retryGeneration": job["spec"].get("retryGeneration", 0) + 1}


def _retry_is_due(job: RawJob) -> bool:
    return job["spec"].get("retryGeneration", 0) > (job.get("status") or {}).get("retryGeneration", 0)


def suspend(job: RawJob) -> Spec | None:
    """No attempt is to start."""
    phase = _phase_of(job)
    if phase in FINAL_JOB_PHASES and not _retry_is_due(job):
        raise Conflict(f"job {_name_of(job)!r} is over ({phase}): there is nothing to suspend")
    return None if job["spec"].get("suspend") else {"suspend": True}


def resume(job: RawJob) -> Spec | None:
    """Attempts may start again."""
    return {"suspend": False} if job["spec"].get("suspend") else None
