"""The status documents that the leader writes: each a whole status, made from the last one and what happened.

Guarantees: `epoch`, `attempt` and `lastGrant` never fall from one document to the next; the history keeps the last
`HISTORY_LIMIT` attempts; nothing of the spec is copied. Pure functions; times are passed in.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import orjson
from pydantic import JsonValue

from distriqueue.api.conditions import AttemptReason, JobCondition, JobReason
from distriqueue.api.limits import (
    ERROR_LIMIT,
    HISTORY_LIMIT,
    LOG_TAIL_LIMIT,
    REASON_LIMIT,
    RESULT_LIMIT_BYTES,
)
from distriqueue.api.phases import FINAL_JOB_PHASES, AttemptOutcome, JobPhase
from distriqueue.api.raw import RawAttempt, RawCondition, RawJobStatus
from distriqueue.core.jobs import Closing, Job, Loss, Slot, Source, is_storable
from distriqueue.core.retrying import Verdict, counted, failure_class
from distriqueue.core.times import Now, checked, microtime, whole_seconds
from distriqueue_protocol.messages import GrantId, Outcome, Report, StopReason

_OUTCOMES = {
    Outcome.SUCCEEDED: AttemptOutcome.SUCCEEDED,
    Outcome.FAILED: AttemptOutcome.FAILED,
    Outcome.INTERRUPTED: AttemptOutcome.LOST,
}
_STOPPED: Mapping[str, AttemptOutcome] = {
    StopReason.TIMEOUT: AttemptOutcome.FAILED,
    StopReason.CANCELLED: AttemptOutcome.STOPPED,
    StopReason.DEADLINE_EXCEEDED: AttemptOutcome.STOPPED,
    StopReason.RETRIED: AttemptOutcome.STOPPED,
    AttemptReason.NOT_STARTED: AttemptOutcome.STOPPED,
}
"""What an interrupted attempt is by the reason that its worker names: an order, which may be an earlier one than the
last, or of the leader before this one; or that there was no attempt."""
_NOT_A_REASON = re.compile(r"[^A-Za-z0-9]+")


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended, from a report or from a proven loss.

    Attributes:
        grant: What `lastGrant` rises to.
        result: JSON value of a success.
        permanent: The handler said that another attempt cannot help.
        checkpoint: What it left for the next attempt; None for nothing.
        checkpointed: Whether it said so; else what was left before still counts.
    """

    number: int
    worker: str
    incarnation: str
    start_time: str
    completion_time: str
    outcome: AttemptOutcome
    grant: GrantId
    reason: str = ""
    error: str = ""
    log_tail: str = ""
    result: object = None
    permanent: bool = False
    checkpoint: JsonValue = None
    checkpointed: bool = False


def ending(slot: Slot, *, now: Now) -> Ending:
    """How the attempt of a slot ended: by its report, or by its loss if there is none."""
    if slot.report is not None or slot.lost is None:
        return reported(slot)
    return lost(slot, slot.lost, now=now)


def reported(slot: Slot) -> Ending:
    """The ending that a slot's report tells; a result that no status can hold is a failure."""
    report = slot.report
    if report is None:
        raise ValueError("the slot has no report")
    if report.result is not None and (refusal := _refused_result(report)) is not None:
        report = refusal
    outcome = _OUTCOMES[report.outcome]
    if outcome is AttemptOutcome.LOST:
        outcome = _STOPPED.get(report.reason, outcome)
    reason = report.reason
    if not reason and outcome is not AttemptOutcome.SUCCEEDED:
        lost = outcome is AttemptOutcome.LOST
        reason = AttemptReason.WORKER_STOPPED if lost else AttemptReason.HANDLER_ERROR
    told = is_storable(report.checkpoint)
    return Ending(
        number=slot.attempt,
        worker=report.worker,
        incarnation=report.incarnation,
        start_time=checked(report.start_time) or microtime(slot.granted_at),
        completion_time=checked(report.completion_time) or microtime(slot.granted_at),
        outcome=outcome,
        grant=slot.grant,
        reason=reason,
        error=report.error,
        log_tail=report.log_tail,
        result=report.result,
        permanent=report.permanent,
        checkpoint=report.checkpoint if told else slot.checkpoint,
        checkpointed=told or slot.checkpointed,
    )


def _refused_result(report: Report) -> Report | None:
    """Workers check their results themselves; the leader does not depend on it."""
    try:
        size = len(orjson.dumps(report.result))
    except TypeError as error:
        reason, text = AttemptReason.RESULT_NOT_JSON, f"the result is not JSON that Kubernetes can store: {error}"
    else:
        if size <= RESULT_LIMIT_BYTES:
            return None
        reason = AttemptReason.RESULT_TOO_LARGE
        text = f"the result has {size} bytes of JSON, and {RESULT_LIMIT_BYTES} is the limit"
    failed = {"outcome": Outcome.FAILED, "result": None, "reason": reason, "error": text, "permanent": True}
    return report.model_copy(update=failed)


def _start_time(slot: Slot) -> str:
    return checked(slot.start_time) or microtime(slot.granted_at)


def lost(slot: Slot, loss: Loss, *, now: Now) -> Ending:
    """The ending of an attempt whose loss is proven."""
    return Ending(
        number=slot.attempt,
        worker=slot.worker,
        incarnation=slot.incarnation,
        start_time=_start_time(slot),
        completion_time=microtime(now.wall),
        outcome=AttemptOutcome.LOST,
        grant=slot.grant,
        reason=loss.reason,
        error=loss.error,
        checkpoint=slot.checkpoint,
        checkpointed=slot.checkpointed,
    )


def _condition(kind: JobCondition, value: bool, reason: str, message: str, *, job: Job, now: Now) -> RawCondition:  # noqa: FBT001 - the condition's own status
    return {
        "type": kind.value,
        "status": "True" if value else "False",
        "reason": reason,
        "message": message,
        "observedGeneration": job.generation,
        "lastTransitionTime": whole_seconds(now.wall),
    }


def _base(job: Job, *, phase: JobPhase, epoch: int, now: Now) -> RawJobStatus:
    """What every write shares: the last status, the phase, the epoch, and `Accepted` from the first one on."""
    status = cast("RawJobStatus", dict(job.status))
    status["phase"] = phase.value
    status["epoch"] = max(epoch, status.get("epoch", 0))
    status["observedGeneration"] = job.generation
    if "conditions" not in status:
        reason = JobReason.ACCEPTED
        status["conditions"] = [_condition(JobCondition.ACCEPTED, True, reason, "", job=job, now=now)]
    if suspension_untold(job):
        reason = JobReason.SUSPENDED if job.suspend else JobReason.RESUMED
        said = _condition(JobCondition.SUSPENDED, job.suspend, reason, "", job=job, now=now)
        status["conditions"] = [*(c for c in status["conditions"] if c["type"] != JobCondition.SUSPENDED), said]
    if job.source is not None:
        _tell_payload(status, job, job.source, now=now)
    return status


def payload_untold(job: Job) -> bool:
    """Whether the conditions of a job do not say yet why it waits for its payload."""
    if job.source is None or job.source.unready is None:
        return False
    said = _payload_condition(job.status)
    return said is None or said["status"] != "False" or (said["reason"], said["message"]) != job.source.unready


def _payload_condition(status: RawJobStatus) -> RawCondition | None:
    for condition in status.get("conditions", ()):
        if condition["type"] == JobCondition.PAYLOAD_READY:
            return condition
    return None


def _tell_payload(status: RawJobStatus, job: Job, source: Source, *, now: Now) -> None:
    """Say why a job waits for its payload, and that it no longer does; of one that never did, nothing."""
    said, unready = _payload_condition(status), source.unready
    if unready is not None and payload_untold(job):
        condition = _condition(JobCondition.PAYLOAD_READY, False, unready.reason, unready.message, job=job, now=now)
        if said is not None and said["status"] == "False":
            condition["lastTransitionTime"] = said["lastTransitionTime"]
    elif unready is None and source.resolved and said is not None and said["status"] == "False":
        reason = JobReason.PAYLOAD_RESOLVED
        condition = _condition(JobCondition.PAYLOAD_READY, True, reason, "", job=job, now=now)
    else:
        return
    status["conditions"] = [*(c for c in status["conditions"] if c["type"] != JobCondition.PAYLOAD_READY), condition]


def suspension_untold(job: Job) -> bool:
    """Whether the conditions of a job do not say yet that it is suspended, or that it is no longer."""
    said = any(
        condition["type"] == JobCondition.SUSPENDED and condition["status"] == "True"
        for condition in job.status.get("conditions", ())
    )
    return said != job.suspend


def noted(job: Job, *, epoch: int, now: Now) -> RawJobStatus:
    """The job is suspended, or no longer, or waits for its payload: what ticket it had is worth nothing now."""
    queued = job.phase == JobPhase.QUEUED
    return _base(job, phase=JobPhase.PENDING if queued else JobPhase(job.phase), epoch=epoch, now=now)


def reopened(job: Job, *, granted: int, epoch: int, now: Now) -> RawJobStatus:
    """A retry by hand begins: the job waits as on its first day, with its history and its checkpoint.

    Args:
        job: Nobody holds it.
        granted: The number of the last grant of this epoch: whatever was granted of this job is over.
        epoch: Of the leader.
        now: The moment.
    """
    status = _base(job, phase=JobPhase.PENDING, epoch=epoch, now=now)
    _forget_run(status)
    accepted = _condition(JobCondition.ACCEPTED, True, JobReason.ACCEPTED, "", job=job, now=now)
    status["conditions"] = [
        accepted if one["type"] == JobCondition.ACCEPTED and one["status"] == "False" else one
        for one in status["conditions"]
    ]
    grant = max(job.last_grant, GrantId(epoch, granted))
    status["lastGrant"] = {"epoch": grant.epoch, "counter": grant.counter}
    status["retryGeneration"] = job.retry_generation
    status["retryTime"] = microtime(now.wall)
    return status


def _forget_run(status: RawJobStatus) -> None:
    """Drop what a run that is over has said, but for its history."""
    for key in _OF_ONE_RUN:
        status.pop(key, None)  # type: ignore[misc]  # the keys of a TypedDict, from a tuple of them
    ended = (JobCondition.COMPLETE, JobCondition.FAILED)
    status["conditions"] = [condition for condition in status["conditions"] if condition["type"] not in ended]


_OF_ONE_RUN = ("result", "error", "failures", "progress", "completionTime", "nextAttemptTime", "queuedTime")


def queued(job: Job, *, epoch: int, now: Now) -> RawJobStatus:
    """The ticket has been with the broker for a while."""
    status = _base(job, phase=JobPhase.QUEUED, epoch=epoch, now=now)
    status.pop("nextAttemptTime", None)
    if job.queued_time:
        status["queuedTime"] = job.queued_time
    return status


def running(job: Job, slot: Slot, *, epoch: int, now: Now) -> RawJobStatus:
    """A worker has had the job for a while."""
    status = _base(job, phase=JobPhase.RUNNING, epoch=epoch, now=now)
    status.pop("nextAttemptTime", None)
    status["attempt"] = max(slot.attempt, status.get("attempt", 0))  # a person may have raised it, and it never falls
    status["worker"] = slot.worker
    status["startTime"] = _start_time(slot)
    if job.queued_time:
        status["queuedTime"] = job.queued_time
    entry: RawAttempt = {
        "number": slot.attempt,
        "worker": slot.worker,
        "incarnation": slot.incarnation,
        "startTime": status["startTime"],
    }
    status["attempts"] = _history(status, entry)
    _tell_progress(status, slot, job=job)
    if slot.checkpointed:
        _leave(status, slot.checkpoint)
    return status


def _leave(status: RawJobStatus, checkpoint: JsonValue) -> None:
    if checkpoint is None:
        status.pop("checkpoint", None)
    else:
        status["checkpoint"] = checkpoint


def _tell_progress(status: RawJobStatus, slot: Slot, *, job: Job) -> None:
    """Say how far an attempt has come; what is said of the attempt before it does not stay."""
    if slot.progress is not None:
        status["progress"] = slot.progress
    elif job.attempt != slot.attempt:
        status.pop("progress", None)


def ended(job: Job, slot: Slot, ending: Ending, verdict: Verdict, *, epoch: int, now: Now) -> RawJobStatus:
    """An attempt ended; the verdict says what becomes of the job."""
    status = _base(job, phase=verdict.phase, epoch=epoch, now=now)
    status.pop("nextAttemptTime", None)
    status["attempt"] = max(ending.number, status.get("attempt", 0))
    status["worker"] = ending.worker
    status["startTime"] = ending.start_time
    status["lastGrant"] = {"epoch": ending.grant.epoch, "counter": ending.grant.counter}
    if job.queued_time:
        status["queuedTime"] = job.queued_time
    entry = _entry(ending)
    status["attempts"] = _history(status, entry)
    kind = failure_class(ending.outcome, entry.get("reason", ""))
    if kind is not None:
        status["failures"] = counted(status.get("failures"), kind)
    if ending.checkpointed:
        _leave(status, ending.checkpoint)
    _tell_progress(status, slot, job=job)
    if ending.error:
        status["error"] = ending.error[:ERROR_LIMIT]
    if verdict.phase is JobPhase.SUCCEEDED:
        status.pop("error", None)
        status.pop("checkpoint", None)
        if ending.result is not None:
            status["result"] = ending.result
    if verdict.phase is JobPhase.RETRYING:
        status["nextAttemptTime"] = microtime(now.wall + verdict.wait_seconds)
    if verdict.phase in FINAL_JOB_PHASES:
        status["completionTime"] = ending.completion_time
        reason = verdict.reason or JobReason.ACCEPTED
        _conclude(status, reason=reason, message=_message(ending, verdict, job=job), job=job, now=now)
    return status


def closed(job: Job, closing: Closing, *, epoch: int, now: Now) -> RawJobStatus:
    """The job ends without an attempt."""
    status = _base(job, phase=closing.phase, epoch=epoch, now=now)
    status.pop("nextAttemptTime", None)
    if job.phase in FINAL_JOB_PHASES:
        _forget_run(status)  # it was to run again
    status["completionTime"] = microtime(now.wall)
    if job.retry_generation:
        status["retryGeneration"] = job.retry_generation
    if closing.phase is JobPhase.FAILED:
        status["error"] = closing.message[:ERROR_LIMIT]
    if job.refusal is closing:
        accepted = _condition(JobCondition.ACCEPTED, False, closing.reason, closing.message, job=job, now=now)
        others = (c for c in status["conditions"] if c["type"] != JobCondition.ACCEPTED)
        status["conditions"] = [accepted, *others]
    _conclude(status, reason=closing.reason, message=closing.message, job=job, now=now)
    return status


def _message(ending: Ending, verdict: Verdict, *, job: Job) -> str:
    if verdict.phase is JobPhase.SUCCEEDED:
        return ""
    if job.closing is not None and verdict.reason is job.closing.reason:
        return job.closing.message
    why = f"{ending.reason}: {ending.error}" if ending.error else ending.reason
    if verdict.phase is JobPhase.DEAD:
        of = f"attempt {ending.number}, the last one, did not succeed"
        return f"{of}: {why}"[:ERROR_LIMIT]
    return why[:ERROR_LIMIT]


def _conclude(status: RawJobStatus, *, reason: str, message: str, job: Job, now: Now) -> None:
    succeeded = status["phase"] == JobPhase.SUCCEEDED
    kind = JobCondition.COMPLETE if succeeded else JobCondition.FAILED
    final = _condition(kind, True, reason, message, job=job, now=now)
    status["conditions"] = [*(c for c in status.get("conditions", []) if c["type"] != kind), final]


def _entry(ending: Ending) -> RawAttempt:
    entry: RawAttempt = {
        "number": ending.number,
        "worker": ending.worker,
        "incarnation": ending.incarnation,
        "startTime": ending.start_time,
        "completionTime": ending.completion_time,
        "outcome": ending.outcome.value,
    }
    if ending.reason:
        # A worker of any language names the reason; the schema wants one CamelCase word.
        word = _NOT_A_REASON.sub("", ending.reason)[:REASON_LIMIT]
        entry["reason"] = word[:1].upper() + word[1:] if word[:1].isalpha() else AttemptReason.HANDLER_ERROR.value
    if ending.error:
        entry["error"] = ending.error[:ERROR_LIMIT]
    if ending.log_tail:
        entry["logTail"] = ending.log_tail[-LOG_TAIL_LIMIT:]
    return entry


def _history(status: RawJobStatus, entry: RawAttempt) -> list[RawAttempt]:
    kept = [old for old in status.get("attempts", []) if old.get("number") != entry["number"]]
    return [*kept, entry][-HISTORY_LIMIT:]
