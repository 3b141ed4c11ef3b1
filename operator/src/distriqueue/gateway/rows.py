"""A job as a replica remembers it: the few facts that questions ask for, and the resource as compact JSON.

Guarantees: a row never changes; a later version of the job is another row. `Row.raw` gives back all of the resource
that anybody reads: left out are managedFields, the last-applied annotation (a second copy of the payload) and the
checkpoint, which only workers get, by their tickets; and a payload or result that is nested deeper than any reader of
the answer would go. Parsed resources are not kept: a payload may have 64 KiB.

Measured with 20,000 finished jobs of a small payload (Python 3.11): 1.9 kB of memory for each, of which the JSON is
1.3 kB, and the row with its place in all indexes 0.6 kB. A payload or result adds its own size.
"""

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import orjson

from distriqueue.api import limits
from distriqueue.api.names import API_VERSION, JOB_KIND
from distriqueue.api.phases import JobPhase
from distriqueue.api.raw import RawJob
from distriqueue.core import times
from distriqueue_protocol.payloads import LEVELS_MOST, is_too_deep

_LOG: Final = logging.getLogger(__name__)

LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"

_NO_LABELS: Final[dict[str, str]] = {}


def compact(document: Mapping[str, Any]) -> bytes:
    """Return JSON that is to be kept: orjson's own result holds on to 8 KiB however little it says."""
    return bytes(memoryview(orjson.dumps(document)))


def _kept(job: RawJob, resource: dict[str, Any]) -> bytes:
    """Return the resource as JSON that every reader can read: a payload or result that is too deep is taken out."""
    try:
        data = compact(resource)
    except TypeError:
        pass  # too deep even to be written
    else:
        # As many brackets are needed to be as deep; mostly there are fewer, and nobody has to look.
        if data.count(b"{") + data.count(b"[") <= LEVELS_MOST:
            return data
    for part, key in ((resource.get("spec"), "payload"), (resource.get("status"), "result")):
        if part and is_too_deep(part.get(key)):
            del part[key]
            metadata = job["metadata"]
            where = metadata["namespace"], metadata["name"]
            _LOG.warning("job %s/%s: its %s is nested too deeply to be shown", *where, key)
    return compact(resource)


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One version of a job.

    Attributes:
        uid: Of the resource.
        namespace: Of the resource.
        name: Of the resource.
        version: Its resourceVersion.
        created: When it was created; whole seconds since 1970.
        type: `spec.type`.
        pool: `spec.poolName`.
        phase: `status.phase`.
        labels: Its labels.
        started: When its last attempt started; seconds since 1970.
        completed: When it was over.
        data: The resource as JSON.
        slim: Payload, result and attempts are left out, see `slimmed`.
    """

    uid: str
    namespace: str
    name: str
    version: int
    created: int
    type: str
    pool: str
    phase: str
    labels: dict[str, str]
    started: float | None
    completed: float | None
    data: bytes
    slim: bool = False

    @classmethod
    def of(cls, resource: dict[str, Any]) -> "Row":
        """Make a row of a resource, as the API server sent it; what is left out is taken out of it."""
        job = cast("RawJob", resource)
        metadata = job["metadata"]
        spec = job.get("spec") or {}
        status = job.get("status") or {}
        resource.pop("apiVersion", None)
        resource.pop("kind", None)
        resource["metadata"].pop("managedFields", None)
        annotations = metadata.get("annotations")
        if annotations is not None and LAST_APPLIED in annotations:
            del annotations[LAST_APPLIED]
        status.pop("checkpoint", None)
        # Few different words stand in many rows: each is kept once.
        return cls(
            uid=metadata["uid"],
            namespace=sys.intern(metadata["namespace"]),
            name=metadata["name"],
            version=int(metadata["resourceVersion"]),
            created=int(times.created(metadata.get("creationTimestamp")) or 0),
            type=sys.intern(spec.get("type", "")),
            pool=sys.intern(spec.get("poolName", limits.DEFAULT_POOL_NAME)),
            phase=sys.intern(str(status.get("phase", JobPhase.PENDING))),
            labels=metadata.get("labels") or _NO_LABELS,
            started=times.seconds(status.get("startTime")),
            completed=times.seconds(status.get("completionTime")),
            data=_kept(job, resource),
        )

    def raw(self) -> RawJob:
        """Return the resource, parsed anew: the caller's own."""
        resource: dict[str, Any] = orjson.loads(self.data)
        resource["apiVersion"], resource["kind"] = API_VERSION, JOB_KIND
        return cast("RawJob", resource)

    def bare(self) -> RawJob:
        """Return the resource without payload and result, which are most of it."""
        job = self.raw()
        job["spec"].pop("payload", None)
        job.get("status", {}).pop("result", None)
        return job

    @staticmethod
    def pool_of(job: RawJob) -> str:
        """Return the pool of a resource."""
        return job["spec"].get("poolName", limits.DEFAULT_POOL_NAME)

    def slimmed(self) -> "Row":
        """Return the row of a job that is gone, without what may be large: many of them are remembered."""
        resource: dict[str, Any] = orjson.loads(self.data)
        (resource.get("spec") or {}).pop("payload", None)
        status = resource.get("status") or {}
        for key in ("result", "attempts", "error", "progress"):
            status.pop(key, None)
        return replace(self, data=compact(resource), slim=True)
