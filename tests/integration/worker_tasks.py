"""Tasks of the tests' own: they leave traces outside of the system, or misbehave."""

import asyncio
import time
from pathlib import Path

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


@task("deaf")
def deaf(payload: Trace, context: TaskContext) -> None:
    """A thread that does not look at `context.cancelled`."""
    _write(payload, context, "begin")
    end = time.monotonic() + payload.seconds
    while time.monotonic() < end:
        time.sleep(0.1)
        _write(payload, context, "on")
    _write(payload, context, "end")


@task("spin")
async def spin(payload: Trace, context: TaskContext) -> None:
    """An async handler that never lets the loop go on."""
    _write(payload, context, "begin")
    end = time.monotonic() + payload.seconds
    while time.monotonic() < end:
        _write(payload, context, "on")
        sum(range(200_000))
    _write(payload, context, "end")
