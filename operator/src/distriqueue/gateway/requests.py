"""The jobs at the API server: each request of the services, with the gateway's own account.

Guarantees: at most so many writes are under way at a time, and further ones wait. A write that the API server was too
busy to look at (429) is sent again, after the pause that it asks for. A create and a patch whose answer was lost are
sent again as they are, which makes nothing twice: the create has a name, the patch a resourceVersion. What the first
one did is then found and returned.

Fails with the errors of `kube.errors`, and with the problem `Unsettled` where it stays unknown whether it was done.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

import orjson

from distriqueue.core import times
from distriqueue.gateway.problems import Unsettled
from distriqueue.gateway.views import REQUEST_HASH
from distriqueue.kube.client import MERGE_PATCH, KubeClient
from distriqueue.kube.errors import KubeError, NotFound, Throttled, Unanswered, Unreachable
from distriqueue.kube.resources import JOBS

WRITES: Final = 32
"""Writes under way at a time: what an API server takes before it only gets slower."""

TRIES: Final = 6
"""How often a write is sent that the API server was too busy to look at."""

_PAUSE_SECONDS: Final = 0.1

REPEATS_SECONDS: Final = (0.2, 1.0)
"""The pauses before a write is sent again whose answer was lost."""

_SKEW_SECONDS: Final = 30.0
"""A job that is older than the request by more is not of it, however the clocks of two machines differ."""


class JobRequests:
    """See the module."""

    def __init__(
        self,
        client: KubeClient,
        *,
        writes: int = WRITES,
        rng: random.Random | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Prepare.

        Args:
            client: Has at least as many connections as writes.
            writes: Most writes under way at a time.
            rng: Draws pauses.
            wall: The wall clock, in seconds.
        """
        self._client = client
        self._slots = asyncio.Semaphore(writes)
        self._rng = rng or random.Random()  # noqa: S311  # no secret: it spreads load
        self._wall = wall

    async def read(self, namespace: str, name: str) -> dict[str, Any]:
        """Return a job as etcd has it now."""
        return await self._client.request("GET", JOBS.path(namespace, name))

    async def create(self, namespace: str, body: bytes, *, dry_run: bool = False) -> dict[str, Any]:
        """Create a job, and return it with all that the API server has filled in.

        Raises:
            Unsettled: It may have been made, and a repeated request of the caller would make another one.
            KubeError: It was refused, or (with the hash of its request) may simply be repeated.
        """
        path = JOBS.collection(namespace)
        if dry_run:
            return await self._write("POST", path, body, params={"dryRun": "All"})
        begun = self._wall()
        send = partial(self._write, "POST", path, body)
        try:
            return await send()
        except Unreachable:
            raise
        except Unanswered as error:
            lost = error
        asked = orjson.loads(body)
        name = asked["metadata"]["name"]

        def ours(found: Mapping[str, Any]) -> bool:
            return _holds(found, asked) and _age_of(found, begun) <= _SKEW_SECONDS

        if (made := await self._sent_again(send, namespace, name, ours=ours)) is not None:
            return made
        if REQUEST_HASH in asked["metadata"]["annotations"]:
            raise lost
        raise Unsettled(
            "the Kubernetes API server did not answer, and whether the job was made is not known: look with GET "
            f"/api/jobs/{namespace}/{name} and submit it again only if it is not there (with an Idempotency-Key a "
            "submission may simply be repeated)"
        ) from lost

    async def patch(self, namespace: str, name: str, body: bytes) -> dict[str, Any]:
        """Merge into a job, and return it as it is then.

        Args:
            namespace: Of the job.
            name: Of the job.
            body: The patch; it names a resourceVersion, so that it lands once.

        Raises:
            Unsettled: It may have been done.
            KubeError: It was not done.
        """
        send = partial(self._write, "PATCH", JOBS.path(namespace, name), body, content_type=MERGE_PATCH)
        try:
            return await send()
        except Unreachable:
            raise
        except Unanswered as error:
            lost = error
        asked = orjson.loads(body)

        def ours(found: Mapping[str, Any]) -> bool:
            # Or somebody's who wanted the same, which is as good.
            return found["metadata"]["uid"] == asked["metadata"]["uid"] and _holds(found["spec"], asked["spec"])

        if (changed := await self._sent_again(send, namespace, name, ours=ours)) is not None:
            return changed
        raise Unsettled(
            "the Kubernetes API server did not answer, and whether the change was made is not known: look with GET "
            f"/api/jobs/{namespace}/{name} before you ask for it again"
        ) from lost

    async def delete(self, namespace: str, name: str, body: bytes) -> None:
        """Delete a job."""
        await self._write("DELETE", JOBS.path(namespace, name), body)

    async def _sent_again(
        self,
        send: Callable[[], Awaitable[dict[str, Any]]],
        namespace: str,
        name: str,
        *,
        ours: Callable[[Mapping[str, Any]], bool],
    ) -> dict[str, Any] | None:
        """Send what may have been done already; returns the job as it is then, or None when that stays unknown."""
        for pause in REPEATS_SECONDS:
            await asyncio.sleep(self._rng.uniform(pause / 2, pause))
            try:
                return await send()
            except (Unanswered, Throttled):
                continue
            except KubeError as error:
                # The name is taken, the version is another one, a quota is used up: by the first try, perhaps.
                try:
                    found = await self.read(namespace, name)
                except NotFound:
                    raise error from None
                except KubeError:
                    continue
                if ours(found):
                    return found
                raise
        return None

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


def _holds(found: Any, asked: Any) -> bool:
    """Say whether all that was asked for is there; the API server adds to it."""
    if isinstance(asked, dict) and isinstance(found, dict):
        return all(key in found and _holds(found[key], value) for key, value in asked.items())
    return bool(found == asked)


def _age_of(job: Mapping[str, Any], moment: float) -> float:
    """Return how old a job was at a moment, in seconds."""
    return moment - (times.seconds(job["metadata"].get("creationTimestamp")) or moment)
