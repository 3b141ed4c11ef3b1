"""How the resources are called: group, version, kinds, plurals; `kube.resources` makes paths of them.

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

LEASE_KIND: Final = "Lease"
"""Kubernetes' own kind: what leaders take, and what Events are about that regard a whole shard."""
