"""The cluster as a replica sees it: workers, election, health and figures.

Guarantees: answered from the caches, nothing waits. Election, status and health need no rights beyond a valid token
and name no job; workers need the right to read DistributedWorkers in the operator's namespace.
"""

from collections import Counter
from typing import Any, Final

from distriqueue.api.names import WORKER_PLURAL
from distriqueue.api.phases import FINAL_JOB_PHASES, JobPhase, WorkerPhase
from distriqueue.gateway.caches import ClusterCache, JobCache
from distriqueue.gateway.identities import Access, Identity
from distriqueue.gateway.problems import NotFound, Unavailable
from distriqueue.gateway.showing import status_of, worker_view
from distriqueue.gateway.views import (
    ClusterStatus,
    Election,
    Health,
    HealthCheck,
    JobStatus,
    Leader,
    PoolStatus,
    WorkerList,
    WorkerView,
)

STALE_SECONDS: Final = 60.0
"""When the API server was not heard for so long, what is shown may be old: watches end, and begin again, sooner."""


class ClusterService:
    """The cluster, for everybody with a valid token, and its workers, for those who may read them."""

    def __init__(self, *, jobs: JobCache, cluster: ClusterCache, access: Access) -> None:
        """Join the parts.

        Args:
            jobs: Counts the jobs.
            cluster: Has workers and Lease.
            access: Says who may read workers.
        """
        self._jobs = jobs
        self._cluster = cluster
        self._access = access

    async def workers(self, caller: Identity) -> WorkerList:
        """Return all workers. Needs `list` on distributedworkers in the operator's namespace.

        Raises:
            Forbidden: The caller may not.
        """
        await self._access.require(caller, "list", namespace=self._cluster.namespace, resource=WORKER_PLURAL)
        items = [worker_view(worker) for worker in self._cluster.workers()]
        return WorkerList(items=items, total=len(items))

    async def worker(self, caller: Identity, name: str) -> WorkerView:
        """Return a worker. Needs `get` on distributedworkers in the operator's namespace.

        Raises:
            Forbidden: The caller may not.
            NotFound: There is none of this name.
        """
        await self._access.require(caller, "get", namespace=self._cluster.namespace, resource=WORKER_PLURAL)
        found = self._cluster.worker(name)
        if found is None:
            raise NotFound(f"there is no worker {name!r}: GET /api/workers lists all of them")
        return worker_view(found)

    def election(self) -> Election:
        """Return the state of the election, as the Lease says it."""
        lease = self._cluster.lease()
        record = lease.record
        spec: dict[str, Any] = {} if record is None else record.spec
        held = record is not None and bool(record.holder)
        return Election(
            leader=lease.leader,
            epoch=lease.epoch,
            term=0 if record is None else record.transitions,
            acquire_time=spec.get("acquireTime") if held else None,
            renew_time=spec.get("renewTime") if held else None,
            lease_duration_seconds=spec.get("leaseDurationSeconds"),
        )

    def leader(self) -> Leader:
        """Return who leads.

        Raises:
            Unavailable: Nobody does, or nobody knows.
        """
        lease = self._cluster.lease()
        if lease.leader is None:
            raise Unavailable(_leader_check(self._cluster).message, retry_after=2.0)
        return Leader(leader=lease.leader, epoch=lease.epoch)

    def cluster_status(self) -> ClusterStatus:
        """Return the system in short."""
        lease = self._cluster.lease()
        workers = [worker_view(worker) for worker in self._cluster.workers()]
        phases = Counter(worker.phase for worker in workers)
        online = [worker for worker in workers if worker.phase == WorkerPhase.ONLINE]
        jobs: Counter[JobStatus] = Counter()
        running: Counter[str] = Counter()
        waiting: Counter[str] = Counter()
        for (pool, phase), count in self._jobs.counts.items():
            jobs[status_of(phase)] += count
            if phase == JobPhase.RUNNING:
                running[pool] += count
            elif phase not in FINAL_JOB_PHASES:
                waiting[pool] += count
        pools = sorted({worker.pool_name for worker in online} | set(running) | set(waiting))
        return ClusterStatus(
            leader=lease.leader,
            epoch=lease.epoch,
            broker_reachable=self._cluster.broker(),
            workers={phase: phases[phase] for phase in WorkerPhase},
            slots=sum(worker.concurrency for worker in online),
            jobs={status: jobs[status] for status in JobStatus},
            pools=[
                PoolStatus(
                    name=pool,
                    workers_online=sum(worker.pool_name == pool for worker in online),
                    slots=sum(worker.concurrency for worker in online if worker.pool_name == pool),
                    running=running[pool],
                    waiting=waiting[pool],
                )
                for pool in pools
            ],
        )

    def health(self) -> Health:
        """Return whether jobs get done."""
        checks = {
            "leader": _leader_check(self._cluster),
            "broker": _broker_check(self._cluster),
            "workers": _workers_check(self._cluster),
            "cache": self._cache_check(),
        }
        well = all(check.ok is not False for check in checks.values())
        return Health(status="ok" if well else "degraded", checks=checks)

    def metrics(self) -> dict[str, float]:
        """Return figures of this replica by name."""
        figures: dict[str, float] = {
            "jobs": len(self._jobs),
            "jobsAheadOfWatch": self._jobs.ahead,
            "lastEventAgeSeconds": self._jobs.last_event_age,
            "streamsOpen": self._jobs.changes.open,
            "streamChangesSent": self._jobs.changes.sent,
            "streamsCut": self._jobs.changes.cuts,
            "workersOnline": sum(_is_online(worker) for worker in map(worker_view, self._cluster.workers())),
            "leaderPresent": self._cluster.lease().leader is not None,
        }
        statuses: Counter[JobStatus] = Counter(dict.fromkeys(JobStatus, 0))
        for (_, phase), count in self._jobs.counts.items():
            statuses[status_of(phase)] += count
        figures.update({f"jobs{status.value.capitalize()}": count for status, count in statuses.items()})
        return {name: float(value) for name, value in figures.items()}

    def _cache_check(self) -> HealthCheck:
        age = self._jobs.last_event_age
        if not self._jobs.synced:
            return HealthCheck(ok=False, message="this replica has not read the jobs yet: ask again in a moment")
        if age > STALE_SECONDS:
            return HealthCheck(
                ok=False,
                message=f"the API server was not heard for {age:.0f} s: what is shown may be old, and submissions fail",
            )
        return HealthCheck(ok=True, message="jobs are watched")


def _is_online(worker: WorkerView) -> bool:
    return worker.phase == WorkerPhase.ONLINE


def _leader_check(cluster: ClusterCache) -> HealthCheck:
    lease = cluster.lease()
    if lease.leader is not None:
        return HealthCheck(ok=True, message=f"{lease.leader} leads")
    if not lease.known:
        return HealthCheck(ok=None, message="the Lease could not be read, so nobody here knows who leads: ask again")
    return HealthCheck(
        ok=False,
        message="no operator leads; jobs are taken in and wait: see that the operator's pods run and reach RabbitMQ",
    )


def _broker_check(cluster: ClusterCache) -> HealthCheck:
    reachable = cluster.broker()
    if reachable is None:
        return HealthCheck(ok=None, message="this replica has no connection to RabbitMQ of its own to tell by")
    if reachable:
        return HealthCheck(ok=True, message="RabbitMQ answers this replica")
    return HealthCheck(ok=False, message="RabbitMQ does not answer this replica; jobs are taken in and wait")


def _workers_check(cluster: ClusterCache) -> HealthCheck:
    online = sum(_is_online(worker_view(worker)) for worker in cluster.workers())
    if online:
        return HealthCheck(ok=True, message=f"{online} online")
    return HealthCheck(ok=False, message="no worker is online; jobs are taken in and wait: start one")
