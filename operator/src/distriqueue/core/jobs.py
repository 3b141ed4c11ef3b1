"""A job as the leader holds it: read once from the resource, then kept by events.

Guarantees: a `Job` has at most one `Slot` and at most one status write under way. Fails with `InvalidSpecError` on a
resource that the schema of this version would not have let in.
"""

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, NamedTuple, cast

import orjson
from pydantic import JsonValue

from distriqueue.api import limits
from distriqueue.api.conditions import JobReason
from distriqueue.api.phases import FINAL_JOB_PHASES, JobPhase
from distriqueue.api.raw import RawJob, RawJobSpec, RawJobStatus
from distriqueue.core import times
from distriqueue_protocol.messages import NO_GRANT, GrantId, Report
from distriqueue_protocol.names import Priority


class InvalidSpecError(Exception):
    """The resource was stored by other means than the schema; the text says what is wrong with it."""


class Stage(Enum):
    """Where a job is with this leader. Phases are what people see; stages are what the leader does next."""

    WAITING = auto()
    """In the leader's own queue."""
    TICKETED = auto()
    """A ticket is with the broker, or on its way there."""
    HELD = auto()
    """A grant holds the slot."""
    BACKOFF = auto()
    """Waits for the time of its next attempt."""
    FINAL = auto()
    """Over; kept until the watch shows it so, because older events may still be under way."""


class Loss(NamedTuple):
    """Why an attempt counts as lost: a reason for programs, and a sentence for people."""

    reason: str
    error: str


@dataclass(slots=True, eq=False)
class Slot:
    """The one slot of a job, taken by a grant.

    Attributes:
        grant: The fencing token; reports are judged by it.
        claim: The claim that it answered; 0 when it was adopted at a takeover.
        incarnation: Whose session lists it; empty when it was adopted from a report of somebody unknown.
        worker: The name of that worker.
        attempt: The number that the attempt has in the history.
        granted_at: When, by the wall clock.
        start_time: When the handler started, by the worker's word (RFC 3339).
        report: The report to be written, when there is one.
        tags: Deliveries to acknowledge once the report is written.
        lost: Why the attempt is lost; a report that is there nevertheless goes first.
        announced: `Running` was written, or is being written.
    """

    grant: GrantId
    claim: int
    incarnation: str
    worker: str
    attempt: int
    granted_at: float
    start_time: str | None = None
    report: Report | None = None
    tags: list[int] = field(default_factory=list)
    lost: Loss | None = None
    announced: bool = False


class WriteKind(Enum):
    """What a status write says."""

    QUEUED = auto()
    RUNNING = auto()
    END = auto()
    """An attempt ended; frees the slot."""
    REFUSE = auto()
    """The leader refuses the job for good."""


@dataclass(slots=True, eq=False)
class Write:
    """A status write under way. A write without an answer is still under way."""

    id: int
    kind: WriteKind
    job: "Job"
    slot: Slot | None
    status: RawJobStatus


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next attempt; see `spec.backoff`."""

    initial_seconds: int = limits.DEFAULT_BACKOFF_INITIAL_SECONDS
    factor_percent: int = limits.DEFAULT_BACKOFF_FACTOR_PERCENT
    max_seconds: int = limits.DEFAULT_BACKOFF_MAX_SECONDS
    jitter_percent: int = limits.DEFAULT_BACKOFF_JITTER_PERCENT


DEFAULT_BACKOFF: Final = Backoff()
PRIORITIES: Final = {priority.value: priority for priority in Priority}


@dataclass(slots=True, eq=False)
class Job:
    """A DistributedJob in the leader's books.

    Attributes:
        created: When it was created, or first seen if that is more precise; wall clock.
        payload: What the ticket carries; dropped when the job is final.
        status: The status as last read or written; dropped when the job is final.
        attempt: `status.attempt`: the number of the last attempt that a status names.
        ended: The number of the last attempt that is over: the next one is one higher.
        last_grant: The highest grant known to be over.
        ticket: Number of the last ticket, so that old timers and confirms are told from new ones.
        seen: The resourceVersion that the watch showed last.
        skipped: What the watch showed last while a write was under way.
        gone: It was found missing, and the watch has yet to say that it was deleted.
        refusal: Why the leader will not run it: reason and message.
        failures: Writes in a row that did not succeed.
        not_before: No write before this moment (monotonic).
    """

    uid: str
    namespace: str
    name: str
    resource_version: int
    generation: int
    type: str
    pool: str
    priority: Priority
    priority_value: int
    max_attempts: int
    backoff: Backoff
    timeout_seconds: int
    payload: dict[str, JsonValue]
    created: float
    status: RawJobStatus
    phase: str = JobPhase.PENDING
    attempt: int = 0
    ended: int = 0
    last_grant: GrantId = NO_GRANT
    stage: Stage = Stage.WAITING
    slot: Slot | None = None
    write: Write | None = None
    ticket: int = 0
    queued_time: str | None = None
    waiting_entry: int = 0
    seen: int = 0
    skipped: RawJob | None = None
    gone: bool = False
    refusal: tuple[JobReason, str] | None = None
    failures: int = 0
    not_before: float = 0.0

    @property
    def queue(self) -> tuple[str, Priority]:
        """Pool and priority: the queue in which it waits."""
        return self.pool, self.priority

    @property
    def next_attempt(self) -> int:
        """The number that the next attempt will have."""
        return self.ended + 1

    def read_status(self, status: RawJobStatus) -> None:
        """Take over a status that was read or written."""
        self.status = status
        self.phase = status.get("phase", JobPhase.PENDING)
        self.attempt = status.get("attempt", 0)
        # While Running, the attempt that the status names is not over.
        self.ended = self.attempt - 1 if self.phase == JobPhase.RUNNING else self.attempt
        grant = status.get("lastGrant")
        if grant is not None:
            self.last_grant = max(self.last_grant, GrantId(grant["epoch"], grant["counter"]))


def is_final(resource: RawJob) -> bool:
    """Whether a resource is in a final phase."""
    return resource.get("status", {}).get("phase") in FINAL_JOB_PHASES


def payload_bytes(payload: dict[str, JsonValue]) -> int:
    """The size of a payload: its JSON text without spaces, in UTF-8."""
    return len(orjson.dumps(payload))


def _backoff(spec: RawJobSpec) -> Backoff:
    raw = spec.get("backoff")
    if not raw:
        return DEFAULT_BACKOFF
    return Backoff(
        initial_seconds=raw.get("initialSeconds", limits.DEFAULT_BACKOFF_INITIAL_SECONDS),
        factor_percent=raw.get("factorPercent", limits.DEFAULT_BACKOFF_FACTOR_PERCENT),
        max_seconds=raw.get("maxSeconds", limits.DEFAULT_BACKOFF_MAX_SECONDS),
        jitter_percent=raw.get("jitterPercent", limits.DEFAULT_BACKOFF_JITTER_PERCENT),
    )


def read_job(resource: RawJob, *, wall: float) -> Job:
    """Read a resource.

    Args:
        resource: The DistributedJob as the API server gave it.
        wall: The moment at which it was first seen. `creationTimestamp` has whole seconds, so a job that was seen
            within two seconds of it is taken to have been created when it was seen.

    Raises:
        InvalidSpecError: The spec lacks what the schema requires.
    """
    metadata, spec = resource["metadata"], resource.get("spec", cast("RawJobSpec", {}))
    job_type = spec.get("type")
    priority = PRIORITIES.get(spec.get("priority", limits.DEFAULT_PRIORITY))
    if not isinstance(job_type, str) or not job_type:
        raise InvalidSpecError("spec.type is missing: name the kind of work, for example 'email'")
    if priority is None:
        raise InvalidSpecError(f"spec.priority is {spec.get('priority')!r}: write High, Medium or Low")
    created = times.created(metadata.get("creationTimestamp")) or wall
    job = Job(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        resource_version=int(metadata["resourceVersion"]),
        generation=metadata.get("generation", 1),
        type=job_type,
        pool=spec.get("poolName", limits.DEFAULT_POOL_NAME),
        priority=priority,
        priority_value=spec.get("priorityValue", limits.DEFAULT_PRIORITY_VALUE),
        max_attempts=spec.get("maxAttempts", limits.DEFAULT_MAX_ATTEMPTS),
        backoff=_backoff(spec),
        timeout_seconds=spec.get("timeoutSeconds", limits.DEFAULT_TIMEOUT_SECONDS),
        payload=spec.get("payload", {}),
        created=wall if 0 <= wall - created < 2 else created,  # noqa: PLR2004 - two whole seconds, see above
        status={},
    )
    job.read_status(resource.get("status", cast("RawJobStatus", {})))
    return job
