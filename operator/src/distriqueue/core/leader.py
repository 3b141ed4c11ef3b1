"""The leader: one term of leadership as a state machine. Events in, commands out; no I/O, no clock, no randomness.

Guarantees, in the words of docs/architecture.md: a job has one slot, a grant takes it, and only its report, a later
heartbeat that lists neither grant nor claim, or the proven loss of its worker frees it; a report is acknowledged after
the status write; nothing is granted before the five steps of the takeover are done. A term ends with `StepDown`; the
next one begins with a new `Leader` and a higher epoch.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from heapq import heappop, heappush
from itertools import count
from typing import Final, cast

from distriqueue.api.conditions import AttemptReason, JobReason
from distriqueue.api.fences import Fence
from distriqueue.api.limits import PAYLOAD_LIMIT_BYTES
from distriqueue.api.phases import FINAL_JOB_PHASES, AttemptOutcome, JobPhase
from distriqueue.api.raw import RawJob, RawJobStatus, RawWorker
from distriqueue.core import statuses
from distriqueue.core.backlog import Backlog, RunwaySettings
from distriqueue.core.commands import (
    AckReports,
    CallRoll,
    Command,
    DeclarePool,
    PublishTicket,
    SendMarker,
    StepDown,
    WriteStatus,
)
from distriqueue.core.jobs import (
    InvalidSpecError,
    Job,
    Loss,
    Slot,
    Stage,
    Write,
    WriteKind,
    is_final,
    payload_bytes,
    read_job,
)
from distriqueue.core.observing import Observer
from distriqueue.core.outbox import Outbox
from distriqueue.core.records import Records, is_pool_name
from distriqueue.core.retrying import decide
from distriqueue.core.roster import PROOF_PATIENCE_SECONDS, Proof, Roster, Session
from distriqueue.core.times import Now, seconds
from distriqueue_protocol.messages import (
    Answer,
    Claim,
    GrantId,
    HeldGrant,
    Marker,
    Outcome,
    Refusal,
    Report,
    SessionMessage,
    Ticket,
)
from distriqueue_protocol.names import EPOCH_REPEAT_SECONDS, WORKER_LOST_SECONDS


@dataclass(frozen=True, slots=True)
class LeaderSettings:
    """What may be tuned of a term.

    Attributes:
        running_after: Seconds after which a held job is written as Running; a shorter one never is.
        queued_after: Seconds after which a ticket that is out is written as Queued.
        resend_after: Seconds after which a ticket that nobody claimed, though slots are free, is sent again.
        payload_limit: Bytes of JSON that a payload may have.
        quiet_writes: Writes of Queued wait while more writes than this are under way.
    """

    running_after: float = 1.0
    queued_after: float = 3.0
    resend_after: float = 15.0
    payload_limit: int = PAYLOAD_LIMIT_BYTES
    quiet_writes: int = 8
    runway: RunwaySettings = field(default_factory=RunwaySettings)


class Step(Enum):
    """Where the takeover is."""

    ROLL_CALL = auto()
    """Reports are judged; waits until every worker that may hold something has spoken or is lost."""
    MARKING = auto()
    """Waits for its marker to come back through the report queue, with everything before it written."""
    LEADING = auto()
    """Grants."""


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
        self.step = Step.ROLL_CALL
        self._observer = observer
        self._draw = draw
        self._settings = settings
        self._jobs: dict[str, Job] = {}
        self._writes: dict[int, Write] = {}
        self._write_ids = count(1)
        self._counter = count(1)
        self.backlog = Backlog(settings.runway)
        self.roster = Roster(epoch=epoch, mono=now.mono)
        self._records = Records(epoch=epoch)
        self._outbox = Outbox(epoch=epoch)
        self._commands: list[Command] = []
        self._down: StepDown | None = None
        self._acks: list[int] = []
        self._held_since: deque[tuple[float, Job, Slot]] = deque()
        self._again: list[tuple[float, int, Job]] = []
        self._proof: Proof | None = None
        self._called_at = float("-inf")
        self._strangers_until = now.mono

    # --- what others may ask -----------------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """Jobs whose slot is taken."""
        return sum(job.slot is not None for job in self._jobs.values())

    def writing(self) -> int:
        """Status writes under way."""
        return len(self._writes)

    def workers_by_phase(self) -> dict[str, int]:
        """How many workers are in each phase."""
        counts: dict[str, int] = {}
        for record in self._records:
            phase = record.status.get("phase", "")
            counts[phase] = counts.get(phase, 0) + 1
        return counts

    def take(self) -> list[Command]:
        """Return what is to be done, and forget it. A leader that steps down wants nothing else."""
        if self._down is not None:
            return [self._down]
        self._commands.extend(self._outbox.take())
        if self._acks:
            tags = tuple(self._acks)
            self._acks = []
            self._commands.append(AckReports(tags))
            self.roster.settled(tags)
        commands, self._commands = self._commands, []
        return commands

    # --- takeover ----------------------------------------------------------------------------------------------

    def begin(self, *, jobs: Iterable[RawJob], workers: Iterable[RawWorker], lease_created: bool, now: Now) -> None:
        """Steps two and three of the takeover: the resources are read, the roll is called.

        Args:
            jobs: All jobs, from a consistent list.
            workers: All DistributedWorkers, likewise.
            lease_created: The Lease had to be created. Then nothing proves that the workers' resources are still
                those of the last leader, so workers that no resource names get the time to speak.
            now: The moment.
        """
        granted_before = False
        highest = 0
        for resource in jobs:
            highest = max(highest, resource.get("status", {}).get("epoch", 0))
            granted_before = granted_before or "epoch" in resource.get("status", {})
            self.on_job(resource, now)
        for worker in workers:
            highest = max(highest, worker.get("status", {}).get("epoch", 0))
            record = self._records.adopt(worker, now=now)
            if record is not None:
                self.roster.expect(record.incarnation, record=record.name, pod_uid=record.status.get("podUID", ""))
        if highest > self.epoch:
            self._step_down(f"epoch {highest} was before this one", minimum_epoch=highest)
        if lease_created and granted_before:
            self._strangers_until = now.mono + WORKER_LOST_SECONDS
        self.tick(now)

    def _take_over(self, now: Now) -> None:
        """Go on to the next step as soon as it is allowed."""
        if self.step is Step.ROLL_CALL:
            if self.roster.expecting or now.mono < self._strangers_until:
                return
            self.step = Step.MARKING
            self._proof = self.roster.ask(mono=now.mono)
            self._commands.append(SendMarker(self._proof.id))
        if self.step is Step.MARKING and self._proof is not None and self._proof.complete:
            self.roster.forget(self._proof)
            self._proof = None
            self.step = Step.LEADING
            for job in list(self._jobs.values()):
                if job.phase == JobPhase.RUNNING and job.slot is None and job.stage is not Stage.FINAL:
                    self._lose_orphan(job, now)
            for session in list(self.roster.sessions.values()):
                self._answer_claims(session, now)

    def _lose_orphan(self, job: Job, now: Now) -> None:
        """A status says Running, and nobody answers for it: a lost attempt, and the next number follows."""
        self.backlog.leave(job)
        job.stage = Stage.HELD
        job.slot = Slot(
            grant=GrantId(self.epoch, 0),
            claim=0,
            incarnation="",
            worker=job.status.get("worker", ""),
            attempt=job.attempt,
            granted_at=seconds(job.status.get("startTime")) or now.wall,
            start_time=job.status.get("startTime"),
            lost=_lost(job.status.get("worker", "")),
            announced=True,
        )
        for entry in job.status.get("attempts", []):
            if entry.get("number") == job.attempt:
                job.slot.incarnation = entry.get("incarnation", "")
        self._advance(job, now)

    # --- resources ---------------------------------------------------------------------------------------------

    def on_job(self, resource: RawJob, now: Now) -> None:
        """A job was created or changed, or is named by a list."""
        metadata = resource["metadata"]
        if metadata.get("deletionTimestamp"):
            self.on_job_deleted(metadata["uid"], now)
            return
        job = self._jobs.get(metadata["uid"])
        if job is None:
            if not is_final(resource):
                self._enter(resource, now)
            return
        version = int(metadata["resourceVersion"])
        job.seen = max(job.seen, version)
        if version > job.resource_version and not job.gone:
            if job.write is not None:
                # Ours, most often: its answer is on the way. If it is somebody else's, it is read after that answer.
                job.skipped = resource
                return
            self._read_back(job, resource, now)
        self._forget(job)

    def _forget(self, job: Job) -> None:
        """Let go of a job that is over, once the watch has shown it so: nothing older can come after that."""
        if job.stage is Stage.FINAL and job.write is None and job.seen >= job.resource_version and not job.gone:
            self._jobs.pop(job.uid, None)

    def _enter(self, resource: RawJob, now: Now) -> None:
        """Take a job into the books."""
        epoch = resource.get("status", {}).get("epoch", 0)
        if epoch > self.epoch:
            self._step_down(f"a status has epoch {epoch}", minimum_epoch=epoch)
            return
        try:
            job = read_job(resource, wall=now.wall)
        except InvalidSpecError as error:
            valid = cast("RawJob", {**resource, "spec": {"type": "invalid"}})
            job = read_job(valid, wall=now.wall)
            self._jobs[job.uid] = job
            self._refuse(job, reason=JobReason.INVALID_SPEC, message=str(error), now=now)
            return
        self._jobs[job.uid] = job
        size = payload_bytes(job.payload)
        if size > self._settings.payload_limit:
            self._refuse(
                job,
                reason=JobReason.PAYLOAD_TOO_LARGE,
                message=f"spec.payload has {size} bytes, the limit is {self._settings.payload_limit}: store the data "
                "elsewhere and put a reference to it into the payload",
                now=now,
            )
            return
        if self.backlog.is_new_pool(job.pool):
            self._add_pool(job.pool)
        self._queue(job, now)
        if job.phase == JobPhase.RUNNING and self.step is Step.LEADING:
            # Nobody but a leader writes Running: somebody edited the status by hand.
            self._lose_orphan(job, now)

    def _queue(self, job: Job, now: Now) -> None:
        """Let a job that nobody holds wait: for its time, or for its turn."""
        due = seconds(job.status.get("nextAttemptTime")) if job.phase == JobPhase.RETRYING else None
        # The wall clock of the leader that wrote the time may have been wrong by any amount.
        wait = min(due - now.wall, 2.0 * job.backoff.max_seconds) if due is not None else 0.0
        if wait > 0:
            self.backlog.wait_until(job, due=now.mono + wait)
        else:
            self.backlog.wait(job)

    def _read_back(self, job: Job, resource: RawJob, now: Now) -> None:
        """A resource was changed by somebody else, or read again: what it says now is the truth."""
        metadata, status = resource["metadata"], resource.get("status", cast("RawJobStatus", {}))
        if status.get("epoch", 0) > self.epoch:
            self._step_down(f"a leader of epoch {status['epoch']} writes", minimum_epoch=status["epoch"])
            return
        job.resource_version = int(metadata["resourceVersion"])
        job.generation = metadata.get("generation", job.generation)
        number = job.next_attempt
        job.read_status(status)
        if job.phase in FINAL_JOB_PHASES:
            self._finish(job, "Finished")
            return
        slot = job.slot
        if slot is not None and slot.grant <= job.last_grant:
            # A leader before this one has written how this grant ended: its last write was late.
            self._free(job, slot, "Over")
            self._queue(job, now)
        elif slot is None and job.refusal is None and job.next_attempt != number:
            self._queue(job, now)
        self._advance(job, now)

    def on_job_deleted(self, uid: str, now: Now) -> None:
        """A job is gone: whoever runs it is told to stop, and its reports are settled."""
        job = self._jobs.pop(uid, None)
        if job is not None:
            job.write = None
            self._finish(job, "Deleted")
            self._take_over(now)

    def _finish(self, job: Job, why: str) -> None:
        """Close the books of a job that is over. Whoever still runs it is told to stop, what it reports is settled."""
        self.backlog.leave(job)
        job.stage = Stage.FINAL
        job.payload = {}
        job.status = {"phase": job.phase}
        if job.slot is not None:
            self._free(job, job.slot, why)

    def _free(self, job: Job, slot: Slot, why: str) -> None:
        """A slot whose grant is over: its report is refused, or its handler stopped."""
        self._detach(job, slot)
        job.slot = None
        if slot.report is not None:
            self._observer.report_refused("Stale")
            self._settle(slot)
        elif slot.incarnation:
            self._outbox.stop(slot.incarnation, slot.grant, why)

    def _detach(self, job: Job, slot: Slot) -> None:
        """The session that holds a slot holds it no longer."""
        session = self.roster.sessions.get(slot.incarnation)
        if session is not None and session.slots.get(job.uid) is slot:
            del session.slots[job.uid]

    # --- workers -----------------------------------------------------------------------------------------------

    def on_session(self, message: SessionMessage, now: Now) -> None:
        """Claims, and now and then the full state of a worker."""
        if message.epoch > self.epoch:
            self._step_down(f"a worker has heard epoch {message.epoch}", minimum_epoch=message.epoch)
            return
        session = self.roster.hear(message, mono=now.mono)
        if isinstance(session, str):
            self._observer.message_ignored(session)
            return
        if message.epoch < self.epoch:
            # It has not heard of us: it need not wait for the next roll call before it may claim.
            self._outbox.greet(session.incarnation)
        if message.heartbeat is not None:
            self._compare(session, message.heartbeat.grants, message.heartbeat.reports, now)
            if message.heartbeat.leaving:
                self.roster.end(session, "Left")
            self._introduce(session, now)
            self._answer_claims(session, now)
            self._take_over(now)
        elif message.claims:
            self._answer_claims(session, now)

    def _introduce(self, session: Session, now: Now) -> None:
        """See to it that a resource names this session."""
        registration = session.registration
        if registration is None or session.ended:
            return
        if not is_pool_name(registration.pool):
            self._observer.message_ignored("InvalidPool")
            return
        if self.backlog.is_new_pool(registration.pool):
            self._add_pool(registration.pool)
        if not session.record and not self._records.introduce(session, mono=now.mono):
            self._suspect(now)
            return
        self._records.update(session, now=now)

    def _compare(
        self, session: Session, grants: tuple[HeldGrant, ...], reports: tuple[HeldGrant, ...], now: Now
    ) -> None:
        """Hold the books against what a worker says that it has."""
        for held in grants:
            self._recognise(session, held, now, reported=False)
        for held in reports:
            self._recognise(session, held, now, reported=True)
        if session.draining and session.ended == "Left":
            return
        for uid, slot in list(session.slots.items()):
            if slot.grant in session.listed or slot.claim in session.claims or slot.report or slot.lost:
                continue
            self._return(self._jobs[uid], slot, now)

    def _return(self, job: Job, slot: Slot, now: Now) -> None:
        """A worker says that it has neither the grant nor the claim: it closed the claim before the grant arrived."""
        if slot.announced:
            # A status says, or may say, that this attempt runs: it has to be ended there, too.
            slot.lost = Loss(AttemptReason.WORKER_LOST, f"worker {slot.worker} lives and does not have the attempt")
            self._advance(job, now)
            return
        self._detach(job, slot)
        job.slot = None
        self._observer.slot_returned()
        self._queue(job, now)

    def _recognise(self, session: Session, held: HeldGrant, now: Now, *, reported: bool) -> None:
        """A worker names a grant: it is known, or adopted, or over."""
        job = self._jobs.get(held.uid)
        slot = job.slot if job is not None else None
        if slot is not None and slot.grant == held.grant:
            slot.start_time = held.start_time or slot.start_time
            if job is not None and slot.incarnation != session.incarnation:
                # A process that lost its lease keeps its reports: the incarnation that lists one now answers for it.
                self._detach(job, slot)
                slot.incarnation = session.incarnation
                session.slots[job.uid] = slot
            return
        over = job is None or job.stage is Stage.FINAL or held.grant <= job.last_grant
        if over or (slot is not None and slot.grant > held.grant):
            if not reported:
                self._outbox.stop(session.incarnation, held.grant, "Over")
            elif over:
                self._outbox.settle(session.incarnation, held.grant)
            return
        if job is not None:
            self._adopt(job, session, held.grant, attempt=held.attempt, claim=held.claim, now=now)
            if job.slot is not None:
                job.slot.start_time = held.start_time

    def _adopt(self, job: Job, session: Session | None, grant: GrantId, *, attempt: int, claim: int, now: Now) -> Slot:
        """A grant of an earlier leader that nobody contradicts takes the slot; of several, the highest."""
        lower = job.slot
        if lower is not None:
            self._free(job, lower, "Over")
        else:
            self.backlog.leave(job)
        job.stage = Stage.HELD
        registration = session.registration if session is not None else None
        job.slot = Slot(
            grant=grant,
            claim=claim,
            incarnation=session.incarnation if session is not None else "",
            worker=session.record or registration.worker if session is not None and registration is not None else "",
            attempt=attempt,
            granted_at=now.wall,
            announced=job.phase == JobPhase.RUNNING,
        )
        if session is not None:
            session.slots[job.uid] = job.slot
        self._held_since.append((now.mono, job, job.slot))
        return job.slot

    def _answer_claims(self, session: Session, now: Now) -> None:
        """Answer what may be answered: nothing before the takeover is done and a resource names the worker."""
        if self.step is not Step.LEADING or not session.written or session.ended:
            return
        for number, claim in session.claims.items():
            answer = session.answered.get(number)
            if answer is None:
                answer = self._judge(session, claim, now)
                session.answered[number] = answer
            self._outbox.answer(session.incarnation, answer)
        # A claim is answered once; a heartbeat that still lists it brings it back here, and it gets the same answer.
        session.claims = {}

    def _judge(self, session: Session, claim: Claim, now: Now) -> Answer:
        """Grant a claim, or say why not."""
        job = self._jobs.get(claim.uid)
        refusal: Refusal | None = None
        if job is None:
            refusal = Refusal.DELETED
        elif job.stage is Stage.FINAL:
            refusal = Refusal.FINISHED
        elif job.slot is not None:
            refusal = Refusal.TAKEN
        elif claim.attempt != job.next_attempt or job.stage is Stage.BACKOFF:
            refusal = Refusal.OLD_ATTEMPT
        elif job.write is not None and job.write.kind is WriteKind.REFUSE:
            refusal = Refusal.FINISHED
        if refusal is not None or job is None:
            self._observer.claim_answered(str(refusal))
            return Answer(claim=claim.id, refusal=refusal)
        grant = GrantId(self.epoch, next(self._counter))
        slot = Slot(
            grant=grant,
            claim=claim.id,
            incarnation=session.incarnation,
            worker=session.record,
            attempt=claim.attempt,
            granted_at=now.wall,
        )
        self.backlog.granted(job)
        job.slot = slot
        session.slots[job.uid] = slot
        self._held_since.append((now.mono, job, slot))
        self._observer.claim_answered("Granted")
        return Answer(claim=claim.id, grant=grant)

    def on_pod_ended(self, pod_uid: str, now: Now) -> None:
        """The kubelet says that the containers of a pod have ended."""
        for session in self.roster.sessions.values():
            if session.pod_uid == pod_uid:
                self.roster.end(session, "PodGone")
        self._suspect(now)

    def on_worker_written(self, name: str, now: Now) -> None:
        """A DistributedWorker is written: whom it names may be granted something."""
        incarnation = self._records.written(name, mono=now.mono)
        session = self.roster.sessions.get(incarnation) if incarnation else None
        if session is not None and session.record == name:
            session.written = True
            self._answer_claims(session, now)

    def on_worker_failed(self, name: str, now: Now) -> None:
        """A DistributedWorker could not be written; it is tried again."""
        self._records.failed(name, mono=now.mono)

    def on_worker_vanished(self, name: str, now: Now) -> None:
        """Somebody deleted a DistributedWorker: it is written again before the next grant."""
        incarnation = self._records.vanished(name)
        session = self.roster.sessions.get(incarnation) if incarnation else None
        if session is not None:
            session.written = False
            self._records.update(session, now=now)

    def _suspect(self, now: Now) -> None:
        self._commands.extend(SendMarker(number) for number in self.roster.suspects(mono=now.mono))

    def _lose_proven(self, now: Now) -> None:
        """What the lost incarnations held are lost attempts."""
        for session in self.roster.proven():
            reason = session.ended or "HeartbeatMissed"
            self._observer.incarnation_lost(reason)
            self._records.offline(session, reason=reason, now=now)
            for uid, slot in list(session.slots.items()):
                job = self._jobs[uid]  # a slot is with its session exactly as long as it is with its job
                if reason == "Left" and slot.grant not in session.listed and slot.report is None:
                    # It left before the grant reached it: by its own word, nothing was started.
                    self._return(job, slot, now)
                    continue
                slot.lost = _LEFT if reason == "Left" else _lost(slot.worker)
                self._advance(job, now)
            for other in self.roster.sessions.values():
                if not other.record:
                    self._introduce(other, now)

    # --- reports -----------------------------------------------------------------------------------------------

    def on_report(self, report: Report, tag: int, now: Now) -> None:
        """A report came; `tag` is acknowledged once what it says is written, or refused."""
        if report.grant.epoch > self.epoch:
            self._step_down(f"a report is of epoch {report.grant.epoch}", minimum_epoch=report.grant.epoch)
            return
        self.roster.unsettled.add(tag)
        session = self.roster.sessions.get(report.incarnation)
        if session is not None:
            self.roster.alive(session, mono=now.mono)
        job = self._jobs.get(report.uid)
        slot = job.slot if job is not None else None
        refusal = None
        if job is None or job.stage is Stage.FINAL:
            refusal = "Unknown"
        elif report.grant <= job.last_grant:
            refusal = "Duplicate" if report.grant == job.last_grant else "Stale"
        elif slot is not None and slot.grant > report.grant:
            refusal = "Stale"
        if refusal is not None or job is None:
            self._observer.report_refused(refusal or "Unknown")
            self._acks.append(tag)
            self._outbox.settle(report.incarnation, report.grant)
            return
        if slot is None or slot.grant != report.grant:
            slot = self._adopt(job, session, report.grant, attempt=report.attempt, claim=0, now=now)
        slot.report = report
        slot.tags.append(tag)
        self._advance(job, now)

    def on_marker(self, marker: Marker, *, through_reports: bool, now: Now) -> None:
        """A marker is back from the inbox, or from the report queue; one of another leader says nothing."""
        if marker.epoch == self.epoch:
            self.roster.marker(marker.id, through_reports=through_reports)
            self._lose_proven(now)
            self._take_over(now)

    def _settle(self, slot: Slot) -> None:
        """Acknowledge a slot's report and tell its worker to forget it."""
        if slot.tags:
            self._acks.extend(slot.tags)
            slot.tags = []
        if slot.report is not None:
            self._outbox.settle(slot.report.incarnation, slot.grant)

    # --- status writes -----------------------------------------------------------------------------------------

    def _advance(self, job: Job, now: Now) -> None:
        """Write the end of an attempt, if it has ended and nothing else is being written, or the refusal of a job."""
        slot = job.slot
        ending = None
        if slot is not None and slot.report is not None:
            ending = statuses.reported(slot)
        elif slot is not None and slot.lost is not None:
            ending = statuses.lost(slot, slot.lost, now=now)
        if job.write is not None or job.stage is Stage.FINAL or (ending is None and job.refusal is None):
            return
        if now.mono < job.not_before:
            heappush(self._again, (job.not_before, next(self._write_ids), job))
            return
        if ending is None:
            reason, message = job.refusal or (JobReason.INVALID_SPEC, "")
            refused = statuses.refused(job, reason=reason, message=message, epoch=self.epoch, now=now)
            self._write(job, WriteKind.REFUSE, refused)
            return
        verdict = decide(
            outcome=ending.outcome,
            permanent=ending.permanent,
            attempt=ending.number,
            max_attempts=job.max_attempts,
            backoff=job.backoff,
            draw=self._draw(),
        )
        self._write(job, WriteKind.END, statuses.ended(job, ending, verdict, epoch=self.epoch, now=now))

    def _refuse(self, job: Job, *, reason: JobReason, message: str, now: Now) -> None:
        job.refusal = (reason, message)
        self._advance(job, now)

    def _write(self, job: Job, kind: WriteKind, status: RawJobStatus) -> None:
        write = Write(id=next(self._write_ids), kind=kind, job=job, slot=job.slot, status=status)
        job.write = write
        self._writes[write.id] = write
        self._commands.append(
            WriteStatus(
                id=write.id,
                namespace=job.namespace,
                name=job.name,
                uid=job.uid,
                resource_version=job.resource_version,
                status=status,
            )
        )

    def on_written(self, number: int, resource_version: int, now: Now) -> None:
        """A status write succeeded."""
        write = self._writes.pop(number)
        job = write.job
        if job.write is not write:
            return  # deleted meanwhile
        job.write = None
        job.resource_version = resource_version
        job.failures = 0
        self._landed(job, write, now)
        skipped, job.skipped = job.skipped, None
        if skipped is not None and int(skipped["metadata"]["resourceVersion"]) > resource_version:
            self.on_job(skipped, now)

    def _landed(self, job: Job, write: Write, now: Now) -> None:
        """What a write says is true from here on."""
        job.read_status(write.status)
        slot = write.slot
        if write.kind is WriteKind.END and slot is not None:
            self._settle(slot)
            self._count_end(job, slot, write.status)
            if job.slot is slot:
                self._detach(job, slot)
                job.slot = None
            if job.phase in FINAL_JOB_PHASES:
                self._finish(job, "Finished")
            elif job.slot is None:
                self._queue(job, now)
        elif write.kind is WriteKind.REFUSE:
            self._observer.job_ended(job, job.phase, queue_seconds=0.0)
            self._finish(job, "Refused")
        self._advance(job, now)
        self._forget(job)
        self._lose_proven(now)
        self._take_over(now)

    def on_reread(self, number: int, resource: RawJob | None, now: Now) -> None:
        """A write met a conflict or got no answer, and the job was read again: decide again.

        Args:
            number: The write.
            resource: The job as it is now; None when it is gone (or another one has its name).
            now: The moment.
        """
        write = self._writes.pop(number)
        job = write.job
        if job.write is not write:
            return
        job.write = job.skipped = None
        if resource is None or resource["metadata"]["uid"] != job.uid:
            # The watch may still show it: nothing older than this counts any more.
            job.gone = True
            self._finish(job, "Deleted")
            return
        self._observer.write_repeated("Conflict")
        status = resource.get("status", cast("RawJobStatus", {}))
        if write.kind is WriteKind.END and _is_ours(status, write.status):
            job.resource_version = int(resource["metadata"]["resourceVersion"])
            job.failures = 0
            self._landed(job, write, now)
            return
        self._put_off(job, now)
        if write.kind is WriteKind.RUNNING and write.slot is not None and job.slot is write.slot:
            write.slot.announced = False
            self._held_since.append((now.mono, job, write.slot))
        self._read_back(job, resource, now)
        self._forget(job)

    def _put_off(self, job: Job, now: Now) -> None:
        """A write did not succeed. The first is decided again at once; one that never does must not become a storm."""
        job.failures += 1
        if job.failures > 1:
            job.not_before = now.mono + min(0.1 * 2.0 ** min(job.failures, 16), LONGEST_PAUSE_SECONDS)

    def on_write_refused(self, number: int, fences: frozenset[Fence], message: str, now: Now) -> None:
        """The API server refused a write for what it says (422).

        Args:
            number: The write.
            fences: The fences that it names.
            message: The server's words.
            now: The moment.
        """
        write = self._writes.pop(number)
        job = write.job
        if Fence.EPOCH in fences:
            self._step_down("a later leader has written", minimum_epoch=self.epoch)
            return
        if job.write is not write:
            return
        job.write = None
        self._observer.write_repeated("Refused")
        slot = job.slot
        if fences:
            # It came too late, whatever it says: the job is over, or a later grant is. The watch will show which.
            self._finish(job, "Over")
        elif slot is not None and slot.report is not None and slot.report.reason != _UNWRITABLE:
            # The result is something that the schema cannot hold: the attempt has failed, and says so.
            slot.report = slot.report.model_copy(
                update={
                    "outcome": Outcome.FAILED,
                    "result": None,
                    "reason": _UNWRITABLE,
                    "error": f"the API server refused the status: {message}"[:2000],
                    "log_tail": "",
                    "permanent": True,
                }
            )
            self._advance(job, now)
        else:
            self._put_off(job, now)
            self._advance(job, now)

    def _count_end(self, job: Job, slot: Slot, status: RawJobStatus) -> None:
        entry = status["attempts"][-1]
        start, end = seconds(status.get("startTime")), seconds(entry.get("completionTime"))
        took = max(0.0, end - start) if start is not None and end is not None else 0.0
        outcome = AttemptOutcome(entry["outcome"])
        self._observer.attempt_ended(job, outcome, reason=entry.get("reason", ""), execution_seconds=took)
        if job.phase in FINAL_JOB_PHASES:
            waited = max(0.0, slot.granted_at - job.created)
            self._observer.job_ended(job, job.phase, queue_seconds=waited)

    # --- tickets -----------------------------------------------------------------------------------------------

    def _add_pool(self, pool: str) -> None:
        self.backlog.add_pool(pool)
        self._commands.append(DeclarePool(pool))

    def publish(self, now: Now) -> None:
        """Give the broker the tickets that it should have now; called once after a batch of events."""
        if self.step is not Step.LEADING:
            return
        for job in self.backlog.take(slots=self.roster.slots_by_pool(), mono=now.mono):
            ticket = Ticket.model_construct(
                namespace=job.namespace,
                name=job.name,
                uid=job.uid,
                type=job.type,
                attempt=job.next_attempt,
                max_attempts=job.max_attempts,
                priority=job.priority,
                epoch=self.epoch,
                payload=job.payload,
                timeout_seconds=job.timeout_seconds,
            )
            self._observer.ticket_published(again=False)
            self._commands.append(PublishTicket(job.uid, job.ticket, job.pool, job.priority, ticket))

    def on_ticket_confirmed(self, uid: str, number: int, *, queued_time: str) -> None:
        """The broker has the ticket."""
        job = self._jobs.get(uid)
        if job is not None and job.ticket == number:
            job.queued_time = queued_time

    def on_ticket_failed(self, uid: str, number: int) -> None:
        """The broker did not take the ticket, or had no queue for it."""
        job = self._jobs.get(uid)
        if job is not None and job.ticket == number and job.stage is Stage.TICKETED:
            self.backlog.wait(job)
            self._commands.append(DeclarePool(job.pool))

    # --- time --------------------------------------------------------------------------------------------------

    def tick(self, now: Now) -> None:
        """Do what is due; called several times a second."""
        if now.mono - self._called_at >= EPOCH_REPEAT_SECONDS:
            self._called_at = now.mono
            self._commands.append(CallRoll())
        if self._proof is not None and now.mono - self._proof.sent_at >= PROOF_PATIENCE_SECONDS:
            self.roster.forget(self._proof)
            self._proof = self.roster.ask(mono=now.mono)
            self._commands.append(SendMarker(self._proof.id))
        self.backlog.due(now.mono)
        while self._again and self._again[0][0] <= now.mono:
            self._advance(heappop(self._again)[2], now)
        self.backlog.measure(now.mono)
        self._suspect(now)
        self._lose_proven(now)
        self._announce(now)
        for session in self.roster.sessions.values():
            self._records.update(session, now=now)
        self._commands.extend(self._records.writes(mono=now.mono))
        self._take_over(now)

    def _announce(self, now: Now) -> None:
        """Write Running and Queued for what has been so for a while, and send again what nobody claims."""
        settings = self._settings
        while self._held_since and self._held_since[0][0] <= now.mono - settings.running_after:
            _, job, slot = self._held_since.popleft()
            if job.slot is not slot or slot.announced or slot.report is not None or slot.lost is not None:
                continue
            if job.write is None:
                slot.announced = True
                self._write(job, WriteKind.RUNNING, statuses.running(job, slot, epoch=self.epoch, now=now))
            else:
                self._held_since.append((now.mono, job, slot))
        for job in self.backlog.long_out(mono=now.mono, age=settings.queued_after):
            if job.write is None and job.phase != JobPhase.QUEUED and len(self._writes) < settings.quiet_writes:
                self._write(job, WriteKind.QUEUED, statuses.queued(job, epoch=self.epoch, now=now))
        room: set[str] | None = None
        for job in self.backlog.unanswered(mono=now.mono, age=settings.resend_after):
            if room is None:
                room = self.roster.pools_with_room()
            if job.pool in room:
                self._observer.ticket_published(again=True)
                self.backlog.wait(job)

    def _step_down(self, reason: str, *, minimum_epoch: int) -> None:
        if self._down is None or self._down.minimum_epoch < minimum_epoch:
            self._down = StepDown(reason, minimum_epoch)


_LEFT = Loss(AttemptReason.WORKER_STOPPED, "")
_UNWRITABLE = "ResultRefused"
LONGEST_PAUSE_SECONDS: Final = 10.0
"""Between two tries of a write that is refused, or meets a conflict, again and again."""


def _lost(worker: str) -> Loss:
    return Loss(AttemptReason.WORKER_LOST, f"worker {worker or 'unknown'} was lost")


def _is_ours(status: RawJobStatus, written: RawJobStatus) -> bool:
    """Whether a status that was read is the one that a write without an answer carried."""
    keys = ("phase", "attempt", "epoch", "lastGrant", "completionTime", "nextAttemptTime")
    return all(status.get(key) == written.get(key) for key in keys)
