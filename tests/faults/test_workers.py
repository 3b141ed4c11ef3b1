"""Workers die and freeze: what they held is run again when its loss is proven, and not before."""

import asyncio
from collections import defaultdict

import pytest

from distriqueue_protocol.names import WORKER_LOST_SECONDS
from localcluster.programs import Program
from tests.faults.conftest import Run
from tests.faults.drills import LONG_EVERY, Drill, Trial, kinds
from tests.support.waiting import until

FAMILY = "Worker"
LOST_WITH_ITS_WORKER = "its process was dead, and proven lost (15 s of silence, then the markers)"
LONG_SECONDS = 14.0
"""So the next attempt still runs when the frozen one wakes."""


@pytest.mark.quick
async def test_worker_kill(run: Run) -> None:
    async def inject(drill: Drill) -> None:
        await drill.kill(await drill.busiest())

    trial = Trial(
        name="worker-kill",
        family=FAMILY,
        fault="a worker, kill -9",
        promise="what it ran is run again once its loss is proven; the others go on",
        why=LOST_WITH_ITS_WORKER,
    )
    await run(trial, inject)


async def test_workers_all_killed(run: Run) -> None:
    async def inject(drill: Drill) -> None:
        await drill.kill(*drill.workers)

    trial = Trial(
        name="workers-all-kill",
        family=FAMILY,
        fault="all workers, kill -9; they are started again",
        promise="what they ran is run again once their loss is proven; the rest goes on at once",
        why=LOST_WITH_ITS_WORKER,
    )
    await run(trial, inject)


async def test_leader_and_workers_killed(run: Run) -> None:
    async def inject(drill: Drill) -> None:
        await drill.kill(await drill.leader(), *drill.workers)

    trial = Trial(
        name="leader-and-workers-kill",
        family=FAMILY,
        fault="the leader and all workers at once, kill -9; they are started again",
        promise="the next leader waits until the loss of each is proven, then what they ran is run again",
        why=LOST_WITH_ITS_WORKER,
    )
    await run(trial, inject)


def run_again(drill: Drill) -> bool:
    """Whether a long handler was started a second time; its attempt may have the same number, never the same grant."""
    grants: dict[str, set[str]] = defaultdict(set)
    for record in drill.stage.records.started():
        if int(record.name.rpartition("-")[2]) % LONG_EVERY == 0:
            grants[record.uid].add(record.grant)
    return any(len(several) > 1 for several in grants.values())


async def freeze(drill: Drill, *programs: Program) -> None:
    """Freeze programs until somebody else runs what a worker among them held; then two are alive for a moment."""
    async with drill.frozen(*programs):
        await until(lambda: run_again(drill), pause=0.1, seconds=120, otherwise=drill.stage.last_words)
        await asyncio.sleep(1)  # more of them


async def _freeze_worker(drill: Drill) -> None:
    await freeze(drill, await drill.busiest())


async def test_worker_freeze_short(run: Run) -> None:
    async def inject(drill: Drill) -> None:
        async with drill.frozen(await drill.busiest()):
            await asyncio.sleep(5)

    trial = Trial(
        name="worker-freeze-short",
        family=FAMILY,
        fault="a worker, SIGSTOP for 5 s, within its lease, then SIGCONT",
        promise="it goes on; no attempt is repeated",
        once=True,
    )
    await run(trial, inject)


@pytest.mark.quick
async def test_worker_freeze(run: Run) -> None:
    trial = Trial(
        name="worker-freeze",
        family=FAMILY,
        fault="a worker, SIGSTOP past its lease until others run what it held, then SIGCONT; async handlers and "
        "handlers in processes of their own",
        promise="what it ran is lost and run again; on waking it stops its handlers before anything else; "
        "their results are refused",
        why=f"no word for {WORKER_LOST_SECONDS:.0f} s, and the markers proved it: the worker counts as lost",
        overlap=True,
        workers=3,
        spec=kinds("record.slow", "record.process", seconds=LONG_SECONDS),
    )
    await run(trial, _freeze_worker)


async def test_worker_freeze_deaf(run: Run) -> None:
    trial = Trial(
        name="worker-freeze-deaf",
        family=FAMILY,
        fault="the same, with handlers in threads that do not look at `context.cancelled`",
        promise="what cannot be stopped takes its process with it, at the latest half a second after waking",
        why="as above",
        overlap=True,
        workers=3,
        spec=kinds("record.deaf", seconds=LONG_SECONDS),
    )
    await run(trial, _freeze_worker)


async def test_leader_and_worker_freeze(run: Run) -> None:
    async def inject(drill: Drill) -> None:
        leader = await drill.leader()
        await freeze(drill, leader, await drill.busiest())
        await until(lambda: leader.metric("distriqueue_leader") == 0)

    trial = Trial(
        name="leader-and-worker-freeze",
        family=FAMILY,
        fault="the leader and a worker together, SIGSTOP until others run what it held, then SIGCONT",
        promise="the next leader proves the worker lost; when both wake, neither starts or writes anything",
        why="as above",
        overlap=True,
        workers=3,
        spec=kinds("record.slow", "record.process", seconds=LONG_SECONDS),
    )
    await run(trial, inject)
