"""What the auditor finds: every word with what it means, and what is done about it.

Constants only. Nothing of it should ever be: a finding is a bug of ours, or (`WriteOverdue`) an API server away.
"""

from enum import StrEnum
from typing import Final


class Finding(StrEnum):
    """A word of the auditor: label of a metric, and the beginning of an Event's note."""

    NOT_QUEUED = "NotQueued"
    """The job waits for its turn, its time or a person, and nothing would end that. Repaired: it is queued."""
    TICKET_FORGOTTEN = "TicketForgotten"
    """A ticket is out, and nobody would notice that it is lost. Repaired: the job is queued; two tickets do no harm."""
    SLOT_MISSING = "SlotMissing"
    """The job counts as held, and has no slot. Repaired: it is queued."""
    SLOT_UNANSWERED = "SlotUnanswered"
    """A slot is held by an incarnation that nobody knows. Repaired: it has to be heard of, or its loss proven."""
    WRITE_OWED = "WriteOwed"
    """An attempt has ended, or a person wants something of the job, and nobody writes it. Repaired: it is written."""
    WRITE_FORGOTTEN = "WriteForgotten"
    """A status write counts as under way, and nobody waits for its answer. Repaired: it is decided again."""
    NOT_ENTERED = "NotEntered"
    """The watch shows an unfinished job that is not in the books. Repaired: it is entered."""
    OUTDATED = "Outdated"
    """The watch shows a later version than the books have. Repaired: it is read."""
    SLOT_MISPLACED = "SlotMisplaced"
    """A slot is held, and the job waits all the same, or is over. Repaired: it waits no longer, or the slot is free."""
    WISH_IGNORED = "WishIgnored"
    """The job is suspended, cancelled or to be run anew, and waits for its turn all the same. Repaired: it does not."""
    SLOT_UNLISTED = "SlotUnlisted"
    """The session of a slot does not have it. Repaired: it has."""
    SLOT_ELSEWHERE = "SlotElsewhere"
    """A session has a slot that its job does not have. Repaired: it has it no longer."""
    COUNTER_WRONG = "CounterWrong"
    """The counters of jobs waiting, out, held or retrying were not what a recount gives. Repaired: they are."""
    WRITE_OVERDUE = "WriteOverdue"
    """A status write has been under way for longer than `overdue`. Only reported: it has an answer some day."""
    NOT_SHOWN = "NotShown"
    """The books have a job that the watch does not show. Only reported: its next write says whether it is there."""


LOST: Final = frozenset(
    {
        Finding.NOT_QUEUED,
        Finding.TICKET_FORGOTTEN,
        Finding.SLOT_MISSING,
        Finding.SLOT_UNANSWERED,
        Finding.WRITE_OWED,
        Finding.WRITE_FORGOTTEN,
        Finding.NOT_ENTERED,
    }
)
"""Findings that say: nobody had custody of the job."""
