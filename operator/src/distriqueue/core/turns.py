"""Whose turn it is, by what resources alone say: the facts of jobs, workers and starts that an explanation needs.

Guarantees: pure; reads the plain dictionaries of resources, whole or not created yet; `Waiting.turn` orders the jobs of
a pool as `backlog` serves them, and `gate` names what keeps a job from its turn as `lifecycle` and `books.place` do.
What can be read from no resource (a ticket that went out less than 3 s ago, the order of two jobs of one second) is
decided by the resourceVersion, and may differ from what the leader does: docs/decisions/0012-explaining.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from typing import Final, NamedTuple, Self, cast

from distriqueue.api import limits
from distriqueue.api.conditions import JobCondition
from distriqueue.api.phases import FINAL_JOB_PHASES, JobPhase, WorkerPhase
from distriqueue.api.raw import RawJob, RawJobSpec, RawJobStatus, RawWorker
from distriqueue.core import times
from distriqueue_protocol.names import Priority

DEFAULT_TASK: Final = "*"
"""The type under which a worker announces the handler for all types that it has no other one for."""
WINDOW_SECONDS: Final = 300.0
"""What is longer ago says nothing about how fast a pool is now."""
LEAST_WINDOW_SECONDS: Final = 2.0
"""The starts of a shorter time say nothing either."""
_RANKS: Final = {priority.value: rank for rank, priority in enumerate(Priority)}
_NO_STATUS: Final[RawJobStatus] = {}
_NO_SPEC: Final[RawJobSpec] = {}


class Blocker(StrEnum):
    """What a job waits for; a member is added with what can give it.

    To come: a paused queue, a limit of a queue, a concurrency key, a dependency.
    """

    NONE = "None"
    """Nothing: it is next, and a slot is free."""
    NO_LEADER = "NoLeader"
    """Nobody holds the Lease."""
    BROKER_UNREACHABLE = "BrokerUnreachable"
    """RabbitMQ does not answer."""
    NO_WORKER = "NoWorker"
    """No worker of the pool is online."""
    NO_WORKER_FOR_TYPE = "NoWorkerForType"
    """No worker of the pool that is online has a handler for the type. It does not wait for one: its attempts fail."""
    WORKERS_FULL = "WorkersFull"
    """It is next, and every slot of the pool is taken."""
    BEHIND_OTHERS = "BehindOthers"
    """Other jobs of the pool come first."""
    BACKOFF = "Backoff"
    """An attempt failed, and the time of the next one has not come."""
    START_AFTER = "StartAfter"
    """`spec.startAfter` has not come."""
    SUSPENDED = "Suspended"
    """`spec.suspend` is true."""
    CANCELLING = "Cancelling"
    """It is cancelled, or being deleted, and that has not been written yet."""
    NOT_YET_SEEN = "NotYetSeen"
    """The leader has not taken it up, or not its retry."""
    NO_PAYLOAD = "NoPayload"
    """What `spec.payloadFrom` names is not there, or cannot be read."""
    RUNNING = "Running"
    """It runs."""
    FINISHED = "Finished"
    """It is over."""


class Gate(NamedTuple):
    """Why a job may not start whatever the workers do; `until` is the moment at which that ends by itself."""

    blocker: Blocker
    until: float | None = None


def gate(job: RawJob, *, wall: float) -> Gate | None:
    """What in the job itself keeps it from its turn; None for nothing.

    Args:
        job: The resource.
        wall: The moment, seconds since 1970.
    """
    spec, status = job.get("spec", _NO_SPEC), job.get("status", _NO_STATUS)
    phase = status.get("phase", JobPhase.PENDING)
    cancelled = spec.get("cancel", False) or bool(job.get("metadata", {}).get("deletionTimestamp"))
    retried = not cancelled and spec.get("retryGeneration", 0) > status.get("retryGeneration", 0)
    found: Gate | None = None
    if phase in FINAL_JOB_PHASES:
        found = Gate(Blocker.NOT_YET_SEEN if retried else Blocker.FINISHED)
    elif cancelled:
        found = Gate(Blocker.CANCELLING)
    elif phase == JobPhase.RUNNING:
        found = Gate(Blocker.RUNNING)
    elif spec.get("suspend", False):
        found = Gate(Blocker.SUSPENDED)
    elif retried:
        found = Gate(Blocker.NOT_YET_SEEN)
    elif lacks_payload(job) is not None:
        found = Gate(Blocker.NO_PAYLOAD)
    else:
        due = times.seconds(status.get("nextAttemptTime")) if phase == JobPhase.RETRYING else None
        start = times.seconds(spec.get("startAfter"))
        waits = [(start, Blocker.START_AFTER), (due, Blocker.BACKOFF)]
        until, why = max((moment or 0.0, blocker) for moment, blocker in waits)
        if until > wall:
            found = Gate(why, until)
    return found


def lacks_payload(job: RawJob) -> str | None:
    """Why a job waits for its payload, in the leader's words; None when it does not."""
    for condition in job.get("status", _NO_STATUS).get("conditions", ()):
        if condition.get("type") == JobCondition.PAYLOAD_READY and condition.get("status") == "False":
            return condition.get("message", "")
    return None


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is needed of another job. Make it with `of`, so that everybody reads a resource alike.

    Attributes:
        uid: Of the job; empty when it was not created yet.
        pool: Whose workers may run it.
        priority: High, Medium or Low.
        priority_value: The order inside of it.
        created: Wall clock, in whole seconds.
        phase: Its phase.
        startable: Nothing in the job itself keeps it from starting: it waits for its turn.
        queued: When its ticket went out, while it is Queued; wall clock.
        version: The resourceVersion: orders what was created within one second.
        timeout: Seconds that an attempt of it may run.
    """

    uid: str
    pool: str
    priority: str
    priority_value: int
    created: float
    phase: str
    startable: bool
    queued: float | None = None
    version: int = 0
    timeout: int = limits.DEFAULT_TIMEOUT_SECONDS

    @classmethod
    def of(cls, resource: RawJob, *, wall: float) -> Self:
        """Read a resource; one that was not created yet comes after all others of its priority and value."""
        metadata, spec = resource.get("metadata", {}), resource.get("spec", _NO_SPEC)
        status = resource.get("status", _NO_STATUS)
        phase = status.get("phase", JobPhase.PENDING)
        return cls(
            uid=metadata.get("uid", ""),
            pool=spec.get("poolName", limits.DEFAULT_POOL_NAME),
            priority=spec.get("priority", limits.DEFAULT_PRIORITY),
            priority_value=spec.get("priorityValue", limits.DEFAULT_PRIORITY_VALUE),
            created=times.created(metadata.get("creationTimestamp")) or wall,
            phase=phase,
            startable=gate(resource, wall=wall) is None,
            queued=times.seconds(status.get("queuedTime")) if phase == JobPhase.QUEUED else None,
            version=int(metadata.get("resourceVersion") or 0),
            timeout=spec.get("timeoutSeconds", limits.DEFAULT_TIMEOUT_SECONDS),
        )

    def turn(self) -> tuple[int, bool, float, float, bool, int, str]:
        """The key by which the jobs of a pool are served, lowest first."""
        rank = _RANKS.get(self.priority, len(_RANKS))
        if self.phase == JobPhase.QUEUED:
            return rank, False, self.queued or self.created, 0.0, False, self.version, self.uid
        return rank, True, -self.priority_value, self.created, not self.version, self.version, self.uid


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """What is needed of a worker.

    Attributes:
        name: Of its DistributedWorker.
        pool: The pool that it serves.
        phase: Online, Draining or Offline.
        slots: How many attempts it runs at the same time.
        running: How many of them are in use; up to 5 s old.
        types: The types that it has handlers for.
    """

    name: str
    pool: str
    phase: str
    slots: int
    running: int
    types: tuple[str, ...]

    @classmethod
    def of(cls, resource: RawWorker) -> Self:
        """Read a resource."""
        status = resource.get("status", {})
        return cls(
            name=resource.get("metadata", {}).get("name", ""),
            pool=status.get("poolName", limits.DEFAULT_POOL_NAME),
            phase=status.get("phase", WorkerPhase.OFFLINE),
            slots=status.get("concurrency", 0),
            running=status.get("running", 0),
            types=tuple(status.get("types", ())),
        )

    def knows(self, job_type: str) -> bool:
        """Whether it has a handler for a type; a list that is full may lack some."""
        return job_type in self.types or DEFAULT_TASK in self.types or len(self.types) >= limits.WORKER_TYPES_LIMIT


@dataclass(frozen=True, slots=True)
class Drain:
    """How fast a pool was of late. Make it with `measure`.

    Attributes:
        starts: Attempts that started.
        seconds: In how long a time; jobs were waiting for their turn through all of it.
        run_seconds: How long an attempt took on average; None when none has ended of late.
    """

    starts: int
    seconds: float
    run_seconds: float | None = None


def measure(jobs: Iterable[RawJob], *, pool: str, wall: float) -> Drain | None:
    """How fast a pool was while jobs were waiting for it: before that, it was as slow as people brought it work.

    Args:
        jobs: All jobs, finished ones too: their times are what is measured.
        pool: The pool.
        wall: The moment, seconds since 1970.

    Returns:
        None when neither a start nor an end was found.
    """
    begun: list[float] = []
    took: list[float] = []
    waiting_since = wall
    for job in jobs:
        if job.get("spec", _NO_SPEC).get("poolName", limits.DEFAULT_POOL_NAME) != pool:
            continue
        if gate(job, wall=wall) is None:
            waiting_since = min(waiting_since, _waits_since(job, wall))
        for attempt in job.get("status", _NO_STATUS).get("attempts", ()):
            start, end = times.seconds(attempt.get("startTime")), times.seconds(attempt.get("completionTime"))
            if start is not None:
                begun.append(start)
                if end is not None and wall - end <= WINDOW_SECONDS:
                    took.append(max(0.0, end - start))
    seconds = min(wall - waiting_since, WINDOW_SECONDS)
    starts = 0
    if seconds >= LEAST_WINDOW_SECONDS:
        starts = sum(1 for start in begun if start >= wall - seconds)
    if not starts and not took:
        return None
    return Drain(starts=starts, seconds=seconds, run_seconds=sum(took) / len(took) if took else None)


def _waits_since(job: RawJob, wall: float) -> float:
    """Since when a job that waits for its turn does so."""
    spec, status = job.get("spec", _NO_SPEC), job.get("status", _NO_STATUS)
    resumed = (
        condition.get("lastTransitionTime")
        for condition in status.get("conditions", ())
        if condition.get("type") == JobCondition.SUSPENDED
    )
    moments = chain(
        (
            job.get("metadata", {}).get("creationTimestamp"),
            spec.get("startAfter"),
            status.get("retryTime"),
            status.get("nextAttemptTime"),
            status.get("completionTime"),
        ),
        resumed,
    )
    known = [moment for moment in map(times.seconds, cast("Iterable[str | None]", moments)) if moment is not None]
    return max(known, default=wall)
