"""Status writes: one at a time for each job, each decided on the version that it carries.

Guarantees: the end of an attempt is written from its report, or from its proven loss, and frees the slot when it has
landed; `Running` and `Queued` are written late and never for what is over by then, so a short job costs one write. A
write without an answer is still under way: it is read again and decided again. What another has written is obeyed. A
write that does not succeed is put off longer each time.
"""

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Final

from distriqueue.api.conditions import JobReason
from distriqueue.api.fences import Fence
from distriqueue.api.phases import FINAL_JOB_PHASES, AttemptOutcome, JobPhase
from distriqueue.api.raw import RawJob, RawJobStatus
from distriqueue.core import announcing, statuses
from distriqueue.core.books import Books
from distriqueue.core.commands import WriteStatus
from distriqueue.core.jobs import Closing, Job, Slot, Stage, Write, WriteKind
from distriqueue.core.retrying import decide
from distriqueue.core.times import Now, seconds
from distriqueue_protocol.messages import Outcome, StopReason

LONGEST_PAUSE_SECONDS: Final = 10.0
"""Between two tries of a write that is refused, or meets a conflict, again and again."""
PROGRESS_PATIENCE: Final = 4
"""After so many times the interval, progress is written although the leader is busy."""
_UNWRITABLE: Final = "ResultRefused"


class Writing:
    """See the module.

    Args:
        books: Of the term.
        draw: Random numbers in [0, 1), for the jitter of retries.
    """

    def __init__(self, books: Books, *, draw: Callable[[], float]) -> None:
        self._books = books
        self._draw = draw
        self._numbers = count(1)
        self._reopens_at = float("-inf")
        self._untold: deque[tuple[float, float, Job, Slot]] = deque()
        self._held_since: deque[tuple[float, Job, Slot]] = deque()
        self._again: list[tuple[float, int, Job]] = []

    # --- deciding ----------------------------------------------------------------------------------------------

    def advance(self, job: Job, now: Now) -> None:
        """Write what is to be written of a job now, if nothing else is being written: its end before all."""
        kind = self._kind(job)
        if kind is None:
            return
        not_before = job.not_before
        if kind is WriteKind.REOPEN and job.phase in FINAL_JOB_PHASES:
            not_before = max(not_before, self._turn(job, now))
        if now.mono < not_before:
            heappush(self._again, (not_before, next(self._numbers), job))
            return
        slot, closing, epoch = job.slot, job.closing, self._books.epoch
        match kind:
            case WriteKind.END if slot is not None:
                self._write(job, kind, self._end(job, slot, now))
            case WriteKind.CLOSE if closing is not None:
                self._write(job, kind, statuses.closed(job, closing, epoch=epoch, now=now))
            case WriteKind.REOPEN:
                granted = self._books.granted
                self._write(job, kind, statuses.reopened(job, granted=granted, epoch=epoch, now=now))
            case WriteKind.NOTE:
                self._write(job, kind, statuses.noted(job, epoch=epoch, now=now))

    def _kind(self, job: Job) -> WriteKind | None:
        """What is to be written of a job. Before the takeover is done nobody knows who holds what, so only ends are."""
        slot = job.slot
        if job.write is not None or job.stage is Stage.FINAL:
            return None
        if slot is not None and (slot.report is not None or slot.lost is not None):
            return WriteKind.END
        if not self._books.leading:
            return None
        if slot is None and job.closing is not None:
            return WriteKind.CLOSE
        if slot is None and job.wants_retry:
            return WriteKind.REOPEN
        return WriteKind.NOTE if statuses.suspension_untold(job) or statuses.payload_untold(job) else None

    def due(self, job: Job) -> float | None:
        """Since when (monotonic) a write of a job should be under way; None if none should, or one is."""
        kind = self._kind(job)
        if kind is None:
            return None
        return max(job.not_before, job.reopens_at or 0.0) if kind is WriteKind.REOPEN else job.not_before

    def _turn(self, job: Job, now: Now) -> float:
        """When a finished job may be reopened: many at once must not flood the workers."""
        if job.reopens_at is None:
            job.reopens_at = self._reopens_at = max(
                now.mono, self._reopens_at + 1 / self._books.settings.reopened_per_second
            )
        return job.reopens_at

    def refuse(self, job: Job, reason: JobReason, message: str, now: Now) -> None:
        """The leader will not run a job, for what its spec says."""
        job.refusal = job.closing = Closing(JobPhase.FAILED, reason, message)
        if job.slot is None:
            self._books.place(job, now)
        self.advance(job, now)

    def _end(self, job: Job, slot: Slot, now: Now) -> RawJobStatus:
        ending = statuses.ending(slot, now=now)
        verdict = decide(
            job, outcome=ending.outcome, reason=ending.reason, permanent=ending.permanent, draw=self._draw()
        )
        return statuses.ended(job, slot, ending, verdict, epoch=self._books.epoch, now=now)

    def _write(self, job: Job, kind: WriteKind, status: RawJobStatus) -> None:
        number = next(self._numbers)
        job.write = self._books.writes[number] = Write(id=number, kind=kind, job=job, slot=job.slot, status=status)
        self._books.want(
            WriteStatus(
                id=number,
                namespace=job.namespace,
                name=job.name,
                uid=job.uid,
                resource_version=job.resource_version,
                status=status,
                settles=kind is WriteKind.END,
            )
        )

    # --- what happened to a write ------------------------------------------------------------------------------

    def written(self, number: int, resource_version: int, now: Now) -> RawJob | None:
        """A write succeeded.

        Returns:
            What the watch has shown since then, if it was somebody else's: to be read now.
        """
        write = self._books.writes.pop(number)
        job = write.job
        if job.write is not write:
            return None  # deleted meanwhile
        self._landed(job, write, resource_version, now)
        skipped, job.skipped = job.skipped, None
        return _later(skipped, resource_version)

    def _landed(self, job: Job, write: Write, resource_version: int, now: Now) -> None:
        """What a write says is true from here on."""
        books = self._books
        job.write = None
        job.resource_version = resource_version
        job.failures = 0
        job.read_status(write.status)
        slot = write.slot
        if write.kind is WriteKind.END and slot is not None:
            books.settle(slot)
            self._count_end(job, slot, write.status)
            if job.slot is slot:
                books.release(job, slot)
            if job.phase in FINAL_JOB_PHASES and not job.wants_retry:
                books.finish(job, StopReason.OVER)
            elif job.slot is None:
                books.place(job, now)
        elif write.kind is WriteKind.CLOSE:
            books.observer.job_ended(job, job.phase, queue_seconds=0.0)
            books.finish(job, StopReason.OVER)
        elif write.kind is WriteKind.REOPEN:
            job.reopens_at = None
            if job.source is not None:
                job.source.not_before = now.mono  # as it skips its backoff
            if job.slot is not None and job.slot.grant <= job.last_grant:
                # A worker that was thought lost named an old grant meanwhile: by what is written now, it is over.
                books.free(job, job.slot, StopReason.OVER)
            books.limit_time(job, now)
            books.place(job, now)
        self.advance(job, now)
        books.forget(job)

    def reread(self, number: int, resource: RawJob | None, now: Now) -> RawJob | None:
        """A write met a conflict or got no answer, and the job was read again.

        Returns:
            What was read, if it is not what we wrote, or more than that: to be read back, and decided again.
        """
        write = self._books.writes.pop(number)
        job = write.job
        if job.write is not write:
            return None
        skipped, job.skipped = job.skipped, None
        if resource is None or resource["metadata"]["uid"] != job.uid:
            # The watch may still show it: nothing older than this counts any more.
            job.write = None
            job.gone = True
            self._give_up(job, write)
            self._books.finish(job, StopReason.DELETED)
            return None
        self._books.observer.write_repeated("Conflict")
        version = int(resource["metadata"]["resourceVersion"])
        if write.kind is WriteKind.END and _is_ours(resource.get("status", {}), write.status):
            # If a person has changed the spec since, that is a later version, and still to be read.
            changed = resource["metadata"].get("generation") != write.status.get("observedGeneration")
            self._landed(job, write, version - changed, now)
            return _later(skipped, version) or (resource if changed else None)
        job.write = None
        self._give_up(job, write)
        self._put_off(job, now)
        if write.kind is WriteKind.RUNNING and write.slot is not None and job.slot is write.slot:
            write.slot.announced = False
            self._held_since.append((now.mono, job, write.slot))
        return _later(skipped, version) or resource

    def refused(self, number: int, fences: frozenset[Fence], message: str, now: Now) -> RawJob | None:
        """The API server refused a write for what it says (422).

        Args:
            number: The write.
            fences: The fences that it names.
            message: The server's words.
            now: The moment.

        Returns:
            What the watch has shown meanwhile: to be read now.
        """
        books = self._books
        write = books.writes.pop(number)
        job = write.job
        if Fence.EPOCH in fences:
            books.step_down("a later leader has written", minimum_epoch=books.epoch)
            return None
        if job.write is not write:
            return None
        job.write = None
        skipped, job.skipped = job.skipped, None
        self._decide_refused(job, write, fences, message, now)
        return skipped

    def _decide_refused(self, job: Job, write: Write, fences: frozenset[Fence], message: str, now: Now) -> None:
        books = self._books
        books.observer.write_repeated("Refused")
        self._give_up(job, write)
        slot = job.slot
        if fences and slot is not None and job.phase in FINAL_JOB_PHASES and job.wants_retry:
            # Somebody wrote an end while it ran, and wants a retry: what was held is over, and the retry begins.
            books.free(job, slot, StopReason.OVER)
            books.place(job, now)
            self.advance(job, now)
            return
        if fences:
            # It came too late, whatever it says: the job is over, or a later grant is. The watch will show which; if it
            # has shown it already and the job is not over, it enters the books anew (`auditing`).
            books.finish(job, StopReason.OVER)
            books.forget(job)
            return
        refused_end = write.kind is WriteKind.END and slot is not None and slot is write.slot
        if refused_end and slot is not None:
            slot.start_time, slot.progress, slot.checkpointed = None, None, False
        if refused_end and slot is not None and slot.report is not None and slot.report.reason != _UNWRITABLE:
            # Something of it is what the schema cannot hold: the attempt has failed, and says so.
            slot.report = slot.report.model_copy(
                update={
                    "outcome": Outcome.FAILED,
                    "result": None,
                    "checkpoint": job.status.get("checkpoint"),
                    "reason": _UNWRITABLE,
                    "error": f"the API server refused the status: {message}"[:2000],
                    "log_tail": "",
                    "permanent": True,
                    "start_time": "",
                    "completion_time": "",
                }
            )
        else:
            self._put_off(job, now)
        self.advance(job, now)

    def _give_up(self, job: Job, write: Write) -> None:
        """A write did not land; the report of a slot that was freed meanwhile is refused now."""
        slot = write.slot
        if write.kind is WriteKind.END and slot is not None and slot is not job.slot:
            self._books.refuse_report(slot)

    @staticmethod
    def _put_off(job: Job, now: Now) -> None:
        """A write did not succeed. The first is decided again at once; one that never does must not become a storm."""
        job.failures += 1
        if job.failures > 1:
            job.not_before = now.mono + min(0.1 * 2.0 ** min(job.failures, 16), LONGEST_PAUSE_SECONDS)

    def _count_end(self, job: Job, slot: Slot, status: RawJobStatus) -> None:
        entry = status["attempts"][-1]
        start, end = seconds(status.get("startTime")), seconds(entry.get("completionTime"))
        took = max(0.0, end - start) if start is not None and end is not None else 0.0
        outcome = AttemptOutcome(entry["outcome"])
        observer = self._books.observer
        observer.attempt_ended(job, outcome, reason=entry.get("reason", ""), execution_seconds=took)
        if job.phase in FINAL_JOB_PHASES:
            observer.job_ended(job, job.phase, queue_seconds=max(0.0, slot.granted_at - job.created))
        announcing.attempt_ended(self._books, job)

    def _announce(self, job: Job, slot: Slot, now: Now) -> None:
        """Write that an attempt runs, and how far it has come.

        Not of a job that somebody ended by hand, and that is to run again when its attempt has stopped: the fence would
        refuse it, and that would be taken for the word that the attempt is over.
        """
        slot.untold = None
        if job.phase in FINAL_JOB_PHASES:
            return
        slot.announced = True
        self._write(job, WriteKind.RUNNING, statuses.running(job, slot, epoch=self._books.epoch, now=now))

    # --- what has been so for a while --------------------------------------------------------------------------

    def watch(self, job: Job, slot: Slot, now: Now) -> None:
        """A slot was taken: if it still is after a while, `Running` is written."""
        slot.since = now.mono
        self._held_since.append((now.mono, job, slot))

    def tell(self, job: Job, slot: Slot, now: Now) -> None:
        """A handler said something new: it is written along with others, or after a while by itself."""
        if slot.untold is None:
            slot.untold = now.mono
            self._untold.append((now.mono, now.mono, job, slot))

    def tick(self, now: Now) -> None:
        """Write what was put off, and Running and Queued for what has been so for a while."""
        settings, epoch, writes = self._books.settings, self._books.epoch, self._books.writes
        while self._again and self._again[0][0] <= now.mono:
            self.advance(heappop(self._again)[2], now)
        while self._held_since and self._held_since[0][0] <= now.mono - settings.running_after:
            _, job, slot = self._held_since.popleft()
            if job.slot is not slot or slot.announced or slot.report is not None or slot.lost is not None:
                continue
            if job.write is None:
                self._announce(job, slot, now)
            else:
                self._held_since.append((now.mono, job, slot))
        while self._untold and self._untold[0][0] <= now.mono - settings.progress_every:
            _, since, job, slot = self._untold.popleft()
            if job.slot is not slot or slot.untold != since or slot.report is not None or slot.lost is not None:
                continue
            patient = now.mono - since < PROGRESS_PATIENCE * settings.progress_every
            if job.write is None and not (patient and len(writes) >= settings.quiet_writes):
                self._announce(job, slot, now)
            else:
                self._untold.append((now.mono, since, job, slot))
        for job in self._books.backlog.long_out(mono=now.mono, age=settings.queued_after):
            if job.write is None and job.phase != JobPhase.QUEUED and len(writes) < settings.quiet_writes:
                self._write(job, WriteKind.QUEUED, statuses.queued(job, epoch=epoch, now=now))


def _later(skipped: RawJob | None, version: int) -> RawJob | None:
    """What the watch has shown while an answer was under way, if it is later than what the answer tells of."""
    if skipped is None or int(skipped["metadata"]["resourceVersion"]) <= version:
        return None
    return skipped


def _is_ours(status: RawJobStatus, written: RawJobStatus) -> bool:
    """Whether a status that was read is the one that a write without an answer carried."""
    keys = ("phase", "attempt", "epoch", "lastGrant", "completionTime", "nextAttemptTime")
    return all(status.get(key) == written.get(key) for key in keys)
