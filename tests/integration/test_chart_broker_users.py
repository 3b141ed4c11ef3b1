"""The users that the chart gives RabbitMQ, tried on a real one: what each may do there, and what not.

The gateway is a worker to the broker: it speaks for those who work by HTTP.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aiormq.exceptions import ChannelAccessRefused, ProbableAuthenticationError

from distriqueue.broker.topology import declare_inbox, declare_pool, declare_shared
from distriqueue_protocol import names
from distriqueue_protocol.names import Priority
from localcluster.rabbitmq import Broker
from tests.integration.chart_rendering import secret_texts, template

pytestmark = pytest.mark.integration

EPOCH = 7


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return secret_texts(template().one("Secret"))


@pytest.fixture(scope="module")
def broker(texts: dict[str, str]) -> Iterator[Broker]:
    with Broker() as made:
        (made.directory / "definitions.json").write_text(texts["definitions.json"])
        made.ctl("import_definitions", "/instance/definitions.json")
        yield made


@asynccontextmanager
async def _channel(broker: Broker, texts: dict[str, str], user: str) -> AsyncIterator[AbstractChannel]:
    url = f"amqp://{user}:{texts[f'{user}-password']}@127.0.0.1:{broker.port}/?heartbeat=5"
    connection = await aio_pika.connect(url)
    async with connection:
        yield await connection.channel()


@pytest.fixture
async def leader(broker: Broker, texts: dict[str, str]) -> AsyncIterator[AbstractChannel]:
    async with _channel(broker, texts, "operator") as channel:
        await declare_shared(channel)
        await declare_pool(channel, names.DEFAULT_POOL)
        await declare_inbox(channel, EPOCH)
        yield channel


TICKETS = names.ticket_queue(names.DEFAULT_POOL, Priority.HIGH)


async def _ignore(_message: AbstractIncomingMessage) -> None:
    """Leave a message unacknowledged."""


async def _own_queue(channel: AbstractChannel) -> None:
    queue = await channel.declare_queue(names.worker_queue("w-1", 1), exclusive=True, auto_delete=True)
    await queue.bind(names.EPOCHS_EXCHANGE)
    await queue.bind(names.ANSWERS_EXCHANGE, "w-1")


async def _take_tickets(channel: AbstractChannel) -> None:
    queue = await channel.declare_queue(TICKETS, passive=True)
    await queue.consume(_ignore)


async def _publish(channel: AbstractChannel, exchange: str, key: str) -> None:
    target = await channel.get_exchange(exchange, ensure=False) if exchange else channel.default_exchange
    await target.publish(aio_pika.Message(b"x"), key)


Step = Callable[[AbstractChannel], Awaitable[None]]


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(_own_queue, id="declare its own queue and bind it"),
        pytest.param(_take_tickets, id="take tickets"),
        pytest.param(lambda c: _publish(c, names.SESSIONS_EXCHANGE, names.sessions_key()), id="send sessions"),
        pytest.param(lambda c: _publish(c, names.REPORTS_EXCHANGE, names.report_queue()), id="report"),
    ],
)
@pytest.mark.parametrize("user", ["worker", "gateway"])
async def test_a_worker_may(
    leader: AbstractChannel, broker: Broker, texts: dict[str, str], step: Step, user: str
) -> None:
    assert not leader.is_closed
    async with _channel(broker, texts, user) as channel:
        await step(channel)


async def _declare_tickets(channel: AbstractChannel) -> None:
    await channel.declare_queue("job.mine.high", durable=True, arguments={"x-queue-type": "quorum"})


async def _read_reports(channel: AbstractChannel) -> None:
    queue = await channel.get_queue(names.report_queue(), ensure=False)
    await queue.consume(_ignore)


async def _listen_to_other_sessions(channel: AbstractChannel) -> None:
    queue = await channel.declare_queue(names.worker_queue("w-1", 2), exclusive=True)
    await queue.bind(names.SESSIONS_EXCHANGE, "#")


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(_declare_tickets, id="declare a ticket queue"),
        pytest.param(_read_reports, id="read reports"),
        pytest.param(_listen_to_other_sessions, id="listen to other sessions"),
        pytest.param(lambda c: _publish(c, names.TICKETS_EXCHANGE, TICKETS), id="make tickets"),
        pytest.param(lambda c: _publish(c, names.ANSWERS_EXCHANGE, "w-2"), id="grant claims"),
        pytest.param(lambda c: _publish(c, names.EPOCHS_EXCHANGE, ""), id="call itself leader"),
        pytest.param(lambda c: _publish(c, "", names.report_queue()), id="go round the exchanges"),
        pytest.param(lambda c: c.queue_delete(TICKETS), id="delete a queue"),
    ],
)
@pytest.mark.parametrize("user", ["worker", "gateway"])
async def test_a_worker_may_not(
    leader: AbstractChannel, broker: Broker, texts: dict[str, str], step: Step, user: str
) -> None:
    assert not leader.is_closed
    async with _channel(broker, texts, user) as channel:
        with pytest.raises(ChannelAccessRefused):
            await step(channel)


async def test_a_wrong_password_is_refused(broker: Broker, texts: dict[str, str]) -> None:
    swapped = {**texts, "worker-password": texts["operator-password"]}
    with pytest.raises(ProbableAuthenticationError):
        async with _channel(broker, swapped, "worker"):
            pass
