"""The broker, and the API server, go away while jobs run: all of them succeed all the same."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from tests.support.jobs import Jobs, phase
from tests.support.stages import Stage, Stages
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
