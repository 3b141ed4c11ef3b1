"""Time, as the worker reads it: one monotonic clock for decisions, UTC for what people read.

`monotonic` is what the lease is counted by: it only grows, goes on while the machine sleeps (where the system has such
a clock), and is the same for all processes of the machine. It is the system's and not the event loop's, which stands
still within a turn of the loop.
"""

import time
from datetime import UTC, datetime
from typing import Final

_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def monotonic() -> float:
    """Seconds that only grow."""
    return time.clock_gettime(_CLOCK)


def utc_text(moment: datetime | None = None) -> str:
    """A time (now, if none is given) as reports carry it: RFC 3339, UTC, microseconds, `Z`."""
    return (moment or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
