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


_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)


def checked(text: str | None) -> str | None:
    """Return a time that somebody else wrote if a schema takes it, else None."""
    if not text or _RFC_3339.fullmatch(text) is None or seconds(text) is None:
        return None
    return text


def seconds(text: str | None) -> float | None:
    """Read an RFC 3339 time as seconds since 1970; None for no time, or for one that cannot be read."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
