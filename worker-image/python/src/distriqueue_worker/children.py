"""A handler in a process of its own, as the worker sees it: the leader of its own process group, which can be killed.

Guarantees: those of `bodies.Body`. What the process says on the way (`processes.py` is its side) is handed on at once,
of several words of a kind the last. A process that the kernel killed while its control group was out of memory is named
so. What the process has started does not outlive it.
"""

import asyncio
import contextlib
import os
import signal
import sys
from contextvars import copy_context
from typing import Any, cast

from distriqueue_protocol.messages import Outcome
from distriqueue_worker.bodies import INSIST_SECONDS, STOPPED, Ended, Ending
from distriqueue_worker.commands import Result
from distriqueue_worker.logs import SCOPE, Scope
from distriqueue_worker.memory import oom_kills
from distriqueue_worker.processes import Assignment, Line, decode_verdict, read_words
from distriqueue_worker.results import OUT_OF_MEMORY, PROCESS_DIED, failure
from distriqueue_worker.tasks import Task, TaskContext


class ProcessBody(asyncio.SubprocessProtocol):
    """A handler in a process of its own."""

    def __init__(
        self, task: Task, payload: dict[str, Any], context: TaskContext, *, scope: Scope, until: float, ended: Ended
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._assignment = Assignment.of(task, payload, context, until=until)
        self._tell = context.tell
        self._scope = scope
        self._ended = ended
        self._rest = b""
        self._result: Result | None = None
        self._open_pipes = {1, 2}
        self._transport: asyncio.SubprocessTransport | None = None
        self._exited = self._asked = self._over = False
        self._patience: asyncio.TimerHandle | None = None
        self._oom_kills = oom_kills()
        self._starting = self._loop.create_task(self._start())

    def ask(self) -> None:
        """SIGTERM to the process, and not to what it has started; one that has not begun yet does not begin."""
        if self._result is None:
            self._asked = True
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the process and all that it started."""
        self._kill()

    def renew(self, until: float) -> None:
        """Tell the process, which ends itself when it hears nothing in time: its parent may be frozen."""
        if self._transport is not None and not self._exited:
            self._write(f"{until}\n".encode())

    async def _start(self) -> None:
        command = (sys.executable, "-m", "distriqueue_worker.processes")
        try:
            await self._loop.subprocess_exec(lambda: self, *command, start_new_session=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, the handler has not begun
            self._over = True
            self._ended(Ending(error=error))
            return
        if self._asked:
            self._kill()
        else:
            self._write(self._assignment.encode())

    def _write(self, data: bytes) -> None:
        if self._transport is None:
            return
        pipe = cast("asyncio.WriteTransport | None", self._transport.get_pipe_transport(0))
        if pipe is not None and not pipe.is_closing():
            pipe.write(data)

    def _signal(self, number: signal.Signals) -> None:
        if self._transport is not None and not self._exited:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                self._transport.send_signal(number)

    def _kill(self) -> None:
        if self._transport is not None and not self._over:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._transport.get_pid(), signal.SIGKILL)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The process was started."""
        # No isinstance here, nor of its pipes: those of uvloop are not derived from asyncio's classes.
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """The process said something, or what the handler printed and logged."""
        if fd == 1:
            *lines, self._rest = (self._rest + data).split(b"\n")
            for word in read_words(lines):
                self._tell(word)
            for line in lines:
                if line.startswith(Line.VERDICT):
                    self._result = decode_verdict(line)
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
        self._ended(self._ending(code))

    def _ending(self, code: int) -> Ending:
        result = self._result
        if self._asked:
            gave_in = result is None or result.outcome is Outcome.INTERRUPTED or result == Result(Outcome.SUCCEEDED)
            return STOPPED if gave_in else Ending(result, asked=True)
        if result is None:
            return Ending(_died(code, oom=oom_kills() > self._oom_kills))
        if result.outcome is Outcome.INTERRUPTED:  # somebody else told it to stop
            return Ending(_died(-signal.SIGTERM, oom=False))
        return Ending(result)


def _died(code: int, *, oom: bool) -> Result:
    if code == -signal.SIGKILL and oom:
        return failure(OUT_OF_MEMORY, "the kernel killed the process of the handler: there was no memory left")
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return failure(PROCESS_DIED, f"the process of the handler ended without a result, by {how}")
