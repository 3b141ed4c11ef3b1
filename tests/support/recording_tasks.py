"""Tasks that write down that they ran: side effects to count by, outside of everything that we say about ourselves.

Load it into a worker with DISTRIQUEUE_WORKER_TASKS=tests.support.recording_tasks and name a file by
DISTRIQUEUE_TEST_RECORDS. Every start and every end of a handler is one line of JSON, appended in one write, so the file
is whole however the worker ends. `records` reads it.
"""

import asyncio
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distriqueue_worker.tasks import PermanentError, TaskContext, task

RECORDS_VARIABLE = "DISTRIQUEUE_TEST_RECORDS"
POLL_SECONDS = 0.02
CRASHED = 23
"""The exit status of what crashes here."""


def _append(event: str, context: TaskContext) -> None:
    record = {
        "event": event,
        "namespace": context.namespace,
        "name": context.name,
        "uid": context.uid,
        "type": context.type,
        "attempt": context.attempt,
        "grant": context.grant,
        "worker": os.environ.get("DISTRIQUEUE_WORKER_NAME", ""),
        "pid": os.getpid(),
        "mono": time.monotonic(),
        "wall": time.time(),
    }
    descriptor = os.open(os.environ[RECORDS_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, json.dumps(record).encode() + b"\n")
    finally:
        os.close(descriptor)


@contextmanager
def _recorded(context: TaskContext) -> Iterator[None]:
    """Write down the start, and how it ended: `returned`, `raised` or `stopped`."""
    _append("started", context)
    try:
        yield
    except asyncio.CancelledError:
        _append("stopped", context)
        raise
    except BaseException:
        _append("raised", context)
        raise
    _append("returned", context)


@task("record")
async def record(payload: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    """Return at once."""
    with _recorded(context):
        return {"payload": payload, "attempt": context.attempt}


@task("record.slow")
async def record_slow(payload: dict[str, Any], context: TaskContext) -> None:
    """Take `seconds`."""
    with _recorded(context):
        await asyncio.sleep(payload["seconds"])


@task("hold")
async def hold(payload: dict[str, Any], context: TaskContext) -> str:
    """Run until the file `until` exists, beside the records."""
    gate = Path(os.environ[RECORDS_VARIABLE]).with_name(payload["until"])
    with _recorded(context):
        while not gate.exists():  # noqa: ASYNC110 - the event is one of the file system
            await asyncio.sleep(POLL_SECONDS)
        return "released"


@task("flaky")
async def flaky(payload: dict[str, Any], context: TaskContext) -> int:
    """Fail the first `failures` attempts."""
    with _recorded(context):
        if context.attempt <= payload["failures"]:
            raise ValueError(f"attempt {context.attempt} fails as told")
        return context.attempt


@task("refusing")
async def refusing(_payload: dict[str, Any], context: TaskContext) -> None:
    """Fail for good."""
    with _recorded(context):
        raise PermanentError("no attempt can help")


@task("crash", isolation="process")
def crash(_payload: dict[str, Any], context: TaskContext) -> None:
    """End the process of the handler, without a word."""
    _append("started", context)
    os._exit(CRASHED)


@task("big")
async def big(payload: dict[str, Any], context: TaskContext) -> str:
    """Return a text of so many `characters`."""
    with _recorded(context):
        return "x" * int(payload["characters"])


@task("logging")
async def logging_(payload: dict[str, Any], context: TaskContext) -> None:
    """Log `lines` lines and fail."""
    with _recorded(context):
        for number in range(payload["lines"]):
            context.log.info("line %s of the handler", number)
        raise ValueError("failed after logging")
