"""The session of a worker with its leader: one sequence of messages, of which heartbeats carry the full state.

Guarantees: the sequence grows by one with each message, in the order of sending. A heartbeat goes out at once when
somebody waits for it and every 5 s otherwise; when it was *sent* is remembered until the broker confirms it. One that
is paced sends a heartbeat only when it was asked for: it speaks for somebody who has to show first that he lives. Pure:
part of `custody.py`, driven by it.
"""

from typing import Final

from distriqueue_protocol.messages import Claim, Heartbeat, Progress, SessionMessage
from distriqueue_protocol.names import HEARTBEAT_SECONDS

SOON_SECONDS: Final = 0.2
"""The least distance of heartbeats that are sent early because the leader waits for something that has changed."""


class Session:
    """Sequence numbers, and when heartbeats are due."""

    def __init__(self) -> None:
        self.urgent = False
        """A heartbeat is due at once."""
        self.soon = False
        """A heartbeat is due at once, if the last one is not very young."""
        self._sequence = 0
        self._sent_at: float | None = None
        self._in_flight: dict[int, float] = {}

    def ask(self, _now: float) -> None:
        """Somebody asks for a heartbeat."""
        self.urgent = True

    def due(self, now: float) -> bool:
        """Whether a heartbeat is due."""
        if self.urgent or self._sent_at is None:
            return True
        since = now - self._sent_at
        return since >= HEARTBEAT_SECONDS or (self.soon and since >= SOON_SECONDS)

    def say(
        self, incarnation: str, epoch: int, *, claims: tuple[Claim, ...], progress: tuple[Progress, ...] = ()
    ) -> SessionMessage:
        """The next message, without the full state."""
        self._sequence += 1
        return SessionMessage(
            incarnation=incarnation, sequence=self._sequence, epoch=epoch, claims=claims, progress=progress
        )

    def beat(
        self,
        incarnation: str,
        epoch: int,
        *,
        claims: tuple[Claim, ...],
        progress: tuple[Progress, ...],
        heartbeat: Heartbeat,
        now: float,
    ) -> SessionMessage:
        """The next message, with the full state and with claims, new ones and some that are asked again."""
        self.urgent = self.soon = False
        self._sent_at = now
        self._sequence += 1
        self._in_flight[self._sequence] = now
        return SessionMessage(
            incarnation=incarnation,
            sequence=self._sequence,
            epoch=epoch,
            claims=claims,
            progress=progress,
            heartbeat=heartbeat,
        )

    def confirm(self, sequence: int) -> float | None:
        """When the confirmed heartbeat was sent; None if that message was none, or of a connection that is gone."""
        return self._in_flight.pop(sequence, None)

    def disconnect(self) -> None:
        """No confirmation will come any more for what was sent."""
        self._in_flight.clear()


class PacedSession(Session):
    """The session of somebody who is not in this process: each heartbeat is one of his, and as old as his word."""

    def __init__(self) -> None:
        super().__init__()
        self._asked_at: float | None = None

    def ask(self, now: float) -> None:
        """He said now that he lives; the next heartbeat says so, and the lease counts from here."""
        self._asked_at = now

    def due(self, now: float) -> bool:
        """Whether he has spoken since the last heartbeat, and not so long ago that it says little."""
        return self._asked_at is not None and now - self._asked_at < HEARTBEAT_SECONDS

    def disconnect(self) -> None:
        """His word goes no further; whoever drives this asks again for him, if he still waits."""
        super().disconnect()
        self._asked_at = None

    def beat(
        self,
        incarnation: str,
        epoch: int,
        *,
        claims: tuple[Claim, ...],
        progress: tuple[Progress, ...],
        heartbeat: Heartbeat,
        now: float,
    ) -> SessionMessage:
        """The next message, with the full state; its time is that of his word."""
        asked_at, self._asked_at = self._asked_at, None
        return super().beat(
            incarnation,
            epoch,
            claims=claims,
            progress=progress,
            heartbeat=heartbeat,
            now=now if asked_at is None else asked_at,
        )
