"""The sentences that must be true of the resources of jobs, whoever writes them and whatever the fences let through.

- `epoch`, `attempt`, `lastGrant` and `retryGeneration` never fall.
- A final phase is left only for a retry that a person asked for.
- An attempt that has ended never changes again; each write that ends one raises `lastGrant`; a result is the word of
  the very grant that `lastGrant` names.
- A leader deletes only what is over, and when its time to live is.
"""

from distriqueue.api.limits import DEFAULT_TTL_SECONDS
from distriqueue.api.phases import FINAL_JOB_PHASES
from distriqueue.api.raw import RawAttempt, RawJob, RawJobStatus
from distriqueue.core.times import seconds
from distriqueue_protocol.messages import NO_GRANT, GrantId

EPOCH_OF_TIME = 1.7e9
"""The wall clock's time at the beginning of every world."""
HEARD_SECONDS = 60.0
"""So long after a person's word every leader that can still grant has heard it, and every grant has arrived."""


class ViolationError(AssertionError):
    """One of the sentences is not true.

    Attributes:
        sentence: Which, in a few words that never change: the broken-guard tests name them.
    """

    def __init__(self, sentence: str, what: str) -> None:
        super().__init__(f"{sentence}: {what}")
        self.sentence = sentence


def last_grant(job: RawJob) -> GrantId:
    """The highest grant that is known to be over."""
    grant = job["status"].get("lastGrant")
    return GrantId(grant["epoch"], grant["counter"]) if grant is not None else NO_GRANT


def check_growth(old: RawJob, new: RawJob, *, by_hand: bool) -> None:
    """What never falls has not fallen, and what is final is; a person may remove what no fence holds."""
    name, before, after = new["metadata"]["name"], old["status"], new["status"]
    grown = (
        after.get("epoch", -1) >= before.get("epoch", -1)
        and after.get("attempt", -1) >= before.get("attempt", -1)
        and (by_hand or after.get("retryGeneration", 0) >= before.get("retryGeneration", 0))
        and last_grant(new) >= last_grant(old)
    )
    if not grown:
        raise ViolationError("numbers grow", f"{name}: {_numbers(before)} became {_numbers(after)}")
    asked = new["spec"].get("retryGeneration", 0)
    retried = after.get("retryGeneration", 0) == asked > before.get("retryGeneration", 0)
    if before.get("phase") in FINAL_JOB_PHASES and after.get("phase") != before.get("phase") and not retried:
        raise ViolationError("final is final", f"{name}: {before.get('phase')} became {after.get('phase')}")


def check_endings(old: RawJob, new: RawJob) -> None:
    """Attempts end once, and each end raises `lastGrant`."""
    name, before, after = new["metadata"]["name"], old["status"], new["status"]
    was, now = _ended(before), _ended(after)
    for number, attempt in was.items():
        if number in now and now[number] != attempt:
            raise ViolationError("attempts end once", f"{name}: attempt {number} had ended and was written again")
    fresh = now.keys() - was.keys()
    raised = last_grant(new) != last_grant(old)
    reopened = after.get("retryGeneration", 0) > before.get("retryGeneration", 0)
    if raised and fresh != {after.get("attempt")} and not (reopened and not fresh):
        raise ViolationError("lastGrant", f"{name}: rose, and {set(fresh)} ended at attempt {after.get('attempt')}")
    if fresh and not raised:
        raise ViolationError("lastGrant", f"{name}: attempts {set(fresh)} ended, and it did not rise")
    if _failures(after) > _failures(before) and not fresh:
        raise ViolationError("attempts end once", f"{name}: a failure more, and no attempt ended")
    if after.get("phase") == "Succeeded" != before.get("phase"):
        told = after["result"]["grant"]
        if told != str(last_grant(new)):
            raise ViolationError("the result's grant", f"{name}: the result is of {told}, not of {last_grant(new)}")


def check_removal(job: RawJob, now: float, *, forgiven: float) -> None:
    """A leader deletes a job whose time to live is over."""
    name, status, spec = job["metadata"]["name"], job["status"], job["spec"]
    ended = seconds(status.get("completionTime"))
    if status.get("phase") not in FINAL_JOB_PHASES or ended is None:
        raise ViolationError("deleted too early", f"{name} is {status.get('phase')}")
    if not spec.get("cancel") and spec.get("retryGeneration", 0) > status.get("retryGeneration", 0):
        raise ViolationError("deleted too early", f"{name} is to be run again")
    age, ttl = EPOCH_OF_TIME + now - ended, spec.get("ttlSecondsAfterFinished", DEFAULT_TTL_SECONDS)
    if age + forgiven + 1.0 < ttl:
        raise ViolationError(
            "deleted too early", f"{name} lives for {ttl} s after its end, and was deleted after {age}"
        )


def forbids(job: RawJob, now: float, *, changed: float, forgiven: float) -> str:
    """Why no attempt of a job may start at this moment.

    Args:
        job: As the API server has it.
        now: Seconds of the world.
        changed: When a person changed the spec last; long ago if nobody did.
        forgiven: By how many seconds the wall clocks of leaders may be wrong.
    """
    spec, status = job["spec"], job["status"]
    if status.get("phase") in FINAL_JOB_PHASES:
        return f"it is {status.get('phase')}"
    if now - changed < HEARD_SECONDS:
        return ""
    if spec.get("cancel") or spec.get("suspend"):
        return f"it is cancelled or suspended, since {now - changed:.1f} s"
    after, created = seconds(spec.get("startAfter")), seconds(job["metadata"].get("creationTimestamp")) or 0.0
    deadline = spec.get("deadlineSeconds")
    if deadline is not None and not spec.get("retryGeneration", 0):
        late = EPOCH_OF_TIME + now - max(created, after or 0.0) - deadline
        if late > HEARD_SECONDS + forgiven:
            return f"its deadline passed {late:.1f} s ago"
    if after is not None and EPOCH_OF_TIME + now + forgiven < after:
        return f"it is to start after {spec['startAfter']}"
    return ""


def is_undone(job: RawJob, now: float, forgiven: float) -> bool:
    """Whether something remains to be done for a job: it is not over, is to run again, or should have been deleted."""
    spec, status = job["spec"], job["status"]
    if status.get("phase") not in FINAL_JOB_PHASES:
        return True
    if not spec.get("cancel") and spec.get("retryGeneration", 0) > status.get("retryGeneration", 0):
        return True
    ended, ttl = seconds(status.get("completionTime")), spec.get("ttlSecondsAfterFinished", DEFAULT_TTL_SECONDS)
    return ended is not None and EPOCH_OF_TIME + now - ended > ttl + forgiven + HEARD_SECONDS


def _failures(status: RawJobStatus) -> int:
    return sum(count for count in status.get("failures", {}).values() if isinstance(count, int))


def _numbers(status: RawJobStatus) -> list[object]:
    return [status.get(key) for key in ("epoch", "attempt", "lastGrant", "retryGeneration")]


def _ended(status: RawJobStatus) -> dict[int, RawAttempt]:
    return {attempt["number"]: attempt for attempt in status.get("attempts", []) if "outcome" in attempt}
