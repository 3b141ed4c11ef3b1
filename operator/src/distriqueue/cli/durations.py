"""Times as people write and read them: `90s`, `5m`, `1h30m`, and ages like kubectl's.

Fails with `CliError` (usage) on what is no length of time.
"""

import re
from datetime import UTC, datetime

from distriqueue.cli.errors import usage
from distriqueue.core import times

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_MINUTES_FROM, _HOURS_FROM, _DAYS_FROM = 120, 3 * 3600, 48 * 3600


def seconds(text: str, *, option: str) -> float:
    """Read a length of time.

    Args:
        text: As in `90`, `90s`, `1h30m`.
        option: Who wants it, for the error.

    Raises:
        CliError: It is none.
    """
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not text or _PART.sub("", text):
        raise usage(f"{option}: '{text}' is no length of time; write it as in 90s, 5m or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def whole_seconds(text: str, *, option: str) -> int:
    """Read a length of time that a spec wants in whole seconds."""
    found = seconds(text, option=option)
    if found != int(found):
        raise usage(f"{option}: '{text}' is not a whole number of seconds")
    return int(found)


def moment(text: str, *, option: str, wall: float) -> str:
    """Read a moment: RFC 3339, or `+10m` for so long from now; returns RFC 3339."""
    if text.startswith("+"):
        return times.whole_seconds(wall + seconds(text[1:], option=option))
    if times.seconds(text) is None:
        raise usage(
            f"{option}: '{text}' is no time; write it as in 2026-12-01T06:00:00Z, or +10m for ten minutes from now"
        )
    parsed = datetime.fromisoformat(text)
    return times.whole_seconds((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp())


def age(since: str | None, *, wall: float) -> str:
    """How long ago something was, in the manner of kubectl; empty for no time."""
    moment_then = times.seconds(since)
    if moment_then is None:
        return ""
    passed = max(0, int(wall - moment_then))
    if passed < _MINUTES_FROM:
        return f"{passed}s"
    if passed < _HOURS_FROM:
        return f"{passed // 60}m"
    return f"{passed // 3600}h" if passed < _DAYS_FROM else f"{passed // 86400}d"
