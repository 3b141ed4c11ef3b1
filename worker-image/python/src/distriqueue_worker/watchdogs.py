"""A watchdog in a thread of its own: ends the process when the event loop cannot.

The loop stops its handlers itself when the lease is over. A handler that blocks the loop, or a process that was frozen,
may keep it from that. Guarantees: handlers that are overdue at two looks in a row end with the process. The first look
gives a loop that has just been woken from a freeze the chance to stop them by itself. What holds the interpreter's lock
keeps this thread from looking, too.
"""

import os
import threading
from collections.abc import Callable
from typing import Final, Self

from distriqueue_worker.clocks import monotonic
from distriqueue_worker.commands import EXIT_FENCED

LOOK_SECONDS: Final = 0.25


class Watchdog:
    """Looks at the lease from outside of the loop; a context manager that ends it.

    Args:
        overdue_at: From when on handlers should be dead, None if none runs; called from another thread.
        end: Ends the process; must not return.
    """

    def __init__(self, overdue_at: Callable[[], float | None], *, end: Callable[[], None] | None = None) -> None:
        self._overdue_at = overdue_at
        self._end = end or _end
        self._stopped = threading.Event()
        self._overdue = False
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stopped.set()

    def look(self, now: float) -> None:
        """Look once."""
        at = self._overdue_at()
        overdue = at is not None and now >= at
        if overdue and self._overdue:
            self._end()
        self._overdue = overdue

    def _run(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            self.look(monotonic())


def _end() -> None:
    text = "the lease is over, and the event loop did not stop the handlers: ending the process\n"
    os.write(2, text.encode())  # logging could wait for a lock that a handler holds
    os._exit(EXIT_FENCED)
