"""What the leader tells whoever counts: the seam between decisions and metrics.

`core` calls an `Observer`; telemetry implements one, the simulator another. None of the methods may fail or wait.
"""

from typing import Protocol

from distriqueue.api.phases import AttemptOutcome
from distriqueue.core.jobs import Job


class Observer(Protocol):
    """Listens to what the leader does."""

    def claim_answered(self, answer: str) -> None:
        """A claim was answered: `Granted`, or the reason of its refusal."""

    def attempt_ended(self, job: Job, outcome: AttemptOutcome, *, reason: str, execution_seconds: float) -> None:
        """The end of an attempt is written; its handler ran for so long."""

    def job_ended(self, job: Job, phase: str, *, queue_seconds: float) -> None:
        """A final phase is written; the job's last attempt started so long after its creation."""

    def ticket_published(self, *, again: bool) -> None:
        """A ticket goes to the broker; `again` when one for the same attempt was out too long."""

    def report_refused(self, reason: str) -> None:
        """A report was not accepted: `Duplicate`, `Stale`, `Unknown`."""

    def message_ignored(self, reason: str) -> None:
        """A message of a worker was ignored: `OldSequence`, `NotIntroduced`, `Over`, `InvalidPool`."""

    def incarnation_lost(self, reason: str) -> None:
        """A worker's incarnation was proven lost: `HeartbeatMissed`, `PodGone`, `Replaced`, `Left`."""

    def slot_returned(self) -> None:
        """A worker's heartbeat listed neither a grant nor its claim: the attempt never started."""

    def write_repeated(self, reason: str) -> None:
        """A status write had to be decided again: `Conflict`, `Refused`."""

    def attempt_duplicate(self) -> None:
        """Two live grants were listed for one job; the lower one is stopped."""

    def attempt_orphaned(self, reason: str) -> None:
        """A live attempt is told to stop because its job is over for it: `Deleted`, `Finished`, `Over`, `Unknown`."""

    def custody_found(self, finding: str, *, lost: bool) -> None:
        """The auditor found something wrong in the books; `lost` when nobody had custody of a job."""

    def audited(self) -> None:
        """The auditor has looked at everything once more."""


class SilentObserver:
    """Counts nothing."""

    def claim_answered(self, answer: str) -> None:
        """Ignore."""

    def attempt_ended(self, job: Job, outcome: AttemptOutcome, *, reason: str, execution_seconds: float) -> None:
        """Ignore."""

    def job_ended(self, job: Job, phase: str, *, queue_seconds: float) -> None:
        """Ignore."""

    def ticket_published(self, *, again: bool) -> None:
        """Ignore."""

    def report_refused(self, reason: str) -> None:
        """Ignore."""

    def message_ignored(self, reason: str) -> None:
        """Ignore."""

    def incarnation_lost(self, reason: str) -> None:
        """Ignore."""

    def slot_returned(self) -> None:
        """Ignore."""

    def write_repeated(self, reason: str) -> None:
        """Ignore."""

    def attempt_duplicate(self) -> None:
        """Ignore."""

    def attempt_orphaned(self, reason: str) -> None:
        """Ignore."""

    def custody_found(self, finding: str, *, lost: bool) -> None:
        """Ignore."""

    def audited(self) -> None:
        """Ignore."""
