"""DistributedJobs as the API server sends them, and shelves that a test fills as a watch would."""

import copy
from typing import Any

from distriqueue.gateway.changes import Changes
from distriqueue.gateway.rows import Row
from distriqueue.gateway.shelves import JobShelves
from distriqueue.kube.feeds import FeedEvent, FeedType


def uid_of(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def job(
    number: int, version: int, *, namespace: str = "shop", created: str = "2026-11-23T04:00:00Z", **parts: Any
) -> dict[str, Any]:
    """A resource; `spec`, `status`, `labels`, `annotations` and `name` are laid over the defaults."""
    metadata: dict[str, Any] = {
        "name": parts.get("name", f"job-{number}"),
        "namespace": namespace,
        "uid": uid_of(number),
        "resourceVersion": str(version),
        "generation": 1,
        "creationTimestamp": created,
        "managedFields": [{"manager": "curl"}],
    }
    for key in ("labels", "annotations"):
        if key in parts:
            metadata[key] = parts[key]
    spec = {
        "type": "email",
        "payload": {"to": "ann@example.com"},
        "priority": "Medium",
        "priorityValue": 50,
        "poolName": "default",
        "maxAttempts": 3,
        "backoff": {"initialSeconds": 5, "factorPercent": 200, "maxSeconds": 300, "jitterPercent": 10},
        "timeoutSeconds": 3600,
    }
    return {
        "apiVersion": "distriqueue.io/v1alpha1",
        "kind": "DistributedJob",
        "metadata": metadata,
        "spec": {**spec, **parts.get("spec", {})},
        "status": {"phase": "Pending", **parts.get("status", {})},
    }


def row(number: int, version: int = 1, **parts: Any) -> Row:
    return Row.of(job(number, version, **parts))


class Watched(JobShelves):
    """Shelves, and the words of a watch for them."""

    def __init__(
        self, *namespaces: str, queue: int = 100, readers: int = 10, of_one: int = 5, graves: int = 100
    ) -> None:
        self.now = 0.0
        super().__init__(namespaces, clock=lambda: self.now)
        self.changes = Changes(
            self, queue=queue, readers=readers, readers_of_one=of_one, graves=graves, clock=self.clock
        )
        self.etcd = 10**9

    async def reached(self, scope: str, version: int) -> bool:
        assert scope in self.watches
        return version <= self.etcd

    def show(self, resource: dict[str, Any], *, scope: str = "*", listing: bool = False) -> None:
        version = int(resource["metadata"]["resourceVersion"])
        known = self.get(resource["metadata"]["uid"]) is not None
        kind = FeedType.MODIFIED if known else FeedType.ADDED
        self.deliver(scope, FeedEvent(kind, copy.deepcopy(resource), version), listing=listing)

    def show_deleted(self, number: int, version: int, *, scope: str = "*", listing: bool = False) -> None:
        event = FeedEvent(FeedType.DELETED, {"metadata": {"uid": uid_of(number)}}, version)
        self.deliver(scope, event, listing=listing)

    def show_synced(self, version: int, *, scope: str = "*") -> None:
        self.deliver(scope, FeedEvent(FeedType.SYNCED, {}, version), listing=False)
