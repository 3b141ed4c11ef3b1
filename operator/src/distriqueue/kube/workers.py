"""DistributedWorker resources: made, written and deleted by the leader, in the operator's own namespace.

Guarantees: `put` ends with the resource existing and its status as given, whatever was there before; deleting one
that is gone is fine. They are owned by the Lease, not by a pod: an Offline worker outlives its pod and is still to be
seen, and everything goes when the Lease goes with an uninstall.

Fails with the errors of `errors`; `NotLeading` when the check says no.
"""

from collections.abc import Callable, Mapping
from typing import Any

from distriqueue.kube.client import METADATA_ONLY, KubeClient
from distriqueue.kube.errors import AlreadyExists, Conflict, NotFound
from distriqueue.kube.resources import LEASES, WORKERS
from distriqueue.kube.statuses import StatusWriter

_TRIES = 3


class WorkerResources:
    """The DistributedWorkers of one namespace."""

    def __init__(self, client: KubeClient, *, namespace: str, lease_name: str) -> None:
        """Name the place.

        Args:
            client: Where to send.
            namespace: The operator's own.
            lease_name: The Lease that owns them.
        """
        self._client = client
        self._namespace = namespace
        self._lease_name = lease_name
        self._writer = StatusWriter(client, WORKERS)

    async def list(self) -> list[dict[str, Any]]:
        """Return all of them, as etcd has them now."""
        items: list[dict[str, Any]] = []
        params = {"limit": "500"}
        while True:
            page = await self._client.request("GET", WORKERS.collection(self._namespace), params=params)
            items.extend(page["items"])
            token = page["metadata"].get("continue")
            if not token:
                return items
            params = {"limit": "500", "continue": token}

    async def put(self, name: str, status: Mapping[str, Any], *, check: Callable[[], bool]) -> None:
        """Make the resource exist with this status.

        Args:
            name: Of the resource.
            status: The whole status.
            check: Whether we still lead; asked before each request that changes something.

        Raises:
            NotLeading: The check said no.
            KubeError: Anything else.
        """
        for tries_left in reversed(range(_TRIES)):
            try:
                current = await self._get_or_create(name, check)
                await self._writer.write(
                    self._namespace,
                    name,
                    current["metadata"]["uid"],
                    int(current["metadata"]["resourceVersion"]),
                    status,
                    check=check,
                )
            except (Conflict, NotFound):  # somebody edited or deleted it in between
                if tries_left == 0:
                    raise
            else:
                return

    async def delete(self, name: str, *, check: Callable[[], bool]) -> None:
        """Delete a resource; one that is gone is fine."""
        try:
            await self._client.request("DELETE", WORKERS.path(self._namespace, name), guard=check)
        except NotFound:
            return

    async def _get_or_create(self, name: str, check: Callable[[], bool]) -> dict[str, Any]:
        try:
            return await self._client.request("GET", WORKERS.path(self._namespace, name), accept=METADATA_ONLY)
        except NotFound:
            metadata: dict[str, Any] = {"name": name, "namespace": self._namespace}
            owner = await self._lease()
            if owner is not None:
                metadata["ownerReferences"] = [owner]
            body = {"apiVersion": WORKERS.api_version, "kind": WORKERS.kind, "metadata": metadata}
            try:
                return await self._client.request("POST", WORKERS.collection(self._namespace), body=body, guard=check)
            except AlreadyExists as error:
                raise Conflict(error.message, code=error.code) from error

    async def _lease(self) -> dict[str, Any] | None:
        """The owner reference; read anew for each resource that is made, because Leases may be made anew."""
        try:
            lease = await self._client.request(
                "GET", LEASES.path(self._namespace, self._lease_name), accept=METADATA_ONLY
            )
        except NotFound:
            return None
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "name": self._lease_name,
            "uid": lease["metadata"]["uid"],
        }
