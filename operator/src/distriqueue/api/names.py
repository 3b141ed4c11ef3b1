"""How the resources are called: group, version, kinds, plurals, and the paths at which the API server serves them.

Constants only; importing this module imports nothing else.
"""

from typing import Final

GROUP: Final = "distriqueue.io"
"""API group of every resource of the project."""

VERSION: Final = "v1alpha1"
"""The one version that is served and stored."""

API_VERSION: Final = "distriqueue.io/v1alpha1"
"""What stands in `apiVersion`."""

CATEGORY: Final = "distriqueue"
"""``kubectl get distriqueue`` lists the resources of this category."""

JOB_KIND: Final = "DistributedJob"
JOB_PLURAL: Final = "distributedjobs"
JOB_SINGULAR: Final = "distributedjob"
JOB_SHORT_NAMES: Final = ("djob", "djobs")

WORKER_KIND: Final = "DistributedWorker"
WORKER_PLURAL: Final = "distributedworkers"
WORKER_SINGULAR: Final = "distributedworker"
WORKER_SHORT_NAMES: Final = ("dworker", "dworkers")


def collection_path(plural: str, namespace: str | None = None) -> str:
    """Return the path of a collection: of one namespace, or of all when `namespace` is None."""
    if namespace is None:
        return f"/apis/{API_VERSION}/{plural}"
    return f"/apis/{API_VERSION}/namespaces/{namespace}/{plural}"


def object_path(plural: str, namespace: str, name: str, *, subresource: str = "") -> str:
    """Return the path of one object, or of its `subresource` ("status") when one is named."""
    path = f"{collection_path(plural, namespace)}/{name}"
    return f"{path}/{subresource}" if subresource else path
