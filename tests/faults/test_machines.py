"""The machine fails its programs: no file descriptors are left when connections have to be made again."""

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator

from localcluster.programs import Program
from tests.faults.conftest import Run
from tests.faults.drills import Drill, Trial, stopped
from tests.support.waiting import until

FAMILY = "Machine"
WITHOUT_SECONDS = 20.0
FEW = 3
"""Below what any program has open: nothing can be opened any more."""


@contextlib.asynccontextmanager
async def without_descriptors(program: Program) -> AsyncIterator[None]:
    """Let a program open nothing for a while."""
    pid = program.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (FEW, hard))
    try:
        yield
    finally:
        if program.process.alive():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


async def test_leader_without_descriptors(run: Run) -> None:
    async def inject(drill: Drill) -> None:
        leader = await drill.leader()
        async with without_descriptors(leader):
            drill.links[leader.name].broker.cut()
            drill.links[leader.name].server.cut()

            async def another() -> bool:
                now = await drill.leads()
                return now is not None and now.name != leader.name

            await until(another)
            await asyncio.sleep(WITHOUT_SECONDS / 2)  # the fault is a time that passes

    trial = Trial(
        name="descriptors-leader",
        family=FAMILY,
        fault="the leader has no file descriptors left, and its connections are cut",
        promise="it gives up the Lease; the standby leads; no attempt is repeated",
        once=True,
        relays=True,
    )
    await run(trial, inject)


async def test_worker_without_descriptors(run: Run) -> None:
    async def inject(drill: Drill) -> None:
        worker = await drill.busiest()
        async with without_descriptors(worker):
            drill.links[worker.name].broker.cut()
            with drill.silent(worker):
                await asyncio.sleep(WITHOUT_SECONDS)  # the fault is a time that passes

    trial = Trial(
        name="descriptors-worker",
        family=FAMILY,
        fault=f"a worker has no file descriptors left for {WITHOUT_SECONDS:.0f} s, and its connection is cut",
        promise="its handlers are stopped by 14 s and run again elsewhere; it comes back by itself",
        why="the worker could not be heard, has stopped it, and is proven lost",
        relays=True,
        spec=stopped,
    )
    await run(trial, inject)
