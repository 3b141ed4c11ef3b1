"""Tasks of the tests' own: they leave traces outside of the system, or misbehave."""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from distriqueue_worker.tasks import TaskContext, task


class Trace(BaseModel):
    """Where to write, how often, and for how long."""

    file: Path
    seconds: float = 0.0


def _write(payload: Trace, context: TaskContext, word: str) -> None:
    with payload.file.open("a") as file:
        file.write(f"{context.name} {context.grant} {word} {time.monotonic():.3f}\n")


@task("trace")
async def trace(payload: Trace, context: TaskContext) -> str:
    """Write a line at the beginning, ten a second meanwhile, and one at the end."""
    _write(payload, context, "begin")
    end = time.monotonic() + payload.seconds
    while time.monotonic() < end:
        await asyncio.sleep(0.1)
        _write(payload, context, "on")
    _write(payload, context, "end")
    return "traced"


@task("trace-process", isolation="process")
async def trace_in_a_process(payload: Trace, context: TaskContext) -> str:
    """The same in a process of its own."""
    return await trace(payload, context)


@task("inattentive")
def inattentive(payload: Trace, context: TaskContext) -> None:
    """A thread that does not look at `context.cancelled`."""
    _write(payload, context, "begin")
    end = time.monotonic() + payload.seconds
    while time.monotonic() < end:
        time.sleep(0.1)
        _write(payload, context, "on")
    _write(payload, context, "end")


@task("inattentive-process", isolation="process")
def inattentive_in_a_process(payload: Trace, context: TaskContext) -> None:
    """A process that does not, either."""
    inattentive(payload, context)


@task("deaf")
def deaf(payload: Trace, context: TaskContext) -> None:
    """A thread that nothing can end."""
    end = time.monotonic() + payload.seconds
    while time.monotonic() < end:
        with contextlib.suppress(BaseException):
            inattentive(payload, context)


@task("careful")
async def careful(payload: Trace, context: TaskContext) -> str:
    """Clean up when told to stop; `seconds` says for how long, and then return all the same."""
    _write(payload, context, "begin")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        _write(payload, context, "cancelled" if context.cancelled.is_set() else "odd")
        await asyncio.sleep(payload.seconds)
        if payload.seconds == 0:
            raise
    return "finished all the same"


@task("careful-thread")
def careful_in_a_thread(payload: Trace, context: TaskContext) -> None:
    """Look, and give in."""
    _write(payload, context, "begin")
    context.cancelled.wait()
    _write(payload, context, "cancelled")
    context.raise_if_cancelled()


@task("careful-process", isolation="process")
def careful_in_a_process(payload: Trace, context: TaskContext) -> None:
    """The same in a process."""
    careful_in_a_thread(payload, context)


def _page(payload: dict[str, Any], context: TaskContext) -> object:
    pages = payload["pages"]
    before = context.last_checkpoint
    done = before["done"] if isinstance(before, dict) and isinstance(before["done"], int) else 0
    for page in range(done, pages):
        context.progress(100 * page / pages, f"page {page}")
        context.checkpoint({"done": page + 1})
        if page + 1 == payload.get("fail"):
            raise ValueError(f"page {page} is torn")
    return {"began": done}


@task("pages")
async def pages(payload: dict[str, Any], context: TaskContext) -> object:
    """Go through pages, fail at one, and go on from there in the next attempt."""
    return _page(payload, context)


@task("pages-thread")
def pages_in_a_thread(payload: dict[str, Any], context: TaskContext) -> object:
    """The same in a thread."""
    return _page(payload, context)


@task("pages-process", isolation="process")
def pages_in_a_process(payload: dict[str, Any], context: TaskContext) -> object:
    """The same in a process."""
    return _page(payload, context)


@task("steps")
async def steps(payload: Trace, context: TaskContext) -> None:
    """Say a hundred times a second how far it is."""
    _write(payload, context, "begin")
    for step in range(int(payload.seconds * 100)):
        context.progress(step % 101, f"step {step}")
        await asyncio.sleep(0.01)


@task("hungry", isolation="process")
def hungry(_payload: dict[str, Any], _context: TaskContext) -> int:
    """Use more memory than there is."""
    eaten = []
    while True:
        eaten.append(b"x" * 16_000_000)


@task("spin")
async def spin(payload: Trace, context: TaskContext) -> None:
    """An async handler that never lets the loop go on."""
    _write(payload, context, "begin")
    end = time.monotonic() + payload.seconds
    while time.monotonic() < end:
        _write(payload, context, "on")
        sum(range(200_000))
    _write(payload, context, "end")
