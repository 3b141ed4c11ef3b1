"""The auditor: counts custody all the time, repairs what it finds where that is safe, and says so.

A round looks at every job that is not over, every session and every job that the watch shows, in slices of one tick
each; then it rests. Guarantees: a tick of it takes well under a millisecond, whatever the backlog (but for the recount
of totals, once a round: about a tenth of a microsecond for each job); a round finds every job that nobody has custody
of, and nothing in books that agree with themselves, although they change while it looks.

How that can be: what stands in the queues is copied at once (pointers only) with the number of the last entry, and
looked at later. A job whose entry is older than the copy and not in it has none; one with a newer entry is left to the
next round.
"""

from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import TypeVar

from distriqueue.api.events import EventReason
from distriqueue.api.raw import RawJob
from distriqueue.core import announcing
from distriqueue.core.admitting import Admission
from distriqueue.core.books import Books
from distriqueue.core.findings import LOST, Finding
from distriqueue.core.jobs import Job, Slot, Stage, is_over
from distriqueue.core.roster import Session
from distriqueue.core.times import Now
from distriqueue.core.writing import Writing
from distriqueue_protocol.messages import StopReason

T = TypeVar("T")
_stage = attrgetter("stage")
_entry = attrgetter("waiting_entry")


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """What may be tuned of the auditor.

    Attributes:
        slice: Jobs that it looks at in a tick.
        rest: Seconds between two rounds.
        grace: Seconds that a write may be due before somebody must have begun it.
        overdue: Seconds after which a write under way is reported.
    """

    slice: int = 500
    rest: float = 10.0
    grace: float = 5.0
    overdue: float = 60.0


@dataclass(frozen=True, slots=True)
class _Places:
    """What stood in the queues when the round began."""

    last_entry: int
    last_ticket: int
    entries: set[int]
    tickets: set[int]


class Auditor:
    """See the module.

    Attributes:
        shown: What the watch shows, by uid; None where there is nothing to compare with.
        audited_at: When the last round ended, or the term began (monotonic).
        findings: What was found since the term began.
    """

    def __init__(self, books: Books, writing: Writing, admission: Admission, *, now: Now) -> None:
        self.shown: Mapping[str, RawJob] | None = None
        self.audited_at = now.mono
        self.findings: Counter[Finding] = Counter()
        self._books = books
        self._writing = writing
        self._admission = admission
        self._settings = AuditSettings()
        self._now = now
        self._course: Iterator[None] | None = None
        self._issued: deque[tuple[float, int]] = deque()
        self._reported_write = 0
        self._not_shown: set[str] = set()

    def tick(self, now: Now) -> None:
        """Look at one more slice, if it is time for a round."""
        self._now = now
        if not self._issued or now.mono - self._issued[-1][0] >= 1.0:
            self._issued.append((now.mono, next(reversed(self._books.writes), 0)))
        if self._course is None:
            if now.mono - self.audited_at < self._settings.rest:
                return
            self._course = self._round()
        for _ in self._course:
            return  # the next slice in the next tick
        self._course = None
        self.audited_at = now.mono
        self._books.observer.audited()

    def _round(self) -> Iterator[None]:
        """Look at everything once; gives way after each slice."""
        books, size = self._books, self._settings.slice
        places = yield from self._list_places()
        for jobs in _slices(list(books.jobs.values()), size):
            for job in jobs:
                if not self._waits_as_it_should(job, places) and books.jobs.get(job.uid) is job:
                    self._look_at(job, places)
            yield
        for sessions in _slices(list(books.roster.sessions.values()), 1 + size // 4):
            for session in sessions:
                self._look_at_session(session)
            yield
        for uids in _slices(list(self.shown or ()), 4 * size):
            for uid in [uid for uid in uids if uid not in books.jobs]:
                self._enter(uid)
            yield
        self._not_shown &= books.jobs.keys()
        self._recount()
        self._look_at_writes()

    def _list_places(self) -> Generator[None, None, _Places]:
        """The numbers of what stands in the queues now."""
        snapshot, size = self._books.backlog.snapshot(), 2 * self._settings.slice
        places = _Places(snapshot.last_entry, snapshot.last_ticket, set(), set())
        for queued in _slices(snapshot.queued, size):
            places.entries.update(map(itemgetter(-2), queued))
            yield
        for out in _slices(snapshot.out, size):
            places.tickets.update(map(itemgetter(1), out))
            yield
        return places

    # --- one job -----------------------------------------------------------------------------------------------

    def _waits_as_it_should(self, job: Job, places: _Places) -> bool:
        """Whether a job stands in a lane and nothing else is to be said of it: nearly all of a deep backlog."""
        entry, shown = job.waiting_entry, self.shown
        if (
            job.stage is not Stage.WAITING
            or not entry
            or (entry not in places.entries and entry <= places.last_entry)
            or job.slot is not None
            or job.write is not None
            or job.closing is not None
            or job.suspend
            or job.retry_generation > job.retried
        ):
            return False
        if shown is None:
            return True
        resource = shown.get(job.uid)
        return resource is not None and int(resource["metadata"]["resourceVersion"]) <= job.resource_version

    def _look_at(self, job: Job, places: _Places) -> None:
        """Whether a job is in exactly one place."""
        books, stage, slot, write = self._books, job.stage, job.slot, job.write
        if write is not None and books.writes.get(write.id) is not write:
            # An answer may come after all: it is taken for one about a job that was deleted meanwhile.
            books.writes[write.id] = write
            job.write = None
            self._writing.advance(job, self._now)
            self._repaired(
                Finding.WRITE_FORGOTTEN, job, "nobody waited for the answer to a status write: decided again"
            )
        if (slot is not None) is not (stage is Stage.HELD):
            self._displaced(job, slot)
        elif stage is Stage.FINAL:
            return
        elif slot is not None:
            self._look_at_slot(job, slot)
        else:
            self._look_at_place(job, places)
        due = self._writing.due(job)
        if due is not None and self._now.mono >= due + self._settings.grace:
            self._writing.advance(job, self._now)
            self._repaired(Finding.WRITE_OWED, job, "something about it was to be written, and was not: written now")
        if self.shown is not None and job.stage is not Stage.FINAL:
            self._compare(job, self.shown)

    def _look_at_place(self, job: Job, places: _Places) -> None:
        """Whether a job that nobody holds stands where it should."""
        books, stage = self._books, job.stage
        if job.halted and stage is not Stage.HALTED:
            books.place(job, self._now)
            self._writing.advance(job, self._now)
            self._repaired(Finding.WISH_IGNORED, job, "it waited for its turn although its spec says otherwise: halted")
        elif stage is Stage.TICKETED:
            if job.ticket <= places.last_ticket and job.ticket not in places.tickets:
                books.backlog.wait(job)
                self._repaired(Finding.TICKET_FORGOTTEN, job, "nobody watched over its ticket: queued again")
        elif stage is Stage.HALTED:
            if not job.halted:
                books.place(job, self._now)
                self._repaired(Finding.NOT_QUEUED, job, "it was halted without a reason: queued again")
        else:
            entry = job.waiting_entry
            if not entry or (entry <= places.last_entry and entry not in places.entries):
                books.place(job, self._now)
                self._repaired(Finding.NOT_QUEUED, job, "it waited in no queue: queued again")

    def _displaced(self, job: Job, slot: Slot | None) -> None:
        """Stage and slot contradict each other."""
        books = self._books
        if slot is None:
            books.place(job, self._now)
            self._repaired(Finding.SLOT_MISSING, job, "it counted as held and had no slot: queued again")
            return
        if job.stage is Stage.FINAL:
            books.free(job, slot, StopReason.OVER)
            why = f"it was over and its slot held by grant {slot.grant}: the slot is free"
        else:
            books.backlog.leave(job)
            job.stage = Stage.HELD
            why = f"it waited although grant {slot.grant} held its slot: it waits no longer"
        self._repaired(Finding.SLOT_MISPLACED, job, why)

    def _look_at_slot(self, job: Job, slot: Slot) -> None:
        """Whether somebody answers for a slot: its session, or whoever writes its end."""
        if slot.report is not None or slot.lost is not None:
            return  # its end is being written, or to be written
        roster = self._books.roster
        session = roster.sessions.get(slot.incarnation)
        if session is None:
            slot.incarnation = slot.incarnation or f"unknown-{job.uid}"
            roster.expect(slot.incarnation, record=slot.worker, pod_uid="")
            roster.sessions[slot.incarnation].slots[job.uid] = slot
            why = f"nobody knew the worker that holds grant {slot.grant}: it has to be heard of, or its loss proven"
            self._repaired(Finding.SLOT_UNANSWERED, job, why)
        elif session.slots.get(job.uid) is not slot:
            session.slots[job.uid] = slot
            why = f"the session of worker {slot.worker} did not list grant {slot.grant}: it does"
            self._repaired(Finding.SLOT_UNLISTED, job, why)

    def _compare(self, job: Job, shown: Mapping[str, RawJob]) -> None:
        """Whether the books have what the watch shows."""
        resource = shown.get(job.uid)
        if resource is None:
            # While a write is under way, the watch may be ahead of its answer.
            if job.write is None and job.uid not in self._not_shown:
                self._not_shown.add(job.uid)
                self._found(Finding.NOT_SHOWN, job, "the watch does not show it: its next status write will tell")
        elif int(resource["metadata"]["resourceVersion"]) > max(job.seen, job.resource_version):
            self._admission.shown(resource, self._now)
            self._repaired(Finding.OUTDATED, job, "the leader's books had an old version of it: read again")

    def _enter(self, uid: str) -> None:
        """The watch shows a job that is not in the books."""
        resource = self.shown.get(uid) if self.shown is not None else None
        if resource is None or is_over(resource) or resource["metadata"].get("deletionTimestamp"):
            return
        self._admission.shown(resource, self._now)
        job = self._books.jobs.get(uid)
        if job is not None:
            self._repaired(Finding.NOT_ENTERED, job, "it was not in the leader's books: entered")

    # --- everything else ---------------------------------------------------------------------------------------

    def _look_at_session(self, session: Session) -> None:
        """Whether what a session has is what the jobs say."""
        for uid, slot in list(session.slots.items()):
            job = self._books.jobs.get(uid)
            if job is None or job.slot is not slot or slot.incarnation != session.incarnation:
                del session.slots[uid]
                self._count(Finding.SLOT_ELSEWHERE)
                why = f"Its session listed grant {slot.grant} of job {uid}, which does not: removed"
                announcing.about_worker(self._books, session, EventReason.CUSTODY_REPAIRED, why)

    def _recount(self) -> None:
        """Whether the counters are what a recount gives. In one go: they would change between slices."""
        books = self._books
        jobs = books.jobs.values()
        stages = list(map(_stage, jobs))  # these run in C: 20,000 jobs take about a millisecond
        backoff, out = stages.count(Stage.BACKOFF), stages.count(Stage.TICKETED)
        waiting = len(stages) - list(map(_entry, jobs)).count(0) - backoff
        lanes = list(books.backlog.lanes())
        counted = (sum(lane[1] for lane in lanes), sum(lane[2] for lane in lanes), books.backlog.retrying, books.held)
        right = (waiting, out, backoff, stages.count(Stage.HELD))
        sane = all(lane[1] >= 0 and lane[2] >= 0 for lane in lanes)
        if counted == right and sane:
            return
        books.backlog.recount(jobs)
        books.held = right[-1]
        self._count(Finding.COUNTER_WRONG)
        why = f"The leader counted {counted} jobs waiting, out, retrying and held; there are {right}: corrected"
        announcing.about_shard(books, EventReason.CUSTODY_REPAIRED, why)

    def _look_at_writes(self) -> None:
        """Whether a status write has been under way for too long; each is reported once."""
        limit, bound = self._now.mono - self._settings.overdue, 0
        while self._issued and self._issued[0][0] <= limit:
            bound = self._issued.popleft()[1]
        if bound:
            self._issued.appendleft((limit, bound))
        for number, write in self._books.writes.items():
            if number > bound:
                return
            if number > self._reported_write and write.job.write is write:
                self._reported_write = number
                what = f"a status write has had no answer for more than {self._settings.overdue:.0f} s"
                self._found(Finding.WRITE_OVERDUE, write.job, f"{what}: waited for")

    # --- saying it ---------------------------------------------------------------------------------------------

    def _count(self, finding: Finding) -> None:
        self.findings[finding] += 1
        self._books.observer.custody_found(finding.value, lost=finding in LOST)

    def _repaired(self, finding: Finding, job: Job, what: str) -> None:
        self._count(finding)
        announcing.about_job(self._books, job, EventReason.CUSTODY_REPAIRED, f"{finding.value}: {what}")

    def _found(self, finding: Finding, job: Job, what: str) -> None:
        self._count(finding)
        announcing.about_job(self._books, job, EventReason.CUSTODY_FOUND, f"{finding.value}: {what}")


def _slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut a list."""
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]
