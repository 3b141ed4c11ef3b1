"""HTTP workers die, and the gateways that keep their sessions: one accepted result per job, beside Python workers."""

import asyncio
from collections import Counter

import pytest

from tests.faults.conftest import Run
from tests.faults.drills import LONG_EVERY, QUICK, Drill, Trial
from tests.support.gateways import Gateway, make_caller, restart, start
from tests.support.http_workers import ShellWorker
from tests.support.waiting import until

FAMILY = "Worker"
JOBS = 200 if QUICK else 1000
ROUNDS = 2 if QUICK else 5
GATEWAYS = 2
SHELLS = 3
CAPACITY = 4


class Doors:
    """The gateways and the HTTP workers of a drill."""

    def __init__(self) -> None:
        self.gateways: dict[str, Gateway] = {}
        self.shells: dict[str, ShellWorker] = {}
        self._token = ""

    async def open(self, drill: Drill) -> dict[str, str]:
        """Start them; the workers wait for the leader that is yet to come."""
        self._token = await make_caller(drill.client, drill.stage.namespace, "http-worker")
        names = [f"gateway-{number}" for number in range(GATEWAYS)]
        started = await asyncio.gather(*(asyncio.to_thread(start, drill.stage.programs, name) for name in names))
        self.gateways = dict(zip(names, started, strict=True))
        for number in range(SHELLS):
            self.shell(drill, f"shell-{number}")
        return {}

    def shell(self, drill: Drill, name: str) -> None:
        """Start an HTTP worker, or start one anew: it knows nothing of the one before it."""
        urls = " ".join(gateway.url for gateway in self.gateways.values())
        self.shells[name] = ShellWorker(drill.stage, name, urls=urls, token=self._token, capacity=CAPACITY)

    def close(self) -> None:
        """End the workers; the gateways end with the stage."""
        for shell in self.shells.values():
            shell.__exit__()

    def busiest(self, drill: Drill) -> str:
        """The HTTP worker that runs most of the long handlers."""
        return max(self.shells, key=drill.held_by)

    async def kill_worker(self, drill: Drill) -> None:
        """An HTTP worker that runs something, kill -9; another one is started under its name."""
        await until(
            lambda: any(map(drill.held_by, self.shells)) or nearly_done(drill), otherwise=drill.stage.last_words
        )
        name = self.busiest(drill)
        self.shells[name].kill()
        self.shell(drill, name)

    async def kill_gateway(self, drill: Drill, name: str) -> None:
        """A gateway, kill -9; another one is started at its address."""
        gateway = self.gateways[name]
        await asyncio.to_thread(gateway.program.kill)
        self.gateways[name] = await asyncio.to_thread(restart, drill.stage.programs, gateway)


def nearly_done(drill: Drill) -> bool:
    """Whether there is little left to strike at."""
    return drill.returned() >= len(drill.names) - 2 * LONG_EVERY


async def shared(drill: Drill) -> None:
    """Hold that workers of both kinds did their part, and tell it."""
    assert drill.history is not None
    kinds = Counter("HTTP" if run.worker.startswith("shell-") else "Python" for run in drill.history.runs)
    assert set(kinds) == {"HTTP", "Python"}, kinds
    drill.note = f"{kinds['HTTP']} of {kinds.total()} attempts ran on HTTP workers"


@pytest.mark.quick
async def test_workers_of_both_kinds_killed(run: Run) -> None:
    doors = Doors()

    async def inject(drill: Drill) -> None:
        for number in range(ROUNDS):
            await doors.kill_worker(drill)
            if nearly_done(drill):
                return
            await drill.kill(max(drill.workers, key=lambda worker: drill.held_by(worker.name)))
            await doors.kill_gateway(drill, f"gateway-{number % GATEWAYS}")

    trial = Trial(
        name="http-workers-kill",
        family=FAMILY,
        fault=f"Python workers, HTTP workers and the gateways of their sessions in turn, {ROUNDS} times kill -9 each",
        promise="HTTP workers register at the other gateway with the jobs that they hold, which go on; "
        "what a worker ran that was killed is run again once its loss is proven",
        why="its process was dead, and proven lost (15 s of silence, then the markers)",
        jobs=JOBS,
        concurrency=4,
        prepare=doors.open,
    )
    try:
        await run(trial, inject, check_more=shared)
    finally:
        doors.close()


@pytest.mark.quick
async def test_gateways_killed(run: Run) -> None:
    doors = Doors()

    async def inject(drill: Drill) -> None:
        for name in list(doors.gateways):
            await until(lambda: any(map(drill.held_by, doors.shells)) or nearly_done(drill))
            await doors.kill_gateway(drill, name)

    trial = Trial(
        name="gateways-kill",
        family=FAMILY,
        fault="each gateway in turn, kill -9, while HTTP workers hold jobs",
        promise="they register at another one with their jobs; no handler runs twice",
        once=True,
        prepare=doors.open,
        workers=1,
    )
    try:
        await run(trial, inject, check_more=shared)
    finally:
        doors.close()
