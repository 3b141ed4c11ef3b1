"""Why a job waits, how many stand before it, and when it may start: what the resources alone can say.

Guarantees: pure, and the one answer for gateway and command line; the order is that of `backlog` (High, Medium, Low;
then the tickets that are out, then the higher `priorityValue`, then the older job). Says None where nothing honest can
be said. What nobody but the leader knows is not claimed: docs/decisions/0012-explaining.md lists where the answer may
differ from what the leader does next.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, Self, cast

from distriqueue.api import limits
from distriqueue.api.phases import FINAL_JOB_PHASES, JobPhase, WorkerPhase
from distriqueue.api.raw import RawJob, RawJobSpec, RawJobStatus, RawWorker
from distriqueue.core import times
from distriqueue_protocol.names import Priority

DEFAULT_TASK: Final = "*"
"""The type under which a worker announces the handler for all types that it has no other one for."""
WINDOW_SECONDS: Final = 300.0
"""Starts that are longer ago say nothing about how fast a pool is now."""
LEAST_WINDOW_SECONDS: Final = 5.0
"""Starts of a shorter time say nothing either."""
UNSEEN_SECONDS: Final = 10.0
"""A leader writes `Queued` after 3 s: a job that is next, and of which nothing was written for so long, was not seen."""
DISPATCH_SECONDS: Final = 2.0
"""What a job that is next, with a slot free, may still take to start."""
_RANKS: Final = {priority.value: rank for rank, priority in enumerate(Priority)}


class Blocker(StrEnum):
    """What a job waits for. A queue that is paused, a limit of a queue, a concurrency key and a dependency will be
    members of their own once there is something that gives them."""

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
    """It is cancelled (or deleted), and that has not been written yet."""
    NOT_YET_SEEN = "NotYetSeen"
    """The leader has not taken it up."""
    RUNNING = "Running"
    """It runs."""
    FINISHED = "Finished"
    """It is over."""


class Gate(NamedTuple):
    """Why a job may not start whatever the workers do; `until` is the moment at which that ends by itself."""

    blocker: Blocker
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is needed of another job. Make it with `of`, so that everybody reads a resource alike.

    Attributes:
        uid: Of the job.
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
        """Read a resource, also one that was never created."""
        metadata, spec = resource.get("metadata", {}), resource.get("spec", cast("RawJobSpec", {}))
        status = resource.get("status", cast("RawJobStatus", {}))
        phase = status.get("phase", JobPhase.PENDING)
        return cls(
            uid=metadata.get("uid", ""),
            pool=spec.get("poolName", limits.DEFAULT_POOL_NAME),
            priority=spec.get("priority", limits.DEFAULT_PRIORITY),
            priority_value=spec.get("priorityValue", limits.DEFAULT_PRIORITY_VALUE),
            created=times.created(metadata.get("creationTimestamp")) or wall,
            phase=phase,
            startable=phase != JobPhase.RUNNING and gate(resource, wall=wall) is None,
            queued=times.seconds(status.get("queuedTime")) if phase == JobPhase.QUEUED else None,
            version=int(metadata.get("resourceVersion") or 0),
            timeout=spec.get("timeoutSeconds", limits.DEFAULT_TIMEOUT_SECONDS),
        )

    def turn(self) -> tuple[int, bool, float, float, int, str]:
        """The key by which jobs of one pool are served, the first one lowest."""
        rank = _RANKS.get(self.priority, len(_RANKS))
        if self.phase == JobPhase.QUEUED:
            return rank, False, self.queued or self.created, 0.0, self.version, self.uid
        return rank, True, -self.priority_value, self.created, self.version, self.uid


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
        seconds: In how long a time, in all of which jobs of the pool were waiting.
        run_seconds: How long an attempt of the pool took on average; None when none has ended.
    """

    starts: int
    seconds: float
    run_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Conditions:
    """How the cluster is.

    Attributes:
        leader: Who holds the Lease; None when nobody does.
        broker: Whether RabbitMQ answers; None when nobody knows.
        workers: All that are known, of whatever pool and phase.
        recent: How fast the job's pool was of late; None when nothing was measured.
        leader_known: False when the Lease could not be read: then `leader` says nothing.
        everyone: Whether the other jobs are all there are, or only those that the asker may see.
    """

    leader: str | None
    broker: bool | None
    workers: Sequence[WorkerFacts]
    recent: Drain | None = None
    leader_known: bool = True
    everyone: bool = True


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a job waits for.

    Attributes:
        blocker: The word for programs.
        sentence: For people: what it waits for, and what to do.
        position: Its place among the jobs of its pool that wait for their turn, 1 is next; None when it waits for
            something else, or not at all.
        ahead: How many come first: one less.
        running: Attempts that run in its pool.
        slots: Slots of the pool's online workers.
        earliest: Seconds from now, the least until it starts.
        latest: Seconds from now, the most, if nothing more urgent comes and what runs goes on as of late.
        until: When a backoff or `startAfter` is over; wall clock.
    """

    blocker: Blocker
    sentence: str
    position: int | None = None
    ahead: int | None = None
    running: int = 0
    slots: int = 0
    earliest: float | None = None
    latest: float | None = None
    until: float | None = None


def gate(job: RawJob, *, wall: float) -> Gate | None:
    """What in the job itself keeps it from starting, as `lifecycle` and `books.place` would decide; None for nothing."""
    raise NotImplementedError


def measure(jobs: Iterable[RawJob], *, pool: str, wall: float) -> Drain | None:
    """How fast a pool was while jobs were waiting for it.

    Args:
        jobs: All jobs, finished ones too: their times are what is measured.
        pool: The pool.
        wall: The moment.
    """
    raise NotImplementedError


def explain(job: RawJob, *, others: Iterable[Waiting], conditions: Conditions, wall: float) -> Explanation:
    """Say what a job waits for.

    Args:
        job: The job; one that was not created yet needs neither uid nor status.
        others: The other jobs, of whatever pool and phase; the job itself may be among them.
        conditions: How the cluster is.
        wall: The moment, seconds since 1970.
    """
    raise NotImplementedError
