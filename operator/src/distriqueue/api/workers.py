"""DistributedWorker: a worker as the cluster sees it, written by the operator from the worker's heartbeats.

It has no spec: a worker says itself what it is. The operator writes on change, never for a heartbeat as such, so a
silent status costs nothing. Deleting the resource harms nobody: a worker that lives gets it again.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from distriqueue.api import limits
from distriqueue.api.fences import WORKER_FENCE_RULES
from distriqueue.api.jobs import PoolName
from distriqueue.api.models import Conditions, Epoch, Int32, Model, ObservedGeneration, Resource, Timestamp
from distriqueue.api.names import API_VERSION, WORKER_KIND
from distriqueue.api.phases import WorkerPhase

Uid = Annotated[str, Field(max_length=limits.UID_LIMIT)]
Name = Annotated[str, Field(max_length=limits.NAME_LIMIT)]
WorkerTypes = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=limits.TYPE_LIMIT)]],
    Field(max_length=limits.WORKER_TYPES_LIMIT, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
]


class WorkerStatus(Model):
    """What the worker is and does."""

    phase: WorkerPhase = WorkerPhase.OFFLINE
    """Online: heartbeats and claims work. Draining: finishes what it holds and claims nothing more. Offline: gone, 15
    seconds after its last heartbeat or at once when its pod has ended."""

    incarnation: Annotated[str, Field(max_length=limits.INCARNATION_LIMIT)] | None = None
    """Which life of the worker this is: from a process start, or from losing its lease, to the next loss."""

    pool_name: PoolName | None = None
    """The pool whose jobs it runs: those with the same spec.poolName."""

    hostname: Name | None = None
    """The host name of its process."""

    pod_name: Name | None = None
    """The pod that it runs in, in the namespace of this resource; absent when it runs in none."""

    pod_uid: Annotated[Uid | None, Field(alias="podUID")] = None
    """The uid of that pod, which tells it from a later pod of the same name."""

    version: Annotated[str, Field(max_length=limits.VERSION_LIMIT)] | None = None
    """The version of the worker program."""

    concurrency: Annotated[Int32, Field(ge=0, le=limits.CONCURRENCY_LIMIT)] | None = None
    """How many attempts it runs at the same time: its slots."""

    running: Annotated[Int32, Field(ge=0, le=limits.CONCURRENCY_LIMIT)] | None = None
    """How many of its slots are in use. Coalesced: it may be some seconds old."""

    types: WorkerTypes | None = None
    """The job types that it has handlers for; '*' is the handler for all others. At most 256."""

    start_time: Timestamp | None = None
    """When its process started, by its own clock."""

    last_heartbeat_time: Timestamp | None = None
    """When the last heartbeat had come in at the time of this write. Heartbeats come every 5 seconds, but this is
    written only along with a change, so an old value says nothing about an Online worker."""

    epoch: Epoch | None = None
    """The epoch of the leader that wrote this status. Never falls."""

    observed_generation: ObservedGeneration | None = None
    """The metadata.generation that this status was decided on."""

    conditions: Conditions | None = None
    """Ready: the worker heartbeats and claims work."""


class DistributedWorker(Resource):
    """A worker: a process that runs jobs. The operator makes and writes this resource; there is nothing to fill in."""

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-validations": [{**rule} for rule in WORKER_FENCE_RULES]})

    api_version: Literal["distriqueue.io/v1alpha1"] = API_VERSION
    kind: Literal["DistributedWorker"] = WORKER_KIND
    status: WorkerStatus = WorkerStatus()
    """What the worker is and does: phase, pool, load, types. Written by the operator from the worker's heartbeats."""
