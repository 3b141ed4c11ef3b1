"""A worker process on a real broker, with the leader's side of the protocol by script."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from distriqueue_protocol.messages import Outcome
from localcluster.programs import Program, Programs
from localcluster.rabbitmq import Broker
from tests.integration.scripted_leader import ScriptedLeader

pytestmark = pytest.mark.integration


@pytest.fixture(name="broker", scope="module")
def broker_fixture() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


@pytest.fixture(name="programs")
def programs_fixture(broker: Broker, tmp_path: Path) -> Iterator[Programs]:
    with Programs(tmp_path, kubeconfig=tmp_path / "none", amqp_url=broker.url) as programs:
        yield programs


@asynccontextmanager
async def working(
    broker: Broker, programs: Programs, *, pool: str, concurrency: int = 4, tasks: str = "", **settings: str
) -> AsyncIterator[tuple[ScriptedLeader, Program]]:
    async with ScriptedLeader.leading(broker.url, pool=pool) as leader:
        worker = await asyncio.to_thread(
            programs.worker, concurrency=concurrency, tasks=tasks, WORKER_POOL=pool, **settings
        )
        await leader.registered()
        yield leader, worker


async def test_a_job_goes_from_ticket_to_settled_report(broker: Broker, programs: Programs) -> None:
    async with working(broker, programs, pool="first") as (leader, worker):
        await leader.submit("one", payload={"sleepSeconds": 0, "customer": 7})
        (report,) = await leader.reports(1)
        assert report.outcome is Outcome.SUCCEEDED
        assert report.result == {"type": "*", "payload": {"sleepSeconds": 0, "customer": 7}}
        await leader.until(lambda heard: heard.heartbeats[-1][1].reports == ())
        assert worker.metric("distriqueue_worker_jobs_total") == 1
