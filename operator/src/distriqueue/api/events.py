"""The reasons of the Events that the operator makes, each with what it means and whether it is a warning.

Events are for people (``kubectl describe djob NAME``, ``kubectl get events``): best effort, kept for an hour or so, and
dropped when there are too many at a time. Programs test conditions instead. A short job that succeeds makes none.
"""

from enum import StrEnum
from typing import Final


class EventReason(StrEnum):
    """Why an Event was made."""

    ATTEMPT_LOST = "AttemptLost"
    """On a job: an attempt ended without a report, because its worker was lost or stopped."""
    ATTEMPTS_EXHAUSTED = "AttemptsExhausted"
    """On a job: it is Dead, all its attempts are used up."""
    ATTEMPT_DUPLICATE = "AttemptDuplicate"
    """On a job: workers listed two grants for it; the lower one was stopped."""
    TICKET_RESENT = "TicketResent"
    """On a job: nobody claimed its ticket though slots were free, so another one was sent."""
    PAYLOAD_NOT_READY = "PayloadNotReady"
    """On a job: what `spec.payloadFrom` names is not there, or cannot be read; the job waits for it."""
    WORKER_LOST = "WorkerLost"
    """On a worker: it is proven lost, and what it held is tried again."""
    CUSTODY_REPAIRED = "CustodyRepaired"
    """On a job, a worker, or the shard's Lease: the auditor found the leader's books wrong, and put them right."""
    CUSTODY_FOUND = "CustodyFound"
    """On a job: the auditor found something that it leaves to others to repair."""


ACTIONS: Final = {
    EventReason.ATTEMPT_LOST: "EndAttempt",
    EventReason.ATTEMPTS_EXHAUSTED: "EndJob",
    EventReason.ATTEMPT_DUPLICATE: "StopAttempt",
    EventReason.TICKET_RESENT: "SendTicket",
    EventReason.PAYLOAD_NOT_READY: "ReadPayload",
    EventReason.WORKER_LOST: "MarkOffline",
    EventReason.CUSTODY_REPAIRED: "Repair",
    EventReason.CUSTODY_FOUND: "Report",
}
"""What was done, as a word for machines; every Event has to name it."""

NORMAL_REASONS: Final = frozenset({EventReason.TICKET_RESENT})
"""Events of type Normal; all others are warnings."""

NOTE_LIMIT_BYTES: Final = 1024
"""Bytes that an Event's note may have, by the API server's word."""
