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
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from distriqueue_worker.commands import Result
from distriqueue_worker.logs import SCOPE, Scope
from distriqueue_worker.processes import Assignment, Verdict
from distriqueue_worker.results import CANCELLED, PROCESS_DIED, failure, succeeded
from distriqueue_worker.tasks import Task, TaskContext

INSIST_SECONDS: Final = 0.5
"""An async handler that survived its cancellation is cancelled again after so long."""


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
        self._task.add_done_callback(self._done)

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
            self._loop.call_soon_threadsafe(self._ended, ending)


class ProcessBody(asyncio.SubprocessProtocol):
    """A handler in a process of its own, the leader of its own process group, which can be killed."""

    def __init__(
        self, task: Task, payload: dict[str, Any], context: TaskContext, *, scope: Scope, until: float, ended: Ended
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._assignment = Assignment.of(task, payload, context, until=until)
        self._scope = scope
        self._ended = ended
        self._answer = bytearray()
        self._open_pipes = {1, 2}
        self._transport: asyncio.SubprocessTransport | None = None
        self._exited = self._stopping = self._over = False
        self._patience: asyncio.TimerHandle | None = None
        self._starting = self._loop.create_task(self._start())

    def stop(self) -> None:
        """Kill the process and all that it started."""
        self._stopping = True
        self._kill()

    def renew(self, until: float) -> None:
        """Tell the process, which ends itself when it hears nothing in time: its parent may be frozen."""
        if self._transport is not None and not self._exited:
            self._tell(f"{until}\n".encode())

    async def _start(self) -> None:
        command = (sys.executable, "-m", "distriqueue_worker.processes")
        try:
            await self._loop.subprocess_exec(lambda: self, *command, start_new_session=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, the handler has not begun
            self._over = True
            self._ended(Ending(error=error))
            return
        if self._stopping:
            self._kill()
        else:
            self._tell(self._assignment.encode())

    def _tell(self, data: bytes) -> None:
        if self._transport is None:
            return
        pipe = cast("asyncio.WriteTransport | None", self._transport.get_pipe_transport(0))
        if pipe is not None and not pipe.is_closing():
            pipe.write(data)

    def _kill(self) -> None:
        if self._transport is not None and not self._over:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._transport.get_pid(), signal.SIGKILL)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The process was started."""
        # No isinstance here, nor of its pipes: those of uvloop are not derived from asyncio's classes.
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """The process said something: its verdict, or what the handler printed and logged."""
        if fd == 1:
            self._answer += data
        else:
            copied = copy_context()
            copied.run(SCOPE.set, self._scope)
            copied.run(self._scope.output, data.decode(errors="replace"))

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """The process will say no more there."""
        del exc
        self._open_pipes.discard(fd)
        if self._exited and not self._open_pipes:
            self._finish()

    def process_exited(self) -> None:
        """The process is gone; what it has started must not outlive it."""
        self._exited = True
        self._kill()
        if self._open_pipes:
            # Somebody who left the process group may hold the pipes open for ever.
            self._patience = self._loop.call_later(INSIST_SECONDS, self._finish)
        else:
            self._finish()

    def _finish(self) -> None:
        if self._over or self._transport is None:
            return
        self._over = True
        if self._patience is not None:
            self._patience.cancel()
        code = self._transport.get_returncode() or 0
        self._transport.close()
        if self._stopping:
            self._ended(STOPPED)
        elif (verdict := Verdict.decode(bytes(self._answer))) is not None:
            self._ended(Ending(verdict.result()))
        else:
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            self._ended(Ending(failure(PROCESS_DIED, f"the process of the handler ended without a result, by {how}")))
