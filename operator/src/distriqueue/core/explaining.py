"""Why a job waits, how many stand before it, and when it may start: the one answer for gateway and command line.

Guarantees: pure; the order is the one in which `backlog` serves (see `turns`); every sentence says what to do, and
where nothing honest can be said there is None. Fails on nothing that a resource may hold.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from distriqueue.api.phases import JobPhase, WorkerPhase
from distriqueue.api.raw import RawJob
from distriqueue.core import times
from distriqueue.core.turns import Blocker, Drain, Gate, Waiting, WorkerFacts, gate, lacks_payload, measure

__all__ = [
    "Blocker",
    "Conditions",
    "Drain",
    "Explanation",
    "Waiting",
    "WorkerFacts",
    "explain",
    "gate",
    "length",
    "measure",
]

UNSEEN_SECONDS: Final = 10.0
"""`Queued` is written after 3 s: one that is next, and of which nothing was written for so long, nobody has seen."""
DISPATCH_SECONDS: Final = 2.0
"""What a job that is next, with a slot free, may still take to start."""
_NAMED: Final = 5
"""So many things are named in a sentence, and the rest is counted."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """How the cluster is.

    Attributes:
        leader: Who holds the Lease; None when nobody does.
        broker: Whether RabbitMQ answers; None when nobody knows.
        workers: All that are known, of whatever pool and phase.
        recent: How fast the job's pool was of late; None when nothing was measured.
        leader_known: False when the Lease could not be read: then `leader` says nothing.
        workers_known: False when the workers could not be read: then `workers` says nothing.
        everyone: Whether the other jobs are all there are, or only those that the asker may see.
    """

    leader: str | None
    broker: bool | None
    workers: Sequence[WorkerFacts]
    recent: Drain | None = None
    leader_known: bool = True
    workers_known: bool = True
    everyone: bool = True


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a job waits for.

    Attributes:
        blocker: The word for programs.
        sentence: For people: what it waits for, and what to do.
        position: Its place among the jobs of its pool that wait for their turn, 1 is next; None when it does not.
        ahead: How many come first: one less.
        running: Attempts that run in its pool.
        slots: Slots of the pool's online workers.
        earliest: Seconds from now, the least until it starts.
        latest: Seconds from now, the most, if nothing more urgent comes and the pool goes on as of late.
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


@dataclass(frozen=True, slots=True)
class _View:
    """What the sentences are made of."""

    job: RawJob
    me: Waiting
    gate: Gate | None
    conditions: Conditions
    online: Sequence[WorkerFacts]
    ahead: Sequence[Waiting]
    running: int
    free: int
    slots: int
    wall: float

    @property
    def name(self) -> str:
        return self.job.get("metadata", {}).get("name", "NAME")

    @property
    def type(self) -> str:
        return self.job.get("spec", {}).get("type", "")

    @property
    def pool(self) -> str:
        return f"pool '{self.me.pool}'"


def explain(job: RawJob, *, others: Iterable[Waiting], conditions: Conditions, wall: float) -> Explanation:
    """Say what a job waits for.

    Args:
        job: The job; one that was not created yet needs neither uid nor status.
        others: The other jobs, of whatever pool and phase; the job itself may be among them.
        conditions: How the cluster is.
        wall: The moment, seconds since 1970.
    """
    me = Waiting.of(job, wall=wall)
    mates = [other for other in others if other.pool == me.pool and (not me.uid or other.uid != me.uid)]
    view = _look(job, me, mates, conditions, wall)
    blocker = _blocker(view)
    found = Explanation(blocker, _SENTENCES[blocker](view), running=view.running, slots=view.slots)
    if view.gate is not None:
        until = view.gate.until
        return replace(found, until=until, earliest=None if until is None else until - wall)
    earliest, latest = None, None
    if blocker not in {Blocker.NO_LEADER, Blocker.BROKER_UNREACHABLE, Blocker.NO_WORKER, Blocker.NOT_YET_SEEN}:
        still = sum(mate.timeout for mate in mates if mate.phase == JobPhase.RUNNING)
        earliest, latest = _start(view, still)
    ahead = len(view.ahead)
    sentence = f"{found.sentence}{_when(earliest, latest)}{_warning(view)}"
    return replace(found, sentence=sentence, position=ahead + 1, ahead=ahead, earliest=earliest, latest=latest)


def _look(job: RawJob, me: Waiting, mates: Sequence[Waiting], conditions: Conditions, wall: float) -> _View:
    workers = [worker for worker in conditions.workers if worker.pool == me.pool]
    online = [worker for worker in workers if worker.phase == WorkerPhase.ONLINE]
    draining = sum(worker.running for worker in workers if worker.phase == WorkerPhase.DRAINING)
    slots, busy = sum(worker.slots for worker in online), sum(worker.running for worker in online)
    written = sum(1 for mate in (me, *mates) if mate.phase == JobPhase.RUNNING)
    mine = me.turn()
    return _View(
        job=job,
        me=me,
        gate=gate(job, wall=wall),
        conditions=conditions,
        online=online,
        ahead=[mate for mate in mates if mate.startable and mate.turn() < mine],
        # Jobs say it within a second, but short ones never; workers say it of all, within five.
        running=max(written, busy + draining),
        free=max(0, slots - max(busy, written - draining)),
        slots=slots,
        wall=wall,
    )


def _blocker(view: _View) -> Blocker:
    """The first thing that has to change."""
    here = view.gate.blocker if view.gate is not None else Blocker.NONE
    conditions = view.conditions
    found: Blocker
    if here in {Blocker.FINISHED, Blocker.RUNNING}:
        found = here
    elif conditions.broker is False:
        found = Blocker.BROKER_UNREACHABLE
    elif conditions.leader_known and not conditions.leader:
        found = Blocker.NO_LEADER
    elif here is not Blocker.NONE:
        found = here
    else:
        found = _blocker_of_pool(view)
    return found


def _blocker_of_pool(view: _View) -> Blocker:
    """What a job waits for that only waits for its turn."""
    if not view.conditions.workers_known:
        found = Blocker.BEHIND_OTHERS if view.ahead else Blocker.NONE
    elif not view.online:
        found = Blocker.NO_WORKER
    elif not any(worker.knows(view.type) for worker in view.online):
        found = Blocker.NO_WORKER_FOR_TYPE
    elif view.ahead:
        found = Blocker.BEHIND_OTHERS
    elif not view.free:
        found = Blocker.WORKERS_FULL
    elif view.me.phase == JobPhase.PENDING and view.wall - view.me.created > UNSEEN_SECONDS and not _seen(view.job):
        found = Blocker.NOT_YET_SEEN
    else:
        found = Blocker.NONE
    return found


def _seen(job: RawJob) -> bool:
    return bool(job.get("status", {}).get("epoch"))


# --- when it starts ------------------------------------------------------------------------------------------------


def _start(view: _View, running_timeouts: int) -> tuple[float | None, float | None]:
    """The least and the most seconds until a job starts whose turn will come."""
    ahead, recent = len(view.ahead), view.conditions.recent
    found: tuple[float | None, float | None] = None, None
    if view.online and ahead < view.free:
        found = 0.0, DISPATCH_SECONDS
    elif recent is not None and recent.starts and (view.online or not view.conditions.workers_known):
        # Starts come by chance: of n, twice the root of n more or less are no surprise.
        doubt = 1 + 2 / math.sqrt(recent.starts)
        rate = recent.starts / recent.seconds
        found = ahead / (rate * doubt), (ahead + 1) * doubt / rate
    elif view.slots and recent is not None and recent.run_seconds is not None:
        rounds = (ahead - view.free + 1) / view.slots  # of attempts that have to end first
        found = max(0.0, rounds - 1) * recent.run_seconds / 2, math.ceil(rounds) * recent.run_seconds * 2 + 1.0
    elif view.slots and (running_timeouts or not view.running):
        # All slots are busy until it starts, so this much work is all that can come before it. (What runs too short to
        # be written has a timeout that nobody knows: then nothing is said.)
        work = running_timeouts + sum(other.timeout for other in view.ahead)
        found = 0.0, max(work / view.slots, DISPATCH_SECONDS)
    return found


def length(seconds: float) -> str:
    """A length of time for people, as in `40 s`, `3 min` or `2 h 5 min`."""
    if seconds < 10:  # noqa: PLR2004 - below that, half a second is a difference
        return f"{seconds:.1f} s".replace(".0 ", " ")
    whole = round(seconds)
    for size, unit, smaller, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {name}" if rest else "")
    return f"{whole} s"


def _when(earliest: float | None, latest: float | None) -> str:
    if earliest is None or latest is None:
        return ""
    if latest <= DISPATCH_SECONDS:
        return " It should start within moments."
    least, most = length(earliest), length(latest)
    span = f"within {most}" if earliest < 1 or least == most else f"in {least} to {most}"
    return f" It should start {span}, if nothing more urgent comes."


def _warning(view: _View) -> str:
    """What else is good to know."""
    said = ""
    strangers = [worker.name for worker in view.online if not worker.knows(view.type)]
    if strangers and len(strangers) < len(view.online):
        said += (
            f" Of the {len(view.online)} workers of {view.pool}, {_several(strangers)} {_have(strangers)} no handler "
            f"for the type '{view.type}': an attempt that goes there fails with UnknownType."
        )
    if not view.conditions.workers_known:
        said += " You may not see the workers, so nothing is said of them."
    if not view.conditions.everyone:
        said += " Jobs that you may not see can come first, too."
    return said


def _have(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"


def _several(names: Sequence[str]) -> str:
    named = ", ".join(names[:_NAMED])
    return f"{named} and {len(names) - _NAMED} more" if len(names) > _NAMED else named


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


# --- sentences -----------------------------------------------------------------------------------------------------


def _none(view: _View) -> str:
    if not view.conditions.workers_known:
        return f"It is next in {view.pool}, and starts as soon as a worker of it has a free slot."
    return f"It is next in {view.pool}, and {view.free} of {_count(view.slots, 'slot')} {_are(view.free)} free."


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _no_leader(view: _View) -> str:
    todo = {
        Blocker.CANCELLING: "the cancel",
        Blocker.NOT_YET_SEEN: "the retry",
    }.get(view.gate.blocker if view.gate is not None else Blocker.NONE, "the job")
    return (
        f"No operator leads, so {todo} waits: see that an operator runs and reaches RabbitMQ (a replica that cannot is "
        "no candidate); its pods have the label app.kubernetes.io/component=operator, and their logs say what they "
        "lack."
    )


def _no_broker(_: _View) -> str:
    return (
        "RabbitMQ does not answer, so nothing is dispatched: see that it runs and that the operator's URL of it is "
        "right; nothing is lost meanwhile."
    )


def _no_worker(view: _View) -> str:
    elsewhere = sorted(
        {worker.pool for worker in view.conditions.workers if worker.phase == WorkerPhase.ONLINE} - {view.me.pool}
    )
    other = f" (pools that have some: {_several(elsewhere)})" if elsewhere else ""
    return (
        f"No worker of {view.pool} is online: start one (DISTRIQUEUE_WORKER_POOL={view.me.pool}; worker.pool and "
        f"worker.replicas of the chart), or create the job anew with another spec.poolName{other}."
    )


def _no_worker_for_type(view: _View) -> str:
    online = _several([worker.name for worker in view.online])
    return (
        f"No worker of {view.pool} that is online ({online}) has a handler for the type '{view.type}', or the default "
        "handler '*'. The job does not wait for one: each attempt fails with UnknownType, until it is Dead. Start a "
        f"worker that has the type, and suspend the job until then: kubectl djobs suspend {view.name}."
    )


def _full(view: _View) -> str:
    return (
        f"It is next in {view.pool}, and every slot is taken ({_load(view)}): it starts when an attempt ends, or when "
        "a worker is added to the pool."
    )


def _behind(view: _View) -> str:
    ahead = view.ahead
    higher = sum(1 for other in ahead if other.turn()[0] < view.me.turn()[0])
    why = f", {higher} of them for their higher priority" if higher else ""
    return (
        f"{_count(len(ahead), 'job')} of {view.pool} {'comes' if len(ahead) == 1 else 'come'} first{why} "
        f"({_load(view)}): add workers to the pool, or raise spec.priority or spec.priorityValue to overtake."
    )


def _load(view: _View) -> str:
    if not view.conditions.workers_known:
        return f"{view.running} running"
    return f"{view.running} running, {_count(view.slots, 'slot')}"


def _backoff(view: _View) -> str:
    attempt = view.job.get("status", {}).get("attempt", 0)
    return (
        f"Attempt {attempt} did not succeed, and the next one waits until {_moment(view)}: to have it at once, kubectl "
        f"djobs retry {view.name}."
    )


def _start_after(view: _View) -> str:
    return f"spec.startAfter lets it start at {_moment(view)}: change or remove it to start the job sooner."


def _moment(view: _View) -> str:
    until = view.gate.until if view.gate is not None else None
    return "now" if until is None else f"{times.whole_seconds(until)} (in {length(until - view.wall)})"


def _suspended(view: _View) -> str:
    return f"It is suspended: kubectl djobs resume {view.name} lets it start."


def _no_payload(view: _View) -> str:
    why = (lacks_payload(view.job) or "what spec.payloadFrom names is not there").rstrip(".")
    return f"It waits for its payload, which is looked for again at least every half minute: {why}."


def _cancelling(view: _View) -> str:
    if view.job.get("metadata", {}).get("deletionTimestamp"):
        return "It is being deleted; there is nothing to do."
    held = view.me.phase == JobPhase.RUNNING
    return "It is cancelled, and " + (
        "its handler is being stopped; the phase follows then." if held else "the leader is about to write that."
    )


def _unseen(view: _View) -> str:
    if view.gate is not None:
        return "A retry is asked for, and the leader lets it in within moments; of many at once, some tens a second."
    namespace = view.job.get("metadata", {}).get("namespace", "")
    return (
        f"It is next, a slot is free, and yet no leader has taken it up: see that the operator watches the namespace "
        f"'{namespace}' (watchNamespaces of the chart), and what its logs say."
    )


def _running(view: _View) -> str:
    status = view.job.get("status", {})
    progress = status.get("progress", {})
    percent = f", {progress['percent']} % done" if "percent" in progress else ""
    return (
        f"Attempt {status.get('attempt', 1)} runs on {status.get('worker') or 'a worker'}{percent}: kubectl djobs logs "
        f"{view.name} shows what it says."
    )


def _finished(view: _View) -> str:
    phase = view.me.phase
    if phase == JobPhase.CANCELLED and view.job.get("spec", {}).get("cancel"):
        return "It is over: Cancelled. A cancelled job cannot be run again; create a new one."
    return f"It is over: {phase}. kubectl djobs retry {view.name} runs it again."


_SENTENCES: Final[dict[Blocker, Callable[[_View], str]]] = {
    Blocker.NONE: _none,
    Blocker.NO_LEADER: _no_leader,
    Blocker.BROKER_UNREACHABLE: _no_broker,
    Blocker.NO_WORKER: _no_worker,
    Blocker.NO_WORKER_FOR_TYPE: _no_worker_for_type,
    Blocker.WORKERS_FULL: _full,
    Blocker.BEHIND_OTHERS: _behind,
    Blocker.BACKOFF: _backoff,
    Blocker.START_AFTER: _start_after,
    Blocker.SUSPENDED: _suspended,
    Blocker.CANCELLING: _cancelling,
    Blocker.NOT_YET_SEEN: _unseen,
    Blocker.NO_PAYLOAD: _no_payload,
    Blocker.RUNNING: _running,
    Blocker.FINISHED: _finished,
}
