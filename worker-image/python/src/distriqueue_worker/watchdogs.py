"""A watchdog in a thread of its own: ends the process when the event loop cannot.

The loop stops its handlers itself when the lease is over. A handler that blocks the loop, or a process that was frozen,
may keep it from that. Guarantees: handlers that run under a lease which began more than `OVERDUE_SECONDS` ago, at two
looks in a row, end with the process. The first look gives a loop that has just been woken from a freeze the chance to
stop them by itself. What holds the interpreter's lock keeps this thread from looking, too.
"""

import os
import threading
from collections.abc import Callable
from typing import Final, Self

from distriqueue_protocol.names import WORKER_DEAD_SECONDS
from distriqueue_worker.clocks import monotonic
from distriqueue_worker.commands import EXIT_FENCED

LOOK_SECONDS: Final = 0.25
OVERDUE_SECONDS: Final = WORKER_DEAD_SECONDS - 2 * LOOK_SECONDS


class Watchdog:
    """Looks at the lease from outside of the loop; a context manager that ends it.

    Args:
        exposed_since: When the lease began under which handlers run, None if none does; called from another thread.
        end: Ends the process; must not return.
    """

    def __init__(self, exposed_since: Callable[[], float | None], *, end: Callable[[], None] | None = None) -> None:
        self._exposed_since = exposed_since
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
        since = self._exposed_since()
        overdue = since is not None and now - since >= OVERDUE_SECONDS
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
