"""RabbitMQ restarts, dies, forgets and refuses: the resources have the truth, and what was forgotten is sent again."""

import asyncio

import pytest

from distriqueue_protocol import names
from distriqueue_protocol.names import Priority
from tests.faults.conftest import Run
from tests.faults.drills import QUICK, Drill, Trial, stopped
from tests.support.brokers import lose_queues

FAMILY = "RabbitMQ"
FENCED = "its worker had no confirmed heartbeat for 12 s and stopped it, or its report was lost with the broker's data"
ALARM_SECONDS = 8.0 if QUICK else 30.0
WATERMARK = ("set_vm_memory_high_watermark", "absolute")

_DELETE_QUEUE = """
case rabbit_amqqueue:lookup(rabbit_misc:r(<<"{vhost}">>, queue, <<"{queue}">>)) of
  {{ok, Queue}} -> rabbit_amqqueue:delete(Queue, false, false, <<"tests">>);
  Other -> Other
end.
"""
_ADD_VHOST = """
ok = rabbit_vhost:add(<<"{vhost}">>, <<"tests">>),
ok = rabbit_auth_backend_internal:set_permissions(
  <<"guest">>, <<"{vhost}">>, <<".*">>, <<".*">>, <<".*">>, <<"tests">>).
"""


async def ctl(drill: Drill, *arguments: str) -> str:
    """Run rabbitmqctl."""
    return await asyncio.to_thread(drill.stage.broker.ctl, *arguments)


async def delete_queue(drill: Drill, queue: str) -> None:
    """Delete a queue, also one that is exclusive to somebody."""
    await ctl(drill, "eval", _DELETE_QUEUE.format(vhost=drill.stage.namespace, queue=queue))


async def test_broker_restart(run: Run) -> None:
    async def inject(drill: Drill) -> None:
        with drill.silent():
            await asyncio.to_thread(drill.stage.broker.restart)

    trial = Trial(
        name="broker-restart",
        family=FAMILY,
        fault="clean restart",
        promise="tickets and reports are on disk; handlers run on while it is away for less than 12 s",
        why=FENCED,
    )
    await run(trial, inject)


@pytest.mark.quick
async def test_broker_kill(run: Run) -> None:
    async def inject(drill: Drill) -> None:
        broker = drill.stage.broker
        with drill.silent():
            await asyncio.to_thread(broker.kill)
            await asyncio.to_thread(broker.start)

    trial = Trial(
        name="broker-kill",
        family=FAMILY,
        fault="kill -9, started again",
        promise="what was confirmed is on disk, what was not is sent again",
        why=FENCED,
    )
    await run(trial, inject)


async def test_broker_away(run: Run) -> None:
    async def inject(drill: Drill) -> None:
        broker = drill.stage.broker
        with drill.silent():
            await asyncio.to_thread(broker.kill)
            await asyncio.sleep(30)  # the fault is a time that passes
            await asyncio.to_thread(broker.start)

    trial = Trial(
        name="broker-away",
        family=FAMILY,
        fault="kill -9, away for 30 s",
        promise="workers stop their handlers by 14 s; nothing runs that nobody has custody of",
        why=FENCED,
        spec=stopped,
    )
    await run(trial, inject)


async def test_queues_of_tickets_deleted(run: Run) -> None:
    async def inject(drill: Drill) -> None:
        for priority in Priority:
            await delete_queue(drill, names.ticket_queue("default", priority))

    trial = Trial(
        name="queues-tickets",
        family=FAMILY,
        fault="all `job.*` queues deleted, with their tickets",
        promise="the leader notices, declares them again and sends the tickets again; handlers run on",
        why="its report did not come through in time",
    )
    await run(trial, inject)


async def test_queue_of_reports_deleted(run: Run) -> None:
    async def inject(drill: Drill) -> None:
        await delete_queue(drill, names.report_queue())

    trial = Trial(
        name="queue-reports",
        family=FAMILY,
        fault="the report queue deleted, with its reports",
        promise="workers keep their reports until they are settled, and send them again",
        why="its worker was lost meanwhile",
    )
    await run(trial, inject)


async def test_inbox_deleted(run: Run) -> None:
    async def inject(drill: Drill) -> None:
        leader = await drill.leader()
        await delete_queue(drill, names.inbox_queue(int(leader.metric("distriqueue_leader_epoch"))))

    trial = Trial(
        name="queue-inbox",
        family=FAMILY,
        fault="the leader's inbox deleted",
        promise="a leader without an inbox leads no longer; the next one calls the roll",
        once=True,
    )
    await run(trial, inject)


async def test_vhost_reset(run: Run) -> None:
    async def inject(drill: Drill) -> None:
        vhost = drill.stage.namespace
        with drill.silent():
            await ctl(drill, "delete_vhost", vhost)
            await ctl(drill, "eval", _ADD_VHOST.format(vhost=vhost))

    trial = Trial(
        name="vhost-reset",
        family=FAMILY,
        fault="the virtual host deleted and made anew, empty",
        promise="everything is declared again and sent again from the resources and by the workers",
        why=FENCED,
    )
    await run(trial, inject)


async def test_queues_without_a_leader(run: Run) -> None:
    async def inject(drill: Drill) -> None:
        queues = [names.report_queue(), *(names.ticket_queue("default", priority) for priority in Priority)]
        with drill.silent():
            await asyncio.to_thread(lose_queues, drill.stage.broker, drill.stage.namespace, queues)

    trial = Trial(
        name="queues-leaderless",
        family=FAMILY,
        fault="kill -9, and the ticket queues and the report queue come back without a leader: they answer nobody",
        promise="found by confirms and consumers that stay away; replaced, and everything sent again",
        why=FENCED,
    )
    await run(trial, inject)


async def test_memory_alarm(run: Run) -> None:
    async def inject(drill: Drill) -> None:
        with drill.silent():
            await ctl(drill, *WATERMARK, "1MB")
            try:
                await asyncio.sleep(ALARM_SECONDS)  # the fault is a time that passes
            finally:
                await ctl(drill, *WATERMARK, "1GiB")

    trial = Trial(
        name="alarm-memory",
        family=FAMILY,
        fault=f"memory alarm for {ALARM_SECONDS:.0f} s: publishers are blocked",
        promise="workers that cannot be heard stop their handlers by 14 s; all goes on when the alarm is cleared",
        why=FENCED,
        spec=stopped,
    )
    await run(trial, inject)


async def test_disk_alarm(run: Run) -> None:
    async def inject(drill: Drill) -> None:
        with drill.silent():
            await ctl(drill, "set_disk_free_limit", "99999GB")
            try:
                await asyncio.sleep(ALARM_SECONDS)  # the fault is a time that passes
            finally:
                await ctl(drill, "set_disk_free_limit", "50MB")

    trial = Trial(
        name="alarm-disk",
        family=FAMILY,
        fault=f"disk alarm for {ALARM_SECONDS:.0f} s: publishers are blocked",
        promise="as with memory",
        why=FENCED,
        spec=stopped,
    )
    await run(trial, inject)
