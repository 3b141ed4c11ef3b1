"""Names on the broker: exchanges, queues, routing keys and message types, each in one place.

Guarantees: leader and workers of every language meet under the same names. A name here is part of the wire protocol:
changing one is a protocol change. Broker facts behind the arguments are in docs/decisions.
"""

from enum import StrEnum
from typing import Final

PROTOCOL_VERSION: Final = 1
"""Version of the messages; a worker and a leader of different versions refuse each other's messages by `type`."""

TICKETS_EXCHANGE: Final = "jobs.exchange"
"""Topic exchange for tickets; the routing key is the name of the queue (`job.<pool>.<priority>`)."""
SESSIONS_EXCHANGE: Final = "sessions.exchange"
"""Topic exchange to which workers publish heartbeats and claims, routing key `sessions.<shard>`."""
ANSWERS_EXCHANGE: Final = "answers.exchange"
"""Direct exchange from the leader to one worker; the routing key is the worker's incarnation."""
EPOCHS_EXCHANGE: Final = "epochs.exchange"
"""Fanout exchange on which the leader repeats `epoch E leads`."""
REPORTS_EXCHANGE: Final = "reports.exchange"
"""Direct exchange for reports; the routing key is the name of the shard's report queue."""
DEAD_EXCHANGE: Final = "dead.exchange"
"""Fanout exchange that takes tickets nobody could read."""
DEAD_QUEUE: Final = "dead.tickets"
"""Where rejected tickets end; kept for a person to look at, bounded in length."""

PAYLOAD_LIMIT_BYTES: Final = 64 * 1024
"""Most bytes of a payload, as JSON text without spaces."""

DEFAULT_POOL: Final = "default"
DEFAULT_SHARD: Final = 0
EPOCH_REPEAT_SECONDS: Final = 4.0
"""How often the leader says that it leads."""
HEARTBEAT_SECONDS: Final = 5.0
"""How often a worker sends its full state."""
LEADER_SILENCE_SECONDS: Final = 12.0
"""A worker that heard no leader for so long closes its open claims and hands back their tickets."""
WORKER_FENCE_SECONDS: Final = 12.0
"""Since it *sent* the last confirmed heartbeat: the worker begins to stop its handlers."""
WORKER_DEAD_SECONDS: Final = 14.0
"""Since it *sent* the last confirmed heartbeat: no handler of that incarnation is alive any more."""
WORKER_LOST_SECONDS: Final = 15.0
"""Since the leader *received* the last message: the leader may begin to prove the incarnation lost."""


class Priority(StrEnum):
    """The three classes of priority, highest first: the order of iteration is the order of service."""

    HIGH = "High"
    MEDIUM = "Medium"
    LOW = "Low"


class MessageType(StrEnum):
    """The AMQP `type` property of every message: tells the reader which model the body is."""

    TICKET = "distriqueue.ticket.v1"
    SESSION = "distriqueue.session.v1"
    ANSWER = "distriqueue.answer.v1"
    EPOCH = "distriqueue.epoch.v1"
    REPORT = "distriqueue.report.v1"
    MARKER = "distriqueue.marker.v1"


def _sharded(name: str, shard: int) -> str:
    return name if shard == DEFAULT_SHARD else f"{shard}.{name}"


def ticket_queue(pool: str, priority: Priority, *, shard: int = DEFAULT_SHARD) -> str:
    """The quorum queue that holds the tickets of one pool and priority, `job.default.high` for example."""
    return _sharded(f"job.{pool}.{priority.lower()}", shard)


def report_queue(*, shard: int = DEFAULT_SHARD) -> str:
    """The quorum queue with a single active consumer to which workers report."""
    return _sharded("reports", shard)


def sessions_key(*, shard: int = DEFAULT_SHARD) -> str:
    """The routing key of heartbeats and claims for the leader of a shard."""
    return f"sessions.{shard}"


def inbox_queue(epoch: int, *, shard: int = DEFAULT_SHARD) -> str:
    """The leader's own inbox: one name per epoch, so that a frozen leader swallows nothing of the next one's."""
    return _sharded(f"inbox.{epoch}", shard)


def worker_queue(incarnation: str, connection: int) -> str:
    """The exclusive queue of one worker connection; numbered, since a dead connection may still hold the last one."""
    return f"worker.{incarnation}.{connection}"


WORKER_QUEUE_PATTERN: Final = r"^worker\..*"
"""What a worker may declare, as a RabbitMQ permission pattern."""
