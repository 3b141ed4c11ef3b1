"""The jobs at the API server: each request of the services, sent once, with the gateway's own account.

Guarantees: at most so many writes are under way at a time, and further ones wait. A write that the API server was too
busy to look at (429) is sent again, after the pause that it asks for; any other is sent once.

Fails with the errors of `kube.errors`.
"""

import asyncio
import random
from collections.abc import Mapping
from typing import Any, Final

from distriqueue.kube.client import MERGE_PATCH, KubeClient
from distriqueue.kube.errors import Throttled
from distriqueue.kube.resources import JOBS

WRITES: Final = 32
"""Writes under way at a time: what an API server takes before it only gets slower."""

TRIES: Final = 6
"""How often a write is sent that the API server was too busy to look at."""

_PAUSE_SECONDS: Final = 0.1


class JobRequests:
    """See the module."""

    def __init__(self, client: KubeClient, *, writes: int = WRITES, rng: random.Random | None = None) -> None:
        """Prepare.

        Args:
            client: Has at least as many connections as writes.
            writes: Most writes under way at a time.
            rng: Draws pauses.
        """
        self._client = client
        self._slots = asyncio.Semaphore(writes)
        self._rng = rng or random.Random()  # noqa: S311  # no secret: it spreads load

    async def read(self, namespace: str, name: str) -> dict[str, Any]:
        """Return a job as etcd has it now."""
        return await self._client.request("GET", JOBS.path(namespace, name))

    async def create(self, namespace: str, body: bytes, *, dry_run: bool = False) -> dict[str, Any]:
        """Create a job, and return it with all that the API server has filled in."""
        return await self._write(
            "POST", JOBS.collection(namespace), body, params={"dryRun": "All"} if dry_run else None
        )

    async def patch(self, namespace: str, name: str, body: bytes) -> dict[str, Any]:
        """Merge into a job, and return it as it is then."""
        return await self._write("PATCH", JOBS.path(namespace, name), body, content_type=MERGE_PATCH)

    async def delete(self, namespace: str, name: str, body: bytes) -> None:
        """Delete a job."""
        await self._write("DELETE", JOBS.path(namespace, name), body)

    async def _write(
        self,
        method: str,
        path: str,
        body: bytes,
        *,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        pause = _PAUSE_SECONDS
        for tries_left in reversed(range(TRIES)):
            async with self._slots:
                try:
                    return await self._client.request(method, path, body=body, params=params, content_type=content_type)
                except Throttled as error:
                    if tries_left == 0:
                        raise
                    asked = error.retry_after
            # Outside of the slot: others may be let through meanwhile.
            await asyncio.sleep(max(asked, self._rng.uniform(pause / 2, pause)))
            pause *= 2
        raise AssertionError("the last try returns or raises")
