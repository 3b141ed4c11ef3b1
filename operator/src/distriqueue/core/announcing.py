"""What is worth an Event: attempts and workers lost, jobs that are dead, tickets sent again, what the auditor found.

Guarantees: a short job that succeeds costs one comparison and no Event. Everything here is a sentence for people;
nothing depends on whether it arrives, and nothing here changes the books.
"""

from typing import Final

from distriqueue.api.events import EventReason
from distriqueue.api.names import JOB_KIND, LEASE_KIND, WORKER_KIND
from distriqueue.api.phases import AttemptOutcome, JobPhase
from distriqueue.core.books import Books
from distriqueue.core.commands import EmitEvent
from distriqueue.core.jobs import Job, Slot
from distriqueue.core.roster import Session
from distriqueue_protocol.messages import GrantId

STOPPED: Final = 4096
"""Grants that are remembered as counted."""


def about_job(books: Books, job: Job, reason: EventReason, note: str) -> None:
    """Say something about a job."""
    books.want(EmitEvent(JOB_KIND, job.namespace, job.name, job.uid, reason, note))


def about_worker(books: Books, session: Session, reason: EventReason, note: str) -> None:
    """Say something about a worker, by its resource; about the shard if it has none yet."""
    if session.record:
        books.want(EmitEvent(WORKER_KIND, "", session.record, "", reason, note))
    else:
        about_shard(books, reason, note)


def about_shard(books: Books, reason: EventReason, note: str) -> None:
    """Say something about what the leader leads: its Lease."""
    books.want(EmitEvent(LEASE_KIND, "", "", "", reason, note))


def attempt_ended(books: Books, job: Job) -> None:
    """The end of an attempt is written, and the job's status says how it ended."""
    if job.phase == JobPhase.SUCCEEDED:
        return
    entry = job.status["attempts"][-1]
    why = f"{entry.get('reason', '')}: {entry['error']}" if "error" in entry else entry.get("reason", "")
    if entry["outcome"] == AttemptOutcome.LOST:
        follows = "another one follows" if job.phase == JobPhase.RETRYING else f"the job is {job.phase}"
        note = f"Attempt {entry['number']} on worker {entry['worker'] or 'unknown'} was lost ({why}); {follows}"
        about_job(books, job, EventReason.ATTEMPT_LOST, note)
    if job.phase == JobPhase.DEAD:
        note = f"Attempt {entry['number']}, the last one, did not succeed ({why}); the job is Dead"
        about_job(books, job, EventReason.ATTEMPTS_EXHAUSTED, note)


def ticket_resent(books: Books, job: Job) -> None:
    """Nobody claimed a ticket, though there are free slots."""
    age = books.settings.resend_after
    note = f"Nobody claimed the ticket for attempt {job.next_attempt} for {age:.0f} s though slots are free; sent again"
    about_job(books, job, EventReason.TICKET_RESENT, note)


def payload_not_ready(books: Books, job: Job, why: str) -> None:
    """What a job names as its payload is not there."""
    about_job(books, job, EventReason.PAYLOAD_NOT_READY, f"{why[:1].upper()}{why[1:]}")


def attempt_duplicate(books: Books, job: Job, lower: Slot) -> None:
    """A slot's grant is lower than one that was found to be held: it is stopped. It counts if its handler may run."""
    if lower.report is None and lower.lost is None:
        _duplicate(books, job, lower.grant, worker=lower.worker)


def listed_too_late(books: Books, job: Job | None, grant: GrantId, *, worker: str) -> None:
    """A worker lists a live grant that is over, or lower than the one that holds the slot: it is told to stop.

    What ended just now by its own report does not count: a heartbeat that was sent before it says nothing.
    """
    if grant in books.stopped:
        return
    if job is None:
        if grant.epoch == books.epoch:
            return
        reason = "Unknown"
    elif grant > job.last_grant:
        _duplicate(books, job, grant, worker=worker)
        return
    elif grant < job.last_grant:
        reason = "Over"
    elif job.phase == JobPhase.RETRYING and job.status["attempts"][-1].get("outcome") == AttemptOutcome.LOST:
        reason = "Lost"
    else:
        return
    _remember(books, grant)
    books.observer.attempt_orphaned(reason)


def _duplicate(books: Books, job: Job, grant: GrantId, *, worker: str) -> None:
    if grant in books.stopped:
        return
    _remember(books, grant)
    books.observer.attempt_duplicate()
    note = f"A higher grant than {grant}, held by worker {worker or 'unknown'}, is held too: the lower one is stopped"
    about_job(books, job, EventReason.ATTEMPT_DUPLICATE, note)


def _remember(books: Books, grant: GrantId) -> None:
    """A heartbeat lists it until it is stopped: it counts once."""
    books.stopped[grant] = None
    while len(books.stopped) > STOPPED:
        del books.stopped[next(iter(books.stopped))]


def worker_lost(books: Books, session: Session, reason: str) -> None:
    """The loss of a worker is proven; one that left by its own word is not lost."""
    if reason == "Left" or not session.record:
        return
    count = len(session.slots)
    held = "held nothing" if not count else f"held {count} {'job' if count == 1 else 'jobs'}; each has its next attempt"
    note = f"Incarnation {session.incarnation} is proven lost ({reason}) and {held}"
    about_worker(books, session, EventReason.WORKER_LOST, note)
