"""The takeover: from taking the Lease to the first grant, in the steps of docs/architecture.md.

Guarantees: nothing is granted before every incarnation that may hold something has spoken or is proven lost, and before
everything that stood in the report queue until then is judged, written and acknowledged.
"""

from enum import Enum, auto

from distriqueue.core.admitting import Admission
from distriqueue.core.books import Books
from distriqueue.core.commands import SendMarker
from distriqueue.core.granting import Granting
from distriqueue.core.lifecycle import Lifecycle
from distriqueue.core.roster import Proof
from distriqueue.core.times import Now
from distriqueue_protocol.names import WORKER_LOST_SECONDS


class Step(Enum):
    """Where the takeover is."""

    ROLL_CALL = auto()
    """Reports are judged; waits until every worker that may hold something has spoken or is lost."""
    MARKING = auto()
    """Waits for its marker to come back through the report queue, with everything before it written."""
    LEADING = auto()
    """Grants."""


class Takeover:
    """See the module."""

    def __init__(
        self, books: Books, admission: Admission, granting: Granting, lifecycle: Lifecycle, *, now: Now
    ) -> None:
        self.step = Step.ROLL_CALL
        self._books = books
        self._admission = admission
        self._granting = granting
        self._lifecycle = lifecycle
        self._proof: Proof | None = None
        self._strangers_until = now.mono

    def wait_for_strangers(self, now: Now) -> None:
        """Workers that no resource names may hold something: they get the time to speak, or to be over."""
        self._strangers_until = now.mono + WORKER_LOST_SECONDS

    def proceed(self, now: Now) -> None:
        """Go on to the next step as soon as it is allowed."""
        if self.step is Step.LEADING:
            return
        books = self._books
        if self.step is Step.ROLL_CALL:
            if books.roster.expecting or now.mono < self._strangers_until:
                return
            self.step = Step.MARKING
            self._mark(now)
        if self._proof is not None and self._proof.complete:
            books.roster.forget(self._proof)
            self._proof = None
            self._lead(now)

    def tick(self, now: Now) -> None:
        """Send the marker again if it must have been lost."""
        if self._proof is not None and self._proof.overdue(now.mono):
            self._books.roster.forget(self._proof)
            self._mark(now)
        self.proceed(now)

    def _mark(self, now: Now) -> None:
        self._proof = self._books.roster.ask(mono=now.mono)
        self._books.want(SendMarker(self._proof.id))

    def _lead(self, now: Now) -> None:
        self.step = Step.LEADING
        self._books.leading = True
        for job in list(self._books.jobs.values()):
            self._admission.miss(job, now)
        self._lifecycle.follow_all(now)
        for session in list(self._books.roster.sessions.values()):
            self._granting.answer(session, now)
