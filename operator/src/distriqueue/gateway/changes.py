"""Streams of changes: positions, resuming, and readers that do not hold each other up."""

from dataclasses import dataclass
from enum import StrEnum

from distriqueue.gateway.views import JobView


class ChangeKind(StrEnum):
    """What a stream says."""

    JOB = "job"
    """A job was created or changed, and is as shown."""
    DELETED = "deleted"
    """A job is gone; shown is its last state."""
    RESET = "reset"
    """Nothing that was heard before counts any more: all jobs follow, and then `synced`."""
    SYNCED = "synced"
    """All that was there at the beginning has been said; what follows happens now."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that a stream says.

    Attributes:
        kind: What.
        id: The position after it: who resumes with it gets all that follows.
        data: The job as JSON, made once for all streams: a `JobView`. Empty for `reset` and `synced`.
    """

    kind: ChangeKind
    id: str
    data: bytes = b""

    @property
    def job(self) -> JobView | None:
        """The job, parsed anew each time; None for `reset` and `synced`."""
        return JobView.model_validate_json(self.data) if self.data else None
