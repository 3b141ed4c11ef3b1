"""How functions become handlers, and which of them a worker has."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from distriqueue_worker.builtin_tasks import Calculate, calculate
from distriqueue_worker.registries import Registry
from distriqueue_worker.results import InvalidPayloadError, read_payload
from distriqueue_worker.tasks import PermanentError, Task, TaskContext, TaskError, marked, task


class Payload(BaseModel):
    size: int


@task("typed")
async def typed(payload: Payload, _context: TaskContext) -> int:
    return payload.size


@task("plain")
def plain(payload: dict[str, Any], _context: TaskContext) -> int:
    return len(payload)


def context() -> TaskContext:
    return TaskContext(type="t", namespace="n", name="j", uid="u", attempt=1, max_attempts=1, grant="1-1")


def task_of(function: object) -> Task:
    found = marked(function)
    assert found is not None
    return found


def test_the_decorator_leaves_the_function_as_it_is() -> None:
    assert asyncio.run(typed(Payload(size=4), context())) == 4
    assert plain({}, context()) == 0


def test_where_a_handler_runs_by_default() -> None:
    assert (task_of(typed).isolation, task_of(plain).isolation) == ("loop", "thread")


def test_the_payload_is_read_by_its_annotation() -> None:
    reader = task_of(typed).payload_reader()
    assert read_payload(reader, {"size": 3}) == Payload(size=3)
    with pytest.raises(InvalidPayloadError, match="size"):
        read_payload(reader, {})
    plain_reader = task_of(plain).payload_reader()
    assert read_payload(plain_reader, {"a": 1}) == {"a": 1}


def test_a_function_that_takes_too_little_or_too_much_is_refused() -> None:
    with pytest.raises(TaskError, match="must take two arguments"):

        @task("short")
        def short(_payload: dict[str, Any]) -> None: ...

    with pytest.raises(TaskError, match="must take two arguments"):

        @task("long")
        def long(_payload: dict[str, Any], _context: TaskContext, _more: int) -> None: ...


def test_isolation_must_fit_the_function() -> None:
    with pytest.raises(TaskError, match="would block the loop"):

        @task("blocks", isolation="loop")
        def blocks(_payload: dict[str, Any], _context: TaskContext) -> None: ...

    with pytest.raises(TaskError, match="use 'loop' or 'process'"):

        @task("async", isolation="thread")
        async def asynchronous(_payload: dict[str, Any], _context: TaskContext) -> None: ...

    with pytest.raises(TaskError, match="importable"):

        @task("nested", isolation="process")
        def nested(_payload: dict[str, Any], _context: TaskContext) -> None: ...


def test_an_annotation_that_is_unclear_is_an_error_at_the_start() -> None:
    async def unclear(payload: "Missing", _context: TaskContext) -> None:  # type: ignore[name-defined]  # noqa: F821
        ...

    with pytest.raises(TaskError, match="Missing"):
        Registry([Task("unclear", unclear, "loop")])


def test_a_type_of_its_own_comes_before_the_default() -> None:
    registry = Registry.load()
    assert registry.types == ("*", "calculate", "email", "fail")
    found = registry.find("calculate")
    other = registry.find("anything else")
    assert found is not None
    assert other is not None
    assert (found[0].name, other[0].name) == ("calculate", "*")
    assert Registry.load(default_task=False).find("anything else") is None


@pytest.fixture(name="modules")
def modules_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


SOURCE = """
from distriqueue_worker.tasks import task

@task("{name}")
def handler(payload: dict, context): ...
"""


def test_modules_bring_tasks(modules: Path) -> None:
    (modules / "own_tasks.py").write_text(SOURCE.format(name="own"))
    registry = Registry.load(["own_tasks"])
    assert "own" in registry.types


def test_two_tasks_of_one_name_are_an_error_that_names_both(modules: Path) -> None:
    (modules / "first_tasks.py").write_text(SOURCE.format(name="same"))
    (modules / "second_tasks.py").write_text(SOURCE.format(name="same"))
    with pytest.raises(TaskError, match="'same': first_tasks:handler and second_tasks:handler"):
        Registry.load(["first_tasks", "second_tasks"])
    assert "same" in Registry.load(["first_tasks", "first_tasks"]).types


def test_an_own_default_needs_the_built_in_one_off(modules: Path) -> None:
    (modules / "default_tasks.py").write_text(SOURCE.format(name="*"))
    with pytest.raises(TaskError, match="DISTRIQUEUE_WORKER_DEFAULT_TASK=false"):
        Registry.load(["default_tasks"])
    assert "*" in Registry.load(["default_tasks"], default_task=False).types


def test_entry_points_bring_tasks(modules: Path) -> None:
    (modules / "packaged_tasks.py").write_text(SOURCE.format(name="packaged"))
    information = modules / "packaged-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: packaged\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[distriqueue.tasks]\nmine = packaged_tasks\n")
    assert "packaged" in Registry.load().types
    (information / "entry_points.txt").write_text("[distriqueue.tasks]\nmine = packaged_tasks:handler\n")
    assert "packaged" in Registry.load().types
    (information / "entry_points.txt").write_text("[distriqueue.tasks]\nmine = packaged_tasks:missing\n")
    with pytest.raises(TaskError, match=r"entry point 'mine' \(packaged_tasks:missing\) cannot be loaded"):
        Registry.load()


def test_modules_without_tasks_or_with_errors_are_named(modules: Path) -> None:
    (modules / "no_tasks.py").write_text("x = 1\n")
    (modules / "bad_tasks.py").write_text("raise ValueError('broken')\n")
    with pytest.raises(TaskError, match="module 'no_tasks' of DISTRIQUEUE_WORKER_TASKS holds no task"):
        Registry.load(["no_tasks"])
    with pytest.raises(TaskError, match=r"module 'bad_tasks' .* ValueError: broken"):
        Registry.load(["bad_tasks"])
    with pytest.raises(TaskError, match="cannot be imported"):
        Registry.load(["absent_tasks"])


@pytest.mark.parametrize(
    ("operation", "operands", "value"),
    [
        ("add", [1, 2, 3.5], 6.5),
        ("sum", [0.1] * 10, 1.0),
        ("subtract", [10, 1, 2], 7),
        ("multiply", [2, 3, 4], 24),
        ("divide", [24, 2, 3], 4),
        ("power", [2, 10], 1024),
        ("mean", [1, 2, 6], 3),
        ("min", [3, 1, 2], 1),
        ("max", [3, 1, 2], 3),
    ],
)
def test_calculations(operation: str, operands: list[float], value: float) -> None:
    payload = TypeAdapter(Calculate).validate_python({"operation": operation, "operands": operands})
    assert asyncio.run(calculate(payload, context())).result == value


@pytest.mark.parametrize(
    ("operation", "operands", "message"),
    [
        ("divide", [1, 0], "division by zero"),
        ("power", [0, -1], "no real value"),
        ("power", [-8, 0.5], "no real value"),
        ("power", [10, 9999], "too large"),
        ("power", [10, 1e9], "exponent"),
        ("multiply", [1e308, 10], "too large"),
    ],
)
def test_calculations_without_a_value_fail_for_good(operation: str, operands: list[float], message: str) -> None:
    payload = TypeAdapter(Calculate).validate_python({"operation": operation, "operands": operands})
    with pytest.raises(PermanentError, match=message):
        asyncio.run(calculate(payload, context()))
