"""The broker, and the API server, go away while jobs run: all of them succeed all the same."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from distriqueue.broker.links import CONFIRM_SECONDS
from distriqueue.kube.client import KubeClient
from distriqueue_protocol.names import Priority, report_queue, ticket_queue
from tests.support.brokers import lose_queues
from tests.support.jobs import Jobs, phase
from tests.support.stages import Stage, Stages, sample
from tests.support.waiting import until

pytestmark = pytest.mark.integration

COUNT = 100
DONE_BEFORE = 20
"""So many jobs are done when the outage begins."""
DOWN_SECONDS = 5.0


@pytest.fixture(name="stage", scope="module")
def stage_fixture(stages: Stages) -> Iterator[Stage]:
    with stages.open() as stage:
        stage.start(operators=2, workers=2)
        yield stage


async def under_way(stage: Stage, jobs: Jobs, prefix: str) -> list[str]:
    """A burst, of which the first are done."""
    names = await jobs.burst(prefix, COUNT, type="record.slow", payload={"seconds": 0.3})
    await until(lambda: len(stage.records.events("returned", prefix=prefix)) >= DONE_BEFORE)
    return names


async def test_rabbitmq_is_started_anew(stage: Stage, jobs: Jobs) -> None:
    names = await under_way(stage, jobs, "broker")
    await asyncio.to_thread(stage.broker.restart)
    ended = await jobs.all_ended(names)
    assert {phase(job) for job in ended} == {"Succeeded"}
    # A worker that was without the broker for 12 s has stopped its handlers, and says so; nothing ran unseen.
    starts = stage.records.starts_by_job(prefix="broker")
    assert starts == {job["metadata"]["name"]: len(job["status"]["attempts"]) for job in ended}


async def test_the_api_server_is_killed_and_comes_back(stage: Stage, jobs: Jobs) -> None:
    names = await under_way(stage, jobs, "server")
    began = time.monotonic()
    await asyncio.to_thread(stage.plane.kill_apiserver)
    await until(lambda: time.monotonic() > began + DOWN_SECONDS)
    await asyncio.to_thread(stage.plane.start_apiserver)
    ended = await jobs.all_ended(names)
    assert {phase(job) for job in ended} == {"Succeeded"}
    assert {len(job["status"]["attempts"]) for job in ended} == {1}
    assert stage.records.starts_by_job(prefix="server") == dict.fromkeys(names, 1)


async def test_queues_that_the_broker_lost_are_made_anew(stages: Stages, kube: KubeClient) -> None:
    """No confirm, no consumer, and no error either: such a queue has to be replaced, and what was in it sent again."""
    with stages.open() as stage:
        operator = await asyncio.to_thread(stage.operator, "operator")
        jobs = Jobs(kube, stage.namespace)
        names = await jobs.burst("queued", 20, priority="High")
        await until(lambda: sample(operator, "distriqueue_tickets_out", priority="High") > 0)
        lost = [ticket_queue("default", Priority.HIGH), report_queue()]
        await asyncio.to_thread(lose_queues, stage.broker, stage.namespace, lost)
        # Leading again tells that the reports are served: no takeover ends before its marker has come back by them.
        await until(lambda: operator.metric("distriqueue_takeover_seconds") > 0)
        await until(lambda: sample(operator, "distriqueue_queues_replaced_total") >= len(lost))
        await asyncio.to_thread(stage.worker, "worker")
        ended = await jobs.all_ended(names)
        assert {phase(job) for job in ended} == {"Succeeded"}
        assert stage.records.starts_by_job(prefix="queued") == dict.fromkeys(names, 1)


async def test_an_alarm_of_the_broker_stops_tickets_and_ends_no_term(stages: Stages, kube: KubeClient) -> None:
    with stages.open() as stage:
        operator = await asyncio.to_thread(stage.operator, "operator")
        jobs = Jobs(kube, stage.namespace)
        await until(lambda: operator.metric("distriqueue_takeover_seconds") > 0)
        epoch = operator.metric("distriqueue_leader_epoch")
        await asyncio.to_thread(stage.broker.ctl, "set_vm_memory_high_watermark", "0.00001")
        try:
            names = await jobs.burst("alarmed", 20)
            await until(lambda: operator.metric("distriqueue_broker_blocked") == 1)
            alarmed_at = time.monotonic()
            await until(lambda: time.monotonic() > alarmed_at + 2 * CONFIRM_SECONDS)
            assert operator.metric("distriqueue_broker_blocked") == 1
        finally:
            await asyncio.to_thread(stage.broker.ctl, "set_vm_memory_high_watermark", "absolute", "1GiB")
        await until(lambda: operator.metric("distriqueue_broker_blocked") == 0)
        await asyncio.to_thread(stage.worker, "worker")
        ended = await jobs.all_ended(names)
        assert {phase(job) for job in ended} == {"Succeeded"}
        assert operator.metric("distriqueue_leader_epoch") == epoch, "the term outlasts the alarm"
