"""A feed: everything that exists of one kind of resource, and every change to it, in order, from a list and a watch.

Guarantees: after `Feed.run` begins, `deliver` is called once for every object, and again for every change that the API
server still remembers when we see it; changes that were missed are made good by a new list, and objects that vanished
meanwhile are delivered as DELETED. An object is never delivered twice in the same version, nor an older version after a
newer one, unless etcd itself went back (restored from a backup): that is noticed, and a list believed. `Feed.resync`
lists everything afresh from etcd and returns when all that differed was delivered; `Feed.catch_up` does so for some of
it, and reads again only what has changed.

It keeps uid, name and version of each object (some 300 bytes), not the object, and does O(1) work for an event.

It never fails: `run` goes on through all errors of the API server, with growing pauses; `Feed.last_event_age` tells
how long nothing was heard. An object that is nested too deeply is delivered without its depths (see `decoding`),
and `deliver` has to be able to take that. An exception of `deliver` is a bug of ours and ends `run`.
"""

import asyncio
import logging
import random
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import orjson

from distriqueue.kube.client import METADATA_LIST, KubeClient
from distriqueue.kube.decoding import decode
from distriqueue.kube.errors import Gone, KubeError, NotFound, Unanswered
from distriqueue.kube.resources import Resource

_LOG: Final = logging.getLogger(__name__)

CHUNK: Final = 500
"""Most objects of one page of a list."""

METADATA_CHUNK: Final = 2000
"""The same where the list is of metadata alone."""

READS: Final = 1000
"""If more objects than this have changed, to list all is cheaper than to read each."""

READS_AT_A_TIME: Final = 16

WATCH_SECONDS: Final = 30
"""How long the API server is asked to keep a watch open (up to a quarter more, so that not all end at once). Short, so
that a stream that died in silence is noticed; to go on with a watch costs next to nothing."""

INACTIVITY_SECONDS: Final = 45.0
"""A watch on which nothing came for so long is dead: it should have ended before."""

LIST_SECONDS: Final = 60.0
"""How long one page may take."""

BACKOFF_SECONDS: Final = (0.1, 10.0)
"""The first and the longest pause after an error; each is up to twice the one before."""

_PAGE_BYTES: Final = 4 * 1024 * 1024
"""Pages that would be larger are asked for in smaller pieces: parsing one holds everything else up."""

_SMALLEST_CHUNK: Final = 10


class FeedType(StrEnum):
    """What happened to an object."""

    ADDED = "ADDED"
    """It was not known before."""
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    """It is gone. When the deletion itself was missed, the object is no more than namespace, name, uid and version."""
    SYNCED = "SYNCED"
    """A list is complete: all that existed when it began was delivered. Carries no object."""


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """One change.

    Attributes:
        type: What happened.
        object: The object as the API server sent it; empty for SYNCED.
        resource_version: The version of the object, for SYNCED and for a missed deletion that of the list.
    """

    type: FeedType
    object: dict[str, Any]
    resource_version: int


@dataclass(slots=True)
class _Scope:
    """One collection that is listed and watched: a namespace, or the whole cluster."""

    path: str
    known: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    """uid -> (namespace, name, version)"""
    version: str = ""
    """Where the watch goes on."""
    behind: bool = True
    """A list is due or under way."""
    unsure: bool = False
    """The connection broke, so we may come back to another past (see `Feed._check_history`)."""
    asked: int = 0
    """Number of the last resync that was asked for."""
    listed: int = 0
    """Number of the last resync that a completed list has served."""
    gone: set[str] | None = None
    """While `Feed.catch_up` is under way: what the watch has shown to be deleted since it began."""
    interrupt: asyncio.Event = field(default_factory=asyncio.Event)
    heard_at: float = 0.0


class Feed:
    """List and watch of one kind of resource, see the module."""

    def __init__(
        self,
        client: KubeClient,
        resource: Resource,
        namespaces: tuple[str, ...] | None,
        deliver: Callable[[FeedEvent], None],
        *,
        name: str | None = None,
        chunk: int = CHUNK,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        """Prepare a feed; `run` starts it.

        Args:
            client: Holds one connection for each namespace while the feed runs.
            resource: The kind to follow.
            namespaces: The namespaces to follow; None means all, by one watch.
            deliver: Called in the event loop for each event; must be quick and must not raise.
            name: The one object to follow; to list and watch it needs no rights on others. None means all.
            chunk: Most objects of one page.
            clock: Seconds that only grow.
            rng: Draws the pauses.

        Raises:
            ValueError: `namespaces` is empty.
        """
        if namespaces is not None and not namespaces:
            raise ValueError("no namespace to follow; None means all")
        self._client = client
        self._resource = resource
        self._deliver = deliver
        self._selector = f"metadata.name={name}" if name is not None else ""
        self._chunk = chunk
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311  # no secret: it spreads load
        paths = [resource.collection()] if namespaces is None else [resource.collection(name) for name in namespaces]
        self._scopes = [_Scope(path, heard_at=clock()) for path in paths]
        self._resyncs = 0
        self._progress = asyncio.Condition()

    @property
    def last_event_age(self) -> float:
        """Seconds since the API server was last heard (an event, a bookmark or a list), of the quietest namespace."""
        return self._clock() - min(scope.heard_at for scope in self._scopes)

    @property
    def synced(self) -> bool:
        """True while every namespace has been listed and is being watched."""
        return not any(scope.behind for scope in self._scopes)

    @property
    def known(self) -> int:
        """How many objects exist, as far as delivered."""
        return sum(len(scope.known) for scope in self._scopes)

    async def run(self) -> None:
        """Follow the resources until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for scope in self._scopes:
                tasks.create_task(self._follow(scope), name=f"feed {scope.path}")

    async def resync(self) -> None:
        """List everything afresh, as of now, and return when all that differed from what was known is delivered.

        Needs `run` to be running. Waits as long as the API server is away; set a limit with `asyncio.timeout`.
        """
        self._resyncs += 1
        number = self._resyncs
        for scope in self._scopes:
            scope.asked = number
            scope.behind = True
            scope.interrupt.set()
        async with self._progress:
            await self._progress.wait_for(lambda: all(scope.listed >= number for scope in self._scopes))

    async def catch_up(self, *, selector: str, expected: Callable[[], Iterable[str]]) -> None:
        """Deliver what differs now from what was delivered, as far as it matters to the caller.

        It lists the metadata of what the selector finds, as of now, and reads only what has a later version than the
        one that was delivered, and what was expected and is not found. The watch goes on meanwhile. When that is no
        help (nothing was listed yet, too much has changed, the API server went away), it does what `resync` does.

        Args:
            selector: A field selector: what matters.
            expected: The uids of what matters, by what was delivered so far.
        """
        try:
            caught_up = self.synced and all(
                await asyncio.gather(*(self._catch_up(scope, selector, expected) for scope in self._scopes))
            )
        except KubeError as error:
            _LOG.warning("feed: cannot catch up: %s: %s", type(error).__name__, error)
            caught_up = False
        if not caught_up:
            await self.resync()

    async def _catch_up(self, scope: _Scope, selector: str, expected: Callable[[], Iterable[str]]) -> bool:
        began, scope.gone = int(scope.version), set()
        try:
            found: set[str] = set()
            changed: dict[str, tuple[str, str]] = {}
            token = ""
            while True:
                params = {"limit": str(METADATA_CHUNK)} | self._selected(selector)
                page = await self._client.request(
                    "GET",
                    scope.path,
                    params=params | ({"continue": token} if token else {}),
                    accept=METADATA_LIST,
                    timeout=LIST_SECONDS,
                )
                scope.heard_at = self._clock()
                for item in page["items"] or ():  # null, where a list of whole objects would be empty
                    uid, version = _identify(item)
                    found.add(uid)
                    before = scope.known.get(uid)
                    if before is None or before[2] < version:
                        changed[uid] = item["metadata"].get("namespace", ""), item["metadata"]["name"]
                token = page["metadata"].get("continue", "")
                if not token:
                    break
            listed = int(page["metadata"]["resourceVersion"])
            for uid in expected():
                before = scope.known.get(uid)
                if uid not in found and before is not None and before[2] <= listed:
                    changed[uid] = before[:2]
            if listed < began or len(changed) > READS:
                return False
            gate = asyncio.Semaphore(READS_AT_A_TIME)
            await asyncio.gather(*(self._read(scope, uid, *where, gate=gate) for uid, where in changed.items()))
            return True
        finally:
            scope.gone = None

    async def _read(self, scope: _Scope, uid: str, namespace: str, name: str, *, gate: asyncio.Semaphore) -> None:
        """Deliver one object as it is now; the watch may be faster."""
        async with gate:
            try:
                item = await self._client.request("GET", self._resource.path(namespace, name), timeout=LIST_SECONDS)
            except NotFound:
                item = {}
        if not item or item["metadata"]["uid"] != uid:
            self._bury(scope, [uid])
            return
        _, version = _identify(item)
        before = scope.known.get(uid)
        if (before is None or before[2] < version) and uid not in (scope.gone or ()):
            self._pass_on(scope, item, uid, version)

    async def _follow(self, scope: _Scope) -> None:
        shortest, longest = BACKOFF_SECONDS
        pause = shortest
        while True:
            began = self._clock()
            try:
                if scope.unsure and not scope.behind:
                    await self._check_history(scope)
                if scope.behind:
                    await self._list(scope)
                await self._watch(scope)
            except Gone as error:
                _LOG.info("feed of %s: listing again: %s", scope.path, error)
                scope.behind = True
                asked = 0.0
            except KubeError as error:
                _LOG.warning("feed of %s: %s: %s", scope.path, type(error).__name__, error)
                scope.unsure = True
                asked = error.retry_after
            else:
                pause = shortest
                continue
            if self._clock() - began > longest:
                pause = shortest  # it had worked for a while
            # Drawn, so that replicas and namespaces do not all come back in the same instant.
            await asyncio.sleep(max(asked, self._rng.uniform(pause / 2, pause)))
            pause = min(2 * pause, longest)

    async def _list(self, scope: _Scope) -> None:
        """Deliver what differs between the collection now and what is known of it."""
        scope.behind = True
        scope.interrupt.clear()
        serving = scope.asked
        limit, token = self._chunk, ""
        seen: set[str] = set()
        while True:
            # No resourceVersion: the answer is as new as etcd, not as old as some cache.
            params = {"limit": str(limit)} | self._selected() | ({"continue": token} if token else {})
            answer = await self._client.request_raw("GET", scope.path, params=params, timeout=LIST_SECONDS)
            scope.heard_at = self._clock()
            try:
                page = decode(answer)
            except orjson.JSONDecodeError as error:
                raise Unanswered(f"a list is no JSON: {error}") from error
            for item in page["items"]:
                uid, version = _identify(item)
                seen.add(uid)
                before = scope.known.get(uid)
                # A list is the truth even where it is older: etcd may have been restored from a backup.
                if before is None or before[2] != version:
                    self._pass_on(scope, item, uid, version)
            token = page["metadata"].get("continue", "")
            if not token:
                break
            limit = next_chunk(limit, len(answer), most=self._chunk)
        scope.version = page["metadata"]["resourceVersion"]
        self._bury(scope, [uid for uid in scope.known if uid not in seen])
        scope.behind = scope.asked > serving
        if self.synced:
            self._deliver(FeedEvent(FeedType.SYNCED, {}, int(scope.version)))
        async with self._progress:
            scope.listed = serving
            self._progress.notify_all()

    def _selected(self, more: str = "") -> dict[str, str]:
        """The parameter by which the API server leaves out what is not followed."""
        selector = ",".join(part for part in (self._selector, more) if part)
        return {"fieldSelector": selector} if selector else {}

    async def _watch(self, scope: _Scope) -> None:
        """Deliver changes until the API server ends the watch or a resync is asked for."""
        watching = asyncio.ensure_future(self._consume(scope))
        watching.add_done_callback(_look_at)
        interrupted = asyncio.ensure_future(scope.interrupt.wait())
        try:
            await asyncio.wait({watching, interrupted}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            interrupted.cancel()
            if not watching.done():
                watching.cancel()
                await asyncio.wait({watching})
        if not watching.cancelled():
            watching.result()

    async def _consume(self, scope: _Scope) -> None:
        params = {
            "resourceVersion": scope.version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(self._rng.randint(WATCH_SECONDS, WATCH_SECONDS * 5 // 4)),
        } | self._selected()
        known = scope.known
        async with aclosing(self._client.stream(scope.path, params, inactivity=INACTIVITY_SECONDS)) as events:
            async for event in events:
                scope.heard_at = self._clock()
                item = event["object"]
                match event["type"]:
                    case "ADDED" | "MODIFIED":
                        uid, version = _identify(item)
                        before = known.get(uid)
                        if before is None or before[2] < version:
                            self._pass_on(scope, item, uid, version)
                    case "DELETED":
                        uid, version = _identify(item)
                        if scope.gone is not None:
                            scope.gone.add(uid)
                        if known.pop(uid, None) is not None:
                            self._deliver(FeedEvent(FeedType.DELETED, item, version))
                    case _:  # BOOKMARK, or something new: says only how far we are
                        pass
                scope.version = item["metadata"]["resourceVersion"]

    async def _check_history(self, scope: _Scope) -> None:
        """After a break: see that etcd still has the past that we know. Restored from a backup it has not."""
        scope.unsure = False
        params = {"limit": "1"} | self._selected()
        page = await self._client.request("GET", scope.path, params=params, timeout=LIST_SECONDS)
        now = page["metadata"]["resourceVersion"]
        if int(now) < int(scope.version):
            _LOG.warning("feed of %s: version %s came after %s: listing again", scope.path, now, scope.version)
            scope.behind = True

    def _pass_on(self, scope: _Scope, item: dict[str, Any], uid: str, version: int) -> None:
        kind = FeedType.MODIFIED if uid in scope.known else FeedType.ADDED
        metadata = item["metadata"]
        scope.known[uid] = (sys.intern(metadata.get("namespace", "")), metadata["name"], version)
        self._deliver(FeedEvent(kind, item, version))

    def _bury(self, scope: _Scope, uids: Iterable[str]) -> None:
        """Deliver DELETED for what is known and was found missing."""
        for uid in uids:
            if scope.gone is not None:
                scope.gone.add(uid)  # a reading of it that is under way must not bring it back
            namespace, name, version = scope.known.pop(uid, ("", "", 0))
            if version:
                metadata = {"namespace": namespace, "name": name, "uid": uid, "resourceVersion": scope.version}
                self._deliver(FeedEvent(FeedType.DELETED, {"metadata": metadata}, int(scope.version)))


def next_chunk(chunk: int, page_bytes: int, *, most: int) -> int:
    """Return how many objects to ask for next, when `chunk` of them made a page of `page_bytes`."""
    return max(min(_SMALLEST_CHUNK, most), min(most, chunk * _PAGE_BYTES // page_bytes))


def _look_at(task: asyncio.Future[None]) -> None:
    """Take note of how a task ended, so that an error of one that nobody waits for any more is not reported."""
    if not task.cancelled():
        task.exception()


def _identify(item: dict[str, Any]) -> tuple[str, int]:
    metadata = item["metadata"]
    return metadata["uid"], int(metadata["resourceVersion"])
