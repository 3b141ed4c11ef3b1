"""The leader's own queue: what waits, in which order, and how much of it the broker is given (the runway).

Guarantees: High before Medium before Low because each has a queue of its own; inside one, the higher `priorityValue`
first, then the older job. RabbitMQ holds only about a second of work per pool and priority, so what comes last can
still overtake, and a purge or a broker reset costs little. Every operation is O(log n); removal is lazy, and what was
removed takes no more room than what is there.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, Final, NamedTuple

from distriqueue.core.jobs import Job, Stage
from distriqueue_protocol.names import Priority

Queue = tuple[str, Priority]
PAUSE_SECONDS: Final = 0.5
"""A queue that refuses tickets is left alone for so long."""
_SLACK: Final = 64
"""Entries of jobs that have left, for which no heap is tidied up."""


@dataclass(frozen=True, slots=True)
class RunwaySettings:
    """How much work the broker is given per pool and priority.

    Attributes:
        least: Tickets that are out even when no worker is known, so that the first one finds work at once.
        per_slot: Tickets per slot of the pool's workers.
        seconds: Seconds of work, by the measured drain rate.
        most: Never more tickets than this.
    """

    least: int = 8
    per_slot: int = 2
    seconds: float = 1.0
    most: int = 2000


@dataclass(slots=True, eq=False)
class _Lane:
    """One pool and priority."""

    heap: list[tuple[int, float, int, Job]] = field(default_factory=list)
    waiting: int = 0
    out: int = 0
    granted: int = 0
    rate: float = 0.0
    resumes: float = float("-inf")


class Snapshot(NamedTuple):
    """What stood in the queues at one moment: pointers that were copied at once, to be looked at in peace.

    Attributes:
        last_entry: Entries above this number are later than the copy.
        last_ticket: Likewise tickets.
        queued: Entries of lanes and of the backoff; the number is the last but one of each.
        out: Tickets that are watched over; the number is the second of each.
    """

    last_entry: int
    last_ticket: int
    queued: list[tuple[Any, ...]]
    out: list[tuple[Any, ...]]


class Backlog:
    """Every job that is not final and that nobody holds."""

    def __init__(self, settings: RunwaySettings) -> None:
        self._settings = settings
        self._lanes: dict[Queue, _Lane] = {}
        self._entries = count(1)
        self._tickets = count(1)
        self._backoff: list[tuple[float, int, Job]] = []
        self._out_since: deque[tuple[float, int, Job]] = deque()
        self._out_long: deque[tuple[float, int, Job]] = deque()
        self._measured_at = 0.0
        self._taken_at = 0.0
        self.retrying = 0

    def lanes(self) -> Iterator[tuple[Queue, int, int]]:
        """Each pool and priority with how many jobs wait with the leader, and how many tickets are out."""
        for queue, lane in self._lanes.items():
            yield queue, lane.waiting, lane.out

    def is_new_pool(self, pool: str) -> bool:
        """Whether no job of that pool was ever queued here."""
        return (pool, Priority.HIGH) not in self._lanes

    def add_pool(self, pool: str) -> None:
        """Make the lanes of a pool."""
        for priority in Priority:
            self._lanes.setdefault((pool, priority), _Lane())

    def wait(self, job: Job) -> None:
        """Put a job into its queue; where it stands is decided by its value and age, not by when it came back."""
        self.leave(job)
        lane = self._lanes[job.queue]
        job.stage = Stage.WAITING
        job.waiting_entry = next(self._entries)
        lane.waiting += 1
        heappush(lane.heap, (-job.priority_value, job.created, job.waiting_entry, job))
        if len(lane.heap) > 2 * lane.waiting + _SLACK:
            _tidy(lane.heap, Stage.WAITING)

    def not_taken(self, job: Job) -> None:
        """The broker did not take a job's ticket: nothing is published to that queue for a moment."""
        self._lanes[job.queue].resumes = self._taken_at + PAUSE_SECONDS
        self.wait(job)

    def wait_until(self, job: Job, *, due: float) -> None:
        """Let a job wait for its next attempt until `due` (monotonic)."""
        self.leave(job)
        job.stage = Stage.BACKOFF
        job.waiting_entry = next(self._entries)
        self.retrying += 1
        heappush(self._backoff, (due, job.waiting_entry, job))
        if len(self._backoff) > 2 * self.retrying + _SLACK:
            _tidy(self._backoff, Stage.BACKOFF)

    def leave(self, job: Job) -> None:
        """Take a job out of whatever it waits in; its stage is the caller's to set."""
        if job.stage is Stage.WAITING and job.waiting_entry:
            self._lanes[job.queue].waiting -= 1
        elif job.stage is Stage.TICKETED:
            self._lanes[job.queue].out -= 1
        elif job.stage is Stage.BACKOFF:
            self.retrying -= 1
        job.waiting_entry = 0

    def granted(self, job: Job) -> None:
        """A job was granted: it leaves, and its queue has drained by one."""
        self._lanes[job.queue].granted += 1
        self.leave(job)
        job.stage = Stage.HELD

    def due(self, mono: float) -> None:
        """Move the jobs whose wait is over into their queues."""
        while self._backoff and self._backoff[0][0] <= mono:
            _, entry, job = heappop(self._backoff)
            if job.stage is Stage.BACKOFF and job.waiting_entry == entry:
                self.wait(job)

    def next_due(self) -> float | None:
        """When the next wait is over (monotonic); a job that left meanwhile may still be named."""
        return self._backoff[0][0] if self._backoff else None

    def measure(self, mono: float) -> None:
        """Renew the drain rates, about once a second."""
        elapsed = mono - self._measured_at
        if elapsed < 1.0:
            return
        self._measured_at = mono
        for lane in self._lanes.values():
            lane.rate = (lane.rate + lane.granted / elapsed) / 2
            lane.granted = 0

    def take(self, *, slots: dict[str, int], mono: float) -> Iterator[Job]:
        """Take the jobs whose tickets the broker should have now, best first; they are `TICKETED` from here on.

        Args:
            slots: Slots of the workers of each pool.
            mono: The moment, for `overdue`.
        """
        self._taken_at = mono
        for (pool, _), lane in self._lanes.items():
            if not lane.waiting or mono < lane.resumes:
                continue
            room = self._room(lane, slots.get(pool, 0))
            while lane.out < room and lane.heap:
                _, _, entry, job = heappop(lane.heap)
                if job.stage is not Stage.WAITING or job.waiting_entry != entry:
                    continue
                lane.waiting -= 1
                lane.out += 1
                job.waiting_entry = 0
                job.stage = Stage.TICKETED
                job.ticket = next(self._tickets)
                self._out_since.append((mono, job.ticket, job))
                yield job

    def long_out(self, *, mono: float, age: float) -> Iterator[Job]:
        """The jobs whose tickets have been out for longer than `age` seconds; each ticket is named once."""
        while self._out_since and self._out_since[0][0] <= mono - age:
            entry = self._out_since.popleft()
            _, ticket, job = entry
            if job.stage is Stage.TICKETED and job.ticket == ticket:
                self._out_long.append(entry)
                yield job

    def unanswered(self, *, mono: float, age: float) -> Iterator[Job]:
        """The jobs of `long_out` that are still out after `age` seconds; named again each time as long has passed."""
        while self._out_long and self._out_long[0][0] <= mono - age:
            _, ticket, job = self._out_long.popleft()
            if job.stage is Stage.TICKETED and job.ticket == ticket:
                self._out_long.append((mono, ticket, job))
                yield job

    # --- for the auditor ---------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Copy what stands in the queues now."""
        queued: list[tuple[Any, ...]] = [entry for lane in self._lanes.values() for entry in lane.heap]
        queued += self._backoff
        out: list[tuple[Any, ...]] = [*self._out_since, *self._out_long]
        return Snapshot(next(self._entries), next(self._tickets), queued, out)

    def recount(self, jobs: Iterable[Job]) -> None:
        """Set the counters to what these jobs, all of them, make."""
        self.retrying = 0
        for lane in self._lanes.values():
            lane.waiting = lane.out = 0
        for job in jobs:
            if job.stage is Stage.WAITING and job.waiting_entry:
                self._lanes[job.queue].waiting += 1
            elif job.stage is Stage.TICKETED:
                self._lanes[job.queue].out += 1
            elif job.stage is Stage.BACKOFF:
                self.retrying += 1

    def _room(self, lane: _Lane, slots: int) -> int:
        settings = self._settings
        wanted = max(settings.least, settings.per_slot * slots, int(lane.rate * settings.seconds))
        return min(wanted, settings.most)


def _tidy(heap: list[Any], stage: Stage) -> None:
    """Drop the entries of jobs that have left; the last two fields of each are its number and the job."""
    heap[:] = [entry for entry in heap if entry[-1].stage is stage and entry[-1].waiting_entry == entry[-2]]
    heapify(heap)
