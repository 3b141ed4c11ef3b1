"""The sentences that must be true of a leader's books, looked at after every batch of events.

- The counts agree with what is counted.
- Every claim that may be answered is answered, or its payload is being read.
- Every job that is not over is held by someone: it is in a queue of the leader, or its ticket is out and will be
  missed, or its slot is held by a session that can be asked, or by a report or a loss that is being written.
"""

from distriqueue.core.books import Books
from distriqueue.core.jobs import Job, Stage
from distriqueue.core.leader import Leader
from tests.simulation.statuses import ViolationError


def check_books(books: Books) -> None:
    """Whether the books agree with each other.

    Raises:
        ViolationError: They do not.
    """
    held = out = backoff = 0
    wrong: list[str] = []
    for job in books.jobs.values():
        stage = job.stage
        held += job.slot is not None
        out += stage is Stage.TICKETED
        backoff += stage is Stage.BACKOFF
        if (job.slot is not None) is not (stage is Stage.HELD):
            wrong.append(f"{job.name} is {stage.name} with {job.slot}")
        if job.write is not None and job.write.id not in books.writes:
            wrong.append(f"nobody waits for write {job.write.id} of {job.name}")
    for session in books.roster.sessions.values():
        for uid, slot in session.slots.items():
            if uid not in books.jobs or books.jobs[uid].slot is not slot:
                wrong.append(f"{session.incarnation} has grant {slot.grant} of {uid}, which has not")
    if (books.held, books.backlog.retrying) != (held, backoff):
        wrong.append(f"{held} are held and {backoff} in backoff, not {books.held} and {books.backlog.retrying}")
    if sum(tickets for _, _, tickets in books.backlog.lanes()) != out:
        wrong.append(f"{out} tickets are out, and as many are not counted")
    if wrong:
        raise ViolationError("the books agree", ", ".join(wrong))


def check_custody(leader: Leader) -> None:
    """Whether every job is held by someone, and every claim answered that can be.

    Raises:
        ViolationError: One is not.
    """
    _check_claims(leader)
    books, backlog = leader._books, leader.backlog
    waiting = {entry for lane in backlog._lanes.values() for _, _, entry, _ in lane.heap}
    tickets = {ticket for queue in (backlog._out_since, backlog._out_long) for _, ticket, _ in queue}
    backoff = {entry for _, entry, _ in backlog._backoff}
    again = {job.uid for _, _, job in leader._writing._again}
    for job in books.jobs.values():
        held = job.write is not None or job.uid in again
        match job.stage:
            case Stage.WAITING:
                held = held or job.waiting_entry in waiting
            case Stage.TICKETED:
                held = held or job.ticket in tickets
            case Stage.BACKOFF:
                held = held or job.waiting_entry in backoff
            case Stage.HELD:
                held = held or _is_answered_for(books, job)
            case _:
                held = True
        if not held:
            raise ViolationError("held by someone", f"nobody has {job.name}, which is {job.stage.name}")


def _check_claims(leader: Leader) -> None:
    reads = leader._granting._payloads._reads
    for session in leader.roster.sessions.values():
        if leader._books.leading and session.written and not session.ended:
            for number, claim in session.claims.items():
                read = reads.get(claim.uid)
                if read is None or read.claims.get((session.incarnation, number)) is not session:
                    raise ViolationError(
                        "claims are answered", f"claim {number} of {session.incarnation} waits for nothing"
                    )


def _is_answered_for(books: Books, job: Job) -> bool:
    slot = job.slot
    if slot is None:
        return False
    session = books.roster.sessions.get(slot.incarnation)
    # A report that was adopted from somebody unknown is written, or was put off: both are seen above.
    return session is not None and session.slots.get(job.uid) is slot
