"""Workers come, drain, die and freeze: what they held is finished by others, and their resources say what they are.

Each test has a pool of its own. The leader's word about a lost worker takes 15 s, so the two tests of losses wait for
theirs side by side.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.jobs import Job, Jobs, condition, phase
from tests.support.stages import CALM, Stage, Stages
from tests.support.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture(name="stage", scope="module")
def stage_fixture(stages: Stages) -> Iterator[Stage]:
    with stages.open(**CALM) as stage:
        stage.start(operators=2, workers=0)
        yield stage


async def held(stage: Stage, jobs: Jobs, pool: str, names: list[str]) -> None:
    """Make jobs that hold their slots until the gate of the pool opens; returns when all are seen running."""
    for name in names:
        await jobs.create(name, type="hold", payload={"until": pool}, poolName=pool)
    for name in names:
        await jobs.until(name, lambda job: phase(job) == "Running")
    assert set(stage.records.starts_by_job(prefix=pool)) >= set(names)


def attempts(job: Job) -> list[tuple[Any, ...]]:
    """The history of a job: number, worker, outcome, reason."""
    keys = ("number", "worker", "outcome", "reason")
    return [tuple(entry.get(key) for key in keys) for entry in job["status"]["attempts"]]


def ready(worker: dict[str, Any]) -> tuple[str, str]:
    """Status and reason of a worker's condition."""
    found = condition({"status": worker}, "Ready")
    return found["status"], found["reason"]


async def test_a_worker_is_seen_with_what_it_is_and_does(stage: Stage, jobs: Jobs) -> None:
    worker = stage.worker("shown", concurrency=3, WORKER_POOL="shown")
    status = await jobs.worker_until("shown", "Online")
    assert (status["poolName"], status["concurrency"]) == ("shown", 3)
    assert {"*", "email", "hold", "record"} <= set(status["types"])
    assert ready(status) == ("True", "Heartbeating")
    assert status["incarnation"]

    await held(stage, jobs, "shown", ["shown-1", "shown-2"])
    last: dict[str, Any] = {}

    async def counted() -> bool:
        nonlocal last
        last = (await jobs.worker("shown"))["status"]
        return bool(last["running"] == 2)

    await until(counted, otherwise=lambda: last)
    header, *rows = stage.kubectl("get", "dworkers").splitlines()
    assert header.split() == ["NAME", "POOL", "PHASE", "RUNNING", "SLOTS", "VERSION", "AGE"]
    row = next(line.split() for line in rows if line.startswith("shown "))
    assert row[:5] == ["shown", "shown", "Online", "2", "3"]

    worker.terminate()
    draining = await jobs.worker_until("shown", "Draining")
    assert ready(draining) == ("False", "Draining")
    assert draining["incarnation"] == status["incarnation"]
    stage.records.release("shown")
    assert {phase(job) for job in await jobs.all_ended(["shown-1", "shown-2"])} == {"Succeeded"}
    offline = await jobs.worker_until("shown", "Offline")
    assert ready(offline) == ("False", "Stopped")
    assert offline["running"] == 0
    await asyncio.to_thread(worker.stop)


async def test_a_worker_that_ends_finishes_what_it_holds_and_hands_back_the_rest(stage: Stage, jobs: Jobs) -> None:
    first = stage.worker("drained", concurrency=1, WORKER_POOL="drained")
    await held(stage, jobs, "drained", ["drained-held"])
    waiting = await jobs.burst("drained-waiting", 12, poolName="drained")
    first.terminate()
    await jobs.worker_until("drained", "Draining")
    stage.worker("next", concurrency=1, WORKER_POOL="drained")
    for job in await jobs.all_ended(waiting):
        assert attempts(job) == [(1, "next", "Succeeded", None)]
    assert phase(await jobs.get("drained-held")) == "Running"
    stage.records.release("drained")
    assert attempts(await jobs.ended("drained-held")) == [(1, "drained", "Succeeded", None)]
    await asyncio.to_thread(first.stop)
    assert set(stage.records.starts_by_job(prefix="drained").values()) == {1}


async def test_what_does_not_end_within_the_grace_is_stopped_and_tried_again(stage: Stage, jobs: Jobs) -> None:
    first = stage.worker("hasty", concurrency=1, WORKER_POOL="hasty", WORKER_SHUTDOWN_GRACE_SECONDS="0.5")
    await held(stage, jobs, "hasty", ["hasty-job"])
    await asyncio.to_thread(first.stop)
    # Its own word is enough: nobody waits for the silence of a dead worker.
    await jobs.worker_until("hasty", "Offline")
    assert [record.event for record in stage.records.all(prefix="hasty")] == ["started", "stopped"]
    stage.worker("patient", concurrency=1, WORKER_POOL="hasty")
    stage.records.release("hasty")
    job = await jobs.ended("hasty-job")
    assert phase(job) == "Succeeded"
    assert attempts(job) == [(1, "hasty", "Lost", "WorkerStopped"), (2, "patient", "Succeeded", None)]


@pytest.fixture(name="losses", scope="module")
def losses_fixture(stage: Stage) -> None:
    """One worker is killed and one is frozen, at the same time, each with two jobs in hand."""

    async def lose() -> None:
        async with await stage.client() as client:
            jobs = Jobs(client, stage.namespace)
            for pool in ("killed", "frozen"):
                worker = stage.worker(pool, concurrency=2, WORKER_POOL=pool)
                await held(stage, jobs, pool, [f"{pool}-1", f"{pool}-2"])
                if pool == "killed":
                    worker.kill()
                else:
                    worker.freeze()
                stage.worker(f"{pool}-next", concurrency=2, WORKER_POOL=pool)
            for pool in ("killed", "frozen"):
                stage.records.release(pool)

    asyncio.run(lose())


@pytest.mark.usefixtures("losses")
async def test_the_jobs_of_a_killed_worker_finish_on_another_one(stage: Stage, jobs: Jobs) -> None:
    for job in await jobs.all_ended(["killed-1", "killed-2"]):
        assert phase(job) == "Succeeded"
        assert attempts(job) == [(1, "killed", "Lost", "WorkerLost"), (2, "killed-next", "Succeeded", None)]
        first = job["status"]["attempts"][0]
        assert first["startTime"]
        assert "killed" in first["error"]
        assert "error" not in job["status"]
    offline = await jobs.worker_until("killed", "Offline")
    assert ready(offline) == ("False", "HeartbeatMissed")
    assert [record.worker for record in stage.records.events("returned", prefix="killed-")] == ["killed-next"] * 2


@pytest.mark.usefixtures("losses")
async def test_a_frozen_worker_wakes_too_late_and_begins_anew(stage: Stage, jobs: Jobs) -> None:
    woken = stage.workers["frozen"]
    ended = await jobs.all_ended(["frozen-1", "frozen-2"])
    offline = await jobs.worker_until("frozen", "Offline")
    leader = stage.leader()
    assert leader is not None
    refused = leader.metric("distriqueue_reports_refused_total")
    woken.thaw()
    online = await jobs.worker_until("frozen", "Online", incarnation_not=offline["incarnation"])
    assert online["incarnation"] != offline["incarnation"]

    # The new incarnation takes work again: with both of the other one's slots held, these can only be its own.
    await held(stage, jobs, "frozen", [])
    stage.workers["frozen-next"].stop()
    await jobs.create("frozen-again", poolName="frozen")
    assert attempts(await jobs.ended("frozen-again")) == [(1, "frozen", "Succeeded", None)]

    for job in ended:
        name = job["metadata"]["name"]
        assert attempts(job) == [(1, "frozen", "Lost", "WorkerLost"), (2, "frozen-next", "Succeeded", None)]
        assert (await jobs.get(name))["metadata"]["resourceVersion"] == job["metadata"]["resourceVersion"]
        # The handlers of the woken one were stopped, or found the gate open in the same moment. What one of those
        # returned is refused.
        first = [record.event for record in stage.records.all(prefix=name) if record.worker == "frozen"]
        assert first in (["started", "stopped"], ["started", "returned"])
    late = [record for record in stage.records.events("returned", prefix="frozen-") if record.worker == "frozen"]
    late = [record for record in late if record.name != "frozen-again"]
    await until(lambda: leader.metric("distriqueue_reports_refused_total") >= refused + len(late))
