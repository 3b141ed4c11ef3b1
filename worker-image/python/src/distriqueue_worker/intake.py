"""Tickets and claims: what a worker may ask for, in which order, and when it lets tickets go for others.

Guarantees: a claim is made only for a slot that is free now, High before Medium before Low among what is held. A ticket
is acknowledged when its claim is answered, and handed back when the claim is closed. A worker whose slots are all taken
for `HAND_BACK_SECONDS` holds no unclaimed ticket and consumes none. Pure: part of `custody.py`, driven by it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from distriqueue_protocol.messages import Claim, Ticket
from distriqueue_worker.commands import (
    Ack,
    Command,
    Consume,
    HandBack,
    Notice,
    Noticed,
    StopConsuming,
    Tag,
)
from distriqueue_worker.shelves import HeldTicket, Shelf

HAND_BACK_SECONDS: Final = 0.5
"""With no slot free for so long, unclaimed tickets go back to the queue: somebody else may be idle."""
PREFETCH_MOST: Final = 64


@dataclass(slots=True)
class OpenClaim:
    """A claim that was asked and not answered; its ticket's delivery is void (None) after a reconnect."""

    claim: Claim
    ticket: Ticket
    tag: Tag | None
    asked: float


class Intake:
    """The tickets that a worker holds, the claims it has open, and whether it consumes.

    Args:
        slots: How many handlers may run at once.
        emit: Takes the commands.
    """

    def __init__(self, slots: int, emit: Callable[[Command], None]) -> None:
        self.claims: dict[int, OpenClaim] = {}
        self.shelf = Shelf()
        self.unsent: list[Claim] = []
        self._slots = slots
        self._emit = emit
        self._last_claim = 0
        self._consuming = False
        self._ready = False
        self._eager = True
        self._full_since: float | None = None

    def hold(self, ticket: Ticket, tag: Tag) -> None:
        """Take a delivery; one that comes late, after the consumers were cancelled, goes back."""
        if self._consuming:
            self.shelf.put(HeldTicket(ticket, tag))
        else:
            self._emit(HandBack(tag))

    def be_ready(self) -> None:
        """The consumers of all three queues are confirmed: before that, a Low ticket may be here before a High one."""
        self._ready = self._consuming

    def fill(self, free: int, now: float) -> None:
        """Claim for as many free slots as there are tickets, and consume or let go as that leaves slots or not."""
        while free > 0 and self._ready and (held := self.shelf.take()) is not None:
            self._ask(held, now)
            free -= 1
        if free > 0:
            self._full_since = None
            if not self._consuming:
                self._consuming = True
                self._emit(Consume(self._prefetch(free)))
        elif self._full_since is None:
            self._full_since = now
        elif self._consuming and now - self._full_since >= HAND_BACK_SECONDS:
            self._eager = False
            self.let_go()

    def free(self, *, ran_for: float | None = None) -> None:
        """A slot has become free; `ran_for` are the seconds that its handler took, if one ran."""
        self._full_since = None
        if ran_for is not None and ran_for < HAND_BACK_SECONDS and not self._eager:
            # Jobs are short here: a stock of tickets is worth more than what it keeps from others.
            self._eager = True
            if self._consuming:
                self._ready = False
                self._emit(Consume(self._prefetch(1)))

    def let_go(self) -> None:
        """Stop consuming and hand back what is not claimed."""
        if self._consuming:
            self._consuming = self._ready = False
            self._emit(StopConsuming())
        for held in self.shelf.clear():
            self._emit(HandBack(held.tag))

    def answered(self, number: int) -> OpenClaim | None:
        """Close the claim that was answered and acknowledge its ticket; None if it is not open."""
        claim = self.claims.pop(number, None)
        if claim is not None and claim.tag is not None:
            self._emit(Ack(claim.tag))
        return claim

    def close_claims(self) -> None:
        """Close all claims without an answer and hand back their tickets; a grant for one of them starts nothing."""
        for claim in self.claims.values():
            self._emit(Noticed(Notice.CLAIM_CLOSED, {"claim": claim.claim.id, "job": claim.ticket.name}))
            if claim.tag is not None:
                self._emit(HandBack(claim.tag))
        self.claims.clear()
        self.unsent.clear()
        self._full_since = None

    def disconnect(self) -> None:
        """The connection is gone, and with it the deliveries. Claims stay open: they are asked again by heartbeat."""
        self._consuming = self._ready = False
        self.shelf.clear()
        self.unsent.clear()
        for claim in self.claims.values():
            claim.tag = None

    def take_unsent(self) -> tuple[Claim, ...]:
        """The claims made since the last session message."""
        unsent, self.unsent = tuple(self.unsent), []
        return unsent

    def _ask(self, held: HeldTicket, now: float) -> None:
        self._last_claim += 1  # never starts again, so that an answer to an old incarnation matches nothing
        ticket = held.ticket
        claim = Claim(id=self._last_claim, uid=ticket.uid, attempt=ticket.attempt, ticket_epoch=ticket.epoch)
        self.claims[claim.id] = OpenClaim(claim, ticket, held.tag, now)
        self.unsent.append(claim)

    def _prefetch(self, free: int) -> int:
        return min(max(2 * self._slots, 2), PREFETCH_MOST) if self._eager else free
