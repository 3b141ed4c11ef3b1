"""The DistributedWorkers and the Lease, from watches: who runs, and who leads.

Guarantees: a leader is whoever holds the Lease and was seen to renew it in time, by our own clock; no time that another
machine wrote is believed. It never fails: while the API server is away, `LeaseView.known` becomes False.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, cast

from distriqueue.api.raw import RawWorker
from distriqueue.kube.client import KubeClient
from distriqueue.kube.feeds import Feed, FeedEvent, FeedType
from distriqueue.kube.leases import LeaseRecord
from distriqueue.kube.resources import LEASES, WORKERS

LEADER_MARGIN_SECONDS: Final = 2.0
"""So much later than it may, a leader is thought to be gone: a watch has its delays."""

STALE_SECONDS: Final = 60.0
"""When nothing was heard of the Lease for so long, nothing is known of it; watches end, and begin again, sooner."""


@dataclass(frozen=True, slots=True)
class LeaseView:
    """The Lease, as the watch has shown it.

    Attributes:
        known: Whether the watch is alive: else nothing of this says anything.
        leader: Who leads: the holder, if it has renewed in time; else None.
        record: The Lease; None when there is none.
        epoch: The highest epoch that was seen, of this Lease or in what its leaders have written; None for none.
    """

    known: bool
    leader: str | None
    record: LeaseRecord | None
    epoch: int | None


@dataclass(slots=True)
class _Lease:
    record: LeaseRecord | None = None
    moved_at: float = float("-inf")
    """When its spec was last seen to change, by our clock."""
    taken: int = 0
    """The epoch of the last taking that was seen."""


def _no_word() -> bool | None:
    return None


@dataclass(slots=True)
class ClusterCache:
    """The DistributedWorkers and the Lease; `run` fills it until cancelled.

    Attributes:
        client: Holds two connections.
        namespace: The operator's own.
        lease_name: The Lease that is led by.
        clock: Seconds that only grow.
        broker: Asked whether RabbitMQ answers; None: not known. Set by whoever holds a connection to it.
    """

    client: KubeClient
    namespace: str
    lease_name: str
    clock: Callable[[], float] = time.monotonic
    broker: Callable[[], bool | None] = _no_word
    _workers: dict[str, RawWorker] = field(default_factory=dict, init=False)
    _lease: _Lease = field(default_factory=_Lease, init=False)
    _feeds: list[Feed] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        only = (self.namespace,)
        self._feeds.append(Feed(self.client, WORKERS, only, self._worker, clock=self.clock))
        self._feeds.append(Feed(self.client, LEASES, only, self._leases, name=self.lease_name, clock=self.clock))

    @property
    def synced(self) -> bool:
        """Whether workers and Lease were read once and are being watched."""
        return all(feed.synced for feed in self._feeds)

    async def run(self) -> None:
        """Follow both until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for feed in self._feeds:
                tasks.create_task(feed.run(), name="workers and Lease")

    def workers(self) -> list[RawWorker]:
        """Return all workers, by name."""
        return [self._workers[name] for name in sorted(self._workers)]

    def worker(self, name: str) -> RawWorker | None:
        """Return a worker."""
        return self._workers.get(name)

    def lease(self) -> LeaseView:
        """Return what is known of the Lease now."""
        record = self._lease.record
        feed = self._feeds[1]
        leader = None
        if record is not None and record.holder:
            silent = self.clock() - self._lease.moved_at
            leader = record.holder if silent < record.duration + LEADER_MARGIN_SECONDS else None
        epochs = [worker.get("status", {}).get("epoch", 0) for worker in self._workers.values()]
        return LeaseView(
            known=feed.synced and feed.last_event_age < STALE_SECONDS,
            leader=leader,
            record=record,
            epoch=max([self._lease.taken, *epochs]) or None,
        )

    def _worker(self, event: FeedEvent) -> None:
        if event.type is FeedType.SYNCED:
            return
        name = event.object["metadata"]["name"]
        if event.type is FeedType.DELETED:
            known = self._workers.get(name)
            # A later one of the same name may have come before this word.
            if known is not None and known["metadata"]["uid"] == event.object["metadata"]["uid"]:
                del self._workers[name]
            return
        event.object["metadata"].pop("managedFields", None)
        self._workers[name] = cast("RawWorker", event.object)

    def _leases(self, event: FeedEvent) -> None:
        if event.type is FeedType.SYNCED:
            return
        lease = self._lease
        if event.type is FeedType.DELETED:
            lease.record = None
            return
        before, record = lease.record, LeaseRecord.parse(event.object)
        spec = record.spec
        if before is None or before.spec != spec:
            lease.moved_at = self.clock()
        # Whoever takes it writes both times alike; a renewal leaves the first as it was, and is of a later version.
        if record.holder and spec.get("acquireTime") == spec.get("renewTime"):
            lease.taken = record.epoch
        lease.record = record
