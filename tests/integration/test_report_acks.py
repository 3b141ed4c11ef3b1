"""Reports are settled out of order, by many at once; each is acknowledged once, and the channel lives."""

import asyncio
from collections.abc import Iterator

import aio_pika
import pytest

from distriqueue.broker.acknowledgements import GATHER
from distriqueue.broker.links import LeaderLink
from distriqueue_protocol import names
from localcluster.rabbitmq import Broker
from tests.support.waiting import until

pytestmark = pytest.mark.integration

COUNT = 3 * GATHER


@pytest.fixture(name="broker", scope="module")
def broker_fixture() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


async def test_acknowledgements_of_many_do_not_overtake_single_ones(broker: Broker) -> None:
    link = await LeaderLink.connect(broker.url, name="test")
    tags: list[int] = []
    try:
        await link.bind_inbox(1)
        await link.consume(inbox=lambda _kind, _body: None, reports=lambda _kind, _body, tag: tags.append(tag))
        async with await aio_pika.connect(broker.url) as connection:
            channel = await connection.channel()
            exchange = await channel.get_exchange(names.REPORTS_EXCHANGE, ensure=False)
            for _ in range(COUNT):
                await exchange.publish(aio_pika.Message(b"{}"), routing_key=names.report_queue())
            await until(lambda: len(tags) == COUNT)
            # The first one is slow: so many behind it are acknowledged singly, while the rest is settled.
            behind, first, rest = tuple(tags[1 : 2 * GATHER]), (tags[0],), tuple(tags[2 * GATHER :])
            await asyncio.gather(*(link.ack_reports(group) for group in (behind, first, rest)))
            # A question on the same channel is answered after all of them; what a close cuts off comes again, rightly.
            assert link._reports is not None
            await link._reports.basic_qos(prefetch_count=1)
            assert not link.lost.is_set()
            await link.close()

            async def empty() -> bool:
                queue = await channel.declare_queue(names.report_queue(), passive=True)
                return queue.declaration_result.message_count == 0

            await until(empty)  # the broker's counts come late
        assert link.lost_reason == ""
    finally:
        await link.close()
