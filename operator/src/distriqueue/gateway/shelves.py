"""The jobs as one replica knows them: what watches have shown, and what it wrote itself, in the order of creation.

Guarantees: an event costs little whatever there is (two binary searches). What this replica wrote is here at once
(`put`), ahead of the watch, and never replaced by something older; readers of streams hear of it when the watch shows
it, so that all hear the same in the same order. If etcd went back to an older past, what it has now counts, and all
readers are told everything anew.

No I/O: `caches.JobCache` joins it with the watches. Nothing here fails.
"""

import asyncio
import logging
import time
from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from distriqueue.gateway.changes import ALL, ChangeKind, Changes, Moment, Source
from distriqueue.gateway.rows import Row
from distriqueue.kube.feeds import FeedEvent, FeedType

_LOG: Final = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = 1.0
"""How long a job that nobody here knows is waited for: another replica may just have created it."""

WAITING: Final = 4096
"""Most requests that wait so at a time; further ones get their answer at once."""

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
class Watch:
    """What the watch of one scope has shown.

    Attributes:
        name: A namespace, or `changes.ALL`.
        mark: All changes up to this version were shown.
        highest: The highest version that was shown; above the mark while a list is under way.
        synced: It was listed once.
    """

    name: str
    mark: int = 0
    highest: int = 0
    synced: bool = False


@dataclass(slots=True)
class Doubt:
    """A job that we wrote, in a version that no watch has shown yet.

    Attributes:
        version: What we wrote.
        since: When, by our clock.
        shown: A watch has shown an earlier version, so it will show the end, too.
    """

    version: int
    since: float
    shown: bool


class JobShelves(Source):
    """See the module.

    Attributes:
        namespaces: What is watched; empty: all.
        watches: The watches, by scope.
        counts: How many jobs there are of each pool and phase.
        in_doubt: By uid, what we wrote and no watch has shown; the oldest first.
    """

    changes: Changes

    def __init__(self, namespaces: Sequence[str] = (), *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing.

        Args:
            namespaces: What is watched; none: all.
            clock: Seconds that only grow.
        """
        self.namespaces = tuple(namespaces)
        self.watches = {name: Watch(name) for name in self.namespaces or (ALL,)}
        self.counts: Counter[tuple[str, str]] = Counter()
        self.clock = clock
        self.in_doubt: OrderedDict[str, Doubt] = OrderedDict()
        self._by_uid: dict[str, Row] = {}
        self._by_name: dict[str, dict[str, Row]] = {}
        self._shelves: dict[str, _Shelf] = {}
        self._all = _Shelf()
        self._waiting: dict[Key, set[asyncio.Future[None]]] = {}
        self._waiters = 0

    # --- state ---

    @property
    def synced(self) -> bool:
        """Whether every namespace was listed once."""
        return all(watch.synced for watch in self.watches.values())

    def __len__(self) -> int:
        """How many jobs there are."""
        return len(self._by_uid)

    @property
    def ahead(self) -> int:
        """How many jobs we wrote in a version that no watch has shown yet."""
        return len(self.in_doubt)

    def covers(self, namespace: str) -> bool:
        """Say whether jobs of a namespace are watched."""
        return not self.namespaces or namespace in self.namespaces

    def scopes(self, namespace: str | None) -> tuple[str, ...]:
        """Return the watches that show the jobs of a namespace, or of all."""
        if not self.namespaces:
            return (ALL,)
        return self.namespaces if namespace is None else (namespace,)

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
        return [row for row in rows if row.uid not in self.in_doubt] if self.in_doubt else rows

    def watermark(self, scope: str) -> int:
        """See `changes.Source`."""
        return self.watches[scope].mark

    async def reached(self, scope: str, version: int) -> bool:
        """See `changes.Source`: as far as is known here, it has only been as far as was shown."""
        return version <= self.watermark(scope)

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
            earlier = self.in_doubt.pop(row.uid, None)
            shown = before is not None if earlier is None else earlier.shown
            self.in_doubt[row.uid] = Doubt(row.version, self.clock(), shown)
            self.store(row)
        return row

    # --- what the watch shows ---

    def deliver(self, scope: str, event: FeedEvent, *, listing: bool) -> None:
        """Take in what a feed shows.

        Args:
            scope: Of the feed.
            event: What it shows.
            listing: A list is under way: what comes is in no order.
        """
        watch = self.watches[scope]
        if event.type is FeedType.SYNCED:
            self._listed(watch, event.resource_version)
            return
        watch.highest = max(watch.highest, event.resource_version)
        if watch.synced and not listing:
            watch.mark = watch.highest
        uid = event.object["metadata"]["uid"]
        if event.type is FeedType.DELETED:
            self.in_doubt.pop(uid, None)
            gone = self.drop(uid)
            if gone is not None:
                self._say(ChangeKind.DELETED, watch, event.resource_version, gone.slimmed())
            return
        doubt = self.in_doubt.get(uid)
        if doubt is not None and event.resource_version < doubt.version:
            doubt.shown = True
            return  # what we wrote comes later
        self.in_doubt.pop(uid, None)
        if doubt is not None and event.resource_version == doubt.version:
            row = self._by_uid[uid]
        else:
            row = Row.of(event.object)
            self.store(row)
        self._say(ChangeKind.JOB, watch, row.version, row)

    def _say(self, kind: ChangeKind, watch: Watch, version: int, row: Row) -> None:
        if watch.synced:  # nobody listens before
            self.changes.publish(Moment(kind, watch.name, version, watch.mark, row))

    def _listed(self, watch: Watch, version: int) -> None:
        """A list is complete."""
        if version < watch.mark:
            _LOG.warning("jobs of %s: version %s came after %s: history went back", watch.name, version, watch.mark)
            # What we wrote may be no more: whatever is shown counts now, and what is not is looked up.
            for doubt in self.in_doubt.values():
                doubt.version, doubt.since = 0, float("-inf")
            rows = self.shown(None if watch.name == ALL else watch.name)
            watch.mark = 0
            watch.highest = max((row.version for row in rows), default=0)
            self.changes.reset()
        watch.mark = max(watch.mark, watch.highest)
        watch.synced = True

    def store(self, row: Row) -> None:
        """Put a row in the place of whatever was known of the job."""
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

    def drop(self, uid: str) -> Row | None:
        """Forget a job; return it as it was."""
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
