"""The code on docs/writing-tasks.md runs, and does what the page says."""

import asyncio
import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from distriqueue_worker.commands import Checkpointed, Word
from distriqueue_worker.registries import Registry
from distriqueue_worker.tasks import TaskContext, marked
from docs.generating import DIRECTORY

PAGE = (DIRECTORY / "writing-tasks.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(name="module", scope="module")
def module_fixture(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All blocks of Python, run one after the other as one module."""
    (package,) = re.findall(r"^cat > text_tasks/__init__.py <<'EOF'\n(.*?)^EOF$", PAGE, re.MULTILINE | re.DOTALL)
    directory = tmp_path_factory.mktemp("text-tasks")
    (directory / "text_tasks").mkdir()
    (directory / "text_tasks" / "__init__.py").write_text(package)
    names: dict[str, Any] = {"__name__": "writing_tasks_page"}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(directory))
        importlib.import_module("text_tasks")
        for number, block in enumerate(BLOCKS, start=1):
            exec(compile(block, f"{Path(DIRECTORY).name}/writing-tasks.md, block {number}", "exec"), names)  # noqa: S102
    return names


def context(said: list[Word], **fields: Any) -> TaskContext:
    defaults = {"type": "t", "namespace": "n", "name": "j", "uid": "u", "attempt": 1, "max_attempts": 1, "grant": "1-1"}
    return TaskContext(**{**defaults, **fields}, tell=said.append)


def test_every_block_runs(module: dict[str, Any]) -> None:
    assert len(BLOCKS) >= 5
    assert set(Registry(one for one in map(marked, module.values()) if one).types) == {
        "pages.render",
        "rows.import",
        "text.words",
    }


async def test_a_handler_that_is_cancelled_leaves_where_it_was(module: dict[str, Any]) -> None:
    said: list[Word] = []
    running = asyncio.create_task(module["render"]({"pages": 10_000}, context(said, last_checkpoint=7)))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    (word,) = said
    assert isinstance(word, Checkpointed)
    assert word.data == 7


async def test_a_handler_goes_on_from_where_another_was(module: dict[str, Any]) -> None:
    assert await module["render"]({"pages": 3}, context([], last_checkpoint=2)) == {"pages": 3}
