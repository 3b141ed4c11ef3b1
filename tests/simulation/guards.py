"""The guards of custody, and how to break each: what the simulator has to find, or it is worth nothing.

Each breaks one rule of the real leader or worker (or of the API server's precondition) and nothing else, for as long as
the context that it is given is open. The rules are those of docs/architecture.md.
"""

from collections.abc import Callable
from typing import Any

import pytest

from distriqueue.core import granting, payloads
from distriqueue.core.granting import Granting
from distriqueue.core.jobs import Job
from distriqueue.core.lifecycle import Lifecycle
from distriqueue.core.roster import Proof, Roster, Session
from distriqueue.core.times import Now
from distriqueue_protocol.messages import NO_GRANT, Answer, Claim, Refusal, Report, SessionMessage
from distriqueue_worker import custody as custody_module
from distriqueue_worker.custody import Custody
from tests.simulation import api_server
from tests.simulation.api_server import ApiServer

Patch = pytest.MonkeyPatch


def claims_are_not_checked(patch: Patch) -> None:
    """A claim is granted although the slot of its job is taken."""
    really = Granting._judge

    def judge(self: Granting, session: Session, claim: Claim, now: Now) -> Answer | None:
        job = self._books.jobs.get(claim.uid)
        if job is not None and job.slot is not None and job.next_attempt == claim.attempt:
            self._books.release(job, job.slot)
            self._books.place(job, now)
        return really(self, session, claim, now)

    patch.setattr(Granting, "_judge", judge)


def a_cancel_frees_the_slot(patch: Patch) -> None:
    """A job that is to be closed is closed at once, although somebody still runs it."""
    really = Lifecycle.follow

    def follow(self: Lifecycle, job: Job, now: Now, *, moved: bool = False) -> None:
        really(self, job, now, moved=moved)
        if job.closing is not None and job.slot is not None and job.slot.report is None and job.write is None:
            self._books.free(job, job.slot, job.slot.stop)
            self._books.place(job, now)
            self._writing.advance(job, now)

    patch.setattr(Lifecycle, "follow", follow)


def old_heartbeats_count(patch: Patch) -> None:
    """Messages of a worker are taken in whatever order they come."""
    really = Roster.hear

    def hear(self: Roster, message: SessionMessage, *, mono: float) -> Session | str:
        session = self.sessions.get(message.incarnation)
        if session is not None:
            session.sequence = 0
        return really(self, message, mono=mono)

    patch.setattr(Roster, "hear", hear)


def losses_need_no_proof(patch: Patch) -> None:
    """Who was silent for 15 s is lost, whatever still stands in the queues."""
    patch.setattr(Proof, "complete", property(lambda _proof: True))


def reports_are_acked_at_once(patch: Patch) -> None:
    """A report is acknowledged before what it says is written."""
    really = Granting.report

    def report(self: Granting, report: Report, tag: int, now: Now) -> None:
        really(self, report, tag, now)
        if tag in self._books.roster.unsettled:
            self._books.acknowledge((tag,))

    patch.setattr(Granting, "report", report)


def nobody_calls_the_roll(patch: Patch) -> None:
    """A new leader does not wait for the workers that may hold something."""
    patch.setattr(Roster, "expecting", property(lambda _roster: 0))


def workers_do_not_fence_themselves(patch: Patch) -> None:
    """A worker whose lease is over runs on."""
    patch.setattr(Custody, "_look_at_clock", lambda _custody, _now: None)
    patch.setattr(Custody, "overdue_at", property(lambda _custody: None))


def workers_stop_too_late(patch: Patch) -> None:
    """A worker takes 16 s to stop, and the leader waits for 15."""
    patch.setattr(custody_module, "WORKER_DEAD_SECONDS", 16.5)


def stale_reports_are_accepted(patch: Patch) -> None:
    """A report is judged as if nothing of its job were over."""
    really = Granting.report

    def report(self: Granting, report: Report, tag: int, now: Now) -> None:
        job = self._books.jobs.get(report.uid)
        before = job.last_grant if job is not None else NO_GRANT
        if job is not None:
            job.last_grant = NO_GRANT
        really(self, report, tag, now)
        if job is not None:
            job.last_grant = max(before, job.last_grant)

    patch.setattr(Granting, "report", report)


def writes_land_as_they_come(patch: Patch) -> None:
    """A status write lands, whatever version it was decided on, and whatever it says: no precondition, no fence."""
    patch.setattr(ApiServer, "is_current", staticmethod(lambda _job, _version: True))
    patch.setattr(api_server, "broken_fences", lambda _old, _new, *, retry=0: frozenset())  # noqa: ARG005


def a_created_lease_proves_nothing(patch: Patch) -> None:
    """Whoever had to create the Lease leads at once."""
    really = ApiServer.take_lease
    patch.setattr(ApiServer, "take_lease", lambda self, holder: (really(self, holder)[0], False))


def suspended_jobs_start(patch: Patch) -> None:
    """The leader does not read that a job is suspended."""
    really: Callable[[Job, Any], bool] = Job.read_wishes

    def read_wishes(self: Job, spec: Any) -> bool:
        return really(self, {**spec, "suspend": False})

    patch.setattr(Job, "read_wishes", read_wishes)


def the_first_judgement_counts(patch: Patch) -> None:
    """A claim whose payload was read is granted, whatever has become of its job meanwhile."""
    really, judge_again = granting._refusal, Granting.judge_again

    def granted_if_free(job: Job | None, claim: Claim, now: Now) -> Refusal | None:
        return really(job, claim, now) if job is None or job.slot is not None else None

    def judge(self: Granting, uid: str, number: int, content: Any, now: Now) -> None:
        with pytest.MonkeyPatch.context() as during:
            during.setattr(granting, "_refusal", granted_if_free)
            during.setattr(payloads, "may_be_granted", lambda job: job.slot is None)
            judge_again(self, uid, number, content, now)

    patch.setattr(Granting, "judge_again", judge)


GUARDS: dict[str, Callable[[Patch], None]] = {
    guard.__name__: guard
    for guard in (
        claims_are_not_checked,
        a_cancel_frees_the_slot,
        old_heartbeats_count,
        losses_need_no_proof,
        reports_are_acked_at_once,
        nobody_calls_the_roll,
        workers_do_not_fence_themselves,
        workers_stop_too_late,
        stale_reports_are_accepted,
        writes_land_as_they_come,
        a_created_lease_proves_nothing,
        suspended_jobs_start,
        the_first_judgement_counts,
    )
}
"""By name."""
