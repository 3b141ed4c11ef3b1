"""The kinds of resource that we talk about with the API server, and where each is served.

Constants and paths only.
"""

from dataclasses import dataclass
from typing import Any, Final

from distriqueue.api import names


@dataclass(frozen=True)
class Resource:
    """A kind of resource, by the words that make its paths.

    Attributes:
        group: API group; empty for the core group.
        version: API version.
        plural: How paths call it.
        kind: How objects call it; needed for writing only.
    """

    group: str
    version: str
    plural: str
    kind: str = ""

    @property
    def api_version(self) -> str:
        """What stands in ``apiVersion`` of an object."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def collection(self, namespace: str | None = None) -> str:
        """Return the path of the objects of a namespace, or of all namespaces."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        return f"{root}/{self.plural}" if namespace is None else f"{root}/namespaces/{namespace}/{self.plural}"

    def path(self, namespace: str, name: str, subresource: str = "") -> str:
        """Return the path of an object, or of a subresource of it such as ``status``."""
        path = f"{self.collection(namespace)}/{name}"
        return f"{path}/{subresource}" if subresource else path


JOBS: Final = Resource(names.GROUP, names.VERSION, names.JOB_PLURAL, names.JOB_KIND)
WORKERS: Final = Resource(names.GROUP, names.VERSION, names.WORKER_PLURAL, names.WORKER_KIND)
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases", names.LEASE_KIND)
CONFIG_MAPS: Final = Resource("", "v1", "configmaps", "ConfigMap")
EVENTS: Final = Resource("events.k8s.io", "v1", "events", "Event")


def version_of(item: dict[str, Any]) -> int:
    """Return an object's resourceVersion. Kubernetes defines them as integers that grow with every write to etcd."""
    return int(item["metadata"]["resourceVersion"])
