"""The leader goes in the middle of a burst, in each of the ways in which leaders go: every job runs exactly once.

Counted by what the handlers did, not by our own status. How long dispatch stood still is printed and written to
handover.json in pytest's directory; nothing is asserted about it.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import count, pairwise
from typing import Any

import pytest

from distriqueue.kube.client import KubeClient
from distriqueue.kube.resources import LEASES, WORKERS
from distriqueue_protocol.names import HEARTBEAT_SECONDS, WORKER_FENCE_SECONDS, WORKER_LOST_SECONDS
from localcluster.programs import Program
from tests.support.jobs import Jobs, phase
from tests.support.records import Record
from tests.support.stages import Stage, Stages, sample
from tests.support.waiting import until

pytestmark = pytest.mark.integration

COUNT = 300
DONE_BEFORE = 60
"""So many jobs are done when the leader goes."""
DONE_BETWEEN = 20
"""So many handlers the next leader has started when a frozen one wakes."""


@pytest.fixture(name="stage", scope="module")
def stage_fixture(stages: Stages) -> Iterator[Stage]:
    with stages.open() as stage:
        stage.start(operators=2, workers=2, concurrency=8)
        yield stage


_NUMBERS = count(2)


@pytest.fixture(name="leader")
async def leader_fixture(stage: Stage) -> Program:
    """The one that leads, of two."""
    stage.operators = [operator for operator in stage.operators if operator.process.alive()]
    while len(stage.operators) < 2:
        stage.operators.append(await asyncio.to_thread(stage.operator, f"operator-{next(_NUMBERS)}"))
    await until(lambda: stage.leader() is not None)
    leader = stage.leader()
    assert leader is not None
    return leader


@pytest.fixture(name="note")
def note_fixture(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, dict[str, Any]], None]:
    """Keeps figures in handover.json."""
    file = tmp_path_factory.getbasetemp() / "handover.json"

    def note(kind: str, figures: dict[str, Any]) -> None:
        known = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps({**known, kind: figures}, indent=2) + "\n")
        print(f"{kind}: {figures}")  # noqa: T201 - for whoever looks

    return note


def other(stage: Stage, leader: Program) -> Program:
    return next(operator for operator in stage.operators if operator is not leader)


def gaps(starts: list[Record], *, gone_at: float, old_epoch: int) -> dict[str, float]:
    """How long dispatch stood still.

    Returns:
        Seconds from the signal to the first handler that the next leader granted, and the longest time in which no
        handler started at all.
    """
    first = min(record.mono for record in starts if record.epoch > old_epoch)
    times = sorted(record.mono for record in starts)
    return {
        "signal_to_first_start_seconds": round(first - gone_at, 3),
        "longest_without_a_start_seconds": round(max(later - earlier for earlier, later in pairwise(times)), 3),
    }


async def interrupted(
    stage: Stage, jobs: Jobs, leader: Program, prefix: str, act: Callable[[], Awaitable[object]]
) -> dict[str, float]:
    """Run a burst, act on its leader in the middle, and hold what came of it against what must; returns the gaps."""
    epoch = int(leader.metric("distriqueue_leader_epoch"))
    creating = asyncio.create_task(jobs.burst(prefix, COUNT, type="record.slow", payload={"seconds": 0.15}))
    await until(lambda: len(stage.records.events("returned", prefix=prefix)) >= DONE_BEFORE)
    gone_at = time.monotonic()
    await act()
    ended = await jobs.all_ended(await creating)
    assert {phase(job) for job in ended} == {"Succeeded"}
    assert stage.records.starts_by_job(prefix=prefix) == {job["metadata"]["name"]: 1 for job in ended}
    assert {len(job["status"]["attempts"]) for job in ended} == {1}
    starts = stage.records.started(prefix=prefix)
    assert {record.epoch for record in starts} - {epoch}, "the leader went in the middle"
    successor = stage.leader()
    assert successor is not None
    figures = gaps(starts, gone_at=gone_at, old_epoch=epoch)
    return {**figures, "takeover_seconds": round(successor.metric("distriqueue_takeover_seconds"), 3)}


async def test_a_leader_is_asked_to_end(
    stage: Stage, jobs: Jobs, leader: Program, note: Callable[[str, dict[str, Any]], None]
) -> None:
    note("sigterm", await interrupted(stage, jobs, leader, "asked", lambda: asyncio.to_thread(leader.stop)))
    assert not leader.process.alive()


async def test_a_leader_is_killed(
    stage: Stage, jobs: Jobs, leader: Program, note: Callable[[str, dict[str, Any]], None]
) -> None:
    note("kill", await interrupted(stage, jobs, leader, "killed", lambda: asyncio.to_thread(leader.kill)))


async def test_a_leader_is_frozen_past_its_lease_and_wakes(
    stage: Stage, jobs: Jobs, leader: Program, note: Callable[[str, dict[str, Any]], None]
) -> None:
    successor = other(stage, leader)
    epoch = int(leader.metric("distriqueue_leader_epoch"))
    woken_at = 0.0

    def started_since() -> list[Record]:
        return [record for record in stage.records.started(prefix="frozen") if record.epoch > epoch]

    async def freeze() -> None:
        nonlocal woken_at
        leader.freeze()
        try:
            await until(lambda: len(started_since()) >= DONE_BETWEEN)
        finally:
            woken_at = time.monotonic()
            leader.thaw()
        await until(lambda: leader.metric("distriqueue_leader") == 0)

    note("freeze", await interrupted(stage, jobs, leader, "frozen", freeze))
    assert sum(sample(leader, "distriqueue_leader_terms_total", cause=cause) for cause in ENDS) == 1
    after = [record for record in stage.records.started(prefix="frozen") if record.mono > woken_at]
    assert all(record.epoch > epoch for record in after), "what the woken one grants starts nothing"
    lease = await jobs.client.request("GET", LEASES.path(stage.namespace, "distriqueue-shard-0"))
    assert successor.metric("distriqueue_leader") == 1
    assert successor.name in lease["spec"]["holderIdentity"]


async def test_the_next_leader_waits_for_a_worker_that_is_frozen(stage: Stage, jobs: Jobs, leader: Program) -> None:
    """What it holds may still run: it is not given to anybody before it has spoken or is proven lost."""
    worker = stage.worker("slow-to-answer", concurrency=2, WORKER_POOL="slow-to-answer")
    names = ["slow-to-answer-1", "slow-to-answer-2"]
    for name in names:
        await jobs.create(name, type="hold", payload={"until": "slow-to-answer"}, poolName="slow-to-answer")
    for name in names:
        await jobs.until(name, lambda job: phase(job) == "Running")
    successor = other(stage, leader)
    frozen_at = time.monotonic()
    worker.freeze()
    try:
        await asyncio.to_thread(leader.stop)
        await until(lambda: successor.metric("distriqueue_leader") == 1)
        stage.worker("quick-to-answer", concurrency=2, WORKER_POOL="slow-to-answer")
    finally:
        worker.thaw()
        frozen_for = time.monotonic() - frozen_at
    stage.records.release("slow-to-answer")
    ended = await jobs.all_ended(names)
    assert {phase(job) for job in ended} == {"Succeeded"}
    outcomes = [entry["outcome"] for job in ended for entry in job["status"]["attempts"]]
    if frozen_for < WORKER_FENCE_SECONDS - HEARTBEAT_SECONDS:
        assert outcomes == ["Succeeded", "Succeeded"]
        assert stage.records.starts_by_job(prefix="slow-to-answer") == dict.fromkeys(names, 1)
    else:  # a machine so busy that its lease was over: its attempts are lost, and nothing else is
        assert outcomes in (["Lost", "Succeeded", "Lost", "Succeeded"], ["Succeeded", "Succeeded"])


BRISK = {"LEASE_DURATION_SECONDS": "3", "LEASE_RENEW_DEADLINE_SECONDS": "2", "LEASE_RETRY_SECONDS": "0.5"}
"""For tests that kill a leader and act before a worker's own lease is over."""
GRACE_SECONDS = 1.0
"""A takeover that waits for nobody is done by then; one that waits is not for 15 s."""


async def test_a_worker_whose_resource_was_deleted_while_nobody_led_is_waited_for(
    stages: Stages, kube: KubeClient
) -> None:
    """A standby sees the deletion; without its memory of it, what a silent worker holds would run a second time."""
    with stages.open(**BRISK) as stage:
        stage.start(operators=2, workers=0)
        jobs = Jobs(kube, stage.namespace)
        await until(lambda: stage.leader() is not None)
        leader = stage.leader()
        assert leader is not None
        standby = other(stage, leader)
        worker = await asyncio.to_thread(stage.worker, "silent", concurrency=1)
        await jobs.create("held", type="hold", payload={"until": "held"})
        await jobs.until("held", lambda job: phase(job) == "Running")
        await asyncio.to_thread(stage.worker, "beside", concurrency=1)
        frozen_at = time.monotonic()
        worker.freeze()
        try:
            leader.freeze()  # rather than killed: it is gone at once
            await kube.request("DELETE", WORKERS.path(stage.namespace, "silent"))
            await until(lambda: standby.metric("distriqueue_leader") == 1)
            leader.kill()
            led_at = time.monotonic()
            await until(lambda: time.monotonic() > led_at + GRACE_SECONDS)
            assert standby.metric("distriqueue_takeover_seconds") == 0, "it waits for the silent one"
        finally:
            worker.thaw()
            frozen_for = time.monotonic() - frozen_at
        stage.records.release("held")
        ended = await jobs.ended("held")
        assert phase(ended) == "Succeeded"
        if frozen_for < WORKER_FENCE_SECONDS - HEARTBEAT_SECONDS:
            assert stage.records.starts_by_job(prefix="held") == {"held": 1}
            assert await jobs.worker("silent"), "its resource is written again"


async def test_whoever_had_to_create_the_lease_waits_for_the_leader_that_it_cannot_know(
    stages: Stages, kube: KubeClient
) -> None:
    with stages.open() as stage:
        stage.start(operators=2, workers=0)
        jobs = Jobs(kube, stage.namespace)
        await until(lambda: stage.leader() is not None)
        leader = stage.leader()
        assert leader is not None
        await until(lambda: leader.metric("distriqueue_takeover_seconds") > 0)
        epoch = leader.metric("distriqueue_leader_epoch")
        await jobs.create("waits")
        await until(lambda: sample(leader, "distriqueue_tickets_out") > 0)
        await kube.request("DELETE", LEASES.path(stage.namespace, "distriqueue-shard-0"))

        def successor() -> Program | None:
            ready = (one for one in stage.operators if one.metric("distriqueue_leader_epoch") > epoch)
            return next((one for one in ready if one.metric("distriqueue_leader") == 1), None)

        await until(lambda: successor() is not None)
        found = successor()
        assert found is not None
        before = found.metric("distriqueue_takeover_seconds") if found is leader else 0
        await until(lambda: found.metric("distriqueue_takeover_seconds") > before)
        # Its own lease, in which nobody else may lead; and then the time that workers have to speak.
        assert found.metric("distriqueue_takeover_seconds") >= LEASE_SECONDS + WORKER_LOST_SECONDS
        await asyncio.to_thread(stage.worker, "worker")
        assert phase(await jobs.ended("waits")) == "Succeeded"


LEASE_SECONDS = 6
"""The default."""

ENDS = ("LeaseLost", "BrokerLost", "SteppedDown")
"""Whichever a woken leader notices first."""
