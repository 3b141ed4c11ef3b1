"""A worker process on a real broker, with the leader's side of the protocol by script: jobs from ticket to report."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import aio_pika
import pytest

from distriqueue_protocol import names
from distriqueue_protocol.messages import GrantId, Outcome, Refusal, StopReason
from distriqueue_protocol.names import Priority
from localcluster.processes import wait_gone
from localcluster.programs import Programs
from localcluster.rabbitmq import Broker
from tests.integration.scripted_leader import ScriptedLeader
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


async def test_a_job_goes_from_ticket_to_settled_report(broker: Broker, programs: Programs) -> None:
    async with working(broker, programs, pool="first") as (leader, worker):
        await leader.submit("one", payload={"sleepSeconds": 0, "customer": 7})
        report = await leader.report("one")
        assert report.outcome is Outcome.SUCCEEDED
        assert report.result == {"type": "*", "payload": {"sleepSeconds": 0, "customer": 7}}
        assert report.start_time <= report.completion_time
        await leader.until(lambda heard: heard.heartbeats[-1][1].reports == ())
        assert worker.metric("distriqueue_worker_jobs_total") == 1
        await until_waiting(leader, 0)


async def test_a_burst_runs_every_job_once_and_leaves_nothing(
    broker: Broker, programs: Programs, tmp_path: Path
) -> None:
    async with working(broker, programs, pool="burst") as (leader, worker):
        trace = tmp_path / "trace"
        submitted = [f"job-{number}" for number in range(300)]
        await asyncio.gather(*(leader.submit(name, type="trace", payload={"file": str(trace)}) for name in submitted))
        for name in submitted:
            await leader.report(name)
        begun = [line.split()[0] for line in trace.read_text().splitlines() if " begin " in line]
        assert sorted(begun) == sorted(submitted)
        await until(lambda: worker.metric("distriqueue_worker_reports_unsettled") == 0)
        assert len(leader.heard.sessions) < 300  # claims travel together


async def test_high_overtakes_a_backlog_of_low(broker: Broker, programs: Programs) -> None:
    async with working(broker, programs, pool="priorities", concurrency=1) as (leader, _):
        leader.answering = False
        for number in range(200):
            await leader.submit(f"low-{number}", priority=Priority.LOW)
        await leader.until(lambda heard: len(heard.claims) == 1)
        await leader.submit("medium", priority=Priority.MEDIUM)
        await leader.submit("high", priority=Priority.HIGH)
        await asyncio.sleep(1)  # the full worker hands its stock back; a slot that frees then asks anew
        leader.answering = True
        await leader.answer_waiting()
        await leader.report("medium")
        asked = [claim.uid for claim in leader.heard.claims[:3]]
        assert asked == ["uid-low-0", "uid-high", "uid-medium"]


async def test_a_refused_job_never_runs_and_its_ticket_is_gone(broker: Broker, programs: Programs) -> None:
    async with working(broker, programs, pool="refusals") as (leader, worker):
        leader.judge = lambda claim: Refusal.CANCELLED if claim.uid == "uid-cancelled" else None
        await leader.submit("cancelled")
        await leader.submit("wanted")
        await leader.report("wanted")
        assert 'distriqueue_worker_claims_total{answer="Cancelled"} 1.0' in worker.get("/metrics")
        assert worker.metric("distriqueue_worker_jobs_total") == 1
        assert all(report.name != "cancelled" for report in leader.heard.reports)
        # What was not acknowledged would come back together with the end of its consumer.
        worker.kill()

        async def deserted() -> bool:
            return await leader.consumers() == 0

        await until(deserted)
        assert await leader.waiting() == 0


async def test_a_failure_tells_why(broker: Broker, programs: Programs) -> None:
    async with working(broker, programs, pool="failures") as (leader, _):
        await leader.submit("fails", type="fail", payload={"message": "no luck"}, attempt=2, max_attempts=3)
        await leader.submit("nothing", type="calculate", payload={"operation": "divide", "operands": [1, 0]})
        await leader.submit("wrong", type="calculate", payload={"operation": "guess", "operands": [1]})
        await leader.submit("slow", payload={"sleepSeconds": 60}, timeout_seconds=1)
        failed = await leader.report("fails")
        assert (failed.outcome, failed.reason, failed.error) == (Outcome.FAILED, "RuntimeError", "no luck")
        assert "INFO attempt 2 of 3 is about to fail" in failed.log_tail
        assert not failed.permanent
        permanent = await leader.report("nothing")
        assert (permanent.reason, permanent.error, permanent.permanent) == ("PermanentError", "division by zero", True)
        invalid = await leader.report("wrong")
        assert (invalid.reason, invalid.permanent) == ("InvalidPayload", True)
        slow = await leader.report("slow")
        assert (slow.outcome, slow.reason) == (Outcome.FAILED, "Timeout")


async def test_an_unknown_type_names_the_known_ones(broker: Broker, programs: Programs) -> None:
    async with working(broker, programs, pool="types", WORKER_DEFAULT_TASK="false") as (leader, _):
        await leader.submit("what", type="what")
        report = await leader.report("what")
        assert (report.outcome, report.reason) == (Outcome.FAILED, "UnknownType")
        assert "deaf, email, fail, hungry, inattentive" in report.error


async def test_tickets_do_not_wait_at_a_worker_busy_with_long_jobs(broker: Broker, programs: Programs) -> None:
    async with working(broker, programs, pool="stock", concurrency=1) as (leader, _):
        await leader.submit("long", payload={"sleepSeconds": 600})
        await leader.grant("long")
        for number in range(5):
            await leader.submit(f"short-{number}")
        idle = await asyncio.to_thread(programs.worker, "idle", concurrency=1, tasks=TASKS, WORKER_POOL="stock")
        for number in range(5):
            report = await leader.report(f"short-{number}")
            assert report.worker == "idle"
        assert idle.metric("distriqueue_worker_jobs_total") == 5


async def test_what_is_no_ticket_goes_to_the_dead_letters(broker: Broker, programs: Programs) -> None:
    async with working(broker, programs, pool="dead") as (leader, worker):
        await leader.publish_ticket(b"{}")
        await leader.publish_ticket(b"\xff not json")
        await leader.submit("fine")
        await leader.report("fine")
        assert 'distriqueue_worker_tickets_total{event="rejected"} 2.0' in worker.get("/metrics")
        async with await aio_pika.connect(broker.url) as connection, connection.channel() as channel:
            dead = await channel.declare_queue(names.DEAD_QUEUE, passive=True)
            bodies = {(await dead.get(timeout=10)).body for _ in range(2)}
        assert bodies == {b"{}", b"\xff not json"}


async def test_the_handler_of_a_deleted_job_is_ended_and_nothing_reported(
    broker: Broker, programs: Programs, tmp_path: Path
) -> None:
    async with working(broker, programs, pool="stops") as (leader, _):
        trace = tmp_path / "trace"
        await leader.submit("stopped", type="trace", payload={"file": str(trace), "seconds": 600})
        grant = await leader.grant("stopped")
        await until(trace.exists)
        count = len(leader.heard.heartbeats)
        await leader.stop(grant, StopReason.DELETED)
        await leader.until(lambda heard: len(heard.heartbeats) > count and heard.heartbeats[-1][1].grants == ())
        written = trace.read_text()
        await asyncio.sleep(0.5)  # nothing writes any more
        assert trace.read_text() == written
        assert leader.heard.heartbeats[-1][1].reports == ()
        assert all(report.name != "stopped" for report in leader.heard.reports)


async def test_a_report_comes_again_until_it_is_settled(broker: Broker, programs: Programs) -> None:
    async with working(broker, programs, pool="settling") as (leader, _):
        leader.settling = False
        await leader.submit("again")
        first = await leader.report("again")
        await leader.until(lambda heard: sum(report.name == "again" for report in heard.reports) == 2)
        assert [report for report in leader.heard.reports if report.name == "again"] == [first, first]
        assert leader.heard.heartbeats[-1][1].reports[0].grant == first.grant
        leader.settling = True
        await leader.tell(first.incarnation, settled=(first.grant,))
        await leader.until(lambda heard: heard.heartbeats[-1][1].reports == ())


async def test_the_worker_waits_for_the_leader_to_declare_the_queues(programs: Programs, broker: Broker) -> None:
    await asyncio.to_thread(broker.reset)
    starting = asyncio.create_task(asyncio.to_thread(programs.worker, "early", WORKER_POOL="early"))
    log = programs.directory / "early.log"
    await until(lambda: log.exists() and "waiting for the leader" in log.read_text())
    async with ScriptedLeader.leading(broker.url, pool="early") as leader:
        await starting
        await leader.submit("late")
        assert (await leader.report("late")).outcome is Outcome.SUCCEEDED


async def test_a_graceful_end_finishes_what_runs(broker: Broker, programs: Programs, tmp_path: Path) -> None:
    async with working(broker, programs, pool="drain", concurrency=1) as (leader, worker):
        trace = tmp_path / "trace"
        await leader.submit("runs", type="trace", payload={"file": str(trace), "seconds": 3})
        await leader.submit("waits")
        grant = await leader.grant("runs")
        await until(trace.exists)
        worker.terminate()
        report = await leader.report("runs")
        assert report.outcome is Outcome.SUCCEEDED
        await leader.until(lambda heard: heard.heartbeats[-1][1].leaving)
        assert await asyncio.to_thread(wait_gone, [worker.process], timeout=20)
        assert last_words(worker)["code"] == 0
        draining = [beat for _, beat in leader.heard.heartbeats if beat.draining]
        assert draining[0].grants[0].grant == grant
        assert draining[-1].grants == draining[-1].reports == ()
        await until_waiting(leader, 1)  # its ticket is back
        assert [claim.uid for claim in leader.heard.claims] == ["uid-runs"]


async def test_a_second_signal_interrupts(broker: Broker, programs: Programs) -> None:
    async with working(broker, programs, pool="hurry") as (leader, worker):
        await leader.submit("long", payload={"sleepSeconds": 600})
        await leader.grant("long")
        await until(lambda: worker.metric("distriqueue_worker_handlers_running") == 1)
        worker.terminate()
        await leader.until(lambda heard: heard.heartbeats[-1][1].draining)
        worker.terminate()
        report = await leader.report("long")
        assert (report.outcome, report.reason) == (Outcome.INTERRUPTED, "WorkerStopped")
        assert await asyncio.to_thread(wait_gone, [worker.process], timeout=20)
        assert last_words(worker)["code"] == 0


async def test_a_grant_that_comes_too_late_starts_nothing(broker: Broker, programs: Programs) -> None:
    async with working(broker, programs, pool="late") as (leader, worker):
        leader.answering = False
        await leader.submit("late")
        await leader.until(lambda heard: any(claim.uid == "uid-late" for claim in heard.claims))
        leader.calling = False
        # The leader is silent for 12 s: claims are closed, tickets handed back, and the worker says so.
        await leader.until(lambda heard: not heard.heartbeats[-1][1].hears_leader, patience=40)
        assert leader.heard.heartbeats[-1][1].claims == ()
        await until_waiting(leader, 1)
        leader.answering = True
        await leader.answer_waiting()
        await leader.until(lambda heard: heard.heartbeats[-1][1].hears_leader)
        assert worker.metric("distriqueue_worker_grants_ignored_total") >= 1
        # The ticket asks again, and that is the one that runs.
        assert (await leader.report("late")).grant > min(leader.granted)
        assert worker.metric("distriqueue_worker_jobs_total") == 1


async def test_a_new_leader_is_heard_and_the_old_one_is_not(broker: Broker, programs: Programs) -> None:
    async with working(broker, programs, pool="epochs") as (old, _):
        old.answering = False
        await old.submit("asked")
        await old.until(lambda heard: any(claim.uid == "uid-asked" for claim in heard.claims))
        incarnation = old.heard.heartbeats[-1][0].incarnation
        async with ScriptedLeader.leading(broker.url, epoch=20, pool="epochs") as new:
            new.answering = False
            await new.registered()
            _, heartbeat = new.heard.heartbeats[-1]
            assert [claim.uid for claim in heartbeat.claims] == ["uid-asked"]
            await old.answer_waiting()  # a grant of an old epoch
            await asyncio.sleep(0.5)
            await new.answer_waiting()
            report = await old.report("asked")  # the queue has one active consumer, and its own is still there
            assert report.grant == GrantId(20, 1)
            assert report.incarnation == incarnation


async def test_metrics_have_clean_names_and_probes_answer(broker: Broker, programs: Programs) -> None:
    async with working(broker, programs, pool="metrics") as (leader, worker):
        await leader.submit("one")
        await leader.report("one")
        assert worker.get("/healthz") == "ok\n"
        assert worker.get("/readyz") == "ok\n"
        metrics = worker.get("/metrics")
        for name in (
            "distriqueue_worker_slots 4.0",
            "distriqueue_worker_connected 1.0",
            "distriqueue_worker_leader_epoch 10.0",
            'distriqueue_worker_job_duration_seconds_count{type="*"} 1.0',
        ):
            assert name in metrics
        assert worker.metric("distriqueue_worker_heartbeats_confirmed_total") >= 1
        records = [json.loads(line) for line in worker.log.read_text().splitlines()]
        (ended,) = [record for record in records if record["event"] == "handler ended"]
        for key in ("job", "namespace", "attempt", "grant", "worker", "incarnation", "epoch"):
            assert ended[key]


def test_wrong_settings_are_one_sentence_each_and_exit_code_2() -> None:
    environment = {"DISTRIQUEUE_AMQP_URL": "amqp://u:secret@:1", "DISTRIQUEUE_WORKER_CONCURRENCY": "many"}
    ended = subprocess.run(
        [sys.executable, "-m", "distriqueue_worker"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert "DISTRIQUEUE_WORKER_CONCURRENCY: " in ended.stderr
    assert "secret" not in ended.stderr
    assert "Traceback" not in ended.stderr
