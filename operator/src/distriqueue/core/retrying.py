"""What follows an attempt that ended: success, another attempt and when, or the end of the job.

Pure functions of the job, the way the attempt ended, and a random number that is passed in. Every class of failure has
the budget that the job gives it, or shares `maxAttempts` with the others; a permanent one has none.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, cast

from distriqueue.api.conditions import AttemptReason, JobReason
from distriqueue.api.phases import AttemptOutcome, JobPhase
from distriqueue.api.raw import RawRetryBudget
from distriqueue.core.jobs import Backoff, Job

FailureClass = Literal["application", "timeout", "outOfMemory", "workerLost"]
"""A class of failures, by its name in `spec.retryBudget` and `status.failures`."""

_BY_REASON: Final[Mapping[str, FailureClass]] = {
    AttemptReason.TIMEOUT: "timeout",
    AttemptReason.OUT_OF_MEMORY: "outOfMemory",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the job.

    Attributes:
        phase: Its phase after this attempt.
        reason: The reason of its final condition; None when it is tried again.
        wait_seconds: How long until the next attempt may start; 0 at once.
    """

    phase: JobPhase
    reason: JobReason | None = None
    wait_seconds: float = 0.0


def wait_seconds(backoff: Backoff, *, attempt: int, draw: float) -> float:
    """How long to wait after attempt number `attempt` (from 1).

    Args:
        backoff: The job's settings.
        attempt: The number of the attempt that failed.
        draw: A random number in [0, 1): 0.5 gives the wait without jitter.

    Returns:
        Seconds: initial x factor^(attempt-1), at most `max_seconds`, varied by the jitter in either direction.
    """
    factor = backoff.factor_percent / 100
    # The exponent is bounded before the power is taken: factor 10 and attempt 100 would be 10^99.
    wait = float(backoff.initial_seconds)
    for _ in range(attempt - 1):
        if wait >= backoff.max_seconds or wait == 0:
            break
        wait *= factor
        if factor == 1:
            break
    wait = min(wait, float(backoff.max_seconds))
    return wait * (1 + backoff.jitter_percent / 100 * (2 * draw - 1))


def failure_class(outcome: AttemptOutcome, reason: str) -> FailureClass | None:
    """The class that an attempt counts in; None for one that is nobody's failure."""
    if outcome is AttemptOutcome.FAILED:
        return _BY_REASON.get(reason, "application")
    if outcome is AttemptOutcome.LOST:
        return "outOfMemory" if reason == AttemptReason.OUT_OF_MEMORY else "workerLost"
    return None


def counted(failures: RawRetryBudget | None, kind: FailureClass) -> RawRetryBudget:
    """The failures of a job with one more of a class."""
    counts: RawRetryBudget = {**failures} if failures else {}
    counts[kind] = counts.get(kind, 0) + 1
    return counts


def exhausted(
    failures: RawRetryBudget, kind: FailureClass, *, budget: RawRetryBudget | None, max_attempts: int
) -> bool:
    """Whether a failure of this class, counted already, was one too many."""
    own = budget.get(kind) if budget else None
    if own is not None:
        return failures[kind] > own
    shared = (count for name, count in failures.items() if not budget or name not in budget)
    return sum(cast("Iterator[int]", shared)) >= max_attempts


def decide(job: Job, *, outcome: AttemptOutcome, reason: str, permanent: bool, draw: float) -> Verdict:
    """Decide what follows an attempt of a job.

    A lost attempt is not the handler's failure: the next one follows at once. It counts all the same, so that a job
    which takes its worker down with it does not do so for ever, and `maxAttempts: 1` means at most one start
    of which anybody knows.

    Args:
        job: With its status as it was before this end.
        outcome: How the attempt ended.
        reason: The reason of the attempt.
        permanent: The handler says that another attempt cannot help.
        draw: A random number in [0, 1), for the jitter.
    """
    if outcome is AttemptOutcome.SUCCEEDED:
        return Verdict(JobPhase.SUCCEEDED, JobReason.SUCCEEDED)
    if job.closing is not None:
        return Verdict(job.closing.phase, job.closing.reason)
    if permanent:
        return Verdict(JobPhase.FAILED, JobReason.PERMANENT_ERROR)
    kind = failure_class(outcome, reason)
    return Verdict(JobPhase.RETRYING) if kind is None else _after_failure(job, kind, outcome=outcome, draw=draw)


def _after_failure(job: Job, kind: FailureClass, *, outcome: AttemptOutcome, draw: float) -> Verdict:
    failures = counted(job.status.get("failures"), kind)
    if exhausted(failures, kind, budget=job.budget, max_attempts=job.max_attempts):
        return Verdict(JobPhase.DEAD, JobReason.ATTEMPTS_EXHAUSTED)
    if outcome is AttemptOutcome.LOST:
        return Verdict(JobPhase.RETRYING)
    number = sum(cast("Iterator[int]", iter(failures.values())))
    return Verdict(JobPhase.RETRYING, wait_seconds=wait_seconds(job.backoff, attempt=number, draw=draw))
