"""Tasks that write down that they ran: side effects to count by, outside of everything that we say about ourselves.

Load it into a worker with DISTRIQUEUE_WORKER_TASKS=tests.support.recording_tasks and name a file by
DISTRIQUEUE_TEST_RECORDS. Every start and every end of a handler is one line of JSON, appended in one write, so the file
is whole however the worker ends. `records` reads it.
"""

import asyncio
import contextlib
import functools
import json
import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distriqueue_worker.tasks import PermanentError, TaskContext, task

RECORDS_VARIABLE = "DISTRIQUEUE_TEST_RECORDS"
POLL_SECONDS = 0.02
CRASHED = 23
"""The exit status of what crashes here."""
MEMORY_BYTES = 512 * 1024 * 1024
MEMORY_STEP_BYTES = 8 * 1024 * 1024


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
    os.write(_descriptor(), json.dumps(record).encode() + b"\n")


@functools.cache
def _descriptor() -> int:
    """The file, open for as long as the process lives: a process that runs out of descriptors can still write."""
    return os.open(os.environ[RECORDS_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


@contextlib.contextmanager
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
async def record_slow(payload: dict[str, Any], context: TaskContext) -> dict[str, str]:
    """Take `seconds`; tells the grant, so that a result leads to the run that it comes from."""
    with _recorded(context):
        await asyncio.sleep(payload["seconds"])
        return {"grant": context.grant}


@task("record.deaf", isolation="thread")
def record_deaf(payload: dict[str, Any], context: TaskContext) -> dict[str, str]:
    """Take `seconds` in a thread that does not look whether it is to stop."""
    with _recorded(context):
        time.sleep(payload["seconds"])
        return {"grant": context.grant}


@task("record.process", isolation="process")
def record_process(payload: dict[str, Any], context: TaskContext) -> dict[str, str]:
    """Take `seconds` in a process of its own."""
    with _recorded(context):
        time.sleep(payload["seconds"])
        return {"grant": context.grant}


@task("stubborn")
async def stubborn(payload: dict[str, Any], context: TaskContext) -> None:
    """Never end, and give in only at the third time of asking."""
    with _recorded(context):
        for _ in range(3):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(payload.get("seconds", 3600))


@task("exit")
async def exit_(_payload: dict[str, Any], context: TaskContext) -> None:
    """End the whole worker, without a word."""
    _append("started", context)
    os._exit(CRASHED)


@task("memory", isolation="process")
def memory(payload: dict[str, Any], context: TaskContext) -> None:
    """Take memory until there is none: `limited` by the process's own limit, else the kernel kills it."""
    with _recorded(context):
        if not payload["limited"]:
            os.kill(os.getpid(), signal.SIGKILL)  # what the kernel does to a container beyond its limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        hoard = []
        while True:
            hoard.append(bytearray(MEMORY_STEP_BYTES))


@task("count")
async def count(payload: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    """Count to `to` from the last checkpoint, and fail at `fail_at` unless an earlier attempt has come that far."""
    begun_at = context.last_checkpoint if isinstance(context.last_checkpoint, int) else 0
    with _recorded(context):
        for number in range(begun_at + 1, payload["to"] + 1):
            context.progress(100 * number // payload["to"], f"at {number}")
            context.checkpoint(number)
            if number == payload.get("fail_at") and begun_at < number:
                raise ValueError(f"stopped at {number}")
            await asyncio.sleep(payload.get("seconds", 0))
        return {"begun_at": begun_at}


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
