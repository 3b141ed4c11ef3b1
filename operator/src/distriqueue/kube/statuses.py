"""Writing the status of a resource, once for each decision.

Guarantees: a status lands only on the very object (uid) and version that it was decided on, replaces the whole status,
and touches nothing else: the body is the object without its spec, which the status endpoint takes from what is stored
(docs/decisions/0003-status-writes.md shows that it does). The leader's check is asked when the body is about to go out.
A write whose outcome nobody knows is never repeated here.

Fails with the errors of `errors`: `Conflict` (somebody wrote first, or the object is another one of the same name) and
`Unanswered` mean read again, decide again; `Refused` is a CEL fence or the schema; `NotLeading` means that nothing was
sent. `Throttled` is waited for and tried again here, as nothing happened.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

from distriqueue.kube.client import KubeClient
from distriqueue.kube.errors import Throttled
from distriqueue.kube.resources import Resource, version_of

CONCURRENCY: Final = 32
"""Most writes under way at a time: what an API server takes before it only gets slower."""

WRITE_SECONDS: Final = 10.0
"""After so long without an answer a write is `Unanswered`."""

THROTTLED_TRIES: Final = 8
"""How often a write is tried that the API server is too busy to look at."""

_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 5.0


class StatusWriter:
    """Writes statuses of one kind of resource. Give its client a pool of at least `concurrency` connections."""

    def __init__(
        self,
        client: KubeClient,
        resource: Resource,
        *,
        concurrency: int = CONCURRENCY,
        check: Callable[[], bool] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Prepare a writer.

        Args:
            client: Where to send.
            resource: The kind to write; its `kind` must be set.
            concurrency: Most writes under way at a time; further ones wait.
            check: Whether we still lead; asked when a write is about to go out, and again for each try.
            rng: Draws the pauses after 429.
        """
        self._client = client
        self._resource = resource
        self._slots = asyncio.Semaphore(concurrency)
        self._check = check
        self._rng = rng or random.Random()  # noqa: S311  # no secret: it spreads load

    async def write(
        self,
        namespace: str,
        name: str,
        uid: str,
        resource_version: int,
        status: Mapping[str, Any],
        *,
        check: Callable[[], bool] | None = None,
    ) -> int:
        """Replace the status of an object and return the object's new resourceVersion.

        Args:
            namespace: The object's namespace.
            name: The object's name.
            uid: The object's uid: a later object of the same name is left alone.
            resource_version: The version that `status` was decided on.
            status: The whole new status.
            check: Asked in place of the writer's own.

        Raises:
            Conflict: The object has another version or uid by now.
            NotFound: The object is gone.
            Refused: A fence or the schema refuses this status.
            NotLeading: The check said no; nothing was sent.
            Unanswered: Nobody knows whether it was written.
            KubeError: Anything else.
        """
        path = self._resource.path(namespace, name, "status")
        guard = check or self._check
        pause = _FIRST_PAUSE_SECONDS
        for tries_left in reversed(range(THROTTLED_TRIES)):
            async with self._slots:
                body = {
                    "apiVersion": self._resource.api_version,
                    "kind": self._resource.kind,
                    "metadata": {
                        "namespace": namespace,
                        "name": name,
                        "uid": uid,
                        "resourceVersion": str(resource_version),
                    },
                    "status": status,
                }
                try:
                    answer = await self._client.request("PUT", path, body=body, timeout=WRITE_SECONDS, guard=guard)
                except Throttled as error:
                    if tries_left == 0:
                        raise
                    asked = error.retry_after
                else:
                    return version_of(answer)
            # Outside of the slot: others may be let through meanwhile.
            await asyncio.sleep(max(asked, self._rng.uniform(pause / 2, pause)))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        raise AssertionError("the last try returns or raises")

    async def read(self, namespace: str, name: str) -> dict[str, Any]:
        """Return an object as etcd has it now.

        Raises:
            NotFound: It is gone.
            KubeError: Anything else.
        """
        return await self._client.request("GET", self._resource.path(namespace, name), timeout=WRITE_SECONDS)
