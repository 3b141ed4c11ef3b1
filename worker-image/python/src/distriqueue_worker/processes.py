"""The other side of a handler with a process of its own: `python -m distriqueue_worker.processes`.

It reads an assignment from its standard input, runs the handler, and writes to its standard output what the handler
says on the way and in the end the verdict, a line each; what the handler prints goes to standard error instead, where
the worker reads it line by line. SIGTERM asks the handler to stop: `context.cancelled` is set, and an async one
cancelled.

Guarantees: the process kills itself and all of its process group when its worker is gone, and when the worker has not
renewed the lease in time: a frozen worker cannot kill anybody. If even its watching thread cannot run, the kernel's
timer ends the process a second later (handlers must leave SIGALRM alone). Fails by ending without a verdict.
"""

import asyncio
import importlib
import json
import logging
import os
import queue
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import reduce
from typing import Any, Final, Self

from distriqueue_protocol.messages import Outcome
from distriqueue_worker.clocks import monotonic
from distriqueue_worker.commands import Checkpointed, Progressed, Result, Word
from distriqueue_worker.results import raised, read_payload, succeeded
from distriqueue_worker.tasks import CHECKPOINT_BYTES, Stopped, Task, TaskContext, marked
from distriqueue_worker.values import compact

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
        names = ("type", "namespace", "name", "uid", "attempt", "max_attempts", "grant", "last_checkpoint")
        fields = {name: getattr(context, name) for name in names}
        fields["deadline"] = context.deadline.isoformat() if context.deadline else None
        return cls(task.origin, payload, fields, until, logging.getLogger().level)

    def encode(self) -> bytes:
        """One line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"


class Line:
    """The first byte of a line that the process writes, which says what follows as JSON."""

    PROGRESS: Final = b"p"
    CHECKPOINT: Final = b"c"
    VERDICT: Final = b"v"


def read_words(lines: Iterable[bytes]) -> Iterator[Word]:
    """What the handler said in these lines: of several words of a kind the last, and nothing that is no such word."""
    last = {line[:1]: line[1:] for line in lines}
    try:
        if Line.PROGRESS in last:
            percent, message = json.loads(last[Line.PROGRESS])
            context = replace(_NOBODY, tell=(said := list[Word]()).append)
            context.progress(percent, message)
            yield from said
        if Line.CHECKPOINT in last:
            yield Checkpointed(*compact(json.loads(last[Line.CHECKPOINT]), limit=CHECKPOINT_BYTES))
    except (ValueError, TypeError):
        return


def decode_verdict(line: bytes) -> Result | None:
    """The result that a line of the kind VERDICT holds; None when it holds none."""
    try:
        fields = json.loads(line[1:])
        return Result(**{**fields, "outcome": Outcome(fields["outcome"])})
    except (ValueError, TypeError, KeyError):
        return None


_NOBODY: Final = TaskContext(type="", namespace="", name="", uid="", attempt=1, max_attempts=1, grant="")
"""Checks what a process says as it would be checked in the worker."""


class _Asking:
    """Turns SIGTERM into what a handler looks at. A signal's own handler may wait for no lock, so a thread does it."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.cancel: Callable[[], object] | None = None
        self._came: queue.SimpleQueue[None] = queue.SimpleQueue()
        signal.signal(signal.SIGTERM, lambda _number, _frame: self._came.put(None))
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        self._came.get()
        self.cancelled.set()
        if self.cancel is not None:
            self.cancel()


class _Speaker:
    """Writes lines to the worker, from any thread."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "wb")
        self._lock = threading.Lock()

    def tell(self, word: Word) -> None:
        match word:
            case Progressed(percent, message):
                self._write(Line.PROGRESS, [percent, message])
            case Checkpointed(data, _):
                self._write(Line.CHECKPOINT, data)

    def conclude(self, result: Result) -> None:
        self._write(Line.VERDICT, asdict(result))

    def _write(self, kind: bytes, content: object) -> None:
        line = kind + json.dumps(content).encode() + b"\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()


def main() -> int:
    """Run the handler of the assignment."""
    asking = _Asking()
    commands = os.fdopen(0, "rb", buffering=0)
    speaker = _Speaker(os.dup(1))
    os.dup2(2, 1)
    sys.stdin = open(os.devnull)  # noqa: SIM115, PTH123 - for the rest of the process
    line, rest = _read_line(commands.fileno())
    assignment = Assignment(**json.loads(line))
    threading.Thread(target=_watch, args=(commands.fileno(), assignment.until, rest), daemon=True).start()
    logging.basicConfig(level=assignment.level, format="%(levelname)s %(message)s", stream=sys.stderr)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # it is the interpreter's own text stream
    speaker.conclude(_run(assignment, asking, speaker))
    return 0


def _run(assignment: Assignment, asking: _Asking, speaker: _Speaker) -> Result:
    try:
        module, name = assignment.origin.split(":")
        task = marked(reduce(getattr, name.split("."), importlib.import_module(module)))
        assert task is not None, f"{assignment.origin} is no task"  # noqa: S101 - it is one in the worker's process
        deadline = assignment.context.pop("deadline")
        context = TaskContext(
            **assignment.context,
            deadline=datetime.fromisoformat(deadline) if deadline else None,
            cancelled=asking.cancelled,
            log=logging.getLogger(f"distriqueue.task.{task.name}"),
            tell=speaker.tell,
        )
        payload = read_payload(task.payload_reader(), assignment.payload)
        context.raise_if_cancelled()
        value = (
            asyncio.run(_await(task, payload, context, asking)) if task.is_async else task.function(payload, context)
        )
    except BaseException as error:
        if asking.cancelled.is_set() and isinstance(error, Stopped | asyncio.CancelledError):
            return Result(Outcome.INTERRUPTED)
        logging.getLogger("distriqueue.task").exception("the handler failed")
        return raised(error)
    return succeeded(value)


async def _await(task: Task, payload: object, context: TaskContext, asking: _Asking) -> object:
    loop, running = asyncio.get_running_loop(), asyncio.current_task()
    assert running is not None  # noqa: S101 - this is a coroutine
    asking.cancel = lambda: loop.call_soon_threadsafe(running.cancel)
    try:
        context.raise_if_cancelled()  # asked between the last look and here
        return await task.function(payload, context)
    finally:
        asking.cancel = None


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
