"""What a replica knows of jobs, workers and the Lease: watches fill it, every read is answered from it.

Guarantees: once `JobCache.synced`, it holds every job of the watched namespaces as the API server's watch shows them,
an event costs little whatever there is (two binary searches), and jobs are kept in the order of creation. What this
replica wrote itself is in it at once (`put`), ahead of the watch, and never replaced by something older; readers of
streams hear of it when the watch shows it, so that all hear the same in the same order. If a write of ours was followed
by a deletion that no watch shows (it lay in the gap before a new list), the job is looked up after
`DOUBT_SECONDS` and leaves.

It never fails: while the API server is away it keeps what it knew; `last_event_age` says for how long.
"""

import asyncio
import logging
import time
from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, cast

from distriqueue.api.raw import RawWorker
from distriqueue.gateway.changes import ALL, QUEUE, READERS, ChangeKind, Changes, Moment
from distriqueue.gateway.rows import Row
from distriqueue.kube.client import KubeClient
from distriqueue.kube.errors import KubeError, NotFound
from distriqueue.kube.feeds import Feed, FeedEvent, FeedType
from distriqueue.kube.leases import LeaseRecord
from distriqueue.kube.resources import JOBS, LEASES, WORKERS

_LOG: Final = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = 1.0
"""How long a job that nobody here knows is waited for: another replica may just have created it."""

WAITING: Final = 4096
"""Most requests that wait so at a time; further ones get their answer at once."""

DOUBT_SECONDS: Final = 10.0
"""After so long, what we wrote and the watch has not shown is looked up."""

LEADER_MARGIN_SECONDS: Final = 2.0
"""So much later than it may, a leader is thought to be gone: a watch has its delays."""

STALE_SECONDS: Final = 60.0
"""When nothing was heard of the Lease for so long, nothing is known of it; watches end, and begin again, sooner."""

Key = str | tuple[str, str]
"""A uid, or namespace and name."""


def _place(row: Row) -> tuple[int, str]:
    return row.created, row.uid


class _Shelf:
    """Jobs in the order of creation, oldest first."""

    __slots__ = ("rows",)

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def put(self, row: Row) -> None:
        """Put a row in, in the place of an earlier one of the same job."""
        place = _place(row)
        at = bisect_left(self.rows, place, key=_place)
        if at < len(self.rows) and self.rows[at].uid == row.uid:
            self.rows[at] = row
        else:
            self.rows.insert(at, row)

    def remove(self, row: Row) -> None:
        at = bisect_left(self.rows, _place(row), key=_place)
        if at < len(self.rows) and self.rows[at].uid == row.uid:
            del self.rows[at]


@dataclass(slots=True)
class _Watch:
    """One scope: what its feed has shown."""

    name: str
    feed: Feed | None = None
    mark: int = 0
    """All changes up to this version were shown."""
    highest: int = 0
    """The highest version that a list under way has shown."""
    reached: int = 0
    """The API server has said that it is so far."""
    synced: bool = False


class JobCache:
    """The jobs; `run` fills it until cancelled.

    Attributes:
        changes: The hub of the streams.
        namespaces: What is watched; empty: all.
        counts: How many jobs there are of each pool and phase.
    """

    def __init__(
        self,
        client: KubeClient,
        namespaces: Sequence[str] = (),
        *,
        queue: int = QUEUE,
        readers: int = READERS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare the cache.

        Args:
            client: Holds one connection for each watched namespace.
            namespaces: Whose jobs; none: all, by one watch.
            queue: Changes that may wait for a reader of a stream.
            readers: Most open streams.
            clock: Seconds that only grow.
        """
        self.namespaces = tuple(namespaces)
        self.changes = Changes(self, queue=queue, readers=readers, clock=clock)
        self.counts: Counter[tuple[str, str]] = Counter()
        self._client = client
        self._clock = clock
        self._by_uid: dict[str, Row] = {}
        self._by_name: dict[str, dict[str, Row]] = {}
        self._shelves: dict[str, _Shelf] = {}
        self._all = _Shelf()
        self._ahead: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._waiting: dict[Key, set[asyncio.Future[None]]] = {}
        self._waiters = 0
        self._watches = {name: _Watch(name) for name in self.namespaces or (ALL,)}
        for watch in self._watches.values():
            # One feed for each namespace: in one for several, an event would not say whose order it is of.
            only = None if watch.name == ALL else (watch.name,)
            watch.feed = Feed(client, JOBS, only, partial(self.deliver, watch.name), clock=clock)

    # --- state ---

    @property
    def synced(self) -> bool:
        """Whether every namespace was listed once."""
        return all(watch.synced for watch in self._watches.values())

    @property
    def last_event_age(self) -> float:
        """Seconds since the API server was last heard, of the quietest namespace."""
        return max(watch.feed.last_event_age for watch in self._watches.values() if watch.feed is not None)

    def __len__(self) -> int:
        """How many jobs there are."""
        return len(self._by_uid)

    @property
    def ahead(self) -> int:
        """How many jobs we wrote in a version that no watch has shown yet."""
        return len(self._ahead)

    def covers(self, namespace: str) -> bool:
        """Say whether jobs of a namespace are watched."""
        return not self.namespaces or namespace in self.namespaces

    def scopes(self, namespace: str | None) -> tuple[str, ...]:
        """Return the watches that show the jobs of a namespace, or of all."""
        if not self.namespaces:
            return (ALL,)
        return self.namespaces if namespace is None else (namespace,)

    async def run(self) -> None:
        """Follow the jobs until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for watch in self._watches.values():
                if watch.feed is not None:
                    tasks.create_task(watch.feed.run(), name=f"jobs of {watch.name}")
            tasks.create_task(self._look_up(), name="jobs in doubt")

    # --- reads ---

    def get(self, key: Key) -> Row | None:
        """Return a job by its uid, or by namespace and name."""
        if isinstance(key, str):
            return self._by_uid.get(key)
        namespace, name = key
        return self._by_name.get(namespace, {}).get(name)

    async def find(self, key: Key, *, patience: float = PATIENCE_SECONDS) -> Row | None:
        """Return a job; one that is not known is waited for.

        Args:
            key: A uid, or namespace and name.
            patience: For how many seconds.
        """
        row = self.get(key)
        if row is None and await self._told(key, patience=patience):
            row = self.get(key)
        return row

    async def gone(self, uid: str, *, patience: float = PATIENCE_SECONDS) -> None:
        """Wait until a job that was deleted is no longer shown, or until patience ends."""
        if uid in self._by_uid:
            await self._told((uid, ""), patience=patience)

    def ordered(self, namespace: str | None) -> list[Row]:
        """Return the jobs of a namespace, or all, oldest first; as they are now, a list of the caller's own."""
        if namespace is None:
            return self._all.rows.copy()
        shelf = self._shelves.get(namespace)
        return shelf.rows.copy() if shelf is not None else []

    def shown(self, namespace: str | None) -> Iterable[Row]:
        """See `changes.Source`."""
        rows = self.ordered(namespace)
        return [row for row in rows if row.uid not in self._ahead] if self._ahead else rows

    def watermark(self, scope: str) -> int:
        """See `changes.Source`."""
        return self._watches[scope].mark

    async def reached(self, scope: str, version: int) -> bool:
        """See `changes.Source`.

        Raises:
            KubeError: The API server did not say.
        """
        watch = self._watches[scope]
        if version > watch.reached:
            path = JOBS.collection(None if scope == ALL else scope)
            page = await self._client.request("GET", path, params={"limit": "1"})
            watch.reached = int(page["metadata"]["resourceVersion"])
        return version <= watch.reached

    # --- writes of ours ---

    def put(self, resource: dict[str, Any]) -> Row:
        """Take in what the API server answered to a write of ours, unless something later is known.

        Args:
            resource: The whole job; not to be used afterwards.
        """
        row = Row.of(resource)
        before = self._by_uid.get(row.uid)
        if before is not None and before.version >= row.version:
            return before
        if self.covers(row.namespace) and not self.changes.is_buried(row.uid):
            self._store(row)
            self._ahead[row.uid] = row.version, self._clock()
            self._ahead.move_to_end(row.uid)
        return row

    async def _look_up(self) -> None:
        """Look at what we wrote and no watch has shown."""
        while True:
            await asyncio.sleep(DOUBT_SECONDS / 2)
            for uid, (version, since) in list(self._ahead.items()):
                if self._clock() - since < DOUBT_SECONDS:
                    break
                row = self._by_uid.get(uid)
                if row is None:
                    self._ahead.pop(uid, None)
                    continue
                try:
                    found = await self._client.request("GET", JOBS.path(row.namespace, row.name))
                except NotFound:
                    found = {}
                except KubeError as error:
                    _LOG.info("jobs in doubt: %s", error)
                    break
                still = self._ahead.get(uid)
                if still is None or still[0] != version:
                    continue  # the watch was faster
                if not found or found["metadata"]["uid"] != uid:
                    self._ahead.pop(uid, None)
                    self._drop(uid)
                else:
                    row = Row.of(found)
                    self._store(row)
                    self._ahead[uid] = row.version, self._clock()
                    self._ahead.move_to_end(uid)

    # --- what the watch shows ---

    def deliver(self, scope: str, event: FeedEvent) -> None:
        """Take in what a feed shows."""
        watch = self._watches[scope]
        if event.type is FeedType.SYNCED:
            self._listed(watch, event.resource_version)
            return
        watch.highest = max(watch.highest, event.resource_version)
        if watch.synced and watch.feed is not None and watch.feed.synced:
            watch.mark = watch.highest
        uid = event.object["metadata"]["uid"]
        if event.type is FeedType.DELETED:
            self._ahead.pop(uid, None)
            gone = self._drop(uid)
            if gone is not None:
                self._say(ChangeKind.DELETED, watch, event.resource_version, gone.slimmed())
            return
        row: Row | None
        ahead = self._ahead.get(uid)
        if ahead is not None and event.resource_version < ahead[0]:
            return  # what we wrote comes later
        self._ahead.pop(uid, None)
        if ahead is not None and event.resource_version == ahead[0]:
            row = self._by_uid[uid]
        else:
            row = Row.of(event.object)
            self._store(row)
        self._say(ChangeKind.JOB, watch, row.version, row)

    def _say(self, kind: ChangeKind, watch: _Watch, version: int, row: Row) -> None:
        if watch.synced:  # nobody listens before
            self.changes.publish(Moment(kind, watch.name, version, watch.mark, row))

    def _listed(self, watch: _Watch, version: int) -> None:
        """A list is complete."""
        if version < watch.mark:
            _LOG.warning("jobs of %s: version %s came after %s: history went back", watch.name, version, watch.mark)
            self._ahead.clear()
            watch.mark = watch.reached = 0
            watch.highest = max(
                (row.version for row in self.shown(None if watch.name == ALL else watch.name)), default=0
            )
            self.changes.reset()
        watch.mark = max(watch.mark, watch.highest)
        watch.synced = True

    def _store(self, row: Row) -> None:
        before = self._by_uid.get(row.uid)
        self._by_uid[row.uid] = row
        if before is not None:
            self._uncount(before)
        self.counts[row.pool, row.phase] += 1
        names = self._by_name.setdefault(row.namespace, {})
        namesake = names.get(row.name)
        if namesake is None or namesake.uid == row.uid or namesake.version < row.version:
            names[row.name] = row
        self._all.put(row)
        shelf = self._shelves.get(row.namespace)
        if shelf is None:
            shelf = self._shelves[row.namespace] = _Shelf()
        shelf.put(row)
        if before is None and self._waiting:
            self._tell(row.uid)
            self._tell((row.namespace, row.name))

    def _drop(self, uid: str) -> Row | None:
        row = self._by_uid.pop(uid, None)
        if row is None:
            return None
        self._uncount(row)
        self._all.remove(row)
        names, shelf = self._by_name[row.namespace], self._shelves[row.namespace]
        shelf.remove(row)
        if names.get(row.name) is row:
            del names[row.name]
        if not shelf.rows:
            del self._by_name[row.namespace], self._shelves[row.namespace]
        self._tell((uid, ""))
        return row

    def _uncount(self, row: Row) -> None:
        self.counts[row.pool, row.phase] -= 1
        if not self.counts[row.pool, row.phase]:
            del self.counts[row.pool, row.phase]

    # --- waiting ---

    async def _told(self, key: Key, *, patience: float) -> bool:
        if patience <= 0 or self._waiters >= WAITING:
            return False
        future = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, set()).add(future)
        self._waiters += 1
        try:
            async with asyncio.timeout(patience):
                await future
        except TimeoutError:
            return False
        else:
            return True
        finally:
            self._waiters -= 1
            others = self._waiting.get(key)
            if others is not None:
                others.discard(future)
                if not others:
                    del self._waiting[key]

    def _tell(self, key: Key) -> None:
        for future in self._waiting.get(key, ()):
            if not future.done():
                future.set_result(None)


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
        self._feeds.append(Feed(self.client, LEASES, only, self._leases, clock=self.clock))

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
        if event.type is FeedType.SYNCED or event.object["metadata"]["name"] != self.lease_name:
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
