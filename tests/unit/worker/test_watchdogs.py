"""The watchdog in a thread of its own."""

import subprocess
import sys

from distriqueue_worker.commands import EXIT_FENCED
from distriqueue_worker.watchdogs import Watchdog

OVERDUE = 100.0


def looks(*times: float, overdue_at: float | None = OVERDUE) -> int:
    """How often it would have ended the process."""
    ends: list[None] = []
    watchdog = Watchdog(lambda: overdue_at, end=lambda: ends.append(None))
    for time in times:
        watchdog.look(time)
    return len(ends)


def test_it_ends_the_process_at_the_second_look_that_finds_the_lease_overdue() -> None:
    assert looks(OVERDUE - 0.25, OVERDUE - 0.01) == 0
    assert looks(OVERDUE - 0.25, OVERDUE) == 0
    assert looks(OVERDUE, OVERDUE + 0.25) == 1


def test_a_loop_that_wakes_and_stops_its_handlers_is_left_alone() -> None:
    overdue_at: list[float | None] = [OVERDUE]
    ends: list[None] = []
    watchdog = Watchdog(lambda: overdue_at[0], end=lambda: ends.append(None))
    watchdog.look(OVERDUE + 60)
    overdue_at[0] = None
    watchdog.look(OVERDUE + 60.25)
    overdue_at[0] = OVERDUE + 61
    watchdog.look(OVERDUE + 60.5)
    assert ends == []


def test_without_handlers_it_does_nothing() -> None:
    assert looks(OVERDUE + 100, OVERDUE + 200, overdue_at=None) == 0


PROGRAM = """

from distriqueue_worker.clocks import monotonic
from distriqueue_worker.watchdogs import Watchdog
begin = monotonic()
with Watchdog(lambda: begin):
    while True:
        sum(range(10_000))  # a loop that never looks at anything
"""


def test_a_blocked_process_really_ends() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, timeout=60, check=False)
    assert ended.returncode == EXIT_FENCED
    assert b"the lease is over" in ended.stderr
