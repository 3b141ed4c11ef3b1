"""Where a handler runs: in the event loop, in a thread, or in a process of its own.

Guarantees: a body calls `ended` exactly once, in the loop, and only when nothing of the handler runs any more. After
`stop` the ending is STOPPED, whatever the handler did about it, unless it had ended before. Fails never: what a handler
raises is its ending.

A thread cannot be stopped from outside: it is asked to (`context.cancelled`), and it is not dead before it is.
"""

import asyncio
import contextlib
import os
import signal
import sys
import threading
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Coroutine
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Final, Protocol

from distriqueue_worker.commands import Result
from distriqueue_worker.logs import LINE_CHARACTERS, SCOPE
from distriqueue_worker.processes import Assignment, Verdict
from distriqueue_worker.results import CANCELLED, PROCESS_DIED, failure, succeeded
from distriqueue_worker.tasks import Task, TaskContext

INSIST_SECONDS: Final = 0.5
"""An async handler that survived its cancellation is cancelled again after so long."""
PIPE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Ending:
    """How a handler ended: with a result, with an exception, or stopped (neither)."""

    result: Result | None = None
    error: BaseException | None = None


STOPPED: Final = Ending()
Ended = Callable[[Ending], None]


class Body(Protocol):
    """A handler under way."""

    def stop(self) -> None:
        """Begin to stop it; more than once is fine."""

    def renew(self, until: float) -> None:
        """The lease was renewed: without a further word nothing of the handler may live beyond that time."""


class LoopBody:
    """An `async def` as a task of the loop."""

    def __init__(self, work: Coroutine[Any, Any, object], context: Context, ended: Ended) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = ended
        self._stopping = False
        self._task = self._loop.create_task(work, context=context)
        self._task.add_done_callback(self._done, context=context)

    def stop(self) -> None:
        """Cancel the task, again and again until it gives in."""
        if not self._task.done():
            self._stopping = True
            self._task.cancel()
            self._loop.call_later(INSIST_SECONDS, self.stop)

    def renew(self, until: float) -> None:
        """The worker's own clock watches over the loop."""

    def _done(self, task: asyncio.Task[object]) -> None:
        error = None if task.cancelled() else task.exception()
        if self._stopping:
            self._ended(STOPPED)
        elif task.cancelled():
            self._ended(Ending(failure(CANCELLED, "the handler was cancelled by something in it")))
        elif error is not None:
            self._ended(Ending(error=error))
        else:
            self._ended(Ending(succeeded(task.result())))


class ThreadBody:
    """A `def` in a thread of its own."""

    def __init__(self, work: Callable[[], object], context: Context, asked: threading.Event, ended: Ended) -> None:
        self._loop = asyncio.get_running_loop()
        self._asked = asked
        self._ended = ended
        self._context = context
        # A daemon: a process that must end does not wait for it.
        threading.Thread(target=context.run, args=(self._run, work), name="handler", daemon=True).start()

    def stop(self) -> None:
        """Ask the handler to stop."""
        self._asked.set()

    def renew(self, until: float) -> None:
        """The worker's own clock watches over threads."""

    def _run(self, work: Callable[[], object]) -> None:
        try:
            ending = Ending(succeeded(work()))
        except BaseException as error:  # noqa: BLE001 - a SystemExit of a handler is its failure, not the worker's end
            ending = Ending(error=error)
        if self._asked.is_set():
            ending = STOPPED
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            self._loop.call_soon_threadsafe(self._ended, ending, context=self._context)


class ProcessBody:
    """A handler in a process of its own, the leader of its own process group, which can be killed."""

    def __init__(
        self, task: Task, payload: dict[str, Any], context: TaskContext, *, inner: Context, until: float, ended: Ended
    ) -> None:
        self._assignment = Assignment.of(task, payload, context, until=until)
        self._ended = ended
        self._inner = inner
        self._process: Process | None = None
        self._stopping = False
        self._task = asyncio.get_running_loop().create_task(self._run(), context=inner)
        self._task.add_done_callback(self._done, context=inner)

    def stop(self) -> None:
        """Kill the process and all that it started."""
        self._stopping = True
        self._kill()

    def renew(self, until: float) -> None:
        """Tell the process, which ends itself when it hears nothing in time: its parent may be frozen."""
        if self._process is not None and self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(f"{until}\n".encode())

    async def _run(self) -> Ending:
        command = (sys.executable, "-m", "distriqueue_worker.processes")
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True, limit=PIPE_BYTES
        )
        self._process = process
        assert process.stdin is not None  # noqa: S101 - all three are pipes
        assert process.stdout is not None  # noqa: S101
        assert process.stderr is not None  # noqa: S101
        try:
            if self._stopping:
                self._kill()
            process.stdin.write(self._assignment.encode())
            logged = asyncio.ensure_future(_relay(process.stderr))
            answered = asyncio.ensure_future(process.stdout.read())
            code = await process.wait()
            self._kill()  # what the handler has started must not outlive it
            self._process = None
            # Somebody who left the process group may hold the pipes open for ever.
            await asyncio.wait({logged, answered}, timeout=INSIST_SECONDS)
            answer = answered.result() if answered.done() else b""
            logged.cancel()
            answered.cancel()
        finally:
            process.stdin.close()
        if not answer:
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            return Ending(failure(PROCESS_DIED, f"the process of the handler ended without a result, by {how}"))
        return Ending(Verdict.decode(answer).result())

    def _kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _done(self, task: asyncio.Task[Ending]) -> None:
        if self._stopping or task.cancelled():
            self._ended(STOPPED)
        elif (error := task.exception()) is not None:
            self._ended(Ending(error=error))
        else:
            self._ended(task.result())


async def _relay(stream: asyncio.StreamReader) -> None:
    """Log what the process wrote to its standard error, as what the handler printed."""
    scope = SCOPE.get()
    while chunk := await stream.read(LINE_CHARACTERS):
        if scope is not None:
            scope.output(chunk.decode(errors="replace"))
