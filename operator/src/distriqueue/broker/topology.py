"""Exchanges and queues: the leader declares all of them, workers only look.

Guarantees: every call may be repeated. Tickets and reports lie in quorum queues, so a confirm means that they are on
disk. What goes against RabbitMQ's defaults is explained beside it; the facts were measured
(docs/decisions/0004-broker.md).
"""

from typing import Final

from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel, AbstractQueue

from distriqueue_protocol import names
from distriqueue_protocol.names import Priority

TICKET_DELIVERY_LIMIT: Final = 1000
"""How often a ticket may be handed back before it goes to the dead letters. RabbitMQ 4.0 counts a hand-back as a failed
delivery and drops a message after 20; a ticket that waits behind long jobs is handed back often, and rightly."""
DEAD_LENGTH: Final = 10_000
"""Most dead tickets that are kept; the oldest go first. They are copies: the job is in its resource."""


async def declare_shared(channel: AbstractChannel, *, shard: int = names.DEFAULT_SHARD) -> AbstractQueue:
    """Declare what all pools share.

    Returns:
        The report queue.
    """
    await channel.declare_exchange(names.TICKETS_EXCHANGE, ExchangeType.TOPIC, durable=True)
    await channel.declare_exchange(names.SESSIONS_EXCHANGE, ExchangeType.TOPIC, durable=True)
    await channel.declare_exchange(names.ANSWERS_EXCHANGE, ExchangeType.DIRECT, durable=True)
    await channel.declare_exchange(names.EPOCHS_EXCHANGE, ExchangeType.FANOUT, durable=True)
    reports_exchange = await channel.declare_exchange(names.REPORTS_EXCHANGE, ExchangeType.DIRECT, durable=True)
    dead_exchange = await channel.declare_exchange(names.DEAD_EXCHANGE, ExchangeType.FANOUT, durable=True)
    dead = await channel.declare_queue(
        names.DEAD_QUEUE, durable=True, arguments={"x-queue-type": "quorum", "x-max-length": DEAD_LENGTH}
    )
    await dead.bind(dead_exchange)
    name = names.report_queue(shard=shard)
    reports = await channel.declare_queue(
        name,
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            # Only the leader's consumer is active, and what a dead one had not acknowledged comes first to the next.
            "x-single-active-consumer": True,
            # No limit: any number of leaders may crash over a report, and it is still the only word of its worker.
            "x-delivery-limit": -1,
        },
    )
    await reports.bind(reports_exchange, routing_key=name)
    return reports


async def declare_pool(channel: AbstractChannel, pool: str, *, shard: int = names.DEFAULT_SHARD) -> None:
    """Declare the ticket queues of a pool.

    One for each priority: the priorities of quorum queues differ between RabbitMQ's versions, and tickets in a queue of
    their own can be overtaken.
    """
    tickets = await channel.declare_exchange(names.TICKETS_EXCHANGE, ExchangeType.TOPIC, durable=True)
    for priority in Priority:
        name = names.ticket_queue(pool, priority, shard=shard)
        queue = await channel.declare_queue(
            name,
            durable=True,
            arguments={
                "x-queue-type": "quorum",
                "x-delivery-limit": TICKET_DELIVERY_LIMIT,
                "x-dead-letter-exchange": names.DEAD_EXCHANGE,
            },
        )
        await queue.bind(tickets, routing_key=name)


async def declare_inbox(channel: AbstractChannel, epoch: int, *, shard: int = names.DEFAULT_SHARD) -> AbstractQueue:
    """Declare and bind the inbox of an epoch: exclusive to this connection, so it goes when the leader goes."""
    sessions = await channel.declare_exchange(names.SESSIONS_EXCHANGE, ExchangeType.TOPIC, durable=True)
    inbox = await channel.declare_queue(names.inbox_queue(epoch, shard=shard), exclusive=True, auto_delete=True)
    await inbox.bind(sessions, routing_key=names.sessions_key(shard=shard))
    return inbox
