"""What was handed out to an HTTP worker, and what it has confirmed.

Every grant gets a number when it comes from the leader. The worker says up to which number it has taken note
(`received`). Guarantees: a grant above that is delivered again by the next request, in the order of the numbers; one
that is not above it and that the worker does not list has no handler. A grant that was never part of an answer, or that
a later request shows was not received, may be given to others; any other may be running. Pure.
"""

from collections.abc import Collection
from dataclasses import dataclass

from distriqueue_protocol.messages import GrantId


@dataclass(slots=True)
class Delivery:
    """A grant under its number; `sent` once it was part of an answer."""

    number: int
    grant: GrantId
    sent: bool = False


class Deliveries:
    """The grants of one session that are carried out here and are not over. Adopted ones count as number 0.

    Custody holds a grant a moment before it is added here; until then no word of a worker says anything about it.
    """

    def __init__(self) -> None:
        self._by_grant: dict[GrantId, Delivery] = {}
        self._last = 0
        self.received = 0
        """The highest number that the worker has taken note of."""
        self.sent = 0
        """The highest number that was ever part of an answer."""

    def add(self, grant: GrantId) -> None:
        """A grant came."""
        self._last += 1
        self._by_grant[grant] = Delivery(self._last, grant)

    def adopt(self, grant: GrantId) -> None:
        """The worker has it, of an earlier session."""
        self._by_grant[grant] = Delivery(0, grant, sent=True)

    def remove(self, grant: GrantId) -> None:
        """It is over here."""
        self._by_grant.pop(grant, None)

    def receive(self, number: int) -> bool:
        """The worker has taken note up to a number.

        Returns:
            False when no answer ever had that number: the worker speaks of another session.
        """
        if number > self.sent:
            return False
        self.received = max(self.received, number)
        return True

    def waiting(self) -> list[Delivery]:
        """What the worker has not confirmed, oldest first."""
        return [delivery for delivery in self._by_grant.values() if delivery.number > self.received]

    def send(self, most: int) -> list[Delivery]:
        """What goes into an answer now: what waits, oldest first, but not more than this."""
        sent = self.waiting()[:most]
        for delivery in sent:
            delivery.sent = True
            self.sent = max(self.sent, delivery.number)
        return sent

    def unsent(self) -> list[GrantId]:
        """What was part of no answer yet."""
        return [delivery.grant for delivery in self._by_grant.values() if not delivery.sent]

    def dead(self, *, received: int, listed: Collection[GrantId]) -> list[GrantId]:
        """Those that by the word of a worker have no handler.

        Args:
            received: What it had taken note of when it spoke; not what it has said later.
            listed: What it listed.
        """
        return [one.grant for one in self._by_grant.values() if one.grant not in listed and one.number <= received]
