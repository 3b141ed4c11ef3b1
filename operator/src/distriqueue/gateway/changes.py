"""Streams of changes: positions that survive a cut and a restart, and readers that do not hold each other up.

A position names, for each scope that is watched (a namespace, or all of them by one watch), the highest version that a
reader has seen: versions are in order only within one watch. Resuming is by level: every job with a version above the
position is sent once, in its latest state and in the order of versions, and then what happens. So a position of any
replica, and of one that is gone, is good at every other.

Guarantees: a reader that goes on with the id of the last change it read misses no job's last state, and gets none that
it has read before, but for one case: while a watch begins anew with a list, what the list brings carries the position
from before, and a cut in that moment brings it again. A deletion is remembered by the replica that saw it, the last
`GRAVES` of them; who resumes from further back gets `reset` and everything anew, and deletions from before the start of
a replica are not said. A job is turned into JSON once for all readers. Each reader has a queue of its own with a limit;
one that lets it overflow is cut, and the others notice nothing.

A stream filters by what a job is now: one that ceases to match is not announced. It says what a watch has shown: what
this replica has just written comes with the watch, some milliseconds later and perhaps after `synced`.

Fails with `TooSlow` for a reader that was cut.
"""

import asyncio
import contextlib
import re
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import Final, NamedTuple, Protocol

from distriqueue.gateway.problems import TooManyRequests, TooSlow
from distriqueue.gateway.rows import Row, compact
from distriqueue.gateway.showing import job_document
from distriqueue.gateway.views import JobView

ALL: Final = "*"
"""The scope of a watch of all namespaces."""

QUEUE: Final = 4096
"""Changes that may wait for a reader, unless settings say otherwise."""

READERS: Final = 2000
"""Streams that may be open, unless settings say otherwise."""

READERS_OF_ONE: Final = 200
"""Of them, streams of one caller, unless settings say otherwise."""

GRAVES: Final = 10_000
"""Deletions that are remembered."""

LOOK_AGAIN_SECONDS: Final = 60.0
"""How often it is asked whether a reader may still read."""

POSITION_SECONDS: Final = 15.0
"""After so long without a change for it, a reader is told how far it is: the changes of others move the watermark, and
where deletions are forgotten that came after its last change, it would have to hear everything anew."""

_DOCUMENTS: Final = 4096
_DOCUMENT_BYTES: Final = 16 * 1024 * 1024
"""JSON that is kept for the next reader: at most so many jobs, and so much of it."""

_POSITION: Final = re.compile(r"(?:\*|[a-z0-9-]{1,63})-[0-9]{1,19}(?:_[a-z0-9-]{1,63}-[0-9]{1,19})*")
_POSITION_LIMIT: Final = 64 * 1024
_IN_A_ROW: Final = 200
"""After so many changes without a pause, others get their turn."""


class ChangeKind(StrEnum):
    """What a stream says."""

    JOB = "job"
    """A job was created or changed, and is as shown."""
    DELETED = "deleted"
    """A job is gone. Shown is its last state, without payload, result and attempts."""
    RESET = "reset"
    """Nothing that was heard before counts any more: all jobs follow, and then `synced`."""
    SYNCED = "synced"
    """All that was there at the beginning has been said; what follows happens now."""
    POSITION = "position"
    """Nothing happened that the reader asks for, and from here it goes on after a cut."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that a stream says.

    Attributes:
        kind: What.
        id: The position after it: who resumes with it gets all that follows.
        data: The job as JSON, made once for all streams: a `JobView`. Empty for what is not of a job.
    """

    kind: ChangeKind
    id: str
    data: bytes = b""

    @property
    def job(self) -> JobView | None:
        """The job, parsed anew each time; None for what is not of a job."""
        return JobView.model_validate_json(self.data) if self.data else None


class _Word(Enum):
    """What a reader is told that is no change."""

    ANEW = auto()
    """Everything is to be said anew."""
    QUIET = auto()
    """Nothing happened for a while."""


class Moment(NamedTuple):
    """One change of one job, shared by all readers.

    Attributes:
        kind: JOB or DELETED.
        scope: Of the watch that showed it.
        version: Of the change.
        position: The watermark of its scope after it; below the version while a list is under way.
        row: The job.
    """

    kind: ChangeKind
    scope: str
    version: int
    position: int
    row: Row


def write_position(positions: Mapping[str, int]) -> str:
    """Return the text of a position."""
    return "_".join(f"{scope}-{version}" for scope, version in positions.items())


def read_position(text: str, scopes: Iterable[str]) -> dict[str, int] | None:
    """Read the text of a position.

    Args:
        text: As `write_position` wrote it, here or elsewhere.
        scopes: What it has to say something of; what else it says does not matter.

    Returns:
        None if it is no position, or says nothing of some of them.
    """
    if len(text) > _POSITION_LIMIT or not _POSITION.fullmatch(text):
        return None
    found = {scope: int(version) for scope, version in (part.rsplit("-", 1) for part in text.split("_"))}
    wanted = {scope: found.get(scope) for scope in scopes}
    known = {scope: version for scope, version in wanted.items() if version is not None}
    return known if len(known) == len(wanted) else None


@dataclass(slots=True, eq=False)
class _Reader:
    """One open stream."""

    matches: Callable[[Row], bool]
    limit: int
    looked: float
    """When it was last asked whether it may read."""
    waiting: deque[Moment] = field(default_factory=deque)
    awake: asyncio.Event = field(default_factory=asyncio.Event)
    cut: bool = False
    stale: bool = False
    """Everything has to be said anew."""

    def offer(self, moment: Moment) -> None:
        if self.cut or self.stale:
            return
        if len(self.waiting) >= self.limit:
            self.cut = True
            self.waiting.clear()
        else:
            self.waiting.append(moment)
        self.awake.set()

    def begin_anew(self) -> None:
        self.stale = True
        self.waiting.clear()
        self.awake.set()


@dataclass(frozen=True, slots=True)
class Audience:
    """What a stream is asked to tell, and to whom.

    Attributes:
        namespace: Of the jobs; None: of all namespaces.
        scopes: The watches that show them.
        matches: Which jobs.
        look_again: Raises when the reader may not read any more; asked every `LOOK_AGAIN_SECONDS`.
        caller: Whose streams are counted together; None: they are not.
    """

    namespace: str | None
    scopes: tuple[str, ...]
    matches: Callable[[Row], bool]
    look_again: Callable[[], Awaitable[None]]
    caller: str | None = None


class Source(Protocol):
    """What the hub asks the cache for; see `caches.JobCache`, which is one."""

    def shown(self, namespace: str | None) -> Iterable[Row]:
        """The jobs in the version that a watch has shown, in any order; without those that only we wrote so far."""

    def watermark(self, scope: str) -> int:
        """The highest version that the watch of a scope has shown, all before it included."""

    async def reached(self, scope: str, version: int) -> bool:
        """Whether the API server's own history of a scope goes as far as a version."""


def _one_by_one(found: list[Row | Moment], scope: str | None, marks: Mapping[str, int]) -> Iterator[Moment]:
    """Take what was found from the end of a list, and make changes of jobs; `scope`: of all of them, if it is one."""
    while found:
        told = found.pop()
        if isinstance(told, Row):
            of = scope or told.namespace
            yield Moment(ChangeKind.JOB, of, told.version, min(told.version, marks[of]), told)
        else:
            yield told


class Changes:
    """The hub: told of every change once, in order, it tells all readers."""

    def __init__(
        self,
        source: Source,
        *,
        queue: int = QUEUE,
        readers: int = READERS,
        readers_of_one: int = READERS_OF_ONE,
        graves: int = GRAVES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare the hub.

        Args:
            source: The jobs.
            queue: Changes that may wait for a reader before it is cut.
            readers: Most open streams.
            readers_of_one: Most of them that one caller may have.
            graves: Deletions that are remembered.
            clock: Seconds that only grow.
        """
        self._source = source
        self._queue = queue
        self._most = readers
        self._most_of_one = readers_of_one
        self._open_of: Counter[str | None] = Counter()
        self._clock = clock
        self._readers: dict[str | None, set[_Reader]] = {}
        self._graves: OrderedDict[str, Moment] = OrderedDict()
        self._graves_limit = graves
        self._forgotten: dict[str, int] = {}
        self._documents: OrderedDict[tuple[str, int, bool], bytes] = OrderedDict()
        self._document_bytes = 0
        self.open = 0
        self.cuts = 0
        self.sent = 0

    # --- what the cache says: O(1) for each reader of the namespace ---

    def publish(self, moment: Moment) -> None:
        """Tell all readers of a change."""
        if moment.kind is ChangeKind.DELETED:
            self._bury(moment)
        for namespace in (moment.row.namespace, None):
            for reader in self._readers.get(namespace, ()):
                if reader.matches(moment.row):
                    reader.offer(moment)

    def reset(self) -> None:
        """History went back: everything has to be said anew to everybody."""
        self._graves.clear()
        self._forgotten.clear()
        for readers in self._readers.values():
            for reader in readers:
                reader.begin_anew()

    def is_buried(self, uid: str) -> bool:
        """Say whether the deletion of a job is remembered."""
        return uid in self._graves

    def _bury(self, moment: Moment) -> None:
        self._graves[moment.row.uid] = moment
        if len(self._graves) > self._graves_limit:
            _, oldest = self._graves.popitem(last=False)
            self._forgotten[oldest.scope] = max(self._forgotten.get(oldest.scope, 0), oldest.version)

    # --- what a reader hears ---

    async def follow(self, audience: Audience, since: str | None) -> AsyncGenerator[Change, None]:
        """Say what is there, or what is new since a position, then `synced`, and then what happens.

        Args:
            audience: What is asked for, and by whom.
            since: The id of the last change that was read; None begins with everything.

        Raises:
            TooManyRequests: As many streams are open as may be, or as the caller may have.
            TooSlow: The reader was cut.
            Problem: What `audience.look_again` raises, and what keeps the position from being judged.
        """
        if self.open >= self._most:
            raise TooManyRequests(
                f"this replica has {self.open} streams open, and that is all it takes: try again, or close some",
                retry_after=5.0,
            )
        if audience.caller is not None and self._open_of[audience.caller] >= self._most_of_one:
            raise TooManyRequests(
                f"you have {self._open_of[audience.caller]} streams open at this replica, and that is all that one "
                "caller may have: close some, or follow several things by one stream",
                retry_after=5.0,
            )
        reader = _Reader(audience.matches, self._queue, self._clock())
        readers = self._readers.setdefault(audience.namespace, set())
        readers.add(reader)
        self.open += 1
        self._open_of[audience.caller] += 1
        try:
            start = await self._start(audience, since)
            async for change in self._tell(reader, audience, start, resumed=since is not None):
                self.sent += 1
                if self.sent % _IN_A_ROW == 0:
                    await asyncio.sleep(0)
                yield change
        finally:
            self.open -= 1
            self._open_of[audience.caller] -= 1
            if not self._open_of[audience.caller]:
                del self._open_of[audience.caller]
            readers.discard(reader)
            if not readers:
                self._readers.pop(audience.namespace, None)

    async def _start(self, audience: Audience, since: str | None) -> dict[str, int] | None:
        """Return where to go on; None if the position is of no use here."""
        if since is None:
            return dict.fromkeys(audience.scopes, 0)
        positions = read_position(since, audience.scopes)
        if positions is None:
            return None
        for scope, version in positions.items():
            # Ahead of this replica is fine, as another one may be faster; ahead of etcd is not.
            ahead = version > self._source.watermark(scope)
            if ahead and not await self._source.reached(scope, version):
                return None
            if 0 < version < self._forgotten.get(scope, 0):
                return None
        return positions

    async def _tell(
        self, reader: _Reader, audience: Audience, start: dict[str, int] | None, *, resumed: bool
    ) -> AsyncGenerator[Change, None]:
        while True:
            if start is None:
                start, resumed = dict.fromkeys(audience.scopes, 0), False
                yield Change(ChangeKind.RESET, write_position(start))
            # no await from here to the list of what is told first: all that comes later is in the reader's queue
            reader.stale = False
            reader.waiting.clear()
            positions = dict(start)
            marks = {scope: self._source.watermark(scope) for scope in audience.scopes}
            for moment in self._told_first(audience, start, marks, deletions=resumed):
                yield self._change(moment, positions)
                if reader.stale or reader.cut:
                    break
            else:
                positions.update({scope: max(positions[scope], mark) for scope, mark in marks.items()})
                yield Change(ChangeKind.SYNCED, write_position(positions))
            while (next_one := await self._next(reader, audience)) is not _Word.ANEW:
                if next_one is _Word.QUIET:
                    # Nothing waits for the reader, so all that was shown so far is none of its business, or was said.
                    before = write_position(positions)
                    positions.update({scope: max(positions[scope], self._source.watermark(scope)) for scope in marks})
                    if (now := write_position(positions)) != before:
                        yield Change(ChangeKind.POSITION, now)
                elif next_one.version > start[next_one.scope]:
                    yield self._change(next_one, positions)
            start = None

    async def _next(self, reader: _Reader, audience: Audience) -> Moment | _Word:
        """Return the next change, or what there is to say instead."""
        quiet_at = self._clock() + POSITION_SECONDS
        while not reader.stale:
            if reader.cut:
                self.cuts += 1
                raise TooSlow(
                    "changes came faster than they were read: resume from the id of the last one that was read"
                )
            left = reader.looked + LOOK_AGAIN_SECONDS - self._clock()
            if left <= 0:
                reader.looked = self._clock()
                await audience.look_again()
            elif reader.waiting:
                return reader.waiting.popleft()
            elif (until_quiet := quiet_at - self._clock()) <= 0:
                return _Word.QUIET
            else:
                reader.awake.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, until_quiet)):
                        await reader.awake.wait()
        return _Word.ANEW

    def _told_first(
        self, audience: Audience, start: Mapping[str, int], marks: Mapping[str, int], *, deletions: bool
    ) -> Iterator[Moment]:
        """Return what is above a position, in the order of versions; looked up now, and told one by one.

        What a slow reader has not heard yet is a reference for each job, no more: there may be a thousand of them.
        """
        one = audience.scopes[0] if len(audience.scopes) == 1 else None
        found: list[Row | Moment] = [
            row
            for row in self._source.shown(audience.namespace)
            if row.version > start[one or row.namespace] and audience.matches(row)
        ]
        if deletions:
            found.extend(
                grave
                for grave in self._graves.values()
                if grave.version > start.get(grave.scope, grave.version)
                and audience.namespace in {None, grave.row.namespace}
                and audience.matches(grave.row)
            )
        found.sort(key=lambda told: told.version, reverse=True)
        return _one_by_one(found, one, marks)

    def _change(self, moment: Moment, positions: dict[str, int]) -> Change:
        positions[moment.scope] = max(positions[moment.scope], moment.position)
        return Change(moment.kind, write_position(positions), self.document(moment.row))

    def document(self, row: Row) -> bytes:
        """Return the JSON of a job's view; what was asked for of late is kept."""
        key = (row.uid, row.version, row.slim)
        found = self._documents.get(key)
        if found is not None:
            return found
        made = compact(job_document(row.raw()))
        self._documents[key] = made
        self._document_bytes += len(made)
        while len(self._documents) > _DOCUMENTS or self._document_bytes > _DOCUMENT_BYTES:
            _, old = self._documents.popitem(last=False)
            self._document_bytes -= len(old)
        return made
