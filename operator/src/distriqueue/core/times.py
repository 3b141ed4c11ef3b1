"""Two clocks, passed in: the monotonic one decides, the wall clock is only written down.

`core` never reads a clock. Whoever drives it passes a `Now`, so the simulator can make one up.
"""

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple


class Now(NamedTuple):
    """One moment on both clocks.

    Attributes:
        mono: Seconds of the monotonic clock: every deadline and every age is counted in it.
        wall: Seconds since 1970, UTC: what stands in a status.
    """

    mono: float
    wall: float


def microtime(wall: float) -> str:
    """Write a wall time as Kubernetes' MicroTime: RFC 3339, UTC, six digits of a second."""
    micros = round(wall * 1_000_000)
    return f"{_second(micros // 1_000_000)}.{micros % 1_000_000:06}Z"


def whole_seconds(wall: float) -> str:
    """Write a wall time as Kubernetes' Time: RFC 3339, UTC, whole seconds."""
    return _second(int(wall)) + "Z"


@lru_cache(maxsize=64)
def _second(second: int) -> str:
    # A leader writes thousands of times within one second.
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


_RFC_3339 = re.compile(
    r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
    r"T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)


def checked(text: str | None) -> str | None:
    """Return a time that somebody else wrote if a schema takes it, else None."""
    return text if text and _RFC_3339.fullmatch(text) else None


@lru_cache(maxsize=1024)
def created(text: str | None) -> float | None:
    """Read a creationTimestamp, which has whole seconds: jobs that are made together share it."""
    return seconds(text)


def seconds(text: str | None) -> float | None:
    """Read an RFC 3339 time as seconds since 1970; None for no time, or for one that cannot be read or written here.

    Years are 1 to 9999, also in UTC; RFC 3339 and the API server allow small letters.
    """
    if not text:
        return None
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        return None
