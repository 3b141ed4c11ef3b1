"""A program dies between two side effects, at every place where it has two, each under load.

The leader that dies is a standby that has just taken over, so that the steps of a takeover are among the places.
"""

import asyncio

import pytest

from tests.faults.conftest import Run
from tests.faults.drills import QUICK, Drill, Trial
from tests.support.waiting import until

FAMILY = "Failpoints"
COUNT = 60 if QUICK else 100
OPERATOR = {
    "inbox-bound": "inbox bound, roll not called",
    "workers-listed": "roll called, jobs not read",
    "takeover-begun": "jobs read, nothing consumed",
    "marker-send": "before its marker",
    "marker-between": "its marker in the inbox, not in the report queue",
    "takeover-done": "before its first grant",
    "worker-write": "before it writes a worker",
    "worker-written": "a worker written, nothing granted to it",
    "ticket-publish": "before it publishes a ticket",
    "ticket-confirmed": "ticket confirmed, not noted",
    "answer-send": "granted in its books, not answered",
    "answer-sent": "answered",
    "status-write": "before a status write",
    "status-written": "status written, report not acknowledged",
    "report-ack": "status written, before the acknowledgement",
    "report-acked": "report acknowledged, not settled",
}
"""What has happened, and what has not, where the leader dies."""
WORKER = {
    "ticket-received": "ticket received, not claimed",
    "session-send": "before it sends a claim or heartbeat",
    "session-confirmed": "claim or heartbeat confirmed",
    "answer-received": "grant received, not started",
    "answer-taken": "handler about to start, ticket not acknowledged",
    "ticket-ack": "before it acknowledges tickets",
    "ticket-acked": "tickets acknowledged",
    "report-publish": "handler ended, report not published",
    "report-confirmed": "report confirmed, not noted",
}
TIMES = {
    "ticket-publish": 10,
    "ticket-confirmed": 10,
    "answer-send": 3,
    "answer-sent": 3,
    "status-write": 5,
    "status-written": 5,
    "report-ack": 3,
    "report-acked": 3,
    "ticket-received": 15,
    "session-send": 8,
    "session-confirmed": 8,
    "answer-received": 4,
    "answer-taken": 4,
    "ticket-ack": 3,
    "ticket-acked": 3,
    "report-publish": 12,
    "report-confirmed": 12,
}
"""The passing at which the program dies; the first by default."""


def armed(place: str) -> str:
    """The value of the variable."""
    return f"{place}:{TIMES.get(place, 1)}"


async def under_way(drill: Drill) -> None:
    """Make jobs, and wait until some are done."""
    await drill.create(COUNT, prefix="first")
    await until(lambda: drill.returned() >= COUNT // 8, pause=0.1, otherwise=drill.stage.last_words)


@pytest.mark.parametrize("place", OPERATOR)
async def test_leader_dies(run: Run, place: str) -> None:
    async def inject(drill: Drill) -> None:
        leader, standby = await drill.leader(), await drill.standby()
        drill.retire(standby)
        await asyncio.to_thread(standby.stop)
        armed_one = await drill.operator("armed", FAILPOINT=armed(place))
        await under_way(drill)
        await drill.kill(leader)
        more = asyncio.create_task(drill.create(COUNT, prefix="more"))
        await drill.worker("late")  # so there is a worker to write, too
        await until(lambda: not armed_one.process.alive(), otherwise=lambda: place)
        drill.fault_ended()
        await more

    trial = Trial(
        name=f"failpoint-leader-{place}",
        family=FAMILY,
        fault=f"leader dies: {OPERATOR[place]}",
        promise="the next leader finds out by custody what was done; no attempt is repeated",
        once=True,
        jobs=0,
    )
    await run(trial, inject)


@pytest.mark.parametrize("place", WORKER)
async def test_worker_dies(run: Run, place: str) -> None:
    async def inject(drill: Drill) -> None:
        armed_one = await drill.worker("armed", FAILPOINT=armed(place))
        await under_way(drill)
        more = asyncio.create_task(drill.create(COUNT, prefix="more"))
        await until(lambda: not armed_one.process.alive(), otherwise=lambda: place)
        drill.fault_ended()
        await more

    trial = Trial(
        name=f"failpoint-worker-{place}",
        family=FAMILY,
        fault=f"worker dies: {WORKER[place]}",
        promise="what it held is run again once its loss is proven; a success that the broker has confirmed is not",
        why="its process was dead, and proven lost before its report was confirmed",
        jobs=0,
    )
    await run(trial, inject)
