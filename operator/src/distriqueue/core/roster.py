"""The workers as the leader knows them: one session per incarnation, its full state, the proof of its loss.

Guarantees: messages of one incarnation are taken in the order of their numbers; an incarnation is called lost only
after 15 s without a word (or the kubelet's word that its containers ended) *and* after a marker, sent after that, has
come back through the inbox and through the report queue with every report before it judged, written and acknowledged.
So neither the leader's own lag nor a report still under way counts as somebody's death.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from distriqueue.core.jobs import Slot
from distriqueue_protocol.messages import Answer, Claim, GrantId, Heartbeat, Registration, SessionMessage
from distriqueue_protocol.names import WORKER_LOST_SECONDS

PROOF_PATIENCE_SECONDS: Final = 10.0
"""A marker that is not back by then is sent again."""


@dataclass(slots=True, eq=False)
class Proof:
    """A question that only an empty queue can answer: markers under way through inbox and report queue."""

    id: int
    sent_at: float
    inbox: bool = False
    reports: bool = False
    awaiting: set[int] = field(default_factory=set)

    @property
    def complete(self) -> bool:
        """Both markers are back, and all that stood before them is settled."""
        return self.inbox and self.reports and not self.awaiting


@dataclass(slots=True, eq=False)
class Session:
    """One incarnation of a worker.

    Attributes:
        registration: Who it is; None for one that a resource names and that has not spoken yet.
        record: The name of its DistributedWorker.
        expected: Named by a resource at the takeover, and not heard under this epoch yet.
        written: Its DistributedWorker names it; before that, nothing is granted to it.
        ended: Why it cannot be alive, whatever the time since its last word: `PodGone`, `Replaced`, `Left`.
        answered: Answers to claims that its last full state still listed: asking again gets the same answer.
        listed: Grants and reports of its last full state.
    """

    incarnation: str
    last_heard: float
    registration: Registration | None = None
    record: str = ""
    sequence: int = 0
    epoch: int = 0
    expected: bool = False
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
        self.bound_at = mono
        self.sessions: dict[str, Session] = {}
        self.unsettled: set[int] = set()

    def expect(self, incarnation: str, *, record: str, pod_uid: str) -> None:
        """A DistributedWorker names this incarnation: it may hold something until it speaks or is lost."""
        self.sessions[incarnation] = Session(
            incarnation=incarnation,
            last_heard=self.bound_at,
            record=record,
            expected=True,
            written=True,
            pod_uid=pod_uid,
        )

    @property
    def expecting(self) -> int:
        """How many have not answered the roll call."""
        return sum(session.expected for session in self.sessions.values())

    def slots_by_pool(self) -> dict[str, int]:
        """Slots that take new work, by pool."""
        slots: dict[str, int] = {}
        for session in self.sessions.values():
            if session.registration is not None and session.capacity:
                pool = session.registration.pool
                slots[pool] = slots.get(pool, 0) + session.capacity
        return slots

    def free_slots(self, pool: str) -> int:
        """Slots of a pool that nobody holds and nobody claims."""
        return sum(
            max(0, session.capacity - len(session.slots))
            for session in self.sessions.values()
            if session.registration is not None and session.registration.pool == pool
        )

    def hear(self, message: SessionMessage, *, mono: float) -> Session | str:
        """Enter a message.

        Returns:
            The session; or why the message is ignored.
        """
        session = self.sessions.get(message.incarnation)
        if session is None or session.registration is None:
            if message.heartbeat is None:
                return "NotIntroduced"
            if session is None:
                session = Session(incarnation=message.incarnation, last_heard=mono)
                self.sessions[message.incarnation] = session
        if message.sequence <= session.sequence:
            return "OldSequence"
        session.sequence = message.sequence
        session.epoch = max(session.epoch, message.epoch)
        self.alive(session, mono=mono)
        if message.heartbeat is not None:
            session.replace_book(message.heartbeat)
            # It has answered the roll call, or it says that it obeys nobody and asks for nothing.
            if message.epoch >= self._epoch or not (session.hears_leader or session.claims):
                session.expected = False
        session.claims.update((claim.id, claim) for claim in message.claims)
        return session

    def alive(self, session: Session, *, mono: float) -> None:
        """Something came of this session: what was to be proven is false, or has to be asked again."""
        session.last_heard = mono
        if session.proof is not None:
            self._proofs.pop(session.proof.id, None)
            session.proof = None

    def suspects(self, *, mono: float) -> Iterator[int]:
        """Begin the proofs that are due; yields the number of each marker to send."""
        for session in self.sessions.values():
            if session.proof is not None:
                if mono - session.proof.sent_at < PROOF_PATIENCE_SECONDS:
                    continue
                self._proofs.pop(session.proof.id, None)
            elif session.ended is None and mono - session.last_heard < WORKER_LOST_SECONDS:
                continue
            session.proof = self.ask(mono=mono)
            yield session.proof.id

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

    def settled(self, tags: tuple[int, ...]) -> None:
        """These deliveries of the report queue are judged, written and acknowledged."""
        self.unsettled.difference_update(tags)
        for proof in self._proofs.values():
            proof.awaiting.difference_update(tags)

    def proven(self) -> list[Session]:
        """The sessions whose loss is proven; they leave the roster."""
        if not self._proofs:
            return []
        lost = [session for session in self.sessions.values() if session.proof and session.proof.complete]
        for session in lost:
            del self.sessions[session.incarnation]
            if session.proof is not None:
                self._proofs.pop(session.proof.id, None)
        return lost

    def forget(self, proof: Proof) -> None:
        """A proof that was asked for its own sake is complete."""
        self._proofs.pop(proof.id, None)
