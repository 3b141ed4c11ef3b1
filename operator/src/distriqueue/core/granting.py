"""Claims, grants and reports: who may run a job, who does, and whose word about it counts.

Guarantees: a grant takes the one slot of a job, and a claim gets the same answer however often it is asked; one whose
payload has to be read first (`payloads`) stays open, and is judged when that is done. What the
full state of a worker names is compared with the books: a grant of an earlier leader that nobody contradicts is
adopted, of several the highest; what is over is stopped or settled; a slot whose worker has neither the grant nor the
claim is free.
A report is accepted when its grant is above `lastGrant` and holds the slot, or when nobody contradicts it.
"""

from collections.abc import Iterable
from typing import Final, cast

from pydantic import JsonValue

from distriqueue.api.conditions import AttemptReason
from distriqueue.api.phases import JobPhase
from distriqueue.api.raw import RawJob, RawJobSpec
from distriqueue.core import announcing
from distriqueue.core.books import Books
from distriqueue.core.jobs import Job, Loss, Slot, Stage, is_storable
from distriqueue.core.payloads import Obstacle, Payloads
from distriqueue.core.roster import Session
from distriqueue.core.times import Now, microtime
from distriqueue.core.writing import Writing
from distriqueue_protocol.messages import (
    Answer,
    Claim,
    GrantId,
    Heartbeat,
    HeldGrant,
    Progress,
    Refusal,
    Report,
    StopReason,
)

TIMEOUT_PATIENCE_SECONDS: Final = 30.0
"""So long after the timeout of an attempt its worker is told to stop it; it should have done so by itself."""


def _wish_to_come(job: Job, skipped: RawJob) -> Refusal | None:
    """What the watch has shown that forbids a start, though it is read only when the write under way has its answer."""
    spec = skipped.get("spec", cast("RawJobSpec", {}))
    if spec.get("cancel"):
        return Refusal.CANCELLED
    if spec.get("suspend"):
        return Refusal.SUSPENDED
    return Refusal.NOT_NOW if spec.get("retryGeneration", 0) > job.retry_generation else None


def _refusal(job: Job | None, claim: Claim, now: Now) -> Refusal | None:  # noqa: PLR0911 - one line for each reason
    """Why a claim cannot be granted now; None if it can."""
    if job is None:
        return Refusal.DELETED
    if job.stage is Stage.FINAL:
        return Refusal.FINISHED
    if job.slot is not None:
        return Refusal.TAKEN
    if job.closing is not None:
        return Refusal.CANCELLED if job.cancel else Refusal.FINISHED
    if job.suspend:
        return Refusal.SUSPENDED
    if job.wants_retry or (job.source is not None and now.mono < job.source.not_before):
        return Refusal.NOT_NOW
    if claim.attempt != job.next_attempt or job.stage is Stage.BACKOFF:
        return Refusal.OLD_ATTEMPT
    return _wish_to_come(job, job.skipped) if job.skipped is not None else None


class Granting:
    """See the module."""

    def __init__(self, books: Books, writing: Writing, payloads: Payloads) -> None:
        self._books = books
        self._writing = writing
        self._payloads = payloads

    # --- claims ------------------------------------------------------------------------------------------------

    def answer(self, session: Session, now: Now) -> None:
        """Answer what may be answered: nothing before the takeover is done and a resource names the worker."""
        if not session.claims or not self._may_answer(session):
            return
        # A claim is answered once; a heartbeat that still lists it brings it back here, and it gets the same answer.
        session.claims = {
            number: claim for number, claim in session.claims.items() if not self._answer(session, claim, now)
        }

    def judge_again(self, uid: str, number: int, content: str | bytes | Obstacle, now: Now) -> None:
        """The payload of a job was read, or could not be: the claims that wait for it are judged as if they came now.

        Args:
            uid: Of the job.
            number: Of the read.
            content: What was read, or why nothing was.
            now: The moment.
        """
        for session, claim in self._payloads.judged_again(uid, number, content, now):
            if self._may_answer(session) and self._answer(session, claim, now):
                del session.claims[claim.id]

    def _may_answer(self, session: Session) -> bool:
        return self._books.leading and session.written and not session.ended

    def _answer(self, session: Session, claim: Claim, now: Now) -> bool:
        """Answer a claim; False if it has to wait until the payload of its job was read."""
        answer = session.answered.get(claim.id)
        if answer is None:
            answer = self._judge(session, claim, now)
            if answer is None:
                return False
            session.answered[claim.id] = answer
        self._books.outbox.answer(session.incarnation, answer)
        return True

    def _judge(self, session: Session, claim: Claim, now: Now) -> Answer | None:
        """Grant a claim, or say why not; None when the payload of its job has to be read first."""
        books = self._books
        job = books.jobs.get(claim.uid)
        refusal = _refusal(job, claim, now)
        payload: dict[str, JsonValue] | None = None
        if refusal is None and job is not None and job.source is not None:
            if not self._payloads.is_fit(job, session, now):
                refusal = Refusal.NOT_NOW
            elif not job.source.secret:
                payload = self._payloads.take(job, session, claim)
                if payload is None:
                    return None
        if refusal is not None or job is None:
            books.observer.claim_answered(str(refusal))
            return Answer(claim=claim.id, refusal=refusal)
        books.granted += 1
        grant = GrantId(books.epoch, books.granted)
        slot = Slot(
            grant=grant,
            claim=claim.id,
            incarnation=session.incarnation,
            worker=session.record,
            attempt=claim.attempt,
            granted_at=now.wall,
        )
        books.backlog.granted(job)
        books.hold(job, slot, session)
        self._writing.watch(job, slot, now)
        books.observer.claim_answered("Granted")
        return Answer(claim=claim.id, grant=grant, payload=payload, checkpoint=job.status.get("checkpoint"))

    # --- the full state of a worker ----------------------------------------------------------------------------

    def compare(self, session: Session, heartbeat: Heartbeat, now: Now) -> None:
        """Hold the books against what a worker says that it has."""
        for held in heartbeat.grants:
            self._recognise(session, held, now, reported=False)
        for held in heartbeat.reports:
            self._recognise(session, held, now, reported=True)
        for uid, slot in list(session.slots.items()):
            listed = slot.grant in session.listed or slot.claim in session.claims
            if not listed and slot.report is None and slot.lost is None:
                self.give_back(self._books.jobs[uid], slot, now)

    def give_back(self, job: Job, slot: Slot, now: Now) -> None:
        """A worker says that it has neither the grant nor the claim: it closed the claim before the grant arrived."""
        if slot.announced:
            # A status says, or may say, that this attempt runs: it has to be ended there, too.
            slot.lost = Loss(AttemptReason.WORKER_LOST, f"worker {slot.worker} lives and does not have the attempt")
            self._writing.advance(job, now)
            return
        self._books.release(job, slot)
        self._books.observer.slot_returned()
        self._books.place(job, now)
        self._writing.advance(job, now)

    def _recognise(self, session: Session, held: HeldGrant, now: Now, *, reported: bool) -> None:
        """A worker names a grant: it is known, or adopted, or over."""
        books = self._books
        job = books.jobs.get(held.uid)
        slot = job.slot if job is not None else None
        if job is not None and slot is not None and slot.grant == held.grant:
            slot.start_time = held.start_time or slot.start_time
            if not slot.stop and now.mono - slot.since > job.timeout_seconds + TIMEOUT_PATIENCE_SECONDS:
                slot.stop = StopReason.TIMEOUT
            if slot.incarnation != session.incarnation:
                # A process that lost its lease keeps its reports: the incarnation that lists one now answers for it.
                books.entrust(job, slot, session)
            if not reported:
                books.order_stop(job)
            return
        over = job is None or job.stage is Stage.FINAL or held.grant <= job.last_grant
        if job is None or over or (slot is not None and slot.grant > held.grant):
            if not reported:
                announcing.listed_too_late(books, job, held.grant, worker=session.record)
                books.outbox.stop(session.incarnation, held.grant, StopReason.OVER)
            elif over:
                books.outbox.settle(session.incarnation, held.grant)
            return
        adopted = self._adopt(job, session, held.grant, attempt=held.attempt, claim=held.claim, now=now)
        adopted.start_time = held.start_time
        if not reported:
            books.order_stop(job)

    def _adopt(self, job: Job, session: Session | None, grant: GrantId, *, attempt: int, claim: int, now: Now) -> Slot:
        """A grant of an earlier leader that nobody contradicts takes the slot; of several, the highest."""
        if job.slot is not None:
            announcing.attempt_duplicate(self._books, job, job.slot)
            self._books.free(job, job.slot, StopReason.OVER)
        else:
            self._books.backlog.leave(job)
        registration = session.registration if session is not None else None
        slot = Slot(
            grant=grant,
            claim=claim,
            incarnation=session.incarnation if session is not None else "",
            worker=session.record or registration.worker if session is not None and registration is not None else "",
            attempt=attempt,
            granted_at=now.wall,
            announced=job.phase == JobPhase.RUNNING,
        )
        self._books.hold(job, slot, session)
        self._writing.watch(job, slot, now)
        return slot

    def hear(self, session: Session, progress: Iterable[Progress], now: Now) -> None:
        """Handlers say how far they have come; what is said of a grant that is over is not heard."""
        for word in progress:
            holding = session.holding(word.grant)
            if holding is None:
                continue
            uid, slot = holding
            slot.progress = {"time": microtime(now.wall)}
            if word.percent is not None:
                slot.progress["percent"] = word.percent
            if word.message:
                slot.progress["message"] = word.message
            if is_storable(word.checkpoint):
                slot.checkpoint, slot.checkpointed = word.checkpoint, True
            self._writing.tell(self._books.jobs[uid], slot, now)

    # --- reports -----------------------------------------------------------------------------------------------

    def report(self, report: Report, tag: int, now: Now) -> None:
        """A report came; `tag` is acknowledged once what it says is written, or refused."""
        books = self._books
        grant = report.grant
        if grant.epoch > books.epoch:
            books.step_down(f"a report is of epoch {grant.epoch}", minimum_epoch=grant.epoch)
            return
        books.roster.unsettled.add(tag)
        session = books.roster.sessions.get(report.incarnation)
        if session is not None:
            books.roster.alive(session, mono=now.mono)
        job = books.jobs.get(report.uid)
        slot = job.slot if job is not None else None
        refusal = "Unknown"
        if job is not None and job.stage is not Stage.FINAL:
            refusal = ""
            if grant <= job.last_grant:
                refusal = "Duplicate" if grant == job.last_grant else "Stale"
            elif slot is not None and slot.grant > grant:
                refusal = "Stale"
        if refusal or job is None:
            books.observer.report_refused(refusal)
            books.acknowledge((tag,))
            books.outbox.settle(report.incarnation, grant)
            return
        if slot is None or slot.grant != grant:
            slot = self._adopt(job, session, grant, attempt=report.attempt, claim=0, now=now)
        slot.report = report
        slot.tags.append(tag)
        self._writing.advance(job, now)
