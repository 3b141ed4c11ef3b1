"""The other side of a handler with a process of its own: `python -m distriqueue_worker.processes`.

It reads an assignment from its standard input, runs the handler, and writes the verdict to its standard output; what
the handler prints goes to standard error instead, where the worker reads it line by line.

Guarantees: the process kills itself and all of its process group when its worker is gone, and when the worker has not
renewed the lease in time: a frozen worker cannot kill anybody. If even its watching thread cannot run, the kernel's
timer ends the process a second later (handlers must leave SIGALRM alone). Fails by ending without a verdict.
"""

import asyncio
import importlib
import json
import logging
import os
import select
import signal
import sys
import threading
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import reduce
from typing import Any, Final, Self

from distriqueue_protocol.messages import Outcome
from distriqueue_worker.clocks import monotonic
from distriqueue_worker.commands import Result
from distriqueue_worker.results import raised, read_payload, succeeded
from distriqueue_worker.tasks import Task, TaskContext, marked

LAST_RESORT_SECONDS: Final = 1.0
"""How long after the lease the kernel's timer ends the process, if its thread could not."""
LOOK_SECONDS: Final = 0.25
CHUNK_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a process has to do.

    Attributes:
        origin: Module and qualified name of the handler.
        payload: The job's payload.
        context: The fields of the TaskContext.
        until: The monotonic time, which is the machine's, until which the process may live.
        level: The log level.
    """

    origin: str
    payload: dict[str, Any]
    context: dict[str, Any]
    until: float
    level: int

    @classmethod
    def of(cls, task: Task, payload: dict[str, Any], context: TaskContext, *, until: float) -> Self:
        """The assignment for a job."""
        names = ("type", "namespace", "name", "uid", "attempt", "max_attempts", "grant")
        fields = {name: getattr(context, name) for name in names}
        fields["deadline"] = context.deadline.isoformat() if context.deadline else None
        return cls(task.origin, payload, fields, until, logging.getLogger().level)

    def encode(self) -> bytes:
        """One line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the handler's process says about its end."""

    fields: dict[str, Any]

    @classmethod
    def decode(cls, data: bytes) -> Self | None:
        """Read it; None when the process ended before it had said all of it."""
        try:
            return cls(json.loads(data))
        except ValueError:
            return None

    def encode(self) -> bytes:
        """JSON."""
        return json.dumps(self.fields).encode()

    def result(self) -> Result:
        """The result as the worker reports it."""
        return Result(**{**self.fields, "outcome": Outcome(self.fields["outcome"])})


def main() -> int:
    """Run the handler of the assignment."""
    commands = os.fdopen(0, "rb", buffering=0)
    verdicts = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdin = open(os.devnull)  # noqa: SIM115, PTH123 - for the rest of the process
    line, rest = _read_line(commands.fileno())
    assignment = Assignment(**json.loads(line))
    threading.Thread(target=_watch, args=(commands.fileno(), assignment.until, rest), daemon=True).start()
    logging.basicConfig(level=assignment.level, format="%(levelname)s %(message)s", stream=sys.stderr)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # it is the interpreter's own text stream
    result = _run(assignment)
    with verdicts:
        verdicts.write(Verdict(asdict(result)).encode())
    return 0


def _run(assignment: Assignment) -> Result:
    try:
        module, name = assignment.origin.split(":")
        task = marked(reduce(getattr, name.split("."), importlib.import_module(module)))
        assert task is not None, f"{assignment.origin} is no task"  # noqa: S101 - it is one in the worker's process
        deadline = assignment.context.pop("deadline")
        context = TaskContext(
            **assignment.context,
            deadline=datetime.fromisoformat(deadline) if deadline else None,
            log=logging.getLogger(f"distriqueue.task.{task.name}"),
        )
        payload = read_payload(task.payload_reader(), assignment.payload)
        if task.is_async:
            return succeeded(asyncio.run(task.function(payload, context)))
        return succeeded(task.function(payload, context))
    except BaseException as error:
        logging.getLogger("distriqueue.task").exception("the handler failed")
        return raised(error)


def _read_line(stream: int) -> tuple[bytes, bytes]:
    data = b""
    while b"\n" not in data:
        chunk = os.read(stream, CHUNK_BYTES)
        if not chunk:
            raise EOFError("the worker is gone")
        data += chunk
    line, _, rest = data.partition(b"\n")
    return line, rest


def _watch(commands: int, until: float, buffer: bytes) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    while True:
        *lines, buffer = buffer.split(b"\n")
        until = max([until, *map(float, lines)])
        left = until - monotonic()
        if left > 0:
            signal.setitimer(signal.ITIMER_REAL, left + LAST_RESORT_SECONDS)
        # Not for all that is left: this waits by a clock that stands still while the machine sleeps. And when nothing
        # is left it still looks once: the renewal may lie there, and only this process was slow.
        if select.select([commands], [], [], min(max(left, 0), LOOK_SECONDS))[0]:
            chunk = os.read(commands, CHUNK_BYTES)
            if not chunk:
                break
            buffer += chunk
        elif left <= 0:
            break
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
