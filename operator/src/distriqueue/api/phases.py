"""The closed vocabularies of the resources: priorities, phases, outcomes.

Each is a `StrEnum`, so a member equals the string that stands in the resource and a raw dictionary can be compared with
it directly. Their values are the enums of the schema; a value that is not here is refused by the API server.
"""

from enum import StrEnum
from typing import Final

from distriqueue_protocol.names import Priority

__all__ = ["FINAL_JOB_PHASES", "AttemptOutcome", "JobPhase", "Priority", "WorkerPhase"]


class JobPhase(StrEnum):
    """The summary of a DistributedJob's status. The contract for programs is its conditions."""

    PENDING = "Pending"
    """Waiting with the leader; the schema's default, so nobody had to write it."""
    QUEUED = "Queued"
    """Its ticket is in RabbitMQ; no worker was granted it yet."""
    RUNNING = "Running"
    """A worker was granted an attempt and has not reported."""
    RETRYING = "Retrying"
    """An attempt failed or was lost; the next one waits for `nextAttemptTime`."""
    SUCCEEDED = "Succeeded"
    """Final: an attempt succeeded and `result` is what it returned."""
    FAILED = "Failed"
    """Final: it will not be tried again, for a reason that another attempt cannot mend."""
    DEAD = "Dead"
    """Final: every attempt was used up (a dead letter)."""
    CANCELLED = "Cancelled"
    """Final: somebody cancelled it."""


FINAL_JOB_PHASES: Final = frozenset({JobPhase.SUCCEEDED, JobPhase.FAILED, JobPhase.DEAD, JobPhase.CANCELLED})
"""A job in one of these leaves it only for a retry by hand; the API server refuses any other write (see `fences`)."""


class AttemptOutcome(StrEnum):
    """How one attempt of a job ended. An attempt without an outcome is still running."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    """The handler failed, or ran past its timeout."""
    LOST = "Lost"
    """Its worker went away, and nobody can say how far it came."""
    STOPPED = "Stopped"
    """It was stopped by an order (the job was cancelled, its deadline passed, or somebody asked for a retry),
    or it never began."""


class WorkerPhase(StrEnum):
    """The summary of a DistributedWorker's status."""

    ONLINE = "Online"
    """It heartbeats and claims work."""
    DRAINING = "Draining"
    """It finishes what it holds and claims nothing more."""
    OFFLINE = "Offline"
    """It has gone: no heartbeat, or its pod ended. Also the schema's default before the first status write."""
