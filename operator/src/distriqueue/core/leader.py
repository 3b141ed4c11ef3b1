"""The leader: one term of leadership as a state machine. Events in, commands out; no I/O, no clock, no randomness.

Guarantees, in the words of docs/architecture.md: a job has one slot, a grant takes it, and only its report, a later
heartbeat that lists neither grant nor claim, or the proven loss of its worker frees it; a report is acknowledged after
the status write; nothing is granted before the five steps of the takeover are done. A term ends with `StepDown`; the
next one begins with a new `Leader` and a higher epoch.

This is the front: it hands each event to the part that decides (`admitting`, `granting`, `staffing`, `writing`,
`takeovers`), all of which work on the same `Books`.
"""

from collections.abc import Callable, Iterable

from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from distriqueue.api.conditions import JobReason
from distriqueue.api.fences import Fence
from distriqueue.api.raw import RawJob, RawWorker
from distriqueue.core import announcing
from distriqueue.core.admitting import Admission
from distriqueue.core.auditing import Auditor
from distriqueue.core.backlog import Backlog
from distriqueue.core.books import Books, LeaderSettings
from distriqueue.core.commands import CallRoll, Command, DeclarePool, PublishTicket
from distriqueue.core.granting import Granting
from distriqueue.core.jobs import Job, Stage
from distriqueue.core.lifecycle import Lifecycle
from distriqueue.core.observing import Observer
from distriqueue.core.payloads import Obstacle, Payloads
from distriqueue.core.reaping import Finished
from distriqueue.core.roster import OVER, Roster
from distriqueue.core.staffing import Staffing
from distriqueue.core.takeovers import Step, Takeover
from distriqueue.core.times import Now
from distriqueue.core.writing import Writing
from distriqueue_protocol.messages import Marker, Report, SecretReference, SessionMessage, StopReason, Ticket
from distriqueue_protocol.names import EPOCH_REPEAT_SECONDS, Priority

__all__ = ["Leader", "LeaderSettings", "Step"]


class Leader:
    """One term. Call an `on_...` method or `tick`, then carry out what `take` returns."""

    def __init__(
        self, *, epoch: int, now: Now, observer: Observer, draw: Callable[[], float], settings: LeaderSettings
    ) -> None:
        """Begin a term.

        Args:
            epoch: Of the write that took the Lease.
            now: The moment at which the inbox was bound.
            observer: Is told what happens.
            draw: Random numbers in [0, 1), for jitter.
            settings: What may be tuned.
        """
        self.epoch = epoch
        self._books = Books(epoch=epoch, now=now, observer=observer, settings=settings)
        self._writing = Writing(self._books, draw=draw)
        self._lifecycle = Lifecycle(self._books, self._writing)
        self._admission = Admission(self._books, self._writing, self._lifecycle)
        self._granting = Granting(self._books, self._writing, Payloads(self._books, self._writing))
        self._staffing = Staffing(self._books, self._writing, self._granting)
        self._takeover = Takeover(self._books, self._admission, self._granting, self._lifecycle, now=now)
        self.auditor = Auditor(self._books, self._writing, self._admission, now=now)
        self._called_at = float("-inf")

    # --- what others may ask -----------------------------------------------------------------------------------

    @property
    def step(self) -> Step:
        """Where the takeover is."""
        return self._takeover.step

    @property
    def backlog(self) -> Backlog:
        """The jobs that wait."""
        return self._books.backlog

    @property
    def roster(self) -> Roster:
        """The workers."""
        return self._books.roster

    @property
    def held(self) -> int:
        """Jobs whose slot is taken."""
        return self._books.held

    def writing(self) -> int:
        """Status writes under way."""
        return len(self._books.writes)

    def workers_by_phase(self) -> dict[str, int]:
        """How many workers are in each phase."""
        counts: dict[str, int] = {}
        for record in self._books.records:
            phase = record.status.get("phase", "")
            counts[phase] = counts.get(phase, 0) + 1
        return counts

    def take(self) -> list[Command]:
        """Return what is to be done, and forget it. A leader that steps down wants nothing else."""
        return self._books.take()

    # --- the beginning -----------------------------------------------------------------------------------------

    def begin(
        self,
        *,
        jobs: Iterable[RawJob],
        workers: Iterable[RawWorker],
        finished: Iterable[Finished] = (),
        lease_created: bool,
        now: Now,
    ) -> None:
        """Steps two and three of the takeover: the resources are read, the roll is called.

        Args:
            jobs: All jobs that are not over, from a consistent list.
            workers: All DistributedWorkers, likewise.
            finished: The jobs that are over, as far as they are known: they are deleted when their time has come.
            lease_created: The Lease had to be created. Then nothing proves that the workers' resources are still
                those of the last leader, so workers that no resource names get the time to speak, if there are jobs
                that they may hold. That no status names an epoch proves nothing: a short attempt is not written before
                it ends.
            now: The moment.
        """
        books = self._books
        for resource in jobs:
            epoch = resource.get("status", {}).get("epoch", 0)
            if epoch > self.epoch:
                books.step_down(f"a status has epoch {epoch}", minimum_epoch=epoch)
            self._admission.shown(resource, now)
        for job in finished:
            books.reaper.expect(job, now)
        for worker in workers:
            epoch = worker.get("status", {}).get("epoch", 0)
            if epoch > self.epoch:
                books.step_down(f"a worker was written in epoch {epoch}", minimum_epoch=epoch)
            record = books.records.adopt(worker, now=now)
            if record is not None:
                books.roster.expect(record.incarnation, record=record.name, pod_uid=record.status.get("podUID", ""))
        if lease_created and books.jobs:
            self._takeover.wait_for_strangers(now)
        self.tick(now)

    # --- resources ---------------------------------------------------------------------------------------------

    def on_job(self, resource: RawJob, now: Now) -> None:
        """A job was created or changed, or is named by a list."""
        self._admission.shown(resource, now)

    def on_job_deleted(self, uid: str, now: Now) -> None:
        """A job is gone: whoever runs it is told to stop, and its reports are settled."""
        self._admission.deleted(uid)
        self._proceed(now)

    def on_pod_ended(self, pod_uid: str, now: Now) -> None:
        """The kubelet says that the containers of a pod have ended."""
        self._staffing.pod_ended(pod_uid, now)

    def on_worker_written(self, name: str, now: Now) -> None:
        """A DistributedWorker is written: whom it names may be granted something."""
        self._staffing.written(name, now)

    def on_worker_failed(self, name: str, now: Now) -> None:
        """A DistributedWorker could not be written; it is tried again."""
        self._books.records.failed(name, mono=now.mono)

    def on_worker_vanished(self, name: str, now: Now) -> None:
        """Somebody deleted a DistributedWorker: it is written again before the next grant."""
        self._staffing.vanished(name, now)

    # --- workers -----------------------------------------------------------------------------------------------

    def on_session(self, message: SessionMessage, now: Now) -> None:
        """Claims, and now and then the full state of a worker."""
        books = self._books
        if message.epoch > self.epoch:
            books.step_down(f"a worker has heard epoch {message.epoch}", minimum_epoch=message.epoch)
            return
        session = books.roster.hear(message, mono=now.mono)
        if isinstance(session, str):
            books.observer.message_ignored(session)
            if session == OVER and message.heartbeat is not None:
                # Nobody answers for what it lists any more. If it lives after all, it must not run that any longer.
                for held in message.heartbeat.grants:
                    books.outbox.stop(message.incarnation, held.grant, StopReason.OVER)
            return
        if message.epoch < self.epoch:
            # It has not heard of us: it need not wait for the next roll call before it may claim.
            books.outbox.greet(session.incarnation)
        if message.heartbeat is None:
            self._granting.hear(session, message.progress, now)
            self._granting.answer(session, now)
            return
        self._granting.compare(session, message.heartbeat, now)
        self._granting.hear(session, message.progress, now)
        if message.heartbeat.leaving:
            books.roster.end(session, "Left")
        self._staffing.introduce(session, now)
        self._granting.answer(session, now)
        self._takeover.proceed(now)

    def on_report(self, report: Report, tag: int, now: Now) -> None:
        """A report came; `tag` is acknowledged once what it says is written, or refused."""
        self._granting.report(report, tag, now)
        self._proceed(now)

    def on_marker(self, marker: Marker, *, through_reports: bool, now: Now) -> None:
        """A marker is back from the inbox, or from the report queue; one of another leader says nothing."""
        if marker.epoch == self.epoch:
            self._books.roster.marker(marker.id, through_reports=through_reports)
            self._proceed(now)

    def _proceed(self, now: Now) -> None:
        """Something was settled, or a marker is back: what waited for it goes on."""
        if self._books.roster.proving:
            self._staffing.lose(now)
            self._takeover.proceed(now)

    # --- status writes -----------------------------------------------------------------------------------------

    def on_written(self, number: int, resource_version: int, now: Now) -> None:
        """A status write succeeded."""
        newer = self._writing.written(number, resource_version, now)
        if newer is not None:
            self._admission.shown(newer, now)
        self._proceed(now)

    def on_reread(self, number: int, resource: RawJob | None, now: Now) -> None:
        """A write met a conflict or got no answer, and the job was read again: decide again.

        Args:
            number: The write.
            resource: The job as it is now; None when it is gone (or another one has its name).
            now: The moment.
        """
        back = self._writing.reread(number, resource, now)
        if back is not None:
            self._admission.read_again(back, now)
        self._proceed(now)

    def on_write_refused(self, number: int, fences: frozenset[Fence], message: str, now: Now) -> None:
        """The API server refused a write for what it says (422).

        Args:
            number: The write.
            fences: The fences that it names.
            message: The server's words.
            now: The moment.
        """
        newer = self._writing.refused(number, fences, message, now)
        if newer is not None:
            self._admission.shown(newer, now)
        self._proceed(now)

    def on_payload_read(self, uid: str, number: int, content: str | bytes | Obstacle, now: Now) -> None:
        """A ConfigMap was read for a claim.

        Args:
            uid: Of the job.
            number: Of the read.
            content: What stands under the key; or why there is nothing.
            now: The moment.
        """
        self._granting.judge_again(uid, number, content, now)

    # --- tickets -----------------------------------------------------------------------------------------------

    def publish(self, now: Now) -> None:
        """Give the broker the tickets that it should have now; called once after a batch of events."""
        books = self._books
        if not books.leading:
            return
        for job in books.backlog.take(slots=books.roster.slots_by_pool(), mono=now.mono):
            try:
                ticket = self._ticket(job)
            except ValidationError as error:
                problem = error.errors(include_url=False, include_input=False)[0]
                why = f"spec.{to_camel(str(problem['loc'][0]))}: {problem['msg']}"
                self._writing.refuse(job, JobReason.INVALID_SPEC, why, now)
                continue
            books.observer.ticket_published(again=False)
            books.want(PublishTicket(job.uid, job.ticket, job.pool, job.priority, ticket))

    def _ticket(self, job: Job) -> Ticket:
        return Ticket(
            namespace=job.namespace,
            name=job.name,
            uid=job.uid,
            type=job.type,
            attempt=job.next_attempt,
            max_attempts=job.max_attempts,
            priority=job.priority,
            epoch=self.epoch,
            payload=job.payload,
            payload_secret=_secret(job),
            timeout_seconds=job.timeout_seconds,
        )

    def on_ticket_confirmed(self, uid: str, number: int, *, queued_time: str) -> None:
        """The broker has the ticket."""
        job = self._books.jobs.get(uid)
        if job is not None and job.ticket == number:
            job.queued_time = queued_time

    def on_ticket_failed(self, uid: str, number: int) -> None:
        """The broker did not take the ticket, or had no queue for it."""
        job = self._books.jobs.get(uid)
        if job is not None and job.ticket == number and job.stage is Stage.TICKETED:
            self._books.backlog.not_taken(job)
            self._books.want(DeclarePool(job.pool))

    def on_queue_lost(self, pool: str, priority: Priority) -> None:
        """The queue was replaced by an empty one: the tickets that lay in it are sent again."""
        books = self._books
        for job in [job for job in books.jobs.values() if job.stage is Stage.TICKETED]:
            if job.queue == (pool, priority):
                books.backlog.not_taken(job)

    # --- time --------------------------------------------------------------------------------------------------

    def tick(self, now: Now) -> None:
        """Do what is due; called several times a second."""
        books = self._books
        if now.mono - self._called_at >= EPOCH_REPEAT_SECONDS:
            self._called_at = now.mono
            books.want(CallRoll())
        books.backlog.due(now.mono)
        books.backlog.measure(now.mono)
        self._staffing.suspect(now)
        self._staffing.lose(now)
        self._writing.tick(now)
        self._lifecycle.tick(now)
        if books.leading:
            for deletion in books.reaper.due(now):
                books.want(deletion)
        self._send_again(now)
        for command in books.records.writes(mono=now.mono):
            books.want(command)
        self._takeover.tick(now)
        self.auditor.tick(now)

    def _send_again(self, now: Now) -> None:
        """Let tickets that nobody claims, though slots are free, be sent again."""
        books = self._books
        room: set[str] | None = None
        for job in books.backlog.unanswered(mono=now.mono, age=books.settings.resend_after):
            room = books.roster.pools_with_room() if room is None else room
            if job.pool in room:
                books.observer.ticket_published(again=True)
                announcing.ticket_resent(books, job)
                books.backlog.wait(job)


def _secret(job: Job) -> SecretReference | None:
    source = job.source
    return SecretReference(name=source.name, key=source.key) if source is not None and source.secret else None
