"""What people want of a job beside its work: cancel, suspend, run again, end by a deadline, run only once of its kind.

Guarantees: what a spec says is acted on whenever it is read, so nothing depends on having seen the change. Nobody is
granted a job that is to be closed, reopened or that is suspended, from the moment at which the leader has read it. Of a
job that somebody holds, the worker is told to stop; the slot stays taken until the worker has answered for it, and
only then is anything written.
"""

from typing import Final

from distriqueue.api.conditions import JobReason
from distriqueue.api.phases import FINAL_JOB_PHASES, JobPhase
from distriqueue.api.raw import RawJobSpec
from distriqueue.core.books import Books
from distriqueue.core.jobs import PRIORITIES, Closing, Job, Stage
from distriqueue.core.times import Now
from distriqueue.core.writing import Writing

AT_A_TIME: Final = 200
"""Jobs that one tick closes for their deadline: thousands of one moment must not hold everything else up."""


class Lifecycle:
    """See the module."""

    def __init__(self, books: Books, writing: Writing) -> None:
        self._books = books
        self._writing = writing

    def reread(self, job: Job, spec: RawJobSpec, now: Now) -> None:
        """The spec of a job may have changed."""
        moved = job.read_wishes(spec)
        priority = PRIORITIES.get(spec.get("priority", job.priority), job.priority)
        value = spec.get("priorityValue", job.priority_value)
        if (priority, value) != (job.priority, job.priority_value):
            if job.slot is None and job.stage is not Stage.FINAL:
                self._books.backlog.leave(job)  # the queue of its old priority; whoever leaves twice is counted twice
                job.stage = Stage.HALTED
            job.priority, job.priority_value = priority, value
            moved = True
        self.follow(job, now, moved=moved)

    def follow(self, job: Job, now: Now, *, moved: bool = False) -> None:
        """Do what the spec of a job asks for.

        Args:
            job: Any job of the books.
            now: The moment.
            moved: What decides when it may start has changed.
        """
        books = self._books
        if job.stage is Stage.FINAL:
            return
        job.closing = self._closing(job, now)
        if job.slot is not None:
            books.order_stop(job)
        elif moved or job.halted != (job.stage is Stage.HALTED):
            books.place(job, now)
        self._writing.advance(job, now)

    def follow_all(self, now: Now) -> None:
        """The takeover is done: act on what every spec asks for, those jobs first that were here first."""
        books = self._books
        keyed = [job for job in books.jobs.values() if job.dedup_key is not None]
        # One that was over, and is to run again, comes after those that never were. Of two that were created in one
        # second, the one that has been worked on was let in before the other.
        keyed.sort(
            key=lambda job: (
                job.slot is None,
                job.phase in FINAL_JOB_PHASES,
                job.attempt == 0,
                job.created,
                job.resource_version,
            )
        )
        for job in keyed:
            self.follow(job, now)
        for job in list(books.jobs.values()):
            if job.dedup_key is None:
                self.follow(job, now)

    def tick(self, now: Now) -> None:
        """Close the jobs whose deadline has come."""
        for uid in self._books.deadlines.due(now.mono, most=AT_A_TIME):
            job = self._books.jobs.get(uid)
            if job is not None:
                self.follow(job, now)

    def _closing(self, job: Job, now: Now) -> Closing | None:
        if job.refusal is not None:
            return job.refusal
        if job.cancel:
            if job.slot is not None:
                self._books.keep_key(job)  # it is not over as long as it runs
            return Closing(JobPhase.CANCELLED, JobReason.CANCELLED, "cancelled by spec.cancel")
        keeper = self._books.keep_key(job)
        if keeper is not None:
            why = f"job {keeper.name} has the same dedupKey {job.dedup_key!r} and is not over"
            return Closing(JobPhase.CANCELLED, JobReason.DUPLICATE, why)
        if job.wants_retry:
            return None  # its deadline will count anew
        if not self._books.limit_time(job, now):
            return None
        why = f"the job was not over {job.deadline_seconds} s after its start, as spec.deadlineSeconds wants"
        return Closing(JobPhase.FAILED, JobReason.DEADLINE_EXCEEDED, why)
