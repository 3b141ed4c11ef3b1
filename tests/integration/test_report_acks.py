"""Reports are settled out of order, by many at once; each is acknowledged once, and the channel lives."""

import asyncio
import json
from collections.abc import Iterator
from functools import partial

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
            await until(partial(_kept, broker, COUNT))  # the broker's counts come late
            # The first one is slow: so many behind it are acknowledged singly, while the rest is settled.
            behind, first, rest = tuple(tags[1 : 2 * GATHER]), (tags[0],), tuple(tags[2 * GATHER :])
            await asyncio.gather(*(link.ack_reports(group) for group in (behind, first, rest)))
            # Looked at before the channel closes: what a close cuts off comes again, and rightly.
            await until(partial(_kept, broker, 0))
            # A question on the same channel is answered after all of them.
            assert link._reports is not None
            await link._reports.basic_qos(prefetch_count=1)
            assert not link.lost.is_set()
            await link.close()
        assert link.lost_reason == ""
    finally:
        await link.close()


async def _kept(broker: Broker, count: int) -> bool:
    """Tell whether the broker keeps so many reports, the delivered ones that are not acknowledged yet among them."""
    question = ("list_queues", "--quiet", "--formatter=json", "name", "messages")
    queues = json.loads(await asyncio.to_thread(broker.ctl, *question))  # it takes seconds, and connections need beats
    return {"name": names.report_queue(), "messages": count} in queues
