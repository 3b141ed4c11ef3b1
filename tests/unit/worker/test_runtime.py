"""Handlers under way: in the loop, in threads, in processes; their timeouts, their logs, and that they are dead."""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from distriqueue_protocol.messages import GrantId, Outcome, Ticket
from distriqueue_worker import logs
from distriqueue_worker.clocks import monotonic
from distriqueue_worker.commands import Result
from distriqueue_worker.metrics import WorkerMetrics
from distriqueue_worker.registries import Registry
from distriqueue_worker.runtime import Runtime
from distriqueue_worker.tasks import PermanentError, Task, TaskContext, marked, task

PATIENCE = 20.0


class Sized(BaseModel):
    size: int


@task("sized")
async def sized(payload: Sized, context: TaskContext) -> dict[str, Any]:
    return {"size": payload.size, "grant": context.grant, "attempt": context.attempt}


@task("endless")
async def endless(_payload: dict[str, Any], _context: TaskContext) -> None:
    await asyncio.Event().wait()


@task("stubborn")
async def stubborn(_payload: dict[str, Any], _context: TaskContext) -> str:
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    return "I was not impressed"


@task("cancels-itself")
async def cancels_itself(_payload: dict[str, Any], _context: TaskContext) -> None:
    raise asyncio.CancelledError


@task("fails")
async def fails(_payload: dict[str, Any], context: TaskContext) -> None:
    context.log.info("about to fail, secret=%s", "no")
    print("printed, too")  # noqa: T201
    print("without an end", end="")  # noqa: T201
    raise KeyError("missing")


class OddError(Exception):
    def __repr__(self) -> str:
        raise RuntimeError("no")


@task("odd")
async def odd(_payload: dict[str, Any], context: TaskContext) -> None:
    context.log.info("\ud800")
    print("\udfff")  # noqa: T201
    raise OddError("\ud800")


@task("never")
async def never(_payload: dict[str, Any], _context: TaskContext) -> None:
    raise PermanentError("it will never work")


@task("thread")
def in_thread(payload: dict[str, Any], context: TaskContext) -> str:
    context.log.info("in %s", threading.current_thread().name)
    if payload.get("wait"):
        context.cancelled.wait(PATIENCE)
    if payload.get("exit"):
        sys.exit(3)
    if payload.get("fail"):
        print("from the thread")  # noqa: T201
        raise ValueError("thread")
    return "thread"


@task("process", isolation="process")
def in_process(payload: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    print(f"printed by {context.name}")  # noqa: T201
    context.log.warning("logged by a process")
    if payload.get("pid"):
        with subprocess.Popen(["sleep", "1000"]) as child:
            Path(payload["pid"]).write_text(f"{os.getpid()} {child.pid}")
            time.sleep(1000)
    if payload.get("exit"):
        os._exit(9)
    if payload.get("fail"):
        raise ValueError("process")
    return {"pid": os.getpid(), "grant": context.grant}


@task("async-process", isolation="process")
async def async_in_process(payload: Sized, _context: TaskContext) -> int:
    await asyncio.sleep(0)
    return payload.size


class Running:
    """A runtime and what it said."""

    def __init__(self, *tasks: Task, lease: Callable[[], float]) -> None:
        found = (sized, endless, stubborn, cancels_itself, fails, odd, never, in_thread, in_process, async_in_process)
        known = [one for one in map(marked, found) if one]
        self.registry = CollectorRegistry()
        self.runtime = Runtime(
            Registry([*known, *tasks]),
            metrics=WorkerMetrics(self.registry),
            on_end=self._ended,
            lives_until=lease,
        )
        self.ends: dict[GrantId, tuple[Result | None, str]] = {}
        self._changed = asyncio.Event()
        self._number = 0

    def _ended(self, grant: GrantId, result: Result | None, completion_time: str) -> None:
        assert grant not in self.ends, "it ended twice"
        self.ends[grant] = (result, completion_time)
        self._changed.set()

    def start(self, kind: str, payload: dict[str, Any] | None = None, **fields: Any) -> GrantId:
        self._number += 1
        grant = GrantId(1, self._number)
        ticket = Ticket(
            namespace="n", name="j", uid="u", type=kind, attempt=2, epoch=1, payload=payload or {}, **fields
        )
        self.runtime.start(grant, ticket)
        assert grant not in self.ends, "it ended within start"
        return grant

    async def end(self, grant: GrantId) -> Result | None:
        async with asyncio.timeout(PATIENCE):
            while grant not in self.ends:
                self._changed.clear()
                await self._changed.wait()
        return self.ends[grant][0]

    async def result(self, kind: str, payload: dict[str, Any] | None = None, **fields: Any) -> Result:
        found = await self.end(self.start(kind, payload, **fields))
        assert found is not None
        return found


@pytest.fixture(autouse=True, scope="module")
def logging_as_in_a_worker() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    logs.configure("error", "json")
    # The handlers of pytest stay beside ours.
    root.handlers.extend(before)
    yield
    root.handlers[:] = before
    root.setLevel(level)


@pytest.fixture(name="running")
async def running_fixture() -> AsyncIterator[Running]:
    running = Running(lease=lambda: monotonic() + PATIENCE)
    yield running
    assert len(running.runtime) == 0


async def test_a_result_and_what_the_handler_is_told(running: Running) -> None:
    grant = running.start("sized", {"size": 4})
    result = await running.end(grant)
    assert result == Result(Outcome.SUCCEEDED, value={"size": 4, "grant": "1-1", "attempt": 2})
    assert running.ends[grant][1].endswith("Z")
    assert len(running.ends[grant][1]) == len("2026-11-22T10:00:00.000000Z")


async def test_an_invalid_payload_never_reaches_the_handler(running: Running) -> None:
    result = await running.result("sized", {"size": "many"})
    assert (result.outcome, result.reason, result.permanent) == (Outcome.FAILED, "InvalidPayload", True)
    assert result.error.startswith("size: ")


async def test_a_failure_carries_the_end_of_the_log(running: Running) -> None:
    with logs.captured_output():  # not in a fixture: pytest sets its own streams before each test
        result = await running.result("fails")
    assert (result.outcome, result.reason, result.permanent) == (Outcome.FAILED, "KeyError", False)
    lines = result.log_tail.splitlines()
    assert lines[:3] == ["INFO about to fail, secret=no", "printed, too", "without an end"]
    assert lines[-1] == "KeyError: 'missing'"


async def test_text_that_no_encoding_holds_is_no_obstacle(running: Running) -> None:
    with logs.captured_output():
        result = await running.result("odd")
    assert (result.outcome, result.reason, result.error) == (Outcome.FAILED, "OddError", "?")
    result.log_tail.encode()
    result.error.encode()


async def test_logs_of_two_handlers_do_not_mix(running: Running) -> None:
    with logs.captured_output():
        first, second = running.start("fails"), running.start("thread", {"fail": True})
        results = [await running.end(first), await running.end(second)]
    tails = [result.log_tail for result in results if result]
    assert "from the thread" not in tails[0]
    assert "from the thread" in tails[1]
    assert "about to fail" not in tails[1]


async def test_a_permanent_error(running: Running) -> None:
    result = await running.result("never")
    assert (result.reason, result.error, result.permanent) == ("PermanentError", "it will never work", True)


async def test_an_unknown_type_names_the_known_ones(running: Running) -> None:
    result = await running.result("absent")
    assert (result.outcome, result.reason, result.permanent) == (Outcome.FAILED, "UnknownType", False)
    assert "'absent'" in result.error
    assert "async-process, cancels-itself, endless" in result.error


async def test_a_timeout_is_a_failed_attempt(running: Running) -> None:
    for kind, payload in (("endless", {}), ("thread", {"wait": True}), ("stubborn", {})):
        result = await running.result(kind, payload, timeout_seconds=1)
        assert (result.outcome, result.reason, result.permanent) == (Outcome.FAILED, "Timeout", False)
        assert "1 s" in result.error


@pytest.mark.parametrize(("kind", "payload"), [("endless", {}), ("stubborn", {}), ("thread", {"wait": True})])
async def test_a_stopped_handler_has_no_result_whatever_it_returns(
    running: Running, kind: str, payload: dict[str, Any]
) -> None:
    grant = running.start(kind, payload)
    await asyncio.sleep(0)
    running.runtime.stop(grant)
    assert grant not in running.ends
    assert await running.end(grant) is None


async def test_stopping_one_that_has_not_begun_yet(running: Running) -> None:
    grants = [running.start("endless"), running.start("process")]
    for grant in grants:
        running.runtime.stop(grant)
    assert [await running.end(grant) for grant in grants] == [None, None]


async def test_stopping_what_has_ended_does_nothing(running: Running) -> None:
    grant = running.start("sized", {"size": 1})
    await running.end(grant)
    running.runtime.stop(grant)


async def test_a_handler_that_cancels_itself_has_failed(running: Running) -> None:
    result = await running.result("cancels-itself")
    assert (result.outcome, result.reason) == (Outcome.FAILED, "CancelledByHandler")


async def test_an_exit_of_a_thread_is_its_failure(running: Running) -> None:
    result = await running.result("thread", {"exit": True})
    assert (result.outcome, result.reason, result.error) == (Outcome.FAILED, "SystemExit", "3")


async def test_a_process_of_its_own(running: Running) -> None:
    result = await running.result("process")
    assert isinstance(result.value, dict)
    assert result.value["pid"] != os.getpid()
    assert (await running.result("async-process", {"size": 5})).value == 5
    assert (await running.result("async-process", {"size": "x"})).reason == "InvalidPayload"


async def test_a_process_that_fails_brings_its_log(running: Running) -> None:
    result = await running.result("process", {"fail": True})
    assert (result.reason, result.error) == ("ValueError", "process")
    assert result.log_tail.splitlines()[:2] == ["printed by j", "WARNING logged by a process"]
    assert "Traceback" in result.log_tail


async def test_a_process_that_dies(running: Running) -> None:
    result = await running.result("process", {"exit": True})
    assert (result.outcome, result.reason) == (Outcome.FAILED, "ProcessDied")
    assert "exit code 9" in result.error


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - other processes raise no event here
            await asyncio.sleep(0.02)


async def pids(path: Path) -> list[int]:
    found: list[int] = []

    def written() -> bool:
        found[:] = [int(pid) for pid in path.read_text().split()] if path.exists() else []
        return bool(found)

    await until(written)
    return found


async def test_stopping_a_process_kills_what_it_has_started(running: Running, tmp_path: Path) -> None:
    grant = running.start("process", {"pid": str(tmp_path / "pid")})
    started = await pids(tmp_path / "pid")
    assert [alive(pid) for pid in started] == [True, True]
    running.runtime.stop(grant)
    assert await running.end(grant) is None
    await until(lambda: not any(map(alive, started)))


async def test_a_process_killed_by_others_is_named(running: Running, tmp_path: Path) -> None:
    grant = running.start("process", {"pid": str(tmp_path / "pid")})
    process, _ = await pids(tmp_path / "pid")
    os.kill(process, signal.SIGKILL)
    result = await running.end(grant)
    assert result is not None
    assert "signal SIGKILL" in result.error


async def test_a_process_ends_itself_when_the_lease_is_not_renewed(tmp_path: Path) -> None:
    ends: list[float] = []

    def lease() -> float:
        ends.append(monotonic() + 1.0)
        return ends[-1]

    running = Running(lease=lease)
    grant = running.start("process", {"pid": str(tmp_path / "pid")})
    begun = asyncio.create_task(pids(tmp_path / "pid"))
    while not begun.done():  # to start takes longer than the first lease
        running.runtime.renew()
        await asyncio.wait({begun}, timeout=0.1)
    started = begun.result()
    result = await running.end(grant)
    assert monotonic() >= ends[-1]
    assert monotonic() >= ends[0] + 0.1
    assert result is not None
    assert result.reason == "ProcessDied"
    await until(lambda: not any(map(alive, started)))


async def test_jobs_are_counted_by_task_and_outcome(running: Running) -> None:
    await running.result("sized", {"size": 1})
    await running.result("absent")
    value = running.registry.get_sample_value
    assert value("distriqueue_worker_jobs_total", {"type": "sized", "outcome": "Succeeded"}) == 1
    assert value("distriqueue_worker_jobs_total", {"type": "unknown", "outcome": "Failed"}) == 1
    assert value("distriqueue_worker_job_duration_seconds_count", {"type": "sized"}) == 1
