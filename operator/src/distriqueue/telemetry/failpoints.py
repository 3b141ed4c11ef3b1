"""Failpoints: named places between two side effects, at which a test makes the program die as if by kill -9.

`DISTRIQUEUE_FAILPOINT=ticket-confirmed:17` ends the process when it passes that place for the 17th time. Without the
variable a place costs one comparison. Guarantees: nothing is flushed, closed or said on the way out. Fails with
ValueError at the start when the variable makes no sense.
"""

import os
from typing import Final

VARIABLE: Final = "DISTRIQUEUE_FAILPOINT"
EXIT_STATUS: Final = 86
"""Tells a test that the place was reached."""

_armed, _, _times = os.environ.get(VARIABLE, "").partition(":")
_left = int(_times or 1)


def passing(place: str) -> None:
    """Say that the program passes a place."""
    if place == _armed:
        _count()


def _count() -> None:
    global _left  # noqa: PLW0603 - the whole process dies by it
    _left -= 1
    if _left == 0:
        os._exit(EXIT_STATUS)
