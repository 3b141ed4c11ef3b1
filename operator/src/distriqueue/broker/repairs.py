"""Quorum queues that exist and answer nobody: found out, deleted, and left to be declared again.

RabbitMQ saves the names of its Raft servers after half a second without access. A broker that is killed before has a
queue without a leader: it can be declared and published to, and nothing is ever confirmed or delivered. The broker's
own tools do not heal it.

Guarantees: a queue is deleted only when it did not take a consumer in time while another quorum queue, made for the
purpose, took and confirmed a message: neither a slow disk nor a frozen or blocked broker costs a queue. What lay in a
queue that is deleted is gone; the resources and the workers have it all (docs/architecture.md).

Fails with `BrokerUnreachableError` when the broker does not answer.
"""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator, Iterable
from typing import Final

import aio_pika
import aiormq
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage
from yarl import URL

from distriqueue.broker.errors import BrokerUnreachableError

_LOG: Final = logging.getLogger(__name__)

CONNECT_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 5.0
"""A queue that did not take a consumer by then, after 10 s of silence before, is held against one that works."""
PROBE_SECONDS: Final = 10.0
DELETE_SECONDS: Final = 30.0
"""To delete a queue without a leader takes RabbitMQ 5 s."""
CLOSE_SECONDS: Final = 2.0
PROBE_EXPIRES_MILLISECONDS: Final = 60_000
HEARTBEAT_SECONDS: Final = 5


async def delete_lost(url: str, queues: Iterable[str], *, name: str) -> list[str]:
    """Delete those of the queues that are lost.

    Args:
        url: Of the broker.
        queues: Whose silence made somebody ask.
        name: What the broker's own tools show for the connections.

    Returns:
        The names of the queues that were deleted: declare them again.

    Raises:
        BrokerUnreachableError: The broker does not answer, or does not serve any quorum queue.
    """
    try:
        async with _connected(url, name) as asking:
            wanted = list(queues)
            silent = await asyncio.gather(*(_is_silent(asking, queue) for queue in wanted))
            suspects = [queue for queue, quiet in zip(wanted, silent, strict=True) if quiet]
            if not suspects:
                return []
            # A connection of its own: a consumer that waits for a queue takes its connection along when that one goes.
            async with _connected(url, name) as deleting:
                await _prove_that_others_serve(deleting)
                channel = await deleting.channel(publisher_confirms=False)
                for queue in suspects:
                    _LOG.error("queue %s takes neither consumers nor messages: deleted, to be declared again", queue)
                    async with asyncio.timeout(DELETE_SECONDS):
                        await channel.queue_delete(queue)
                return suspects
    except (OSError, aiormq.exceptions.AMQPError, TimeoutError) as error:
        raise BrokerUnreachableError(f"RabbitMQ does not answer: {type(error).__name__}: {error}") from error


@contextlib.asynccontextmanager
async def _connected(url: str, name: str) -> AsyncIterator[AbstractConnection]:
    async with asyncio.timeout(CONNECT_SECONDS):
        connection = await aio_pika.connect(
            str(URL(url).update_query(heartbeat=HEARTBEAT_SECONDS)),
            client_properties={"connection_name": f"{name} repairing"},
        )
    try:
        yield connection
    finally:
        with contextlib.suppress(OSError, aiormq.exceptions.AMQPError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await connection.close()


async def _is_silent(connection: AbstractConnection, queue: str) -> bool:
    """Whether a queue takes no consumer. What is delivered meanwhile goes back when the connection closes."""

    async def leave(_message: AbstractIncomingMessage) -> None:
        return

    channel = await connection.channel(publisher_confirms=False)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await channel.set_qos(prefetch_count=1)
            # Behind all others: it wants to know, not to have.
            found = await channel.get_queue(queue, ensure=False)
            await found.consume(leave, arguments={"x-priority": -1})
    except TimeoutError:
        return True
    except aio_pika.exceptions.ChannelNotFoundEntity:
        return False  # nothing to delete; whoever asks declares it
    return False


async def _prove_that_others_serve(connection: AbstractConnection) -> None:
    async with asyncio.timeout(PROBE_SECONDS):
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        probe = await channel.declare_queue(
            f"probe.{uuid.uuid4()}",
            durable=True,
            arguments={"x-queue-type": "quorum", "x-expires": PROBE_EXPIRES_MILLISECONDS},
        )
        message = aio_pika.Message(b"", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, routing_key=probe.name, mandatory=True)
        await probe.delete(if_unused=False, if_empty=False)
