"""Why a job waits, by what a replica knows: its cache of jobs, the workers and the Lease.

Guarantees: reads nothing but the caches. In a backlog of thousands it takes some tenths of a second, in pieces between
which others have their turn. However many ask, one pool is looked at at a time, and what was found of it is told again
for `SNAPSHOT_SECONDS`; no parsed resource is held, so a backlog of 20,000 costs some megabytes. What it says is
`core.explaining`, the same as the command line says.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

from distriqueue.api.phases import FINAL_JOB_PHASES, JobPhase
from distriqueue.api.raw import RawJob
from distriqueue.core import times
from distriqueue.core.explaining import Conditions, Drain, Explanation, Waiting, WorkerFacts, explain, measure
from distriqueue.core.turns import WINDOW_SECONDS
from distriqueue.gateway.caches import ClusterCache
from distriqueue.gateway.rows import Row
from distriqueue.gateway.shelves import JobShelves

SNAPSHOT_SECONDS: Final = 1.0
"""For so long, what was found of a pool is told to others who ask."""
_IN_A_ROW: Final = 100
"""After so many jobs that were looked at, others get their turn."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was found of a pool.

    Attributes:
        waiting: Its jobs that wait for their turn or run.
        recent: How fast it was of late.
        made: When; by the clock of the shelves.
    """

    waiting: Sequence[Waiting]
    recent: Drain | None
    made: float


class Explainer:
    """Explains jobs; one for each replica."""

    def __init__(self, jobs: JobShelves, cluster: ClusterCache) -> None:
        """Join the parts.

        Args:
            jobs: All jobs, of all namespaces: they share the pools.
            cluster: Workers, Lease and broker.
        """
        self._jobs = jobs
        self._cluster = cluster
        self._looking = asyncio.Lock()
        self._known: dict[str, Snapshot] = {}

    async def explain(self, job: RawJob, *, wall: float, workers_known: bool) -> Explanation:
        """Say what a job waits for.

        Args:
            job: The job; it need not have been created.
            wall: The moment, seconds since 1970.
            workers_known: Whether the asker may see the workers; else nothing is said of them.
        """
        found = await self.snapshot(Row.pool_of(job), wall=wall)
        lease = self._cluster.lease()
        conditions = Conditions(
            leader=lease.leader,
            leader_known=lease.known,
            broker=self._cluster.broker(),
            workers=[WorkerFacts.of(worker) for worker in self._cluster.workers()] if workers_known else [],
            workers_known=workers_known,
            recent=found.recent,
        )
        return explain(job, others=found.waiting, conditions=conditions, wall=wall)

    async def snapshot(self, pool: str, *, wall: float) -> Snapshot:
        """Return what is known of a pool, `SNAPSHOT_SECONDS` old at most.

        Args:
            pool: Its name.
            wall: The moment, seconds since 1970.
        """
        async with self._looking:
            now = self._jobs.clock()
            self._known = {name: one for name, one in self._known.items() if now - one.made < SNAPSHOT_SECONDS}
            if pool not in self._known:
                waiting, recent = await self._look(pool, wall)
                self._known[pool] = Snapshot(waiting, recent, self._jobs.clock())
            return self._known[pool]

    async def _look(self, pool: str, wall: float) -> tuple[list[Waiting], Drain | None]:
        waiting: list[Waiting] = []
        pace = _Pace(pool, wall)
        looked = 0
        for row in self._jobs.ordered(None):
            over = row.phase in FINAL_JOB_PHASES
            if row.pool != pool or (over and (row.completed or 0.0) < wall - WINDOW_SECONDS):
                continue  # it neither waits nor tells how fast the pool was of late
            job = row.bare()
            facts = Waiting.of(job, wall=wall)
            if facts.startable or facts.phase == JobPhase.RUNNING:
                waiting.append(facts)
            pace.add(job, waits=facts.startable)
            looked += 1
            if looked % _IN_A_ROW == 0:
                await asyncio.sleep(0)
        return waiting, pace.result()


class _Pace:
    """`measure` of jobs that come one by one and are not kept.

    What it says depends on the attempts of late, whosever they are, and on the one job that has waited longest.
    """

    def __init__(self, pool: str, wall: float) -> None:
        self._pool = pool
        self._wall = wall
        now = times.whole_seconds(wall)
        self._probe = self._over([{"startTime": now, "completionTime": now}])
        self._attempts: list[dict[str, str | None]] = []
        self._longest: RawJob | None = None
        self._waited = -1.0

    def add(self, job: RawJob, *, waits: bool) -> None:
        """Take in a job; `waits`: for its turn."""
        for attempt in job.get("status", {}).get("attempts", ()):
            begun, ended = attempt.get("startTime"), attempt.get("completionTime")
            if any(self._is_recent(moment) for moment in (begun, ended)):
                self._attempts.append({"startTime": begun, "completionTime": ended})
        if waits and self._waited < WINDOW_SECONDS:
            bare = cast("RawJob", {**job, "status": {**job.get("status", {}), "attempts": []}})
            # With an end of now there is always a result; its time is how long this one has waited.
            found = measure((self._probe, bare), pool=self._pool, wall=self._wall)
            if found is not None and found.seconds > self._waited:
                self._waited, self._longest = found.seconds, bare

    def result(self) -> Drain | None:
        """Return what `measure` says of all of them."""
        jobs = [self._over(self._attempts)]
        if self._longest is not None:
            jobs.append(self._longest)
        return measure(jobs, pool=self._pool, wall=self._wall)

    def _is_recent(self, moment: str | None) -> bool:
        seconds = times.seconds(moment)
        return seconds is not None and seconds >= self._wall - WINDOW_SECONDS

    def _over(self, attempts: list[dict[str, str | None]]) -> RawJob:
        status = {"phase": JobPhase.SUCCEEDED, "attempts": attempts}
        return cast("RawJob", {"spec": {"poolName": self._pool}, "status": status})
