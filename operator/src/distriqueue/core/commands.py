"""What the leader wants done: the only way in which `core` touches the world.

Whoever drives it carries the commands out in any order and comes back with events; the comment at each says with which.
"""

from dataclasses import dataclass

from distriqueue.api.events import EventReason
from distriqueue.api.raw import RawJobStatus, RawWorkerStatus
from distriqueue_protocol.messages import LeaderMessage, Ticket
from distriqueue_protocol.names import Priority


@dataclass(frozen=True, slots=True)
class DeclarePool:
    """Declare the queues of a pool; before any ticket for it is published."""

    pool: str


@dataclass(frozen=True, slots=True)
class PublishTicket:
    """Publish a ticket, mandatory and confirmed: answered by `on_ticket_confirmed` or `on_ticket_failed`."""

    uid: str
    number: int
    pool: str
    priority: Priority
    ticket: Ticket


@dataclass(frozen=True, slots=True)
class SendToWorker:
    """Send answers, settlements and orders to one worker; lost ones are made good by its next heartbeat."""

    incarnation: str
    message: LeaderMessage


@dataclass(frozen=True, slots=True)
class CallRoll:
    """Say `epoch E leads` to all workers."""


@dataclass(frozen=True, slots=True)
class SendMarker:
    """Send a marker through the inbox and through the report queue: `on_marker` when it is back from each."""

    id: int


@dataclass(frozen=True, slots=True)
class AckReports:
    """Acknowledge deliveries of the report queue: what they said is written, or refused."""

    tags: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """Write a status: `on_written`, or `on_write_refused` for a 422, or (read again) `on_reread`.

    Attributes:
        settles: It ends an attempt: a worker waits for it, so it goes before those that nobody waits for.
    """

    id: int
    namespace: str
    name: str
    uid: str
    resource_version: int
    status: RawJobStatus
    settles: bool = False


@dataclass(frozen=True, slots=True)
class ResolvePayload:
    """Read the ConfigMap in which the payload of a job stands: `on_payload_read`, once, whatever comes of it.

    Attributes:
        number: Of the read, to be given back.
        name: Of the job, for logs.
        config_map: The name of the ConfigMap, in the job's namespace.
        key: Under which the payload stands.
    """

    number: int
    uid: str
    namespace: str
    name: str
    config_map: str
    key: str


@dataclass(frozen=True, slots=True)
class DeleteJob:
    """Delete a job whose time to live is over, unless it has changed since; the watch says when it is gone."""

    namespace: str
    name: str
    uid: str
    resource_version: str


@dataclass(frozen=True, slots=True)
class WriteWorker:
    """Write a DistributedWorker: `on_worker_written`, or `on_worker_failed`."""

    name: str
    status: RawWorkerStatus


@dataclass(frozen=True, slots=True)
class DeleteWorker:
    """Delete a DistributedWorker that was Offline for long."""

    name: str


@dataclass(frozen=True, slots=True)
class EmitEvent:
    """Tell people, by an Event and a line in the log: best effort, nothing comes back, and it may be dropped.

    Attributes:
        kind: Of what it is about: DistributedJob, DistributedWorker, or the Lease of the shard.
        namespace: Of what it is about; empty for the operator's own.
        name: Of what it is about; empty for the Lease.
        uid: Of what it is about; empty when it is not known here.
        note: A sentence: what was found, and what was done.
    """

    kind: str
    namespace: str
    name: str
    uid: str
    reason: EventReason
    note: str


@dataclass(frozen=True, slots=True)
class StepDown:
    """Lead no longer; take the Lease again only with an epoch above `minimum_epoch`."""

    reason: str
    minimum_epoch: int = 0


BrokerCommand = DeclarePool | PublishTicket | SendToWorker | CallRoll | SendMarker | AckReports
"""What goes to RabbitMQ."""

Command = BrokerCommand | WriteStatus | ResolvePayload | DeleteJob | WriteWorker | DeleteWorker | EmitEvent | StepDown
