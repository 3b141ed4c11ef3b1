"""What follows an attempt that ended: success, another attempt and when, or the end of the job.

Pure functions of the job, the way the attempt ended, and a random number that is passed in.
"""

from dataclasses import dataclass

from distriqueue.api.conditions import JobReason
from distriqueue.api.phases import AttemptOutcome, JobPhase
from distriqueue.core.jobs import Backoff


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


def decide(
    *,
    outcome: AttemptOutcome,
    permanent: bool,
    attempt: int,
    max_attempts: int,
    backoff: Backoff,
    draw: float,
) -> Verdict:
    """Decide what follows attempt number `attempt`.

    A lost attempt is not the handler's failure: the next one follows at once. It counts all the same, so that a job
    which takes its worker down with it does not do so for ever, and `maxAttempts: 1` means at most one start.
    """
    if outcome is AttemptOutcome.SUCCEEDED:
        return Verdict(JobPhase.SUCCEEDED, JobReason.SUCCEEDED)
    if permanent:
        return Verdict(JobPhase.FAILED, JobReason.PERMANENT_ERROR)
    if attempt >= max_attempts:
        return Verdict(JobPhase.DEAD, JobReason.ATTEMPTS_EXHAUSTED)
    if outcome is AttemptOutcome.LOST:
        return Verdict(JobPhase.RETRYING)
    return Verdict(JobPhase.RETRYING, wait_seconds=wait_seconds(backoff, attempt=attempt, draw=draw))
