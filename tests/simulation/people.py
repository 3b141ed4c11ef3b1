"""What people do to jobs: by kubectl patch, kubectl delete, and now and then by editing a status."""

from collections.abc import Callable
from random import Random
from typing import Any, cast

from distriqueue.api.phases import FINAL_JOB_PHASES
from distriqueue.api.raw import RawJob, RawJobSpec, RawJobStatus
from distriqueue.core.times import microtime
from tests.simulation.api_server import ApiServer, RefusedError
from tests.simulation.histories import History
from tests.simulation.statuses import EPOCH_OF_TIME

RESUMED_SECONDS = 15.0
"""So long after the last fault every job is resumed."""


class People:
    """Everybody who uses a world.

    Args:
        busy: Share of the jobs that are asked for in an unusual way.
    """

    def __init__(self, api: ApiServer, history: History, rng: Random, *, busy: float) -> None:
        self._api = api
        self._history = history
        self._rng = rng
        self._busy = busy
        self._deeds: list[Callable[[RawJob], None]] = [
            self._cancel,
            self._suspend,
            self._resume,
            self._retry,
            self._retry,
            self._prioritise,
            self._postpone,
            self._limit,
            self._keep,
            self._delete,
            self._edit,
        ]

    def unusual(self, moment: float) -> RawJobSpec:
        """What a spec has beside the usual, of a job that is made at a moment."""
        rng = self._rng
        spec: RawJobSpec = {}
        if rng.random() >= self._busy:
            return spec
        if rng.random() < 0.2:
            spec["startAfter"] = self._time(moment + rng.uniform(-5, 40))
        if rng.random() < 0.3:
            spec["deadlineSeconds"] = rng.choice([1, 5, 20, 60, 200])
        if rng.random() < 0.3:
            spec["ttlSecondsAfterFinished"] = rng.choice([0, 5, 60])
        if rng.random() < 0.3:
            spec["dedupKey"] = rng.choice(["a", "b", "c"])
        if rng.random() < 0.1:
            spec["suspend"] = True
        if rng.random() < 0.3:
            names = ["application", "timeout", "outOfMemory", "workerLost"]
            spec["retryBudget"] = cast("Any", {name: rng.randint(0, 3) for name in names if rng.random() < 0.5})
        return spec

    def act(self) -> None:
        """Somebody does something to some job."""
        if self._api.jobs:
            job = self._api.jobs[self._rng.choice(sorted(self._api.jobs))]
            self._rng.choice(self._deeds)(job)

    def resume_all(self) -> None:
        """Nobody keeps a job from running any more."""
        for job in list(self._api.jobs.values()):
            if job["spec"].get("suspend"):
                self._resume(job)

    # --- deeds -------------------------------------------------------------------------------------------------

    def _patch(self, job: RawJob, changes: dict[str, Any]) -> bool:
        try:
            self._api.patch_spec(job["metadata"]["name"], changes)
        except RefusedError:
            return False
        self._history.patched(job["metadata"]["uid"])
        return True

    def _cancel(self, job: RawJob) -> None:
        self._patch(job, {"cancel": True})

    def _suspend(self, job: RawJob) -> None:
        self._patch(job, {"suspend": True})

    def _resume(self, job: RawJob) -> None:
        self._patch(job, {"suspend": self._rng.choice([False, None])})

    def _retry(self, job: RawJob) -> None:
        rises = self._rng.choice([1, 1, 1, 5])
        if self._patch(job, {"retryGeneration": job["spec"].get("retryGeneration", 0) + rises}):
            self._history.retried(job["metadata"]["uid"])

    def _prioritise(self, job: RawJob) -> None:
        priority = self._rng.choice(["High", "Medium", "Low"])
        self._patch(job, {"priority": priority, "priorityValue": self._rng.randint(0, 100)})

    def _postpone(self, job: RawJob) -> None:
        moment = self._api.scheduler.now + self._rng.uniform(-5, 30)
        self._patch(job, {"startAfter": self._rng.choice([None, self._time(moment)])})

    def _limit(self, job: RawJob) -> None:
        self._patch(job, {"deadlineSeconds": self._rng.choice([None, 1, 30, 100])})

    def _keep(self, job: RawJob) -> None:
        self._patch(job, {"ttlSecondsAfterFinished": self._rng.choice([None, 0, 30, 3600])})

    def _delete(self, job: RawJob) -> None:
        self._api.delete_job(job["metadata"]["name"])

    def _edit(self, job: RawJob) -> None:
        """Kubectl edit --subresource=status: rare, and what the fences let through has to be lived with."""
        if self._rng.random() < 0.5:
            return
        metadata, status = job["metadata"], dict(job["status"])
        match self._rng.choice(["phase", "over", "attempt", "bare"]):
            case "phase":
                status["phase"] = self._rng.choice(["Pending", "Queued", "Running", "Retrying"])
            case "over":
                status["phase"] = self._rng.choice(sorted(FINAL_JOB_PHASES))
            case "attempt":
                status["attempt"] = cast("int", status.get("attempt", 0)) + 1
            case _:
                status = {key: status[key] for key in ("phase", "epoch", "attempt", "lastGrant") if key in status}
        try:
            version = int(metadata["resourceVersion"])
            self._api.put_status(metadata["name"], metadata["uid"], version, cast("RawJobStatus", status), writer="")
        except RefusedError:
            return

    @staticmethod
    def _time(moment: float) -> str:
        return microtime(EPOCH_OF_TIME + moment)
