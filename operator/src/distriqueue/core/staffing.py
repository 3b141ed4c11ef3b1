"""The workers: their resources, and the proofs of their loss.

Guarantees: a resource names an incarnation before anything is granted to it; one that is lost is shown as Offline, and
what it held is a lost attempt unless its report is there.
"""

from distriqueue.api.conditions import AttemptReason
from distriqueue.core import announcing
from distriqueue.core.books import Books
from distriqueue.core.commands import SendMarker
from distriqueue.core.granting import Granting
from distriqueue.core.jobs import Loss
from distriqueue.core.records import is_pool_name
from distriqueue.core.roster import Session
from distriqueue.core.times import Now
from distriqueue.core.writing import Writing

_LEFT = Loss(AttemptReason.WORKER_STOPPED, "")


class Staffing:
    """See the module."""

    def __init__(self, books: Books, writing: Writing, granting: Granting) -> None:
        self._books = books
        self._writing = writing
        self._granting = granting

    def introduce(self, session: Session, now: Now) -> None:
        """See to it that a resource names this session."""
        books = self._books
        registration = session.registration
        if registration is None or session.ended:
            return
        if not is_pool_name(registration.pool):
            books.observer.message_ignored("InvalidPool")
            return
        books.add_pool(registration.pool)
        if not session.record and not books.records.introduce(session, mono=now.mono):
            self.suspect(now)
            return
        books.records.update(session, now=now)

    def pod_ended(self, pod_uid: str, now: Now) -> None:
        """The kubelet says that the containers of a pod have ended."""
        for session in self._books.roster.sessions.values():
            if session.pod_uid == pod_uid:
                self._books.roster.end(session, "PodGone")
        self.suspect(now)

    def written(self, name: str, now: Now) -> None:
        """A DistributedWorker is written: whom it names may be granted something."""
        incarnation = self._books.records.written(name, mono=now.mono)
        session = self._books.roster.sessions.get(incarnation) if incarnation else None
        if session is not None and session.record == name:
            session.written = True
            self._granting.answer(session, now)

    def vanished(self, name: str, now: Now) -> None:
        """Somebody deleted a DistributedWorker: it is written again before the next grant."""
        incarnation = self._books.records.vanished(name)
        session = self._books.roster.sessions.get(incarnation) if incarnation else None
        if session is not None:
            session.written = False
            self._books.records.update(session, now=now)

    def suspect(self, now: Now) -> None:
        """Begin the proofs that are due."""
        for number in self._books.roster.suspects(mono=now.mono):
            self._books.want(SendMarker(number))

    def lose(self, now: Now) -> None:
        """What the incarnations held whose loss is proven are lost attempts."""
        books = self._books
        lost = books.roster.proven()
        for session in lost:
            reason = session.ended or "HeartbeatMissed"
            books.observer.incarnation_lost(reason)
            announcing.worker_lost(books, session, reason)
            books.records.offline(session, reason=reason, now=now)
            for uid, slot in list(session.slots.items()):
                job = books.jobs[uid]  # a slot is with its session exactly as long as it is with its job
                if reason == "Left" and slot.grant not in session.listed and slot.report is None:
                    # It left before the grant reached it: by its own word, nothing was started.
                    self._granting.give_back(job, slot, now)
                    continue
                slot.lost = _LEFT if reason == "Left" else _lost(slot.worker)
                self._writing.advance(job, now)
        if lost:
            for other in list(books.roster.sessions.values()):
                if not other.record:
                    self.introduce(other, now)


def _lost(worker: str) -> Loss:
    return Loss(AttemptReason.WORKER_LOST, f"worker {worker or 'unknown'} was lost")
