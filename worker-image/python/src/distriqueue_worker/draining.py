"""The time table of a worker that leaves.

First open claims get a moment for their answers, then handlers the grace to finish, then a moment to die; reports are
waited for until the broker has confirmed them, and at the very end a heartbeat says goodbye. Pure: part of
`custody.py`, driven by it.
"""

from dataclasses import dataclass
from typing import Final

ANSWERS_SECONDS: Final = 1.0
"""How long open claims get their answers; less when the grace is shorter."""
STOP_SECONDS: Final = 2.0
"""How long handlers get to die when the grace is over."""
SETTLE_SECONDS: Final = 2.0
"""How long a worker that holds nothing but confirmed reports waits for `settled`, and then for its last heartbeat."""
CONFIRM_SECONDS: Final = 15.0
"""How long, after the grace, the broker gets to confirm the reports."""


@dataclass(slots=True)
class Drain:
    """Where a leaving worker is; times are of the monotonic clock.

    Attributes:
        close_claims: When claims that are still open are closed.
        stop: When handlers that still run are stopped.
        stopped: They were told to.
        released: Since when nothing is held but reports that the broker has.
        leaving: The sequence number of the last heartbeat, 0 before it was sent.
        left: The last heartbeat was confirmed.
    """

    close_claims: float
    stop: float
    stopped: bool = False
    released: float | None = None
    leaving: int = 0
    left: bool = False

    @classmethod
    def begin(cls, grace: float, now: float) -> "Drain":
        """Begin to leave with `grace` seconds for the handlers."""
        return cls(close_claims=now + min(grace, ANSWERS_SECONDS), stop=now + grace)

    def shorten(self, grace: float, now: float) -> None:
        """Leave faster: never later than was said before."""
        self.close_claims = min(self.close_claims, now)
        self.stop = min(self.stop, now + grace)

    def must_be_stopped(self, now: float) -> bool:
        """Whether handlers that are not dead by now end with the process."""
        return now >= self.stop + STOP_SECONDS

    def must_be_confirmed(self, now: float) -> bool:
        """Whether reports that are not confirmed by now are given up."""
        return now >= self.stop + CONFIRM_SECONDS

    def may_say_goodbye(self, unsettled: int, now: float) -> bool:
        """Whether the last heartbeat may go out: all is settled, or was waited for long enough."""
        return self.released is not None and (not unsettled or now - self.released >= SETTLE_SECONDS)

    def is_over(self, now: float) -> bool:
        """Whether the process may end: it has said goodbye, or could not."""
        return self.left or (self.released is not None and now - self.released >= 2 * SETTLE_SECONDS)
