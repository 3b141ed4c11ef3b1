"""Faults, injected for real: what a worker does when the broker, the network, the machine or a handler fails it.

Where a test waits for the lease it takes the time that the lease takes.
"""

import asyncio
import json
import time
from contextlib import suppress
from pathlib import Path

import aiormq
import pytest

from distriqueue_protocol import names
from distriqueue_protocol.messages import Heartbeat, Outcome, SessionMessage
from distriqueue_protocol.names import Priority
from localcluster.processes import wait_gone
from localcluster.programs import Program, Programs
from localcluster.rabbitmq import Broker
from tests.integration.scripted_leader import Heard, ScriptedLeader
from tests.integration.tcp_relay import Relay
from tests.integration.worker_plane import (
    TASKS,
    broker_fixture,
    last_words,
    programs_fixture,
    until,
    until_waiting,
    working,
)

__all__ = ["broker_fixture", "programs_fixture"]

pytestmark = pytest.mark.integration

FENCED = 70


def lines(trace: Path) -> list[str]:
    return trace.read_text().splitlines() if trace.exists() else []


def through(relay: Relay) -> str:
    return f"amqp://guest:guest@127.0.0.1:{relay.port}/"


def reborn(heard: Heard) -> tuple[SessionMessage, Heartbeat] | None:
    """The first word of an incarnation that took the place of another."""
    return next(((message, beat) for message, beat in heard.heartbeats if beat.registration.supersedes), None)


async def traced(leader: ScriptedLeader, trace: Path, *, name: str = "runs", kind: str = "trace") -> None:
    """Submit a job that writes its traces for ten minutes, and wait until it does."""
    await leader.submit(name, type=kind, payload={"file": str(trace), "seconds": 600})
    await until(trace.exists)


async def quiet(trace: Path) -> None:
    """Nobody writes any more."""
    written = lines(trace)
    await asyncio.sleep(1)
    assert lines(trace) == written


async def test_a_cut_connection_costs_no_job(broker: Broker, programs: Programs, tmp_path: Path) -> None:
    async with (
        Relay.to(broker.url) as relay,
        working(broker, programs, pool="cut", concurrency=1, AMQP_URL=through(relay)) as (leader, worker),
    ):
        trace = tmp_path / "trace"
        await leader.submit("runs", type="trace", payload={"file": str(trace), "seconds": 3})
        await until(trace.exists)
        relay.cut()
        report = await leader.report("runs")
        assert report.outcome is Outcome.SUCCEEDED
        await leader.submit("next")
        await leader.report("next")
        assert {message.incarnation for message in leader.heard.sessions} == {report.incarnation}
        assert sum(" begin " in line for line in lines(trace)) == 1
        assert worker.metric("distriqueue_worker_connections_total") == 2


async def test_a_report_that_was_not_confirmed_is_published_again(
    broker: Broker, programs: Programs, tmp_path: Path
) -> None:
    async with (
        Relay.to(broker.url) as relay,
        working(broker, programs, pool="unconfirmed", AMQP_URL=through(relay)) as (leader, worker),
    ):
        trace = tmp_path / "trace"
        await leader.submit("ends", type="trace", payload={"file": str(trace), "seconds": 1})
        await until(trace.exists)
        relay.hold()
        await until(lambda: any(" end " in line for line in lines(trace)))
        assert worker.metric("distriqueue_worker_reports_unsettled") == 1
        relay.cut()  # what was held is lost
        relay.go_on()
        assert (await leader.report("ends")).outcome is Outcome.SUCCEEDED
        await until(lambda: worker.metric("distriqueue_worker_reports_unsettled") == 0)
        assert worker.metric("distriqueue_worker_reports_published_total") >= 2


async def test_without_the_broker_handlers_die_within_the_lease_and_the_worker_begins_anew(
    broker: Broker, programs: Programs, tmp_path: Path
) -> None:
    async with (
        Relay.to(broker.url) as relay,
        working(broker, programs, pool="away", AMQP_URL=through(relay)) as (leader, worker),
    ):
        trace = tmp_path / "trace"
        await traced(leader, trace)
        first = leader.heard.heartbeats[-1][0].incarnation
        relay.hold()
        held = time.monotonic()
        await until(lambda: worker.metric("distriqueue_worker_fences_total") == 1)
        await quiet(trace)
        last = float(lines(trace)[-1].split()[-1])
        assert last - held <= names.WORKER_DEAD_SECONDS
        relay.cut()
        relay.go_on()
        await leader.until(reborn)
        found = reborn(leader.heard)
        assert found is not None
        message, heartbeat = found
        assert heartbeat.registration.supersedes == first
        assert message.incarnation != first
        assert (heartbeat.grants, heartbeat.reports, heartbeat.claims) == ((), (), ())
        assert all(report.name != "runs" for report in leader.heard.reports)
        await leader.submit("afterwards")
        assert (await leader.report("afterwards")).incarnation == message.incarnation


async def test_a_result_of_the_old_incarnation_is_reported_by_the_new_one(
    broker: Broker, programs: Programs, tmp_path: Path
) -> None:
    async with (
        Relay.to(broker.url) as relay,
        working(broker, programs, pool="kept", AMQP_URL=through(relay)) as (leader, worker),
    ):
        trace = tmp_path / "trace"
        await leader.submit("ends", type="trace", payload={"file": str(trace), "seconds": 1})
        await until(trace.exists)
        first = leader.heard.heartbeats[-1][0].incarnation
        relay.hold()
        await until(lambda: worker.metric("distriqueue_worker_fences_total") == 1)
        relay.cut()
        relay.go_on()
        report = await leader.report("ends")
        assert report.incarnation == first
        assert report.outcome is Outcome.SUCCEEDED
        # Settled under the old name, and heard by the new incarnation.
        await until(lambda: worker.metric("distriqueue_worker_reports_unsettled") == 0)


async def test_a_worker_frozen_past_its_lease_stops_before_anything_else(
    broker: Broker, programs: Programs, tmp_path: Path
) -> None:
    async with working(broker, programs, pool="frozen") as (leader, worker):
        trace = tmp_path / "trace"
        await traced(leader, trace)
        worker.freeze()
        await asyncio.sleep(names.WORKER_LOST_SECONDS + 1)
        woken = time.monotonic()
        worker.thaw()
        await leader.until(reborn)
        await quiet(trace)
        overlap = [line for line in lines(trace) if float(line.split()[-1]) > woken]
        assert len(overlap) <= 1  # the handler whose turn it was in the loop
        assert worker.process.alive()


async def test_a_thread_that_cannot_be_stopped_takes_the_process_with_it(
    broker: Broker, programs: Programs, tmp_path: Path
) -> None:
    async with (
        Relay.to(broker.url) as relay,
        working(broker, programs, pool="deaf", AMQP_URL=through(relay)) as (leader, worker),
    ):
        trace = tmp_path / "trace"
        await traced(leader, trace, kind="deaf")
        relay.hold()
        held = time.monotonic()
        assert await asyncio.to_thread(wait_gone, [worker.process], timeout=30)
        assert last_words(worker)["code"] == FENCED
        assert float(lines(trace)[-1].split()[-1]) - held <= names.WORKER_DEAD_SECONDS + 0.5
        await quiet(trace)


async def test_at_the_end_of_the_lease_a_thread_that_does_not_look_is_interrupted(
    broker: Broker, programs: Programs, tmp_path: Path
) -> None:
    async with (
        Relay.to(broker.url) as relay,
        working(broker, programs, pool="inattentive", AMQP_URL=through(relay)) as (leader, worker),
    ):
        trace = tmp_path / "trace"
        await traced(leader, trace, kind="inattentive")
        relay.hold()
        held = time.monotonic()
        await until(lambda: worker.metric("distriqueue_worker_fences_total") == 1)
        await until(lambda: worker.metric("distriqueue_worker_handlers_running") == 0)
        assert float(lines(trace)[-1].split()[-1]) - held <= names.WORKER_DEAD_SECONDS
        relay.cut()
        relay.go_on()
        await leader.until(reborn)
        await quiet(trace)
        assert worker.process.alive()


async def test_a_handler_that_blocks_the_loop_ends_with_the_process(
    broker: Broker, programs: Programs, tmp_path: Path
) -> None:
    async with working(broker, programs, pool="blocked") as (leader, worker):
        trace = tmp_path / "trace"
        await traced(leader, trace, kind="spin")
        begun = time.monotonic()
        await until(lambda: unhealthy(worker), patience=30)
        assert await asyncio.to_thread(wait_gone, [worker.process], timeout=30)
        assert time.monotonic() - begun <= names.WORKER_DEAD_SECONDS + 1
        assert "the event loop did not stop the handlers" in worker.log.read_text()


def unhealthy(worker: Program) -> bool:
    try:
        worker.get("/healthz")
    except OSError:  # 503 is one, and so is a process that is gone
        return True
    return False


async def test_a_broker_that_restarts_is_found_again(broker: Broker, programs: Programs) -> None:
    async with working(broker, programs, pool="restart") as (leader, worker):
        await leader.submit("before")
        await leader.report("before")
    await asyncio.to_thread(broker.restart)
    async with ScriptedLeader.leading(broker.url, pool="restart") as again:
        await again.submit("after")
        assert (await again.report("after")).outcome is Outcome.SUCCEEDED
        assert worker.process.alive()


async def test_a_broker_that_forgot_everything_is_waited_for(broker: Broker, programs: Programs) -> None:
    async with working(broker, programs, pool="reset") as (leader, worker):
        await leader.submit("before")
        await leader.report("before")
    await asyncio.to_thread(broker.reset)
    async with ScriptedLeader.leading(broker.url, pool="reset") as again:
        await again.submit("after")
        assert (await again.report("after")).outcome is Outcome.SUCCEEDED
        assert worker.process.alive()


async def test_a_broker_without_memory_is_waited_for(broker: Broker, programs: Programs, tmp_path: Path) -> None:
    """Alarmed, the broker takes no more messages: the worker cannot be heard, lets go, and keeps what it has to say."""
    async with working(broker, programs, pool="alarm") as (leader, worker):
        trace = tmp_path / "trace"
        await traced(leader, trace, name="runs")
        await leader.submit("ends", type="careful", payload={"file": str(tmp_path / "other"), "seconds": 0.1})
        ends = await leader.grant("ends")
        await until((tmp_path / "other").exists)
        first = leader.heard.heartbeats[-1][0].incarnation
        await asyncio.to_thread(broker.ctl, "set_vm_memory_high_watermark", "absolute", "1")
        try:
            await until(lambda: worker.metric("distriqueue_worker_broker_blocked") == 1, patience=60)
            await until(lambda: worker.metric("distriqueue_worker_fences_total") == 1, patience=60)
            await quiet(trace)
            assert all(report.grant != ends for report in leader.heard.reports)
            await asyncio.sleep(15)  # longer than any patience that the worker has with a broker
            assert worker.process.alive()
        finally:
            await asyncio.to_thread(broker.ctl, "set_vm_memory_high_watermark", "absolute", "1GiB")
        await leader.until(reborn, patience=60)
        report = await leader.report("ends", patience=60)
        assert (report.outcome, report.incarnation) == (Outcome.SUCCEEDED, first)
        assert all(report.name != "runs" for report in leader.heard.reports)
        await leader.submit("afterwards")
        assert (await leader.report("afterwards")).incarnation != first
        assert worker.metric("distriqueue_worker_broker_blocked") == 0
        assert worker.log.read_text().count("takes messages again") >= 1


@pytest.mark.parametrize("what", ["tickets", "reports"])
async def test_a_deleted_queue_is_noticed(broker: Broker, programs: Programs, what: str) -> None:
    async with working(broker, programs, pool=f"deleted-{what}") as (leader, worker):
        queue = names.report_queue() if what == "reports" else names.ticket_queue(leader.pool, Priority.LOW)
        await leader.submit("before", priority=Priority.LOW)
        await leader.report("before")
        connection = await aiormq.connect(broker.url)
        channel = await connection.channel()
        await channel.queue_delete(queue)
        await connection.close()
        if what == "reports":
            await leader.submit("unroutable")
            await until(lambda: worker.metric("distriqueue_worker_reports_failed_total") >= 1)
        else:
            await until(lambda: "cancelled a consumer" in worker.log.read_text())
    async with ScriptedLeader.leading(broker.url, pool=f"deleted-{what}") as again:
        if what == "reports":
            assert (await again.report("unroutable")).outcome is Outcome.SUCCEEDED
        await again.submit("low", priority=Priority.LOW)
        assert (await again.report("low")).outcome is Outcome.SUCCEEDED


async def test_a_killed_worker_leaves_its_tickets_to_others(broker: Broker, programs: Programs) -> None:
    async with working(broker, programs, pool="killed", concurrency=1) as (leader, worker):
        leader.answering = False
        for number in range(3):
            await leader.submit(f"job-{number}")
        await leader.until(lambda heard: heard.claims)
        worker.kill()
        leader.answering = True
        await asyncio.to_thread(programs.worker, "other", concurrency=1, tasks=TASKS, WORKER_POOL="killed")
        for number in range(3):
            assert (await leader.report(f"job-{number}")).worker == "other"
        await until_waiting(leader, 0)


async def test_a_process_of_a_killed_worker_dies_with_it(broker: Broker, programs: Programs, tmp_path: Path) -> None:
    async with working(broker, programs, pool="orphan") as (leader, worker):
        trace = tmp_path / "trace"
        await traced(leader, trace, kind="trace-process")
        worker.kill()
        await asyncio.sleep(0.5)
        await quiet(trace)


async def test_the_password_is_in_no_log(broker: Broker, programs: Programs) -> None:
    url = broker.url.replace("guest:guest", "guest:not-the-password")
    starting = asyncio.create_task(asyncio.to_thread(programs.worker, "wrong", AMQP_URL=url, LOG_LEVEL="debug"))
    log = programs.directory / "wrong.log"
    await until(lambda: log.exists() and log.read_text().count("no connection to the broker") >= 2)
    assert "not-the-password" not in log.read_text()
    assert all(json.loads(line) for line in log.read_text().splitlines())
    await asyncio.to_thread(programs.close)
    with suppress(Exception):
        await starting  # it never became ready
