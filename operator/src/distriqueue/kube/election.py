"""Leader election on a Lease, in the manner of client-go, with an epoch that only grows.

Guarantees: of all electors of one Lease, at most one `Leadership.valid()` is True at any moment, as long as clocks of
different machines run at nearly the same rate (`Durations.margin` in a lease); what they show does not matter. It is
False at once when a frozen process wakes, without any I/O, and once False never True again. Each leadership has an
epoch above all earlier ones: the resourceVersion of the write that took the Lease plus an offset that the Lease
carries, so it grows over deletions of the Lease too; the one exception, an etcd that went back in time, is what
`minimum_epoch` is for.

A Lease fences nothing: what was sent while `valid()` was True may arrive later. The fences in the API server are for
that (`distriqueue.api.fences`).

How it fails: a leader that cannot renew for `Durations.renew` gives up (`Leadership.lost`), as it does when the Lease
is deleted or held by another; `Elector.acquire` goes on through all errors of the API server.
"""

import asyncio
import logging
import random
import socket
import uuid
from collections.abc import Callable
from contextlib import aclosing
from datetime import datetime
from types import TracebackType
from typing import Final, Self

from distriqueue.kube.client import KubeClient
from distriqueue.kube.errors import Conflict, KubeError, NotFound
from distriqueue.kube.leases import Candidate, Durations, LeaseRecord, LeaseView, boot_clock, wall_clock

__all__ = ["Durations", "Elector", "Leadership", "new_identity"]

_LOG: Final = logging.getLogger(__name__)

_WATCH_SECONDS: Final = 30
_RELEASE_TRIES: Final = 3
_RELEASE_SECONDS: Final = 2.0


def new_identity(name: str | None = None) -> str:
    """Return an identity for this process start: a name for people (the host's by default) and a random part."""
    return f"{name or socket.gethostname()}_{uuid.uuid4()}"


class Elector:
    """A candidate for one Lease. It can lead again after it lost a leadership."""

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        name: str,
        identity: str,
        durations: Durations | None = None,
        *,
        clock: Callable[[], float] = boot_clock,
        wall: Callable[[], datetime] = wall_clock,
        rng: random.Random | None = None,
    ) -> None:
        """Prepare a candidate; nothing is sent yet.

        Args:
            client: Best one of its own: bulk traffic must not delay a renewal.
            namespace: The Lease's namespace.
            name: The Lease's name.
            identity: Ours; another one for each process start (`new_identity`).
            durations: The times of the election; should be the same for all candidates.
            clock: Seconds that only grow; all decisions are made by it.
            wall: What is written into the Lease for people to read.
            rng: Draws the pauses.
        """
        self.identity = identity
        self._client = client
        self._candidate = Candidate(
            identity,
            durations or Durations(),
            clock,
            wall,
            rng or random.Random(),  # noqa: S311  # no secret
        )
        self._lease = LeaseView(client, namespace, name, self._candidate)
        self._name = name
        self._leadership: Leadership | None = None
        self._highest_epoch = 0

    @property
    def holder(self) -> str:
        """Identity of who held the Lease when it was last seen; empty for nobody. For logs and metrics."""
        return self._lease.record.holder if self._lease.record else ""

    @property
    def transitions(self) -> int:
        """How often the Lease had changed hands when it was last seen. Starts anew with a new Lease object."""
        return self._lease.record.transitions if self._lease.record else 0

    async def acquire(self, minimum_epoch: int | Callable[[], int] = 0) -> "Leadership":
        """Wait until this candidate leads.

        Args:
            minimum_epoch: The highest epoch that is known from elsewhere (statuses, workers); the new one will be above
                it. May be a function, which is asked when the Lease has been taken.

        Returns:
            The leadership, being renewed. Release it, or use it as a context manager.

        Raises:
            RuntimeError: This elector leads already.
        """
        if self._leadership is not None and not self._leadership.lost.is_set():
            raise RuntimeError(f"{self.identity} leads already")
        while True:
            try:
                record = await self._lease.read()
                remaining = self._lease.remaining()
                if record is not None and remaining > 0:
                    await self._watch(record, remaining)
                    continue
                leadership = await self._take(record, minimum_epoch)
                if leadership is not None:
                    self._leadership = leadership
                    return leadership
            except Conflict:
                # Another was faster, or an earlier write of ours arrived late. A moment, in case there is a crowd.
                await asyncio.sleep(self._candidate.pause() / 10)
            except KubeError as error:
                _LOG.warning("Lease %s: %s: %s", self._lease.name, type(error).__name__, error)
                await asyncio.sleep(self._candidate.pause())

    async def _take(self, record: LeaseRecord | None, minimum_epoch: int | Callable[[], int]) -> "Leadership | None":
        """Write ourselves into the Lease; None when that took so long that it is worth nothing."""
        sent_at = self._candidate.clock()
        if record is None:
            taken = await self._lease.create()
        else:
            taken = await self._lease.replace(record.taken(self._candidate))
        floor = max(self._highest_epoch, minimum_epoch() if callable(minimum_epoch) else minimum_epoch)
        if taken.epoch <= floor:
            # etcd's versions are behind the epochs that are out there. The version of this write is higher than the
            # last one's, so with the plain difference added it is above the floor.
            sent_at = self._candidate.clock()
            taken = await self._lease.replace(taken.raised(taken.offset + floor - taken.epoch))
        self._highest_epoch = taken.epoch
        unproven = record is None or not record.proven
        leadership = Leadership(self._lease, self._candidate, taken, sent_at=sent_at, created=unproven)
        if not leadership.valid():
            return None
        _LOG.info("Lease %s: %s leads with epoch %d", self._lease.name, self.identity, taken.epoch)
        leadership.start()
        return leadership

    async def _watch(self, record: LeaseRecord, remaining: float) -> None:
        """Return when the Lease may have become free, or the watch ended."""
        params = {
            "fieldSelector": f"metadata.name={self._name}",  # so that a Role may name the one Lease
            "resourceVersion": str(record.version),
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        stream = self._client.stream(self._lease.collection, params, inactivity=_WATCH_SECONDS * 1.5)
        try:
            async with asyncio.timeout(remaining) as limit, aclosing(stream) as events:
                async for event in events:
                    self._lease.observe(None if event["type"] == "DELETED" else LeaseRecord.parse(event["object"]))
                    remaining = self._lease.remaining()
                    if remaining <= 0:
                        return
                    limit.reschedule(asyncio.get_running_loop().time() + remaining)
        except TimeoutError:
            return


class Leadership:
    """One term of a leader, from taking the Lease until it is lost or released. Made by `Elector.acquire`.

    Attributes:
        epoch: Above the epoch of every earlier leadership.
        created: The Lease did not exist, or no takeover under this object has come to its end (see
            `takeover_ended`): nobody can tell how long ago another one led, or whom it knew. It stays so over leaders
            that go before the end of theirs.
        transitions: How often the Lease had changed hands, this time included.
        lost: Set when this leadership is over, for whatever reason. `valid` decides before an action; this is to be
            awaited.
    """

    def __init__(
        self, lease: LeaseView, candidate: Candidate, record: LeaseRecord, *, sent_at: float, created: bool
    ) -> None:
        self.epoch = record.epoch
        self.created = created
        self.transitions = record.transitions
        self.lost = asyncio.Event()
        self._lease = lease
        self._candidate = candidate
        self._record = record
        self._proven = False
        self._valid_until = 0.0
        self._renew_until = 0.0
        self._stopping = asyncio.Event()
        self._renewing: asyncio.Task[None] | None = None
        self._extend(sent_at)

    async def __aenter__(self) -> Self:
        """Return the leadership itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Release it: a leader whose work has crashed does not go on holding the Lease."""
        await self.release()

    def valid(self) -> bool:
        """Return True while nobody else can lead. Cheap: asked before every grant, publish and write."""
        if self.lost.is_set():
            return False
        if self._candidate.clock() < self._valid_until:
            return True
        self._end("not renewed in time")
        return False

    @property
    def duration(self) -> int:
        """For how many seconds a holder may count on the Lease."""
        return self._candidate.durations.lease

    def takeover_ended(self) -> None:
        """Let the Lease say, from its next renewal on, that a takeover under it has come to its end."""
        self._proven = True

    def remaining(self) -> float:
        """Return for how many seconds `valid` stays True even if no renewal succeeds from now on."""
        return 0.0 if self.lost.is_set() else max(0.0, self._valid_until - self._candidate.clock())

    async def release(self) -> bool:
        """Stop leading and free the Lease, so that another candidate need not wait. Never raises a `KubeError`.

        Stop all work first: `valid` is False from here on.

        Returns:
            True if the Lease was freed; False if it was lost before or the API server did not answer.
        """
        ours = self.valid()
        self._end("released")
        self._stopping.set()
        if self._renewing is not None:
            await asyncio.wait({self._renewing})  # until the renewal under way has ended: we would conflict with it
        if not ours:
            return False
        try:
            async with asyncio.timeout(_RELEASE_SECONDS):
                for _ in range(_RELEASE_TRIES):
                    try:
                        await self._lease.replace(self._record.released(self._candidate, proven=self._proven))
                    except Conflict:
                        if not await self._still_ours():
                            return False
                    else:
                        return True
        except (KubeError, TimeoutError) as error:
            _LOG.warning("Lease %s could not be released: %s: %s", self._lease.name, type(error).__name__, error)
        return False

    def start(self) -> None:
        """Begin to renew. `Elector.acquire` has done so."""
        self._renewing = asyncio.create_task(self._renew(), name=f"renewing epoch {self.epoch}")
        self._renewing.add_done_callback(lambda _: self._end("renewing has stopped"))

    async def _renew(self) -> None:
        while not await self._stopped_within(self._candidate.pause()):
            if not self.valid():
                return  # after a freeze: others may lead, and even if none does, this term is over
            budget = self._renew_until - self._candidate.clock()
            if budget <= 0:
                self._end("not renewed in time")
                return
            durations = self._candidate.durations
            try:
                # One silent try must not use up the whole time: the next may reach another API server.
                async with asyncio.timeout(min(budget, max(durations.retry, durations.renew / 2))):
                    await self._renew_once()
            except (KubeError, TimeoutError) as error:
                _LOG.warning("Lease %s: renewing: %s: %s", self._lease.name, type(error).__name__, error)

    async def _renew_once(self) -> None:
        """Renew, or find out that the Lease is no longer ours."""
        for _ in range(2):
            sent_at = self._candidate.clock()
            try:
                self._record = await self._lease.replace(self._record.renewed(self._candidate, proven=self._proven))
            except NotFound:
                self._end("the Lease was deleted")
            except Conflict:
                # A renewal of ours that got no answer, or an edit by somebody: read, and try once more.
                if await self._still_ours():
                    continue
            else:
                self._extend(sent_at)
            return

    async def _still_ours(self) -> bool:
        record = await self._lease.read()
        if record is None or record.uid != self._record.uid or record.holder != self._candidate.identity:
            self._end(f"held by {record.holder or 'nobody'}" if record else "the Lease was deleted")
            return False
        self._record = record
        return True

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True

    def _extend(self, sent_at: float) -> None:
        # From when it was sent, not answered: the API server may have had it at any time in between, and others count
        # from when they saw it.
        self._valid_until = sent_at + self._candidate.durations.lease - self._candidate.durations.margin
        self._renew_until = sent_at + self._candidate.durations.renew

    def _end(self, why: str) -> None:
        if not self.lost.is_set():
            self.lost.set()
            _LOG.info("epoch %d leads no longer: %s", self.epoch, why)
