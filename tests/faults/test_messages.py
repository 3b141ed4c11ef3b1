"""Messages come twice, late, and as garbage; payloads and results are as large as they may be, and larger."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from distriqueue.api.limits import PAYLOAD_LIMIT_BYTES, RESULT_LIMIT_BYTES
from distriqueue_protocol import names
from distriqueue_protocol.names import MessageType, Priority
from tests.faults.conftest import Run
from tests.faults.drills import Drill, Spec, Trial
from tests.support.jobs import phase
from tests.support.stages import sample

FAMILY = "Messages"
LATE_SECONDS = 4.0
GARBAGE: tuple[bytes, ...] = (
    b"",
    b"garbage",
    b"\x00\xff" * 500,
    b"{",
    b"[]",
    b"null",
    b'{"name": 1}',
    b"[" * 5000 + b"]" * 5000,
    json.dumps({"uid": "x" * 10_000, "grant": [1, -1], "incarnation": "UPPER", "sequence": -1}).encode(),
    b'{"namespace":"a","name":"b","uid":"c","type":"*","attempt":1,"epoch":99999999999999999999999}',
)


@contextlib.asynccontextmanager
async def channel_of(drill: Drill) -> AsyncIterator[AbstractChannel]:
    """A channel of somebody who may do everything in the stage's virtual host."""
    async with await aio_pika.connect(drill.stage.amqp_url) as connection:
        yield await connection.channel(publisher_confirms=False)


@contextlib.asynccontextmanager
async def doubling(drill: Drill, exchange: str, key: str) -> AsyncIterator[list[int]]:
    """Copy all that goes through an exchange: once more at once, and once more some seconds later.

    Copies go to the queues directly, or they would be copied, too.
    """
    copied = [0]
    late: set[asyncio.Task[None]] = set()
    async with channel_of(drill) as channel:
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(exchange, routing_key=key)

        async def again(message: AbstractIncomingMessage, *, after: float) -> None:
            await asyncio.sleep(after)
            target = message.routing_key or ""
            if exchange == names.SESSIONS_EXCHANGE:
                leader = drill.stage.leader()
                if leader is None:
                    return
                target = names.inbox_queue(int(leader.metric("distriqueue_leader_epoch")))
            copy = aio_pika.Message(
                message.body, type=message.type, content_type=message.content_type, delivery_mode=message.delivery_mode
            )
            await channel.default_exchange.publish(copy, routing_key=target)
            copied[0] += 1

        async def on_message(message: AbstractIncomingMessage) -> None:
            for after in (0.0, LATE_SECONDS):
                task = asyncio.create_task(again(message, after=after))
                late.add(task)
                task.add_done_callback(late.discard)

        await queue.consume(on_message, no_ack=True)
        yield copied
        await asyncio.gather(*late, return_exceptions=True)


async def finished(drill: Drill) -> None:
    """Wait until all jobs are over: the fault lasts as long as the load."""
    await drill.jobs.all_ended(drill.names, seconds=200)


@pytest.mark.parametrize(
    ("what", "exchange", "key"),
    [
        ("reports", names.REPORTS_EXCHANGE, names.report_queue()),
        ("sessions", names.SESSIONS_EXCHANGE, "#"),
        ("tickets", names.TICKETS_EXCHANGE, "#"),
    ],
)
async def test_doubled(run: Run, what: str, exchange: str, key: str) -> None:
    async def inject(drill: Drill) -> None:
        async with doubling(drill, exchange, key) as copied:
            await finished(drill)
            drill.fault_ended()
        leader = await drill.leader()
        refused = sample(leader, "distriqueue_reports_refused_total")
        drill.note = f"{copied[0]} copies; {refused:.0f} reports refused"

    words = {"sessions": "claims and heartbeats", "tickets": "tickets", "reports": "reports"}[what]
    trial = Trial(
        name=f"doubled-{what}",
        family=FAMILY,
        fault=f"{words} doubled: a copy at once and another {LATE_SECONDS:.0f} s late",
        promise="only the first of each does anything; no attempt is repeated",
        once=True,
    )
    await run(trial, inject)


@pytest.mark.quick
async def test_garbage(run: Run) -> None:
    async def inject(drill: Drill) -> None:
        async with channel_of(drill) as channel:
            for exchange, key, own in (
                *((names.TICKETS_EXCHANGE, names.ticket_queue("default", level), "TICKET") for level in Priority),
                (names.REPORTS_EXCHANGE, names.report_queue(), "REPORT"),
                (names.SESSIONS_EXCHANGE, names.sessions_key(), "SESSION"),
                (names.EPOCHS_EXCHANGE, "", "EPOCH"),
            ):
                found = await channel.get_exchange(exchange, ensure=False)
                for body in (*GARBAGE, os.urandom(200)):
                    for kind in (MessageType[own].value, "somebody.else.v9", None):
                        message = aio_pika.Message(body, type=kind, delivery_mode=2)
                        await found.publish(message, routing_key=key)

    trial = Trial(
        name="garbage",
        family=FAMILY,
        fault="garbage as tickets, reports, claims, heartbeats and epochs, of right and wrong types",
        promise="tickets that nobody can read go to the dead letters, the rest is counted and forgotten; all run on",
        once=True,
    )
    await run(trial, inject)


def sized(number: int) -> Spec:
    """Every sixth: a payload at the limit, one over it, a result at the limit, one over it."""
    empty = len(json.dumps({"seconds": 0.1, "text": ""}, separators=(",", ":")))
    room = PAYLOAD_LIMIT_BYTES - empty
    match number % 6:
        case 0:
            return {"type": "record.slow", "payload": {"seconds": 0.1, "text": "x" * room}}
        case 1:
            return {"type": "record.slow", "payload": {"seconds": 0.1, "text": "x" * (room + 1)}}
        case 2:
            return {"type": "big", "payload": {"characters": RESULT_LIMIT_BYTES - 2}}
        case 3:
            return {"type": "big", "payload": {"characters": RESULT_LIMIT_BYTES - 1}, "maxAttempts": 1}
        case _:
            return {"type": "record.slow", "payload": {"seconds": 0.2}}


async def test_sizes(run: Run) -> None:
    async def inject(drill: Drill) -> None:
        await drill.kill(await drill.leader())

    async def check_more(drill: Drill) -> None:
        jobs: list[dict[str, Any]] = await drill.jobs.named(drill.names)
        for number, job in enumerate(jobs):
            expected = {1: ("Failed",), 3: ("Failed", "Dead")}.get(number % 6, ("Succeeded",))
            assert phase(job) in expected, job["status"]
            if number % 6 == 2:
                assert len(job["status"]["result"]) == RESULT_LIMIT_BYTES - 2
        assert not drill.stage.records.starts_by_job().keys() & {
            job["metadata"]["name"] for number, job in enumerate(jobs) if number % 6 == 1
        }, "what is too large never starts"

    trial = Trial(
        name="sizes",
        family=FAMILY,
        fault="payloads and results of 64 KiB and of a byte more; the leader killed among them",
        promise="64 KiB pass; a byte more ends as Failed (PayloadTooLarge, never started) or with ResultTooLarge",
        ends=frozenset({"Succeeded", "Failed", "Dead"}),
        spec=sized,
        once=True,
    )
    await run(trial, inject, check_more=check_more)
