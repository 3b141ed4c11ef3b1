"""Operators die, freeze and are all gone: running handlers go on, and nothing is lost or run twice."""

import asyncio

import pytest

from tests.faults.conftest import Run
from tests.faults.drills import Drill, Trial
from tests.support.waiting import until

FAMILY = "Operator"
FREEZE_MARGIN_STARTS = 10
"""So many handlers the next leader has started when the frozen one wakes."""


@pytest.mark.quick
async def test_leader_kill(run: Run) -> None:
    async def inject(drill: Drill) -> None:
        await drill.kill(await drill.leader())

    trial = Trial(
        name="leader-kill",
        family=FAMILY,
        fault="leader, kill -9",
        promise="the standby leads when the Lease has run out (6 s); handlers run on; no attempt is repeated",
        once=True,
    )
    await run(trial, inject)


async def test_standby_kill(run: Run) -> None:
    async def inject(drill: Drill) -> None:
        await drill.kill(await drill.standby())

    trial = Trial(
        name="standby-kill",
        family=FAMILY,
        fault="standby, kill -9",
        promise="nobody notices",
        once=True,
    )
    await run(trial, inject)


async def test_leader_freeze(run: Run) -> None:
    async def inject(drill: Drill) -> None:
        leader = await drill.leader()
        epoch = int(leader.metric("distriqueue_leader_epoch"))

        def later() -> int:
            return sum(record.epoch > epoch for record in drill.stage.records.started())

        async with drill.frozen(leader):
            await until(lambda: later() >= FREEZE_MARGIN_STARTS, pause=0.1)
        await until(lambda: leader.metric("distriqueue_leader") == 0)
        drill.fault_ended()

    trial = Trial(
        name="leader-freeze",
        family=FAMILY,
        fault="leader, SIGSTOP past its lease while the standby takes over, then SIGCONT",
        promise="the next leader leads; what the woken one still sends or writes is refused; no attempt is repeated",
        once=True,
    )
    await run(trial, inject)


async def test_operators_all_gone(run: Run) -> None:
    async def inject(drill: Drill) -> None:
        gone = list(drill.stage.operators)
        drill.retire(*gone)
        await drill.kill(*gone)
        ended = drill.returned()
        running = len(drill.stage.records.started()) - ended
        await until(lambda: drill.returned() >= ended + running, otherwise=lambda: (ended, running))
        await asyncio.sleep(GONE_SECONDS)  # the fault is a time that passes
        await asyncio.gather(*(drill.operator(f"again-{number}") for number in range(2)))

    trial = Trial(
        name="operators-gone",
        family=FAMILY,
        fault="all operators, kill -9; none for a minute; workers finish what they run",
        promise="finished work is kept by the broker and accepted by the next leader; no attempt is repeated",
        once=True,
    )
    await run(trial, inject)


GONE_SECONDS = 60.0
