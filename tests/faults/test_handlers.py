"""Handlers raise, hang, crash, and take the worker or the memory with them: others are not harmed."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.conftest import Run
from tests.faults.drills import Drill, Spec, Trial, mixed
from tests.support.jobs import phase

FAMILY = "Handlers"
ODD_EVERY = 6


def among(*odd: Spec) -> Callable[[int], Spec]:
    """Every sixth job is one of these, in turn; the others are like everywhere."""

    def spec(number: int) -> Spec:
        turn, rest = divmod(number, ODD_EVERY)
        return mixed(number) if rest else odd[turn % len(odd)]

    return spec


def phases(jobs: list[dict[str, Any]], **types: str) -> None:
    """Hold the phase of each job against that of its type; by default it has succeeded."""
    for job in jobs:
        assert phase(job) == types.get(job["spec"]["type"].replace(".", "_"), "Succeeded"), job["status"]


async def nothing(_drill: Drill) -> None:
    """The handlers are the fault."""


@pytest.mark.quick
async def test_handlers_fail(run: Run) -> None:
    async def check_more(drill: Drill) -> None:
        phases(await drill.jobs.named(drill.names), refusing="Failed", hold="Dead", stubborn="Dead", crash="Dead")

    trial = Trial(
        name="handlers-fail",
        family=FAMILY,
        fault="handlers that raise, raise for good, hang, do not give in when stopped, and end their own process",
        promise="each attempt that fails is over before the next begins; out of attempts is Dead, raised for good is "
        "Failed; the others do not notice",
        why="it failed, and has attempts left",
        ends=frozenset({"Succeeded", "Failed", "Dead"}),
        spec=among(
            {"type": "flaky", "payload": {"failures": 2}, "backoff": {"initialSeconds": 0}},
            {"type": "refusing"},
            {"type": "hold", "payload": {"until": "never"}, "timeoutSeconds": 1, "maxAttempts": 2},
            {"type": "stubborn", "payload": {"seconds": 600}, "timeoutSeconds": 1, "maxAttempts": 1},
            {"type": "crash", "maxAttempts": 2, "backoff": {"initialSeconds": 0}},
        ),
        once=False,
    )
    await run(trial, nothing, check_more=check_more)


async def test_handlers_use_all_memory(run: Run) -> None:
    async def check_more(drill: Drill) -> None:
        phases(await drill.jobs.named(drill.names), memory="Dead")

    trial = Trial(
        name="handlers-memory",
        family=FAMILY,
        fault="handlers in processes of their own that use all the memory: refused by a limit, or killed (SIGKILL)",
        promise="the attempt has failed, the worker lives; out of attempts is Dead",
        why="it failed, and has attempts left",
        ends=frozenset({"Succeeded", "Dead"}),
        spec=among(
            {"type": "memory", "payload": {"limited": True}, "maxAttempts": 2, "backoff": {"initialSeconds": 0}},
            {"type": "memory", "payload": {"limited": False}, "maxAttempts": 2, "backoff": {"initialSeconds": 0}},
        ),
    )
    await run(trial, nothing, check_more=check_more)


async def test_handler_kills_its_worker(run: Run) -> None:
    async def inject(drill: Drill) -> None:
        await drill.create(1, prefix="poison", spec=lambda _: {"type": "exit", "maxAttempts": 3})

    async def check_more(drill: Drill) -> None:
        jobs = await drill.jobs.named(drill.names)
        phases(jobs, exit="Dead")
        poison = next(job for job in jobs if job["spec"]["type"] == "exit")
        assert [entry["outcome"] for entry in poison["status"]["attempts"]] == ["Lost"] * 3
        drill.note = f"workers started again: {drill.restarts}"

    trial = Trial(
        name="handler-kills-worker",
        family=FAMILY,
        fault="a handler that ends its whole worker, each time (`os._exit`, three attempts)",
        promise="its job is Dead after its attempts; what ran beside it is run again",
        why="its process was dead, and proven lost",
        ends=frozenset({"Succeeded", "Dead"}),
    )
    await run(trial, inject, check_more=check_more)
