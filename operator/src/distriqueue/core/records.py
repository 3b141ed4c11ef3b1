"""The DistributedWorker resources: what is written of each worker, and when.

Guarantees: a worker's incarnation is in its resource before anything is granted to it; the resource is written on
change, at most once in `INTERVAL_SECONDS` for a mere change of load, one write at a time; an Offline one goes after 10
minutes. The name of a resource belongs to one incarnation at a time until that one's loss is proven, so that nobody
who may hold something is forgotten.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from distriqueue.api.conditions import WorkerCondition, WorkerReason
from distriqueue.api.jobs import POOL_NAME_PATTERN
from distriqueue.api.limits import NAME_LIMIT, POOL_NAME_LIMIT, TYPE_LIMIT, WORKER_TYPES_LIMIT
from distriqueue.api.phases import WorkerPhase
from distriqueue.api.raw import RawWorker, RawWorkerStatus
from distriqueue.core.commands import DeleteWorker, WriteWorker
from distriqueue.core.roster import Session
from distriqueue.core.times import Now, checked, microtime, whole_seconds

INTERVAL_SECONDS: Final = 5.0
KEEP_OFFLINE_SECONDS: Final = 600.0
RETRY_SECONDS: Final = 1.0
PATIENCE_SECONDS: Final = 20.0
"""How long a worker waits for the name of another in its pod: the other is lost by then, if it is."""
_NOT_A_NAME = re.compile(r"[^a-z0-9.-]+")
_POOL_NAME = re.compile(POOL_NAME_PATTERN)
_REASONS = {
    "HeartbeatMissed": (WorkerReason.HEARTBEAT_MISSED, "nothing was heard of it for 15 s"),
    "PodGone": (WorkerReason.POD_GONE, "the kubelet says that its containers have ended"),
    "Replaced": (WorkerReason.HEARTBEAT_MISSED, "its process lost its lease, or was replaced in its pod"),
    "Left": (WorkerReason.STOPPED, "it stopped cleanly"),
}


def resource_name(worker: str) -> str:
    """The name of a resource for a worker: its own name, made a DNS subdomain."""
    labels = (label.strip("-") for label in _NOT_A_NAME.sub("-", worker.lower())[:NAME_LIMIT].split("."))
    return ".".join(label for label in labels if label) or "worker"


def is_pool_name(pool: str) -> bool:
    """Whether jobs can name this pool. Another must not become the name of a queue, where `*` means everybody's."""
    return len(pool) <= POOL_NAME_LIMIT and _POOL_NAME.fullmatch(pool) is not None


@dataclass(slots=True, eq=False)
class Record:
    """One DistributedWorker.

    Attributes:
        incarnation: Whom it names.
        status: What should stand in it.
        signature: What of it counts as a change worth a write at once.
        written: The status last written; None before the first write.
        writing: What is being written.
        not_before: No write before this moment (monotonic).
        offline_at: Since when it is Offline (monotonic).
        settled: A status that was found to need no write, so that it is not compared again.
        vanished: It was deleted while a write was under way: nobody knows which came first.
    """

    name: str
    incarnation: str
    status: RawWorkerStatus
    written: RawWorkerStatus | None = None
    writing: RawWorkerStatus | None = None
    not_before: float = 0.0
    offline_at: float | None = None
    settled: RawWorkerStatus | None = None
    vanished: bool = False

    def urgent(self) -> bool:
        """Whether more than the load has changed."""
        last = self.written
        keys = ("phase", "incarnation", "poolName", "concurrency", "version")
        return last is None or any(last.get(key) != self.status.get(key) for key in keys)


class Records:
    """All DistributedWorker resources of this leader."""

    def __init__(self, *, epoch: int) -> None:
        self._epoch = epoch
        self._records: dict[str, Record] = {}

    def __iter__(self) -> Iterator[Record]:
        """All of them."""
        return iter(self._records.values())

    def adopt(self, resource: RawWorker, *, now: Now) -> Record | None:
        """Take over a resource at the takeover; None when it names nobody."""
        name, status = resource["metadata"]["name"], resource.get("status", {})
        incarnation = status.get("incarnation", "")
        record = Record(name=name, incarnation=incarnation, status=status, written=status)
        self._records[name] = record
        if not incarnation or status.get("phase") == WorkerPhase.OFFLINE:
            record.offline_at = now.mono
            return None
        return record

    def introduce(self, session: Session, *, mono: float) -> bool:
        """Find the resource for a session.

        Returns:
            False while its name belongs to another incarnation of the same process or pod, which is probably over. One
            that is still there after `PATIENCE_SECONDS` is a worker beside it, and this one gets a name of its own.
        """
        registration = session.registration
        if registration is None:
            return False
        name = resource_name(registration.worker)
        record = self._records.get(name)
        if record is not None and record.offline_at is None and record.incarnation != session.incarnation:
            known = record.status.get("podUID", "")
            replaced = registration.supersedes == record.incarnation
            same_pod = bool(known) and known == registration.pod_uid and mono - session.since < PATIENCE_SECONDS
            if replaced or same_pod:
                return False
            name = resource_name(f"{registration.worker[:180]}-{session.incarnation}")
            record = self._records.get(name)
        if record is None:
            record = Record(name=name, incarnation=session.incarnation, status={})
            self._records[name] = record
        elif record.incarnation != session.incarnation:
            record.written = record.settled = None
        record.incarnation = session.incarnation
        record.offline_at = None
        session.record = name
        return True

    def update(self, session: Session, *, now: Now) -> None:
        """Bring the status up to a session's state."""
        record = self._records.get(session.record)
        registration = session.registration
        if record is None or registration is None or session.ended or record.incarnation != session.incarnation:
            return
        phase = WorkerPhase.DRAINING if session.draining else WorkerPhase.ONLINE
        status: RawWorkerStatus = {
            "phase": phase.value,
            "incarnation": session.incarnation,
            "poolName": registration.pool,
            "version": registration.version,
            "concurrency": registration.concurrency,
            "running": min(len(session.slots), registration.concurrency),
            "types": [name for name in registration.types if len(name) <= TYPE_LIMIT][:WORKER_TYPES_LIMIT],
            "epoch": self._epoch,
        }
        if checked(registration.start_time):
            status["startTime"] = registration.start_time
        if registration.hostname:
            status["hostname"] = registration.hostname
        if registration.pod_name:
            status["podName"] = registration.pod_name
        if registration.pod_uid:
            status["podUID"] = registration.pod_uid
        reason = WorkerReason.DRAINING if session.draining else WorkerReason.HEARTBEATING
        _set_ready(status, record.status, ready=not session.draining, reason=reason, message="", now=now)
        status["lastHeartbeatTime"] = microtime(now.wall)
        record.status = status

    def offline(self, session: Session, *, reason: str, now: Now) -> None:
        """A session is over: its resource says so."""
        record = self._records.get(session.record)
        if record is None or record.incarnation != session.incarnation:
            return
        status: RawWorkerStatus = {**record.status, "phase": WorkerPhase.OFFLINE.value, "running": 0}
        status["epoch"] = self._epoch
        why, message = _REASONS[reason]
        _set_ready(status, record.status, ready=False, reason=why, message=message, now=now)
        record.status = status
        record.offline_at = now.mono

    def writes(self, *, mono: float) -> Iterator[WriteWorker | DeleteWorker]:
        """The writes and deletions that are due."""
        gone: list[str] = []
        for record in self._records.values():
            quiet = record.status is record.settled and record.offline_at is None
            if quiet or record.writing is not None or mono < record.not_before:
                continue
            if record.offline_at is not None and mono - record.offline_at >= KEEP_OFFLINE_SECONDS:
                gone.append(record.name)
                yield DeleteWorker(record.name)
            elif not _differs(record):
                record.settled = record.status
            elif record.urgent() or mono >= record.not_before + INTERVAL_SECONDS:
                record.writing = record.status
                yield WriteWorker(record.name, record.status)
        for name in gone:
            del self._records[name]

    def written(self, name: str, *, mono: float) -> str | None:
        """A write succeeded.

        Returns:
            The incarnation that the resource now names as Online or Draining; None if it does not.
        """
        record = self._records.get(name)
        if record is None or record.writing is None:
            return None
        record.settled = None
        record.written, record.writing = record.writing, None
        record.not_before = mono
        if record.vanished:
            record.vanished = False
            record.written = None
            return None
        online = record.written.get("phase") != WorkerPhase.OFFLINE
        return record.written.get("incarnation") if online else None

    def failed(self, name: str, *, mono: float) -> None:
        """A write failed; it is tried again after a moment."""
        record = self._records.get(name)
        if record is not None:
            record.writing = None
            record.not_before = mono + RETRY_SECONDS
            if record.vanished:
                record.vanished = False
                record.written = record.settled = None

    def vanished(self, name: str) -> str | None:
        """Somebody deleted the resource.

        Returns:
            The incarnation that it named and that has to be written again.
        """
        record = self._records.get(name)
        if record is None:
            return None
        if record.writing is not None:
            record.vanished = True
            return record.incarnation
        record.written = record.settled = None
        if record.offline_at is not None:
            del self._records[name]
            return None
        return record.incarnation


def _differs(record: Record) -> bool:
    last = record.written
    if last is None:
        return bool(record.status)
    quiet = {"lastHeartbeatTime", "epoch", "conditions"}
    return any(last.get(key) != value for key, value in record.status.items() if key not in quiet)


def _set_ready(
    status: RawWorkerStatus, before: RawWorkerStatus, *, ready: bool, reason: WorkerReason, message: str, now: Now
) -> None:
    value = "True" if ready else "False"
    changed = whole_seconds(now.wall)
    for old in before.get("conditions", []):
        if old.get("type") == WorkerCondition.READY and old.get("status") == value:
            changed = old["lastTransitionTime"]
    status["conditions"] = [
        {
            "type": WorkerCondition.READY.value,
            "status": value,
            "reason": reason.value,
            "message": message,
            "lastTransitionTime": changed,
        }
    ]
