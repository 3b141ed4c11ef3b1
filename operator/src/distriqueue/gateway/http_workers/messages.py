"""What HTTP workers send and get, as pydantic models: the source of their part of the OpenAPI document.

Guarantees: keys are camelCase, every string, list and number is bounded, fields that are not known are refused by
name. Fails with `pydantic.ValidationError`. docs/http-workers.md explains the protocol.
"""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel

from distriqueue.api.jobs import POOL_NAME_PATTERN
from distriqueue.api.limits import POOL_NAME_LIMIT, TYPE_LIMIT, WORKER_TYPES_LIMIT
from distriqueue_protocol.messages import GrantId
from distriqueue_protocol.names import DEFAULT_POOL, HEARTBEAT_SECONDS, WORKER_DEAD_SECONDS, WORKER_FENCE_SECONDS

CAPACITY_LIMIT: Final = 256
"""Most jobs that one HTTP worker runs at a time."""
HELD_LIMIT: Final = 1024
"""Most jobs that a request lists."""
NAMESPACES_LIMIT: Final = 64
WAIT_LIMIT_SECONDS: Final = 30.0
"""Longest wait of `jobs/next`."""
TEXT_LIMIT: Final = 4096
"""Most characters of an error, or of the end of a log."""
_SEAL_LIMIT: Final = 2048
_NUMBER_LIMIT: Final = 2**62

Grant = Annotated[
    str,
    Field(
        pattern=r"^[1-9][0-9]{0,18}-[0-9]{1,19}$",
        description="The fencing token of one attempt, `epoch-counter`: grows with every attempt that is granted.",
        examples=["4711-12"],
    ),
]
Session = Annotated[str, Field(min_length=1, max_length=_SEAL_LIMIT, pattern=r"^[A-Za-z0-9_.-]+$")]
Receipt = Annotated[
    str,
    Field(
        min_length=1,
        max_length=_SEAL_LIMIT,
        pattern=r"^[A-Za-z0-9_.-]+$",
        description="Sealed by the gateway; comes with a job, and is shown when the worker registers again with it.",
    ),
]
Received = Annotated[
    int,
    Field(
        ge=0,
        le=_NUMBER_LIMIT,
        description=(
            "The highest delivery number that the worker has taken note of, 0 at first. What is above it was perhaps "
            "never received, and is delivered again; what is not above it and not listed has no handler any more."
        ),
    ),
]


def read_grant(text: str) -> GrantId:
    """The grant of its text, which fits the pattern."""
    epoch, counter = text.split("-")
    return GrantId(int(epoch), int(counter))


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="forbid")


class HeldReceipt(_Model):
    """A job that a worker holds when it registers again."""

    receipt: Receipt


class RegisterRequest(_Model):
    """A worker begins a session: who it is, what it takes, and what it holds from an earlier session."""

    name: str = Field(
        min_length=1,
        max_length=180,
        pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
        description="Names its DistributedWorker, and shows as `status.worker` of its jobs.",
        examples=["shell-worker-1"],
    )
    pool: str = Field(
        default=DEFAULT_POOL,
        max_length=POOL_NAME_LIMIT,
        pattern=POOL_NAME_PATTERN,
        description="Whose jobs it takes: `spec.poolName`.",
    )
    types: tuple[Annotated[str, Field(min_length=1, max_length=TYPE_LIMIT)], ...] = Field(
        default=(), max_length=WORKER_TYPES_LIMIT, description="The job types that it runs; empty, or with `*`: all."
    )
    capacity: int = Field(default=1, ge=1, le=CAPACITY_LIMIT, description="How many jobs it runs at a time.")
    namespaces: tuple[Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9-]+$")], ...] = Field(
        default=(),
        max_length=NAMESPACES_LIMIT,
        description=(
            "Whose jobs it runs: the caller needs the verb `run` on distributedjobs in each. Empty: all, which needs "
            "that verb for all namespaces."
        ),
    )
    version: str = Field(default="", max_length=64)
    hostname: str = Field(default="", max_length=253)
    supersedes: Session | None = Field(
        default=None,
        description="The session that this same worker had before. It is over with this; nothing is accepted of it.",
    )
    jobs: tuple[HeldReceipt, ...] = Field(
        default=(), max_length=HELD_LIMIT, description="What it still holds of that session: running, or not reported."
    )


class Registered(_Model):
    """The session, and the times that bind the worker."""

    session: Session = Field(description="Part of the path of all further requests. Keep it to yourself.")
    incarnation: str = Field(description="Names this session in logs and in the DistributedWorker.")
    heartbeat_seconds: float = Field(default=HEARTBEAT_SECONDS, description="Send a heartbeat this often.")
    lease_seconds: float = Field(
        default=WORKER_FENCE_SECONDS,
        description=(
            "So many seconds after the worker *sent* the last heartbeat (or registration) that was answered with 200, "
            "it has to begin to stop its handlers."
        ),
    )
    dead_seconds: float = Field(
        default=WORKER_DEAD_SECONDS, description="Likewise, by when none of its handlers may be alive."
    )


class ProgressWord(_Model):
    """How far a job has come."""

    percent: int | None = Field(default=None, ge=0, le=100)
    message: str = Field(default="", max_length=256)


class HeldJob(_Model):
    """A job whose handler runs, or whose report was not answered with 200 yet."""

    grant: Grant
    progress: ProgressWord | None = None
    checkpoint: JsonValue = Field(
        default=None, description="What another attempt goes on from: at most 16 KiB of JSON. Null: as before."
    )


class HeartbeatRequest(_Model):
    """All that the worker has."""

    received: Received = 0
    jobs: tuple[HeldJob, ...] = Field(default=(), max_length=HELD_LIMIT)


class StopOrder(_Model):
    """A handler that has to stop. It is reported as always, or no longer listed."""

    grant: Grant
    reason: str = Field(
        description=(
            "Cancelled, DeadlineExceeded, Retried, Timeout: report how it ended. Over, Deleted: kill it, no report is "
            "wanted."
        )
    )


class HeartbeatAnswer(_Model):
    """The broker has the heartbeat: the worker's clock starts anew at the moment at which it sent it."""

    stop: tuple[StopOrder, ...] = ()
    leader: bool = Field(default=True, description="Whether a leader was heard of lately; without one, no new jobs.")


class NextRequest(_Model):
    """Ask for jobs; one request at a time. Sending another one gives up whatever the answer to the last one was."""

    request: int = Field(
        default=0,
        ge=0,
        le=_NUMBER_LIMIT,
        description=(
            "Counts these requests of the session from 1, each with a number of its own: one that comes late is "
            "answered with nothing. 0: they are not counted, and what was once sent is never given to others while "
            "the session lasts, unless a heartbeat shows that it has no handler."
        ),
    )
    received: Received = 0
    max: int = Field(
        default=1,
        ge=0,
        le=CAPACITY_LIMIT,
        description="How many jobs it can start now. 0: none any more; what it has not received goes to others.",
    )


class Job(_Model):
    """A job to run now."""

    number: int = Field(ge=1, description="Counts the deliveries of the session: the next `received`.")
    grant: Grant
    receipt: Receipt
    id: str = Field(description="The UID of the DistributedJob.")
    namespace: str
    name: str
    type: str
    attempt: int = Field(ge=1)
    max_attempts: int = Field(ge=1)
    priority: str
    payload: dict[str, JsonValue] = Field(default_factory=dict)
    timeout_seconds: int | None = Field(
        default=None, description="The worker stops the handler after so long, and reports the reason `Timeout`."
    )
    checkpoint: JsonValue = Field(default=None, description="What an earlier attempt left.")


class NextAnswer(_Model):
    """Jobs to start, oldest first; none when there were none in time."""

    jobs: tuple[Job, ...] = ()


class ReportedOutcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """It was stopped, by an order or because the worker leaves: nobody's failure."""


class ReportRequest(_Model):
    """How an attempt ended. Send it again until it is answered: with 200, or with 409 when it is not wanted."""

    grant: Grant
    outcome: ReportedOutcome
    result: JsonValue = Field(default=None, description="Of one that succeeded: at most 64 KiB of JSON.")
    reason: str = Field(
        default="",
        max_length=64,
        pattern=r"^([A-Za-z][A-Za-z0-9]*)?$",
        description="One CamelCase word: `Timeout`, or the kind of the error.",
    )
    error: str = Field(default="", max_length=TEXT_LIMIT)
    log_tail: str = Field(default="", max_length=TEXT_LIMIT, description="The end of the log of one that failed.")
    permanent: bool = Field(default=False, description="Another attempt cannot help.")
    checkpoint: JsonValue = Field(
        default=None, description="What another attempt goes on from, at most 16 KiB; null: as the heartbeats said."
    )


class ReportAnswer(_Model):
    """The broker has the report, and will keep it until the leader has written it: the worker may forget the job."""

    grant: Grant


class JobReportRequest(ReportRequest):
    """The report of an attempt, sent to its job: needs the session and the grant of that attempt."""

    session: Session | None = Field(default=None, description="The session to which the attempt was granted.")
