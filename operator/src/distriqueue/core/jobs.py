"""A job as the leader holds it: read once from the resource, then kept by events.

Guarantees: a `Job` has at most one `Slot` and at most one status write under way. Fails with `InvalidSpecError` on a
resource that the schema of this version would not have let in.
"""

import re
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, NamedTuple, cast

import orjson
from pydantic import JsonValue

from distriqueue.api import limits
from distriqueue.api.conditions import JobReason
from distriqueue.api.jobs import OBJECT_NAME_PATTERN, REFERENCE_KEY_PATTERN
from distriqueue.api.phases import FINAL_JOB_PHASES, JobPhase
from distriqueue.api.raw import RawJob, RawJobSpec, RawJobStatus, RawKeyReference, RawProgress, RawRetryBudget
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
    HALTED = auto()
    """Nobody may have it: it is suspended, or is about to be closed or reopened by a write."""
    FINAL = auto()
    """Over; kept until the watch shows it so, because older events may still be under way."""


class Loss(NamedTuple):
    """Why an attempt counts as lost: a reason for programs, and a sentence for people."""

    reason: str
    error: str


class Closing(NamedTuple):
    """Why a job ends without success as soon as nobody holds it, whatever attempts are left."""

    phase: JobPhase
    reason: JobReason
    message: str


class Unready(NamedTuple):
    """Why a payload that stands elsewhere is not there: a reason for programs, and a sentence for people."""

    reason: JobReason
    message: str


@dataclass(slots=True, eq=False)
class Source:
    """Where the payload of a job stands when it is not in the job.

    Attributes:
        name: Of the ConfigMap, in the job's namespace; or of the Secret, as it is mounted into workers.
        key: Under which it stands there.
        secret: It is a Secret: workers read it, and nobody else.
        unready: Why the job waits for it; None when nobody has found anything wrong.
        resolved: It was there when it was read last.
        failures: Reads in a row that gave no payload.
        not_before: No read before this moment (monotonic).
    """

    name: str
    key: str
    secret: bool
    unready: Unready | None = None
    resolved: bool = False
    failures: int = 0
    not_before: float = float("-inf")


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
        since: When this leader granted or adopted it (monotonic).
        start_time: When the handler started, by the worker's word (RFC 3339).
        report: The report to be written, when there is one.
        tags: Deliveries to acknowledge once the report is written.
        lost: Why the attempt is lost; a report that is there nevertheless goes first.
        announced: `Running` was written, or is being written.
        stop: Why its worker is told to stop the handler; empty when it is not.
        progress: The last word of the handler about how far it has come, and when it was heard.
        checkpoint: What it would leave for the next attempt; None for nothing.
        checkpointed: It has said what that is; before that, what the attempt before left still counts.
        untold: Since when it has said something that no write carries (monotonic).
    """

    grant: GrantId
    claim: int
    incarnation: str
    worker: str
    attempt: int
    granted_at: float
    since: float = 0.0
    start_time: str | None = None
    report: Report | None = None
    tags: list[int] = field(default_factory=list)
    lost: Loss | None = None
    announced: bool = False
    stop: str = ""
    progress: RawProgress | None = None
    checkpoint: JsonValue = None
    checkpointed: bool = False
    untold: float | None = None


class WriteKind(Enum):
    """What a status write says."""

    QUEUED = auto()
    RUNNING = auto()
    END = auto()
    """An attempt ended; frees the slot."""
    CLOSE = auto()
    """The job ends without an attempt: it is refused, cancelled, a duplicate, or its deadline has passed."""
    REOPEN = auto()
    """A retry by hand begins."""
    NOTE = auto()
    """That the job is suspended, or no longer, or that it waits for its payload; nothing moves by it."""


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
_OBJECT_NAME: Final = re.compile(OBJECT_NAME_PATTERN)
_REFERENCE_KEY: Final = re.compile(r"(?![.]$|[.][.])" + REFERENCE_KEY_PATTERN.removeprefix("^"))
PRIORITIES: Final = {priority.value: priority for priority in Priority}


@dataclass(slots=True, eq=False)
class Job:
    """A DistributedJob in the leader's books.

    Attributes:
        created: When it was created, or first seen if that is more precise; wall clock.
        payload: What the ticket carries; dropped when the job is final.
        source: Where the payload stands, if not in the job.
        status: The status as last read or written; dropped when the job is final.
        attempt: `status.attempt`: the number of the last attempt that a status names.
        ended: The number of the last attempt that is over: the next one is one higher.
        last_grant: The highest grant known to be over.
        ticket: Number of the last ticket, so that old timers and confirms are told from new ones.
        seen: The resourceVersion that the watch showed last.
        skipped: What the watch showed last while a write was under way.
        gone: It was found missing, and the watch has yet to say that it was deleted.
        refusal: Why the leader will never run it, by its spec.
        closing: Why it ends without success as soon as nobody holds it.
        retried: `status.retryGeneration`: what it was last run for.
        reopens_at: When its retry may begin (monotonic); None before that was decided.
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
    suspend: bool = False
    cancel: bool = False
    source: Source | None = None
    retry_generation: int = 0
    retried: int = 0
    start_after: float | None = None
    deadline_seconds: int | None = None
    dedup_key: str | None = None
    budget: RawRetryBudget | None = None
    refusal: Closing | None = None
    closing: Closing | None = None
    reopens_at: float | None = None
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

    @property
    def wants_retry(self) -> bool:
        """Whether a person has asked for a retry that has not begun."""
        return self.retry_generation > self.retried and not self.cancel

    @property
    def halted(self) -> bool:
        """Whether no new attempt may start, whatever is due."""
        return self.closing is not None or self.suspend or self.wants_retry

    def read_wishes(self, spec: RawJobSpec) -> bool:
        """Take over what may change in a spec, except for the priority.

        Returns:
            Whether it changes when the job may start.
        """
        before = (self.suspend, self.start_after, self.wants_retry)
        self.suspend = spec.get("suspend", False)
        self.cancel = spec.get("cancel", False)
        self.retry_generation = spec.get("retryGeneration", 0)
        self.start_after = times.seconds(spec.get("startAfter"))
        self.deadline_seconds = spec.get("deadlineSeconds")
        return before != (self.suspend, self.start_after, self.wants_retry)

    def deadline(self) -> float | None:
        """When the whole job has to be over, by the wall clock."""
        if self.deadline_seconds is None:
            return None
        retried = times.seconds(self.status.get("retryTime"))
        return max(retried or self.created, self.start_after or 0.0) + self.deadline_seconds

    def read_status(self, status: RawJobStatus) -> None:
        """Take over a status that was read or written."""
        self.status = status
        self.phase = status.get("phase", JobPhase.PENDING)
        self.attempt = status.get("attempt", 0)
        self.retried = status.get("retryGeneration", 0)
        # While Running, the attempt that the status names is not over.
        self.ended = self.attempt - 1 if self.phase == JobPhase.RUNNING else self.attempt
        grant = status.get("lastGrant")
        if grant is not None:
            self.last_grant = max(self.last_grant, GrantId(grant["epoch"], grant["counter"]))


def is_over(resource: RawJob) -> bool:
    """Whether nothing remains to be done for a job: it is in a final phase, and nobody has asked for a retry."""
    status = resource.get("status", cast("RawJobStatus", {}))
    if status.get("phase") not in FINAL_JOB_PHASES:
        return False
    spec = resource.get("spec", cast("RawJobSpec", {}))
    return spec.get("retryGeneration", 0) <= status.get("retryGeneration", 0) or spec.get("cancel", False)


def json_bytes(value: JsonValue) -> int:
    """The size of a payload or checkpoint: its JSON text without spaces, in UTF-8.

    Raises:
        TypeError: It is not JSON that Kubernetes can store.
    """
    return len(orjson.dumps(value))


def is_storable(checkpoint: JsonValue) -> bool:
    """Whether a checkpoint may be written; workers see to that, but a leader must not fall over one that did not."""
    try:
        return json_bytes(checkpoint) <= limits.CHECKPOINT_LIMIT_BYTES
    except TypeError:  # numbers beyond 64 bits, or nested too deeply
        return False


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


def _source(spec: RawJobSpec) -> Source | None:
    raw = spec.get("payloadFrom")
    if raw is None:
        return None
    config_map, secret = raw.get("configMapKeyRef"), raw.get("secretKeyRef")
    if (config_map is None) is (secret is None):
        raise InvalidSpecError("spec.payloadFrom: name one source, either configMapKeyRef or secretKeyRef")
    if spec.get("payload"):
        raise InvalidSpecError("spec.payloadFrom: a job has either payload or payloadFrom, leave one of them out")
    reference = config_map if config_map is not None else cast("RawKeyReference", secret)
    name, key = str(reference.get("name", "")), str(reference.get("key", ""))
    if not _OBJECT_NAME.fullmatch(name) or len(name) > limits.NAME_LIMIT:
        raise InvalidSpecError("spec.payloadFrom: name has to be the name of a ConfigMap or Secret")
    if not _REFERENCE_KEY.fullmatch(key) or len(key) > limits.REFERENCE_KEY_LIMIT:
        raise InvalidSpecError("spec.payloadFrom: key has to be a key of a ConfigMap or Secret")
    return Source(name, key, secret=secret is not None)


def read_job(resource: RawJob, *, wall: float) -> Job:
    """Read a resource.

    Args:
        resource: The DistributedJob as the API server gave it.
        wall: The moment at which it was first seen. `creationTimestamp` has whole seconds, so a job that was seen
            within two seconds of it is taken to have been created when it was seen.

    Raises:
        InvalidSpecError: The spec lacks what the schema requires, or has what it forbids.
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
        source=_source(spec),
        dedup_key=spec.get("dedupKey"),
        budget=spec.get("retryBudget"),
        created=wall if 0 <= wall - created < 2 else created,  # noqa: PLR2004 - two whole seconds, see above
        status={},
    )
    job.read_wishes(spec)
    job.read_status(resource.get("status", cast("RawJobStatus", {})))
    return job
