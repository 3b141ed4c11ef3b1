"""What the tests of the worker share: a broker, worker processes, and patience."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from localcluster.programs import Program, Programs
from localcluster.rabbitmq import Broker
from tests.integration.scripted_leader import ScriptedLeader

TASKS = "tests.integration.worker_tasks"


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
    broker: Broker, programs: Programs, *, pool: str, concurrency: int = 4, **settings: str
) -> AsyncIterator[tuple[ScriptedLeader, Program]]:
    async with ScriptedLeader.leading(broker.url, pool=pool) as leader:
        worker = await asyncio.to_thread(
            programs.worker, pool, concurrency=concurrency, tasks=TASKS, WORKER_POOL=pool, **settings
        )
        await leader.registered()
        yield leader, worker


async def until(condition: Callable[[], bool | Awaitable[bool]], *, patience: float = 30.0) -> None:
    async with asyncio.timeout(patience):
        # What other processes do raises no event here.
        while not (found if isinstance(found := condition(), bool) else await found):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def until_waiting(leader: ScriptedLeader, count: int) -> None:
    async def waits() -> bool:
        return await leader.waiting() == count

    await until(waits)


def last_words(worker: Program) -> dict[str, object]:
    records = [json.loads(line) for line in worker.log.read_text().splitlines() if line.startswith("{")]
    return next(record for record in reversed(records) if record["event"] == "worker ends")
