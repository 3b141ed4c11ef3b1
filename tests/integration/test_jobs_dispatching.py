"""Which job runs next, where a job is seen on its way, and what stops it; with real operators and workers.

Each test has a pool of its own, so that its workers take nobody else's jobs.
"""

import asyncio
import json
from asyncio.subprocess import PIPE
from collections.abc import Iterator

import aio_pika
import pytest

from distriqueue_protocol import names
from distriqueue_protocol.messages import GrantId, Marker, Outcome, Report
from distriqueue_protocol.names import MessageType, Priority
from localcluster.binaries import ensure
from tests.support.jobs import Jobs, phase
from tests.support.records import Record
from tests.support.stages import CALM, Stage, Stages, sample
from tests.support.waiting import until

pytestmark = pytest.mark.integration

BACKLOG = 200
RUNWAY = 8
"""Tickets that are with the broker at the least, whatever comes later (`core.backlog.RunwaySettings.least`)."""


@pytest.fixture(name="stage", scope="module")
def stage_fixture(stages: Stages) -> Iterator[Stage]:
    with stages.open(**CALM) as stage:
        stage.start(operators=2, workers=1)
        yield stage


def starts_after(stage: Stage, known: list[Record], *, prefix: str) -> list[str]:
    """The jobs that were started after those of an earlier look, in order."""
    return [record.name for record in stage.records.started(prefix=prefix)[len(known) :]]


async def tickets_out(stage: Stage, pool: str, priority: Priority, count: int) -> None:
    """Wait until the broker has so many tickets, by the leader's books."""
    leader = stage.leader()
    assert leader is not None
    name = "distriqueue_tickets_out"
    await until(lambda: sample(leader, name, pool=pool, priority=priority.value) == count)


async def test_a_high_job_overtakes_a_backlog(stage: Stage, jobs: Jobs) -> None:
    stage.worker("backlog", concurrency=2, WORKER_POOL="backlog")
    for number in range(2):
        await jobs.create(
            f"backlog-first-{number}", type="hold", payload={"until": "backlog"}, poolName="backlog", priority="Low"
        )
    await until(lambda: len(stage.records.started(prefix="backlog-")) == 2)
    low = await jobs.burst("backlog-low", BACKLOG, poolName="backlog", priority="Low")
    await jobs.create("backlog-high", poolName="backlog", priority="High")
    # Queued says that its ticket is with the broker: from here on nothing but the slots is waited for.
    await jobs.until("backlog-high", lambda job: phase(job) == "Queued")
    known = stage.records.started(prefix="backlog-")
    assert len(known) == 2, "both slots were busy all the time"
    stage.records.release("backlog")
    ended = await jobs.all_ended([*low, "backlog-high"])
    assert {phase(job) for job in ended} == {"Succeeded"}
    assert starts_after(stage, known, prefix="backlog-")[0] == "backlog-high"


async def test_the_higher_value_starts_first_and_of_equals_the_older(stage: Stage, jobs: Jobs) -> None:
    stage.worker("values", concurrency=1, WORKER_POOL="values")
    await jobs.create("values-first", type="hold", payload={"until": "values"}, poolName="values")
    await until(lambda: stage.records.started(prefix="values-"))
    for number in range(RUNWAY):
        await jobs.create(f"values-ahead-{number}", poolName="values")
    await tickets_out(stage, "values", Priority.MEDIUM, RUNWAY)
    values = [10, 90, 50, 90, 0, 100, 50]
    for number, value in enumerate(values):
        await jobs.create(f"values-job-{number}", poolName="values", priorityValue=value)
    leader = stage.leader()
    assert leader is not None
    await until(lambda: sample(leader, "distriqueue_jobs_waiting", pool="values", priority="Medium") == len(values))
    known = stage.records.started(prefix="values-job-")
    stage.records.release("values")
    await jobs.all_ended([f"values-job-{number}" for number in range(len(values))])
    wanted = sorted(range(len(values)), key=lambda number: (-values[number], number))
    assert starts_after(stage, known, prefix="values-job-") == [f"values-job-{number}" for number in wanted]


async def test_a_job_is_seen_queued_without_workers_and_running_with_one(stage: Stage, jobs: Jobs) -> None:
    await jobs.create("seen", type="hold", payload={"until": "seen"}, poolName="nobody")
    queued = (await jobs.until("seen", lambda job: phase(job) == "Queued"))["status"]
    assert queued["queuedTime"]
    assert "worker" not in queued
    assert "attempts" not in queued
    assert stage.records.started(prefix="seen") == []

    stage.worker("somebody", WORKER_POOL="nobody")
    running = (await jobs.until("seen", lambda job: phase(job) == "Running"))["status"]
    assert (running["worker"], running["attempt"]) == ("somebody", 1)
    assert running["startTime"]
    assert [(entry["number"], entry["worker"], "outcome" in entry) for entry in running["attempts"]] == [
        (1, "somebody", False)
    ]
    header, row = stage.kubectl("get", "djobs", "seen").splitlines()
    assert header.split() == ["NAME", "TYPE", "PRIORITY", "PHASE", "ATTEMPT", "WORKER", "AGE"]
    assert row.split()[:6] == ["seen", "hold", "Medium", "Running", "1", "somebody"]
    by_phase = stage.kubectl("get", "djobs", "--field-selector=status.phase=Running", "--output=name")
    assert "distributedjob.distriqueue.io/seen" in by_phase.split()

    stage.records.release("seen")
    status = (await jobs.ended("seen"))["status"]
    assert (status["phase"], status["result"]) == ("Succeeded", "released")
    assert [(entry["number"], entry["outcome"]) for entry in status["attempts"]] == [(1, "Succeeded")]


async def test_the_handler_of_a_deleted_job_is_stopped(stage: Stage, jobs: Jobs) -> None:
    stage.worker("deleting", concurrency=1, WORKER_POOL="deleting")
    await jobs.create("deleted", type="hold", payload={"until": "never"}, poolName="deleting")
    await until(lambda: stage.records.started(prefix="deleted"))
    stage.kubectl("delete", "djob/deleted", "--wait", "--timeout=30s")
    await until(lambda: stage.records.events("stopped", prefix="deleted"))
    await jobs.create("after-the-deleted", poolName="deleting")
    assert phase(await jobs.ended("after-the-deleted")) == "Succeeded", "the slot is free again"


async def test_a_job_that_is_deleted_while_it_waits_never_starts(stage: Stage, jobs: Jobs) -> None:
    stage.worker("waiting", concurrency=1, WORKER_POOL="waiting")
    await jobs.create("waiting-first", type="hold", payload={"until": "waiting"}, poolName="waiting")
    await until(lambda: stage.records.started(prefix="waiting-"))
    waiting = await jobs.burst("waiting-job", RUNWAY + 4, poolName="waiting")
    await tickets_out(stage, "waiting", Priority.MEDIUM, RUNWAY)
    await jobs.delete(waiting[0])
    await jobs.delete(waiting[-1])
    # One whose ticket the worker has in hand, and one that is still with the leader.
    stage.records.release("waiting")
    await jobs.all_ended(waiting[1:-1])
    await jobs.create("waiting-last", poolName="waiting")
    await jobs.ended("waiting-last")
    assert not {waiting[0], waiting[-1]} & stage.records.starts_by_job(prefix="waiting-").keys()


def test_a_namespace_goes_though_the_operator_is_gone(stages: Stages) -> None:
    with stages.open() as stage:
        stage.start(operators=1, workers=1)

        async def fill() -> None:
            async with await stage.client() as client:
                jobs = Jobs(client, stage.namespace)
                await jobs.create("done")
                await jobs.create("under-way", type="hold", payload={"until": "never"})
                await jobs.create("waits", poolName="nobody")
                await jobs.ended("done")
                await jobs.until("under-way", lambda job: phase(job) == "Running")

        asyncio.run(fill())
        for program in (*stage.operators, *stage.workers.values()):
            program.kill()
        stage.kubectl("delete", "djob/under-way", "--wait", "--timeout=30s")
        stage.kubectl("delete", "namespace", stage.namespace, "--wait", "--timeout=60s")


GARBAGE = (b"", b"\x00\xff\xfe", b"{", b"[]", b"{}", b'{"epoch": "high"}', b"9" * 5000, b'{"grant": [1, 2, 3]}')


async def test_garbage_stops_nothing(stage: Stage, jobs: Jobs) -> None:
    leader = stage.leader()
    assert leader is not None
    epoch = leader.metric("distriqueue_leader_epoch")
    ignored = sample(leader, "distriqueue_messages_ignored_total", reason="Garbage")
    kinds: list[str | None] = [None, "text/plain", "distriqueue.ticket.v0", *(kind.value for kind in MessageType)]
    targets = [(names.TICKETS_EXCHANGE, names.ticket_queue("default", priority)) for priority in Priority]
    targets += [(names.SESSIONS_EXCHANGE, names.sessions_key()), (names.REPORTS_EXCHANGE, names.report_queue())]
    targets += [(names.EPOCHS_EXCHANGE, "")]
    # What can be read and means nothing: a job that never was, a marker of somebody else.
    report = Report(
        namespace=stage.namespace,
        name="never-was",
        uid="00000000-0000-0000-0000-000000000000",
        attempt=1,
        grant=GrantId(1, 1),
        worker="nobody",
        incarnation="nobody-1",
        outcome=Outcome.SUCCEEDED,
        start_time="2026-01-01T00:00:00.000000Z",
        completion_time="2026-01-01T00:00:01.000000Z",
    )
    strange: list[tuple[str, str, str | None, bytes]] = [
        (names.REPORTS_EXCHANGE, names.report_queue(), MessageType.REPORT, report.encode()),
        (names.REPORTS_EXCHANGE, names.report_queue(), MessageType.MARKER, Marker(epoch=1, id=1).encode()),
        (names.SESSIONS_EXCHANGE, names.sessions_key(), MessageType.MARKER, Marker(epoch=1, id=1).encode()),
    ]
    strange += [
        (exchange, key, kind, body) for exchange, key in targets for kind in kinds for body in GARBAGE if body or kind
    ]
    known = len(stage.records.started())
    creating = asyncio.create_task(jobs.burst("beside-garbage", 20))
    async with await aio_pika.connect(f"{stage.amqp_url}?heartbeat=5") as connection, connection.channel() as channel:
        for exchange_name, key, kind, body in strange:
            exchange = await channel.get_exchange(exchange_name, ensure=False)
            await exchange.publish(aio_pika.Message(body, type=kind), routing_key=key)
    created = [*await creating, *await jobs.burst("after-garbage", 20)]
    assert {phase(job) for job in await jobs.all_ended(created)} == {"Succeeded"}
    assert len(stage.records.started()) - known == len(created)
    # All of it was read and is out of the way; tickets that make no sense are kept for a person to look at.
    lengths: dict[str, int] = {}

    def cleared() -> bool:
        listed = stage.broker.ctl(
            "list_queues", "--quiet", "--formatter=json", f"--vhost={stage.namespace}", "name", "messages"
        )
        lengths.update((queue["name"], queue["messages"]) for queue in json.loads(listed))
        tickets = [lengths[names.ticket_queue("default", priority)] for priority in Priority]
        dead = lengths[names.DEAD_QUEUE] >= len(Priority) * len(GARBAGE)
        return dead and not any([lengths[names.report_queue()], *tickets])

    await until(cleared, otherwise=lambda: lengths)
    assert sample(leader, "distriqueue_messages_ignored_total", reason="Garbage") > ignored
    assert leader.metric("distriqueue_leader_epoch") == epoch
    assert leader.metric("distriqueue_leader") == 1
    assert leader.metric("distriqueue_leader_terms_total") == 0
    assert stage.workers["worker-0"].process.alive()


async def test_promtool_finds_nothing_wrong_with_the_metrics(stage: Stage, jobs: Jobs) -> None:
    await jobs.create("measured")
    await jobs.ended("measured")
    for program in (*stage.operators, stage.workers["worker-0"]):
        text = program.get("/metrics")
        assert "distriqueue_" in text
        # It says what it finds on standard error and with its exit status.
        done = await asyncio.create_subprocess_exec(ensure("promtool"), "check", "metrics", stdin=PIPE, stderr=PIPE)
        _, found = await done.communicate(text.encode())
        assert (done.returncode, found.decode()) == (0, ""), program.name
