"""What callers write and read, as pydantic models: the source of the OpenAPI document and of the client's types.

Guarantees: keys are camelCase; a submission has the bounds of the resource's own spec, because it is that spec
(`api.jobs.JobSpec`) with a name and labels beside it; a field that does not exist is refused by name. Views are made of
resources by `showing`.

Statuses are the lower-case words of REST, gRPC and the streams; phases are the resource's own (`api.phases`):

============= ======================
status        phases
============= ======================
``pending``   Pending, Queued
``running``   Running
``retrying``  Retrying
``completed`` Succeeded
``failed``    Failed
``dead``      Dead
``cancelled`` Cancelled
============= ======================

A phase that this version does not know is shown as it is, with the status ``pending``: it is not known to be over.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel

from distriqueue.api import limits
from distriqueue.api.jobs import Backoff, JobSpec, PayloadSource, RetryBudget
from distriqueue.api.phases import JobPhase

SUBMITTED_BY: Final = "distriqueue.io/submitted-by"
"""Annotation of a job that came in by a door: the name of the caller, as the API server knows it."""

REQUEST_HASH: Final = "distriqueue.io/request-hash"
"""Annotation of a job that was submitted with an Idempotency-Key: SHA-256 of what was asked for."""

NAMESPACE_PATTERN: Final = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
NAMESPACE_LIMIT: Final = 63
NAME_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
LABELS_LIMIT: Final = 64
LABEL_KEY_LIMIT: Final = 317
LABEL_VALUE_LIMIT: Final = 63
LABEL_KEY_PATTERN: Final = (
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
    r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
)
LABEL_VALUE_PATTERN: Final = "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"

Namespace = Annotated[str, Field(min_length=1, max_length=NAMESPACE_LIMIT, pattern=NAMESPACE_PATTERN)]
Name = Annotated[str, Field(min_length=1, max_length=limits.NAME_LIMIT, pattern=NAME_PATTERN)]
LabelKey = Annotated[str, Field(min_length=1, max_length=LABEL_KEY_LIMIT, pattern=LABEL_KEY_PATTERN)]
LabelValue = Annotated[str, Field(max_length=LABEL_VALUE_LIMIT, pattern=LABEL_VALUE_PATTERN)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=LABELS_LIMIT)]


class JobStatus(StrEnum):
    """How a job is, in one lower-case word; see the module for the phases behind it."""

    PENDING = "pending"
    RUNNING = "running"
    RETRYING = "retrying"
    COMPLETED = "completed"
    FAILED = "failed"
    DEAD = "dead"
    CANCELLED = "cancelled"


STATUS_OF_PHASE: Final[Mapping[str, JobStatus]] = {
    JobPhase.PENDING: JobStatus.PENDING,
    JobPhase.QUEUED: JobStatus.PENDING,
    JobPhase.RUNNING: JobStatus.RUNNING,
    JobPhase.RETRYING: JobStatus.RETRYING,
    JobPhase.SUCCEEDED: JobStatus.COMPLETED,
    JobPhase.FAILED: JobStatus.FAILED,
    JobPhase.DEAD: JobStatus.DEAD,
    JobPhase.CANCELLED: JobStatus.CANCELLED,
}
"""The one place where phases become statuses."""


class View(BaseModel):
    """Base of what is shown: unknown fields are left out when a newer server's answer is read."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )


class JobSubmission(JobSpec):
    """A job as it is handed in: the spec of a DistributedJob, with its name and labels beside it."""

    model_config = ConfigDict(json_schema_extra={}, title="JobSubmission")

    # What is done to a job later is no part of a submission; as class variables they are no fields.
    cancel: ClassVar[None] = None  # type: ignore[misc]  # the one way to take a field away
    retry_generation: ClassVar[None] = None  # type: ignore[misc]  # the one way to take a field away

    namespace: Namespace | None = None
    """The namespace of the job. Left out, it is the one of the path, or else the gateway's default."""

    name: Name | None = None
    """The name of the job, unique in its namespace: a DNS subdomain of at most 253 characters. Left out, one is made
    of the type."""

    labels: Labels | None = None
    """Labels, by which jobs are found again. At most 64."""


class JobAttempt(View):
    """One attempt: where it ran, when, and how it ended."""

    number: int
    """The attempt's number, from 1."""
    worker: str | None = None
    """The worker that it was granted to."""
    start_time: AwareDatetime | None = None
    """When its handler started, by the worker's clock."""
    completion_time: AwareDatetime | None = None
    """When it ended."""
    outcome: str | None = None
    """Succeeded, Failed, Lost or Stopped; absent while it runs."""
    reason: str | None = None
    """Why it did not succeed, as one word."""
    error: str | None = None
    """The text of the error."""
    log_tail: str | None = None
    """The last lines that the handler logged before it failed."""


class JobProgress(View):
    """How far the handler has come, by its own word."""

    percent: int | None = None
    """0 to 100."""
    message: str | None = None
    """What it is doing."""
    time: AwareDatetime | None = None
    """When the operator heard of it."""


class JobView(View):
    """A job, with what became of it."""

    id: str
    """The uid of the resource: never used again, not even for a job of the same name."""
    namespace: str
    """Its namespace."""
    name: str
    """Its name, unique in the namespace."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Its labels."""
    submitted_by: str | None = None
    """Who handed it in, when it came through a gateway."""
    type: str
    """The kind of work."""
    status: JobStatus
    """pending, running, retrying, completed, failed, dead or cancelled."""
    phase: str
    """The phase of the resource: Pending, Queued, Running, Retrying, Succeeded, Failed, Dead or Cancelled."""
    reason: str | None = None
    """Why it ended without success, or is suspended: one word."""
    message: str | None = None
    """The same in a sentence."""
    priority: str
    """High, Medium or Low."""
    priority_value: int
    """The order inside the priority, 0 to 100; higher first."""
    pool_name: str
    """The pool whose workers may run it."""
    payload: dict[str, JsonValue] = Field(default_factory=dict)
    """The handler's input."""
    payload_from: PayloadSource | None = None
    """Where the input stands, when it is not in the job."""
    attempt: int = 0
    """The number of the current attempt, or of the last one; 0 before the first."""
    max_attempts: int
    """How many times it is tried in all."""
    retry_budget: RetryBudget | None = None
    """Budgets of their own for some classes of failure."""
    backoff: Backoff | None = None
    """How long it waits between attempts."""
    timeout_seconds: int
    """How long one attempt may run."""
    deadline_seconds: int | None = None
    """How long the whole job may take."""
    ttl_seconds_after_finished: int | None = None
    """How long after its end it is kept; absent: the operator's own setting."""
    dedup_key: str | None = None
    """Of unfinished jobs of the namespace with the same key only one runs."""
    suspended: bool = False
    """Nobody starts it until it is resumed."""
    cancel_requested: bool = False
    """Somebody asked for its end."""
    retry_generation: int = 0
    """How often somebody asked to run it again."""
    worker: str | None = None
    """The worker that has it, or had it last."""
    progress: JobProgress | None = None
    """How far the handler has come; it may be some seconds old."""
    result: JsonValue = None
    """What the handler returned."""
    error: str | None = None
    """The error of the last attempt that did not succeed."""
    created_time: AwareDatetime
    """When it was created."""
    start_after: AwareDatetime | None = None
    """The moment before which it does not start."""
    queued_time: AwareDatetime | None = None
    """When the broker took the ticket of the current attempt."""
    start_time: AwareDatetime | None = None
    """When the current or last attempt started."""
    completion_time: AwareDatetime | None = None
    """When it was over."""
    next_attempt_time: AwareDatetime | None = None
    """While it is retrying: when its next attempt may start."""
    attempts: list[JobAttempt] = Field(default_factory=list)
    """The last 10 attempts, oldest first."""
    resource_version: str
    """The version of the resource that this shows."""


class JobPage(View):
    """Some of the jobs that were asked for."""

    items: list[JobView]
    """The jobs, in the order that was asked for."""
    total: int
    """How many there are, on all pages."""
    limit: int
    """Most jobs of a page."""
    offset: int
    """How many were skipped."""
    next: str | None = None
    """The cursor of the next page; null on the last one."""


class StatisticsWindow(View):
    """What ended, and how fast, within some time up to now; of the jobs that still exist."""

    seconds: int
    """How long the window is."""
    created: int
    """Jobs that were created in it."""
    finished: int
    """Jobs that ended in it, in whatever way."""
    succeeded: int
    """Of those: completed."""
    failed: int
    """Of those: failed or dead."""
    cancelled: int
    """Of those: cancelled."""
    per_second: float
    """`finished` by `seconds`."""
    wait_seconds_p50: float | None = None
    """Half of those that ended in it had started so soon after their creation."""
    wait_seconds_p95: float | None = None
    """95 % of them."""
    run_seconds_p50: float | None = None
    """Half of the last attempts of those that ended in it ran no longer than so."""
    run_seconds_p95: float | None = None
    """95 % of them."""


class Statistics(View):
    """Jobs counted."""

    total: int
    """All of them."""
    by_status: dict[JobStatus, int]
    """By status; every status is there."""
    by_type: dict[str, int]
    """By type."""
    by_pool: dict[str, int]
    """By pool."""
    window: StatisticsWindow
    """What happened of late."""


class ExplanationView(View):
    """What a job waits for, and what to do about it."""

    blocker: str
    """The word for programs: None, NoLeader, BrokerUnreachable, NoWorker, NoWorkerForType, WorkersFull, BehindOthers,
    Backoff, StartAfter, Suspended, Cancelling, NotYetSeen, Running or Finished."""
    sentence: str
    """The same for people, with what to do."""
    position: int | None = None
    """Its place among the jobs of its pool that wait for their turn; 1 is next."""
    ahead: int | None = None
    """How many come first."""
    running: int = 0
    """Attempts that run in its pool."""
    slots: int = 0
    """Slots of the pool's online workers."""
    earliest_start_seconds: float | None = None
    """The least until it starts, from now."""
    latest_start_seconds: float | None = None
    """The most until it starts, from now, if nothing more urgent comes."""
    until: AwareDatetime | None = None
    """When a backoff or `startAfter` is over."""


class WorkerView(View):
    """A worker, as the operator sees it."""

    name: str
    """Its name."""
    phase: str
    """Online, Draining or Offline."""
    pool_name: str
    """The pool whose jobs it runs."""
    types: list[str] = Field(default_factory=list)
    """The types that it has handlers for; '*' is the handler for all others."""
    concurrency: int = 0
    """Its slots: how many attempts it runs at a time."""
    running: int = 0
    """How many of them are in use; it may be some seconds old."""
    hostname: str | None = None
    """The host of its process."""
    pod_name: str | None = None
    """Its pod; absent when it runs in none."""
    version: str | None = None
    """The version of the worker program."""
    incarnation: str | None = None
    """Which life of the worker this is."""
    start_time: AwareDatetime | None = None
    """When its process started."""
    last_heartbeat_time: AwareDatetime | None = None
    """The last heartbeat at the time of the last write; an old one says nothing about a worker that is Online."""


class WorkerList(View):
    """The workers."""

    items: list[WorkerView]
    """All of them, by name."""
    total: int
    """How many."""


class Election(View):
    """Who leads, by the Lease."""

    leader: str | None = None
    """Identity of who holds the Lease; null when nobody does, or its holder has not renewed it in time."""
    epoch: int | None = None
    """The epoch of the leader: grows with every change of leaders. Null while this replica has not seen it."""
    term: int = 0
    """How often the Lease went from one holder to another."""
    acquire_time: AwareDatetime | None = None
    """When the leader took the Lease."""
    renew_time: AwareDatetime | None = None
    """When it last renewed it, by its own clock."""
    lease_duration_seconds: int | None = None
    """For so long a renewal holds."""


class Leader(View):
    """Who leads."""

    leader: str
    """Its identity."""
    epoch: int | None = None
    """Its epoch."""


class PoolStatus(View):
    """A pool: its workers, and the jobs for it."""

    name: str
    """The pool."""
    workers_online: int = 0
    """Workers that claim work."""
    slots: int = 0
    """Their slots."""
    running: int = 0
    """Jobs that run."""
    waiting: int = 0
    """Jobs that wait: pending or retrying."""


class ClusterStatus(View):
    """The system in short. It counts, and names no job."""

    leader: str | None = None
    """Who leads; null when nobody does."""
    epoch: int | None = None
    """The leader's epoch."""
    broker_reachable: bool | None = None
    """Whether this replica reaches RabbitMQ; null when it does not know."""
    workers: dict[str, int]
    """Workers by phase."""
    slots: int
    """Slots of all that are online."""
    jobs: dict[JobStatus, int]
    """Jobs by status."""
    pools: list[PoolStatus]
    """The pools that have workers or jobs, by name."""


class HealthCheck(View):
    """One thing that has to be well."""

    ok: bool | None
    """Whether it is; null when nobody knows."""
    message: str
    """What is the matter, and what to do."""


class Health(View):
    """Whether jobs get done. A gateway answers and takes jobs in even where they do not."""

    status: str
    """``ok``, or ``degraded`` when one of the checks is not well."""
    checks: dict[str, HealthCheck]
    """leader, broker, workers and cache."""


def without_kubernetes(schema: Any) -> Any:
    """Return a JSON schema without what only Kubernetes understands; a pattern that stood in a CEL rule is one again.

    Args:
        schema: What pydantic made of these models, or a whole OpenAPI document.
    """
    if isinstance(schema, list):
        return [without_kubernetes(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {
        key: without_kubernetes(value)
        for key, value in schema.items()
        if not key.startswith("x-kubernetes-") and not (key == "pattern" and value is None)
    }
    for rule in schema.get("x-kubernetes-validations") or ():
        found = _MATCHES.match(rule.get("rule", ""))
        if found and "pattern" not in plain:
            plain["pattern"] = found[1]
    return plain


_MATCHES: Final = re.compile(r"self\.matches\('([^']+)'\)")
