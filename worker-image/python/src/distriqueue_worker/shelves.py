"""The shelf of tickets that a worker holds and has not claimed yet.

Guarantees: High before Medium before Low, and within a priority first come, first served. Pure.
"""

from collections import deque
from dataclasses import dataclass

from distriqueue_protocol.messages import Ticket
from distriqueue_protocol.names import Priority
from distriqueue_worker.commands import Tag


@dataclass(frozen=True, slots=True)
class HeldTicket:
    """A ticket and the delivery that it came by."""

    ticket: Ticket
    tag: Tag


class Shelf:
    """Unclaimed tickets by priority."""

    def __init__(self) -> None:
        self._rows: dict[Priority, deque[HeldTicket]] = {priority: deque() for priority in Priority}

    def __len__(self) -> int:
        return sum(len(row) for row in self._rows.values())

    def put(self, held: HeldTicket) -> None:
        """Add a ticket at the end of its row."""
        self._rows[held.ticket.priority].append(held)

    def take(self) -> HeldTicket | None:
        """The next ticket to claim, or None."""
        for row in self._rows.values():
            if row:
                return row.popleft()
        return None

    def clear(self) -> list[HeldTicket]:
        """Take everything, in the order of delivery, so that handing it back keeps the order of the queues."""
        everything = [held for row in self._rows.values() for held in row]
        for row in self._rows.values():
            row.clear()
        return everything
