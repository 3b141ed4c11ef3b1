"""The workers as the leader knows them: one session per incarnation, its full state, the proof of its loss.

Guarantees: messages of one incarnation are taken in the order of their numbers; an incarnation is called lost only
after 15 s without a word (or the kubelet's word that its containers ended) *and* after a marker, sent after that, has
come back through the inbox and through the report queue with every report before it judged, written and acknowledged.
So neither the leader's own lag nor a report still under way counts as somebody's death. Old messages do arrive late: of
an incarnation that is over by its own word or the kubelet's nothing is heard any more once that is proven, and nothing
at all of one that another says it replaced. Only the process itself can say that it ended an incarnation
(`supersedes`); that two were in one pod proves nothing about either.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from distriqueue.core.jobs import Slot
from distriqueue_protocol.messages import Answer, Claim, GrantId, Heartbeat, Registration, SessionMessage
from distriqueue_protocol.names import WORKER_LOST_SECONDS

OVER: Final = "Over"
"""Why a message is ignored: its incarnation was replaced, or is proven to have ended."""
PROOF_PATIENCE_SECONDS: Final = 10.0
"""A marker that is not back by then is sent again."""
BURIED: Final = 4096
"""Incarnations that are remembered as over, so that a late message of theirs is not taken for a worker."""


@dataclass(slots=True, eq=False)
class Proof:
    """A question that only an empty queue can answer: markers under way through inbox and report queue.

    Attributes:
        sessions: Whose loss it proves; one proof serves all that fall silent together.
        awaiting: Deliveries of the report queue that stood before its marker and are not settled yet.
    """

    id: int
    sent_at: float
    sessions: "dict[str, Session]" = field(default_factory=dict)
    inbox: bool = False
    reports: bool = False
    awaiting: set[int] = field(default_factory=set)

    @property
    def complete(self) -> bool:
        """Both markers are back, and all that stood before them is settled."""
        return self.inbox and self.reports and not self.awaiting

    def overdue(self, mono: float) -> bool:
        """Whether a marker must have been lost. While writes are awaited it has done its work."""
        return not (self.inbox and self.reports) and mono - self.sent_at >= PROOF_PATIENCE_SECONDS


@dataclass(slots=True, eq=False)
class Session:
    """One incarnation of a worker.

    Attributes:
        registration: Who it is; None for one that a resource names and that has not spoken yet.
        record: The name of its DistributedWorker.
        since: When it was first heard of.
        written: Its DistributedWorker names it; before that, nothing is granted to it.
        ended: Why it cannot be alive, whatever the time since its last word: `PodGone`, `Replaced`, `Left`.
        answered: Answers to claims that its last full state still listed: asking again gets the same answer.
        listed: Grants and reports of its last full state.
    """

    incarnation: str
    since: float
    last_heard: float
    registration: Registration | None = None
    record: str = ""
    sequence: int = 0
    epoch: int = 0
    written: bool = False
    hears_leader: bool = True
    draining: bool = False
    ended: str | None = None
    pod_uid: str = ""
    claims: dict[int, Claim] = field(default_factory=dict)
    answered: dict[int, Answer] = field(default_factory=dict)
    slots: dict[str, Slot] = field(default_factory=dict)
    listed: frozenset[GrantId] = frozenset()
    proof: Proof | None = None

    @property
    def capacity(self) -> int:
        """Slots that take new work."""
        if self.registration is None or self.draining or self.ended:
            return 0
        return self.registration.concurrency

    def holding(self, grant: GrantId) -> tuple[str, Slot] | None:
        """The job, by uid, and the slot that a grant took; None when it is not in this session's book."""
        return next(((uid, slot) for uid, slot in self.slots.items() if slot.grant == grant), None)

    def replace_book(self, heartbeat: Heartbeat) -> None:
        """Take over the full state."""
        self.registration = heartbeat.registration
        self.pod_uid = heartbeat.registration.pod_uid
        self.claims = {claim.id: claim for claim in heartbeat.claims}
        self.answered = {number: answer for number, answer in self.answered.items() if number in self.claims}
        held = {held.grant for held in heartbeat.grants}
        self.listed = frozenset(held | {held.grant for held in heartbeat.reports})
        self.hears_leader = heartbeat.hears_leader
        self.draining = heartbeat.draining or heartbeat.leaving


class Roster:
    """All sessions, and the proofs under way."""

    def __init__(self, *, epoch: int, mono: float) -> None:
        self._epoch = epoch
        self._proof_ids = count(1)
        self._proofs: dict[int, Proof] = {}
        self._expected: set[str] = set()
        self._over: dict[str, None] = {}
        self._slots: dict[str, int] | None = None
        self.bound_at = mono
        self.sessions: dict[str, Session] = {}
        self.unsettled: set[int] = set()

    def expect(self, incarnation: str, *, record: str, pod_uid: str) -> None:
        """A DistributedWorker names this incarnation: it may hold something until it speaks or is lost."""
        self._expected.add(incarnation)
        self.sessions[incarnation] = Session(
            incarnation=incarnation,
            since=self.bound_at,
            last_heard=self.bound_at,
            record=record,
            written=True,
            pod_uid=pod_uid,
        )

    @property
    def proving(self) -> bool:
        """Whether any proof is under way."""
        return bool(self._proofs)

    @property
    def expecting(self) -> int:
        """How many have not answered the roll call."""
        return len(self._expected)

    def slots_by_pool(self) -> dict[str, int]:
        """Slots that take new work, by pool."""
        if self._slots is None:
            self._slots = {}
            for session in self.sessions.values():
                if session.registration is not None and session.capacity:
                    pool = session.registration.pool
                    self._slots[pool] = self._slots.get(pool, 0) + session.capacity
        return self._slots

    def pools_with_room(self) -> set[str]:
        """The pools in which a slot is free. Looks at every session."""
        return {
            session.registration.pool
            for session in self.sessions.values()
            if session.registration is not None and session.capacity > len(session.slots)
        }

    def hear(self, message: SessionMessage, *, mono: float) -> Session | str:
        """Enter a message.

        Returns:
            The session; or why the message is ignored.
        """
        if message.incarnation in self._over:
            return OVER
        session = self.sessions.get(message.incarnation)
        if session is not None and session.ended == "Replaced":
            # Whoever replaced it has said since what is still held of it; an older word must not take that back.
            return OVER
        if session is None or session.registration is None:
            if message.heartbeat is None:
                return "NotIntroduced"
            if session is None:
                session = Session(incarnation=message.incarnation, since=mono, last_heard=mono)
                self.sessions[message.incarnation] = session
        if message.sequence <= session.sequence:
            return "OldSequence"
        session.sequence = message.sequence
        session.epoch = max(session.epoch, message.epoch)
        self.alive(session, mono=mono)
        if message.heartbeat is not None:
            session.replace_book(message.heartbeat)
            self._slots = None
            supersedes = message.heartbeat.registration.supersedes
            if supersedes is not None and supersedes != session.incarnation:
                self._supersede(supersedes)
            # It has answered the roll call, or it says that it obeys nobody and asks for nothing. The latter may be an
            # old word that was stuck somewhere. Whoever could speak since the inbox was bound has done so after 15 s,
            # with a higher number, and whoever could not has stopped its handlers by then.
            deaf = not (session.hears_leader or session.claims) and mono - self.bound_at >= WORKER_LOST_SECONDS
            if message.epoch >= self._epoch or deaf:
                self._expected.discard(session.incarnation)
        session.claims.update((claim.id, claim) for claim in message.claims)
        return session

    def _supersede(self, incarnation: str) -> None:
        """A process says that it ended this incarnation of its own before it began the present one."""
        session = self.sessions.get(incarnation)
        if session is None:
            self._bury(incarnation)
        else:
            self.end(session, "Replaced")

    def end(self, session: Session, why: str) -> None:
        """Somebody who must know says that this incarnation is over; its loss has still to be proven."""
        if session.ended is None:
            session.ended = why
            self._slots = None

    def _bury(self, incarnation: str) -> None:
        """What still comes of this incarnation is old: it must not be taken for a worker."""
        self._over[incarnation] = None
        while len(self._over) > BURIED:
            del self._over[next(iter(self._over))]

    def alive(self, session: Session, *, mono: float) -> None:
        """Something came of this session: what was to be proven is false, or has to be asked again."""
        session.last_heard = mono
        if session.proof is not None:
            del session.proof.sessions[session.incarnation]
            if not session.proof.sessions:
                self.forget(session.proof)
            session.proof = None

    def suspects(self, *, mono: float) -> Iterator[int]:
        """Begin the proof that is due, one for all whom it concerns; yields the number of the marker to send."""
        for number, proof in list(self._proofs.items()):
            if proof.sessions and proof.overdue(mono):
                del self._proofs[number]
                for session in proof.sessions.values():
                    session.proof = None
        due = {
            session.incarnation: session
            for session in self.sessions.values()
            if session.proof is None and (session.ended is not None or mono - session.last_heard >= WORKER_LOST_SECONDS)
        }
        if due:
            proof = self.ask(mono=mono)
            proof.sessions = due
            for session in due.values():
                session.proof = proof
            yield proof.id

    def ask(self, *, mono: float) -> Proof:
        """Make a proof; the caller sends its marker."""
        proof = Proof(id=next(self._proof_ids), sent_at=mono)
        self._proofs[proof.id] = proof
        return proof

    def marker(self, number: int, *, through_reports: bool) -> None:
        """A marker is back."""
        proof = self._proofs.get(number)
        if proof is None:
            return
        if through_reports:
            proof.reports = True
            proof.awaiting = set(self.unsettled)
        else:
            proof.inbox = True

    def settled(self, tags: Iterable[int]) -> None:
        """These deliveries of the report queue are judged, written and acknowledged."""
        self.unsettled.difference_update(tags)
        for proof in self._proofs.values():
            proof.awaiting.difference_update(tags)

    def proven(self) -> list[Session]:
        """The sessions whose loss is proven; they leave the roster."""
        lost: list[Session] = []
        for number, proof in list(self._proofs.items()):
            if not proof.complete or not proof.sessions:
                continue
            del self._proofs[number]
            for session in proof.sessions.values():
                session.proof = None
                del self.sessions[session.incarnation]
                self._expected.discard(session.incarnation)
                if session.ended is not None:
                    self._bury(session.incarnation)
                lost.append(session)
        if lost:
            self._slots = None
        return lost

    def forget(self, proof: Proof) -> None:
        """Nobody wants to know any more."""
        self._proofs.pop(proof.id, None)
