"""Tasks that tell what payload they got without showing it, and one that shows it wherever it can.

Load them into a worker with DISTRIQUEUE_WORKER_TASKS=tests.support.payload_tasks.
"""

import hashlib
import json
from typing import Any

from pydantic import BaseModel

from distriqueue_worker.tasks import TaskContext, task


def digest(payload: dict[str, Any]) -> str:
    """A fingerprint of a payload."""
    return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()


@task("digest.loop")
async def digest_in_the_loop(payload: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    """In the worker's event loop."""
    return {"digest": digest(payload), "attempt": context.attempt}


@task("digest.thread")
def digest_in_a_thread(payload: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    """In a thread."""
    return {"digest": digest(payload), "attempt": context.attempt}


@task("digest.process", isolation="process")
def digest_in_a_process(payload: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    """In a process of its own."""
    return {"digest": digest(payload), "attempt": context.attempt}


def _leak(payload: dict[str, Any], context: TaskContext) -> None:
    context.log.warning("the payload is %s", payload)
    print("the payload is", json.dumps(payload))  # noqa: T201 - that is what it is for
    context.progress(50, f"with {payload}")
    raise ValueError(f"cannot log in with {payload}")


@task("leak.loop")
async def leak_in_the_loop(payload: dict[str, Any], context: TaskContext) -> None:
    """Log, print, say and raise the payload."""
    _leak(payload, context)


@task("leak.process", isolation="process")
def leak_in_a_process(payload: dict[str, Any], context: TaskContext) -> None:
    """The same in a process of its own."""
    _leak(payload, context)


class Strict(BaseModel):
    """Wants what no payload of the tests is."""

    token: int


@task("strict")
async def strict(_payload: Strict, _context: TaskContext) -> None:
    """Never begins."""
