"""The network breaks, both ways or one way, and what was on its way arrives when it is whole again."""

import asyncio
from collections.abc import Callable
from typing import Final

import pytest

from tests.faults.conftest import Run
from tests.faults.drills import Drill, Trial, stopped
from tests.integration.tcp_relay import Relay
from tests.support.waiting import until

FAMILY = "Network"
CUT_SECONDS = 20.0
WAYS: Final[dict[str, Callable[[Relay], None]]] = {
    "both": Relay.hold,
    "out": Relay.hold_requests,
    "in": Relay.hold_answers,
}
WORDS = {"both": "both ways", "out": "only what it sends", "in": "only what it is sent"}
LATE = "what was sent before the cut arrives after it"


async def cut(relay: Relay, way: str) -> None:
    """Hold a link for a while; what was held then arrives."""
    WAYS[way](relay)
    await asyncio.sleep(CUT_SECONDS)  # the fault is a time that passes
    relay.go_on()


@pytest.mark.parametrize("way", WAYS)
async def test_worker_and_broker(run: Run, way: str) -> None:
    async def inject(drill: Drill) -> None:
        worker = await drill.busiest()
        with drill.silent(worker):
            await cut(drill.links[worker.name].broker, way)

    trial = Trial(
        name=f"net-worker-broker-{way}",
        family=FAMILY,
        fault=f"worker to RabbitMQ cut for {CUT_SECONDS:.0f} s, {WORDS[way]}; {LATE}",
        promise="the worker stops its handlers by 14 s; they are run again after the proof at 15 s",
        why="the worker could not be heard, has stopped it, and is proven lost",
        relays=True,
        spec=stopped,
    )
    await run(trial, inject)


@pytest.mark.parametrize("way", WAYS)
async def test_leader_and_broker(run: Run, way: str) -> None:
    async def inject(drill: Drill) -> None:
        leader = await drill.leader()
        await cut(drill.links[leader.name].broker, way)

    trial = Trial(
        name=f"net-leader-broker-{way}",
        family=FAMILY,
        fault=f"leader to RabbitMQ cut for {CUT_SECONDS:.0f} s, {WORDS[way]}; {LATE}",
        promise="the leader gives up the Lease, the standby leads",
        why="its worker heard no leader in time for its report, or was lost meanwhile",
        relays=True,
    )
    await run(trial, inject)


@pytest.mark.parametrize("way", WAYS)
async def test_leader_and_server(run: Run, way: str) -> None:
    async def inject(drill: Drill) -> None:
        leader = await drill.leader()
        relay = drill.links[leader.name].server
        WAYS[way](relay)
        await until(lambda: leader.metric("distriqueue_leader") == 0)
        await drill.leader()
        await asyncio.sleep(CUT_SECONDS / 2)  # the next one leads while the old one cannot know it
        relay.go_on()

    trial = Trial(
        name=f"net-leader-server-{way}",
        family=FAMILY,
        fault=f"leader to API server cut until the standby leads and 10 s longer, {WORDS[way]}; {LATE}",
        promise="the leader stops by its own clock at 4 s, before its Lease is over; a write that was under way and "
        "arrives late is refused, or obeyed by the next leader",
        once=True,
        relays=True,
    )
    await run(trial, inject)
