"""Why a job waits, by what a replica knows: its cache of jobs, the workers and the Lease.

Guarantees: reads nothing but the caches. In a backlog of thousands it takes some tenths of a second, in pieces between
which others have their turn. What it says is `core.explaining`, the same as the command line says.
"""

import asyncio
from typing import Final

from distriqueue.api.phases import FINAL_JOB_PHASES
from distriqueue.api.raw import RawJob
from distriqueue.core.explaining import Conditions, Explanation, Waiting, WorkerFacts, explain, measure
from distriqueue.core.turns import WINDOW_SECONDS
from distriqueue.gateway.caches import ClusterCache, JobCache
from distriqueue.gateway.rows import Row

_IN_A_ROW: Final = 100
"""After so many jobs that were looked at, others get their turn."""


async def explain_job(job: RawJob, *, jobs: JobCache, cluster: ClusterCache, wall: float) -> Explanation:
    """Say what a job waits for.

    Args:
        job: The job; it need not have been created.
        jobs: All jobs, of all namespaces: they share the pools.
        cluster: Workers, Lease and broker.
        wall: The moment, seconds since 1970.
    """
    pool = Row.pool_of(job)
    others: list[RawJob] = []
    waiting: list[Waiting] = []
    for row in jobs.ordered(None):
        over = row.phase in FINAL_JOB_PHASES
        if row.pool != pool or (over and (row.completed or 0.0) < wall - WINDOW_SECONDS):
            continue  # it neither waits nor tells how fast the pool was of late
        other = row.bare()
        others.append(other)
        waiting.append(Waiting.of(other, wall=wall))
        if len(others) % _IN_A_ROW == 0:
            await asyncio.sleep(0)
    lease = cluster.lease()
    conditions = Conditions(
        leader=lease.leader,
        leader_known=lease.known,
        broker=cluster.broker(),
        workers=[WorkerFacts.of(worker) for worker in cluster.workers()],
        recent=measure(others, pool=pool, wall=wall),
    )
    return explain(job, others=waiting, conditions=conditions, wall=wall)
