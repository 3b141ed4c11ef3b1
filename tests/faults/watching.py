"""Eyes of the tests' own: on the ends of processes, and on every final status that the API server ever shows.

Guarantees: a process is said to have ended when it has, never earlier; a status is seen however soon it is replaced,
but for those that were replaced while the API server was away. Fails never: it looks again until it is closed.
"""

import asyncio
import contextlib
import os
import time
from collections import defaultdict
from contextlib import aclosing
from typing import Self

from distriqueue.kube.client import KubeClient
from distriqueue.kube.errors import KubeError
from distriqueue.kube.resources import JOBS
from tests.faults.histories import outcome_of
from tests.support.jobs import is_final
from tests.support.records import Records

LOOK_SECONDS = 0.05


class Obituaries:
    """When the processes ended that handlers ran in.

    Attributes:
        deaths: Monotonic seconds by process id; a little later than the truth, never earlier.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._read = 0
        self._watched: dict[int, int] = {}
        self.deaths: dict[int, float] = {}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_exception: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for descriptor in self._watched.values():
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)

    def look(self) -> None:
        """Look for processes that are new in the records."""
        found, self._read = self._records.since(self._read)
        for record in found:
            if record.pid not in self._watched and record.pid not in self.deaths:
                self._watch(record.pid)

    async def _look(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)

    def _watch(self, pid: int) -> None:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            self.deaths[pid] = time.monotonic()
            return
        self._watched[pid] = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._died, pid)

    def _died(self, pid: int) -> None:
        descriptor = self._watched.pop(pid)
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        self.deaths[pid] = time.monotonic()


class Outcomes:
    """Every final status that jobs of a namespace ever had.

    Attributes:
        seen: What they said for good, by uid.
    """

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client = client
        self._path = JOBS.collection(namespace)
        self._task: asyncio.Task[None] | None = None
        self.seen: dict[str, set[str]] = defaultdict(set)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_exception: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def forget(self) -> None:
        """Begin anew: history itself was put back."""
        self.seen.clear()

    def frozen(self) -> dict[str, frozenset[str]]:
        """What was seen."""
        return {uid: frozenset(outcomes) for uid, outcomes in self.seen.items()}

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(KubeError):
                answer = await self._client.request("GET", self._path)
                for job in answer["items"]:
                    self._note(job)
                params = {"resourceVersion": answer["metadata"]["resourceVersion"], "timeoutSeconds": "600"}
                async with aclosing(self._client.stream(self._path, params, inactivity=600)) as events:
                    async for event in events:
                        self._note(event["object"])
            await asyncio.sleep(LOOK_SECONDS)

    def _note(self, job: dict[str, object]) -> None:
        if "status" in job and is_final(job):
            metadata = job["metadata"]
            assert isinstance(metadata, dict)
            self.seen[metadata["uid"]].add(outcome_of(job))
