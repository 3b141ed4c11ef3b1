"""The cache of jobs: shelves that watches fill, one watch for each namespace or one for all.

Guarantees: once `JobCache.synced`, it holds every job of the watched namespaces as the API server's watch shows them.
If a write of ours was followed by a deletion that no watch shows (it lay in the gap before a new list), the job is
looked up after `DOUBT_SECONDS` and leaves.

It never fails: while the API server is away it keeps what it knew; `last_event_age` says for how long.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from distriqueue.gateway.changes import ALL, QUEUE, READERS, READERS_OF_ONE, Changes
from distriqueue.gateway.clustercaches import ClusterCache
from distriqueue.gateway.rows import Row
from distriqueue.gateway.shelves import Doubt, JobShelves
from distriqueue.kube.client import KubeClient
from distriqueue.kube.errors import KubeError, NotFound
from distriqueue.kube.feeds import Feed, FeedEvent
from distriqueue.kube.resources import JOBS

__all__ = ["ClusterCache", "JobCache"]

_LOG: Final = logging.getLogger(__name__)

DOUBT_SECONDS: Final = 10.0
"""After so long, what we wrote and the watch has not shown is looked up."""

REACHED_SECONDS: Final = 2.0
"""How long the API server's word on how far it is counts: many streams resume at the same time."""


class JobCache(JobShelves):
    """The jobs; `run` fills it until cancelled.

    Attributes:
        changes: The hub of the streams.
    """

    def __init__(
        self,
        client: KubeClient,
        namespaces: Sequence[str] = (),
        *,
        queue: int = QUEUE,
        readers: int = READERS,
        readers_of_one: int = READERS_OF_ONE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare the cache.

        Args:
            client: Holds one connection for each watched namespace.
            namespaces: Whose jobs; none: all, by one watch.
            queue: Changes that may wait for a reader of a stream.
            readers: Most open streams.
            readers_of_one: Most of them that one caller may have.
            clock: Seconds that only grow.
        """
        super().__init__(namespaces, clock=clock)
        self.changes = Changes(self, queue=queue, readers=readers, readers_of_one=readers_of_one, clock=clock)
        self._client = client
        self._asking = asyncio.Lock()
        self._reached: dict[str, tuple[int, float]] = {}
        # One feed for each namespace: in one for several, an event would not say whose order it is of.
        self._feeds = {
            scope: Feed(client, JOBS, None if scope == ALL else (scope,), partial(self._deliver, scope), clock=clock)
            for scope in self.watches
        }

    @property
    def last_event_age(self) -> float:
        """Seconds since the API server was last heard, of the quietest namespace."""
        return max(feed.last_event_age for feed in self._feeds.values())

    async def run(self) -> None:
        """Follow the jobs until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for scope, feed in self._feeds.items():
                tasks.create_task(feed.run(), name=f"jobs of {scope}")
            tasks.create_task(self._look_up(), name="jobs in doubt")

    async def reached(self, scope: str, version: int) -> bool:
        """See `changes.Source`.

        Raises:
            KubeError: The API server did not say.
        """
        async with self._asking:
            reached, asked = self._reached.get(scope, (0, float("-inf")))
            if version > reached or self.clock() - asked > REACHED_SECONDS:
                path = JOBS.collection(None if scope == ALL else scope)
                page = await self._client.request("GET", path, params={"limit": "1"})
                reached = int(page["metadata"]["resourceVersion"])
                self._reached[scope] = reached, self.clock()
        return version <= reached

    def _deliver(self, scope: str, event: FeedEvent) -> None:
        self.deliver(scope, event, listing=not self._feeds[scope].synced)

    async def _look_up(self) -> None:
        """Look at what we wrote and no watch has shown."""
        while True:
            await asyncio.sleep(DOUBT_SECONDS / 2)
            for uid, doubt in list(self.in_doubt.items()):
                row = self.get(uid)
                if self.clock() - doubt.since < DOUBT_SECONDS:
                    break
                if row is None:
                    del self.in_doubt[uid]
                    continue
                version = doubt.version
                try:
                    found = await self._client.request("GET", JOBS.path(row.namespace, row.name))
                except NotFound:
                    found = {}
                except KubeError as error:
                    _LOG.info("jobs in doubt: %s", error)
                    break
                if self.in_doubt.get(uid) is doubt and doubt.version == version:  # else something was faster
                    self._settle(uid, found)

    def _settle(self, uid: str, found: dict[str, Any]) -> None:
        """Take in what the API server has of a job in doubt; empty if it has nothing."""
        doubt = self.in_doubt.pop(uid)
        if found and found["metadata"]["uid"] == uid:
            row = Row.of(found)
            self.store(row)
            self.in_doubt[uid] = Doubt(row.version, self.clock(), doubt.shown)
        elif not doubt.shown:
            self.drop(uid)  # no watch will say that it has gone
