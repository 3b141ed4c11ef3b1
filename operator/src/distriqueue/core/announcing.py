"""What is worth an Event: attempts and workers lost, jobs that are dead, tickets sent again, what the auditor found.

Guarantees: a short job that succeeds costs one comparison and no Event. Everything here is a sentence for people;
nothing depends on whether it arrives, and nothing here changes the books.
"""

from distriqueue.api.events import EventReason
from distriqueue.api.names import JOB_KIND, LEASE_KIND, WORKER_KIND
from distriqueue.api.phases import AttemptOutcome, JobPhase
from distriqueue.core.books import Books
from distriqueue.core.commands import EmitEvent
from distriqueue.core.jobs import Job, Slot
from distriqueue.core.roster import Session


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


def attempt_duplicate(books: Books, job: Job, lower: Slot) -> None:
    """A lower grant than the one that takes the slot is stopped; it counts if its handler may be running."""
    if lower.report is not None or lower.lost is not None:
        return
    books.observer.attempt_duplicate()
    note = (
        f"A higher grant than {lower.grant} on worker {lower.worker or 'unknown'} is listed; the lower one is stopped"
    )
    about_job(books, job, EventReason.ATTEMPT_DUPLICATE, note)


def worker_lost(books: Books, session: Session, reason: str) -> None:
    """The loss of a worker is proven; one that left by its own word is not lost."""
    if reason == "Left" or not session.record:
        return
    count = len(session.slots)
    held = "held nothing" if not count else f"held {count} {'job' if count == 1 else 'jobs'}; each has its next attempt"
    note = f"Incarnation {session.incarnation} is proven lost ({reason}) and {held}"
    about_worker(books, session, EventReason.WORKER_LOST, note)
