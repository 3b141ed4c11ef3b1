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
from pydantic import BaseModel, JsonValue

from distriqueue_protocol.messages import GrantId, Outcome, Ticket
from distriqueue_worker import logs
from distriqueue_worker.clocks import monotonic
from distriqueue_worker.commands import Checkpointed, Progressed, Result, Word
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


@task("exits")
async def exits(_payload: dict[str, Any], _context: TaskContext) -> None:
    sys.exit(4)


def _begin(payload: dict[str, Any]) -> Path:
    file = Path(payload["file"])
    file.write_text("begun")
    return file


@task("cleans")
async def cleans(payload: dict[str, Any], _context: TaskContext) -> None:
    file = _begin(payload)
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.01)
        file.write_text(f"{file.read_text()}, cleaned up")


@task("looks")
def looks(payload: dict[str, Any], context: TaskContext) -> None:
    file = _begin(payload) if "file" in payload else None
    context.cancelled.wait(PATIENCE)
    if file:
        file.write_text(f"{file.read_text()}, cleaned up")
    if payload.get("raise"):
        raise ValueError("I do not like that")
    context.raise_if_cancelled()


@task("looks-in-a-process", isolation="process")
def looks_in_a_process(payload: dict[str, Any], context: TaskContext) -> None:
    looks(payload, context)


@task("async-looks-in-a-process", isolation="process")
async def async_looks_in_a_process(payload: dict[str, Any], context: TaskContext) -> None:
    try:
        await cleans(payload, context)
    finally:
        assert context.cancelled.is_set()


@task("inattentive")
def inattentive(payload: dict[str, Any], _context: TaskContext) -> None:
    _begin(payload)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        time.sleep(0.01)


@task("inattentive-process", isolation="process")
def inattentive_process(payload: dict[str, Any], context: TaskContext) -> None:
    inattentive(payload, context)


DEAF: list[threading.Event] = []


@task("deaf")
def deaf(_payload: dict[str, Any], _context: TaskContext) -> None:
    while not DEAF[0].is_set():
        with contextlib.suppress(BaseException):
            DEAF[0].wait(0.01)


def _speak(context: TaskContext) -> Any:
    for page in (1, 2, 3):
        context.progress(page * 22.2, f"{['first', 'second', 'third'][page - 1]} page")
        context.checkpoint({"page": page})
    return context.last_checkpoint


@task("speaks")
async def speaks(_payload: dict[str, Any], context: TaskContext) -> Any:
    return _speak(context)


@task("speaks-in-a-thread")
def speaks_in_a_thread(_payload: dict[str, Any], context: TaskContext) -> Any:
    return _speak(context)


@task("speaks-in-a-process", isolation="process")
def speaks_in_a_process(_payload: dict[str, Any], context: TaskContext) -> Any:
    return _speak(context)


@task("says-too-much")
async def says_too_much(_payload: dict[str, Any], context: TaskContext) -> None:
    context.checkpoint("x" * 20_000)


@task("says-too-much-in-a-process", isolation="process")
def says_too_much_in_a_process(_payload: dict[str, Any], context: TaskContext) -> None:
    context.checkpoint("x" * 20_000)


@task("hungry")
async def hungry(_payload: dict[str, Any], _context: TaskContext) -> int:
    return len(bytearray(1 << 62))


@task("hungry-thread")
def hungry_thread(_payload: dict[str, Any], _context: TaskContext) -> int:
    return len(bytearray(1 << 62))


@task("hungry-process", isolation="process")
def hungry_process(_payload: dict[str, Any], _context: TaskContext) -> int:
    return len(bytearray(1 << 62))


class Running:
    """A runtime and what it said."""

    def __init__(
        self, *tasks: Task, lease: Callable[[], float], grace: float = 0.0, secrets: Path = Path("/nowhere")
    ) -> None:
        known = [one for one in map(marked, globals().values()) if one]
        self.registry = CollectorRegistry()
        self.words: list[tuple[GrantId, Word]] = []
        self.stuck: list[GrantId] = []
        self.runtime = Runtime(
            Registry([*known, *tasks]),
            metrics=WorkerMetrics(self.registry),
            on_end=self._ended,
            on_word=lambda grant, word: self.words.append((grant, word)),
            on_stuck=self.stuck.append,
            lives_until=lease,
            stop_grace=grace,
            secrets=secrets,
        )
        self.ends: dict[GrantId, tuple[Result | None, str]] = {}
        self._changed = asyncio.Event()
        self._number = 0

    def _ended(self, grant: GrantId, result: Result | None, completion_time: str) -> None:
        assert grant not in self.ends, "it ended twice"
        self.ends[grant] = (result, completion_time)
        self._changed.set()

    def start(
        self, kind: str, payload: dict[str, Any] | None = None, *, checkpoint: JsonValue = None, **fields: Any
    ) -> GrantId:
        self._number += 1
        grant = GrantId(1, self._number)
        ticket = Ticket(
            namespace="n", name="j", uid="u", type=kind, attempt=2, epoch=1, payload=payload or {}, **fields
        )
        self.runtime.start(grant, ticket, checkpoint)
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
    assert "async-process, cancels-itself, cleans" in result.error


async def test_a_timeout_is_a_failed_attempt(running: Running) -> None:
    for kind, payload in (("endless", {}), ("thread", {"wait": True}), ("stubborn", {})):
        result = await running.result(kind, payload, timeout_seconds=1)
        assert (result.outcome, result.reason, result.permanent) == (Outcome.FAILED, "Timeout", False)
        assert "1 s" in result.error


async def test_a_stopped_handler_that_returns_nothing_has_no_result(running: Running) -> None:
    for kind in ("endless", "looks"):
        grant = running.start(kind)
        await asyncio.sleep(0)
        running.runtime.stop(grant, at_once=True)
        assert grant not in running.ends
        assert await running.end(grant) is None


@pytest.mark.parametrize(("kind", "payload"), [("stubborn", {}), ("thread", {"wait": True})])
async def test_a_value_that_a_stopped_handler_returns_nevertheless_is_its_result(
    running: Running, kind: str, payload: dict[str, Any]
) -> None:
    grant = running.start(kind, payload)
    await asyncio.sleep(0)
    running.runtime.stop(grant, at_once=True)
    result = await running.end(grant)
    assert result is not None
    assert result.outcome is Outcome.SUCCEEDED


async def test_what_a_stopped_handler_raises_of_its_own_is_its_failure(running: Running) -> None:
    grant = running.start("looks", {"raise": True})
    running.runtime.stop(grant, at_once=True)
    result = await running.end(grant)
    assert result is not None
    assert (result.outcome, result.reason) == (Outcome.FAILED, "ValueError")


@pytest.fixture(name="patient")
async def patient_fixture() -> AsyncIterator[Running]:
    running = Running(lease=lambda: monotonic() + 10 * PATIENCE, grace=10 * PATIENCE)
    yield running
    assert len(running.runtime) == 0


@pytest.mark.parametrize("kind", ["cleans", "looks", "looks-in-a-process", "async-looks-in-a-process"])
async def test_a_handler_is_asked_before_it_is_killed(patient: Running, kind: str, tmp_path: Path) -> None:
    grant = patient.start(kind, {"file": str(tmp_path / "file")})
    await until((tmp_path / "file").exists)
    patient.runtime.stop(grant, at_once=False)
    patient.runtime.stop(grant, at_once=False)
    assert await patient.end(grant) is None
    assert (tmp_path / "file").read_text() == "begun, cleaned up"


async def test_a_second_word_hurries(patient: Running, tmp_path: Path) -> None:
    grants = [patient.start(kind, {"file": str(tmp_path / kind)}) for kind in ("inattentive", "inattentive-process")]
    for kind in ("inattentive", "inattentive-process"):
        await until((tmp_path / kind).exists)
    for at_once in (False, True):
        for grant in grants:
            patient.runtime.stop(grant, at_once=at_once)
    for grant in grants:
        assert await patient.end(grant) is None


async def test_a_handler_that_does_not_look_is_killed_when_its_grace_is_over(running: Running, tmp_path: Path) -> None:
    for kind in ("inattentive", "inattentive-process"):
        grant = running.start(kind, {"file": str(tmp_path / kind)})
        await until((tmp_path / kind).exists)
        running.runtime.stop(grant, at_once=False)
        assert await running.end(grant) is None
    assert running.stuck == []


async def test_a_timeout_ends_a_thread_that_does_not_look(running: Running, tmp_path: Path) -> None:
    result = await running.result("inattentive", {"file": str(tmp_path / "file")}, timeout_seconds=1)
    assert (result.outcome, result.reason) == (Outcome.FAILED, "Timeout")


async def test_a_thread_that_cannot_be_stopped_is_given_up_and_ends_all_the_same(running: Running) -> None:
    gate = threading.Event()
    DEAF.append(gate)
    grant = running.start("deaf")
    running.runtime.stop(grant, at_once=False)
    await until(lambda: running.stuck == [grant])
    assert grant not in running.ends
    gate.set()
    await running.end(grant)


async def test_what_handlers_say_arrives_before_their_end(running: Running) -> None:
    for kind in ("speaks", "speaks-in-a-thread", "speaks-in-a-process"):
        running.words.clear()
        grant = running.start(kind, checkpoint={"page": 1})
        result = await running.end(grant)
        assert result is not None
        assert result.value == {"page": 1}
        assert {word_grant for word_grant, _ in running.words} == {grant}
        last = {type(word): word for _, word in running.words}  # whichever of the two kinds came last
        assert last == {Progressed: Progressed(66, "third page"), Checkpointed: Checkpointed({"page": 3}, 10)}


async def test_a_checkpoint_that_cannot_be_is_refused_in_the_handler(running: Running) -> None:
    for kind in ("says-too-much", "says-too-much-in-a-process"):
        result = await running.result(kind)
        assert (result.outcome, result.reason) == (Outcome.FAILED, "ValueError")
        assert "16384 is the limit" in result.error
        assert running.words == []


async def test_the_exit_of_a_loop_handler_is_its_failure(running: Running) -> None:
    result = await running.result("exits")
    assert (result.outcome, result.reason, result.error) == (Outcome.FAILED, "SystemExit", "4")


async def test_without_memory(running: Running) -> None:
    for kind in ("hungry", "hungry-thread", "hungry-process"):
        result = await running.result(kind)
        assert (result.outcome, result.reason, result.permanent) == (Outcome.FAILED, "OutOfMemory", False)


async def test_stopping_one_that_has_not_begun_yet(running: Running) -> None:
    grants = [running.start("endless"), running.start("process")]
    for grant in grants:
        running.runtime.stop(grant, at_once=True)
    assert [await running.end(grant) for grant in grants] == [None, None]


async def test_stopping_what_has_ended_does_nothing(running: Running) -> None:
    grant = running.start("sized", {"size": 1})
    await running.end(grant)
    running.runtime.stop(grant, at_once=True)


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
    running.runtime.stop(grant, at_once=True)
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


@pytest.mark.parametrize("isolation", ["loop", "thread"])
async def test_nothing_begins_that_the_lease_does_not_cover_any_more(isolation: str) -> None:
    """A process that was frozen between the start and the handler's first step wakes."""
    begun: list[str] = []

    async def in_loop(_payload: dict[str, Any], _context: TaskContext) -> None:
        begun.append("loop")

    def in_thread(_payload: dict[str, Any], _context: TaskContext) -> None:
        begun.append("thread")

    late = marked(task("late")(in_loop if isolation == "loop" else in_thread))
    assert late is not None
    running = Running(late, lease=lambda: monotonic() - 1.0)
    result = await running.end(running.start("late"))
    assert result is not None
    assert (result.outcome, result.reason) == (Outcome.FAILED, "LeaseOverError")  # custody reports nothing of it
    assert begun == []


async def test_jobs_are_counted_by_task_and_outcome(running: Running) -> None:
    await running.result("sized", {"size": 1})
    await running.result("absent")
    value = running.registry.get_sample_value
    assert value("distriqueue_worker_jobs_total", {"type": "sized", "outcome": "Succeeded"}) == 1
    assert value("distriqueue_worker_jobs_total", {"type": "unknown", "outcome": "Failed"}) == 1
    assert value("distriqueue_worker_job_duration_seconds_count", {"type": "sized"}) == 1
