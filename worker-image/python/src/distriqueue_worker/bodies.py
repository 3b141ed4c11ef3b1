"""Where a handler runs: in the event loop, or in a thread (`children.py`: in a process of its own).

Guarantees: a body calls `ended` exactly once, in the loop, and only when nothing of the handler runs any more; the
ending says what the handler reached, and whether it had been asked to stop by then. Fails never: what a handler raises
is its ending.

A thread cannot be killed. An exception is raised in it from outside, which works as soon as it runs Python code again,
and it is not dead before it is.
"""

import asyncio
import contextlib
import ctypes
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Final, Protocol

from distriqueue_worker.commands import Result
from distriqueue_worker.results import CANCELLED, failure, succeeded
from distriqueue_worker.tasks import Stopped

INSIST_SECONDS: Final = 0.5
"""A handler that survives what should end it is ended again after so long."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a handler ended: with a result, with an exception, or stopped (neither).

    `asked`: it had been asked to stop before it ended.
    """

    result: Result | None = None
    error: BaseException | None = None
    asked: bool = False


STOPPED: Final = Ending(asked=True)
Ended = Callable[[Ending], None]


class Body(Protocol):
    """A handler under way."""

    def ask(self) -> None:
        """Ask it to stop, as one asks its kind; once."""

    def kill(self) -> None:
        """End it by whatever means there are for its kind, until it is dead; `ask` was called before."""

    def renew(self, until: float) -> None:
        """The lease was renewed: without a further word nothing of the handler may live beyond that time."""


def ending_of(value: object, *, asked: bool) -> Ending:
    """The ending of a handler that returned; one that was asked to stop and returns nothing has stopped."""
    return STOPPED if asked and value is None else Ending(succeeded(value), asked=asked)


def ending_by(error: BaseException, *, asked: bool) -> Ending:
    """The ending of a handler that raised."""
    gave_in = asked and isinstance(error, Stopped | asyncio.CancelledError)
    return STOPPED if gave_in else Ending(error=error, asked=asked)


class LoopBody:
    """An `async def` as a task of the loop."""

    def __init__(
        self, work: Callable[[], Coroutine[Any, Any, object]], context: Context, asked: threading.Event, ended: Ended
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = ended
        self._asked = asked
        self._task = self._loop.create_task(_guarded(work), context=context)
        self._task.add_done_callback(self._done)

    def ask(self) -> None:
        """Cancel the task, which gives it time to clean up."""
        if not self._task.done():
            self._asked.set()
            self._task.cancel()

    def kill(self) -> None:
        """Cancel the task again and again until it gives in."""
        if not self._task.done():
            self._task.cancel()
            self._loop.call_later(INSIST_SECONDS, self.kill)

    def renew(self, until: float) -> None:
        """The worker's own clock watches over the loop."""

    def _done(self, task: asyncio.Task["object | _Raised"]) -> None:
        asked = self._asked.is_set()
        if task.cancelled():
            by_itself = Ending(failure(CANCELLED, "the handler was cancelled by something in it"))
            self._ended(STOPPED if asked else by_itself)
            return
        error = task.exception()
        value = None if error else task.result()
        if isinstance(value, _Raised):
            error = value.error
        self._ended(ending_by(error, asked=asked) if error else ending_of(value, asked=asked))


@dataclass(frozen=True, slots=True)
class _Raised:
    error: BaseException


async def _guarded(work: Callable[[], Coroutine[Any, Any, object]]) -> object:
    try:
        return await work()
    except (SystemExit, KeyboardInterrupt) as error:  # out of a task these two would end the worker's loop
        return _Raised(error)


class ThreadBody:
    """A `def` in a thread of its own."""

    def __init__(self, work: Callable[[], object], context: Context, asked: threading.Event, ended: Ended) -> None:
        self._loop = asyncio.get_running_loop()
        self._asked = asked
        self._ended = ended
        self._over = False
        # One that can be taken twice: an exception from outside may hit its holder anywhere.
        self._lock = threading.RLock()
        # A daemon: a process that must end does not wait for it.
        self._thread = threading.Thread(target=context.run, args=(self._run, work), name="handler", daemon=True)
        self._thread.start()

    def ask(self) -> None:
        """Set the event that the handler should look at."""
        self._asked.set()

    def kill(self) -> None:
        """Raise an exception in the thread, again and again, once it has had a moment to see that it was asked."""
        self._loop.call_later(INSIST_SECONDS, self._interrupt)

    def renew(self, until: float) -> None:
        """The worker's own clock watches over threads."""

    def _interrupt(self) -> None:
        if self._lock.acquire(blocking=False):
            try:
                if self._over:
                    return
                _raise_in(self._thread, Stopped)
            finally:
                self._lock.release()
        self.kill()

    def _run(self, work: Callable[[], object]) -> None:
        ending = STOPPED
        with contextlib.suppress(Stopped):  # one that comes late
            ending = self._work(work)
        while not self._close():
            pass
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            self._loop.call_soon_threadsafe(self._ended, ending)

    def _work(self, work: Callable[[], object]) -> Ending:
        try:
            value = work()
        except BaseException as error:  # noqa: BLE001 - a SystemExit of a handler is its failure, not the worker's end
            return ending_by(error, asked=self._asked.is_set())
        return ending_of(value, asked=self._asked.is_set())

    def _close(self) -> bool:
        """From here on no exception comes from outside; one that is on its way is called back, or arrives here."""
        try:
            with self._lock:
                self._over = True
                _raise_in(threading.current_thread(), None)
        except Stopped:
            return False
        return True


def _raise_in(thread: threading.Thread, kind: type[BaseException] | None) -> None:
    """Have an exception raised in a thread when it next runs Python code; None takes back one that was not yet."""
    value = ctypes.py_object() if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), value)
