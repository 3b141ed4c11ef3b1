"""The session of one HTTP worker: what it asks and says, in the words of custody.

The worker's own custody (`distriqueue_worker.custody`) decides here as it does in a worker, with three differences: its
heartbeats go out only when the worker spoke, and are as old as its word; there are as many slots as a request for jobs
that waits now asks for; and what a handler does is what the worker says. So all of docs/architecture.md holds. The
worker counts its 12 and 14 s from when it *sent* what was answered, this session from when it received that, the leader
its 15 s from when it heard of it: each begins later than the one before it, which is done before the next one judges.

What can go wrong, and what holds then:

- *The answer to `jobs/next` is lost.* Its jobs stay held and listed. They are above `received`, so the next request
  gets them again; the worker started nothing of an answer that it did not get.
- *Heartbeat and `jobs/next` cross.* A heartbeat that was written before the answer was read has a lower `received`, so
  what it does not list is not taken for dead. `received` of the request itself counts, not what was said later.
- *A request for jobs arrives late*, after newer ones: its number is not higher, and it is answered with nothing.
- *The answer to a report is lost* after the broker confirmed it: the worker sends it again and gets 200, from this
  session, which remembers; in a later session 409, because the leader has told that the grant is over.
- *This replica is killed with jobs out.* The worker registers at another one with its receipts, well within 15 s; the
  first heartbeat of the new incarnation supersedes the old one and lists what it holds, and the leader entrusts it with
  that before the old one's loss is proven. What was granted and is in no answer yet is a lost attempt.
- *The worker is killed.* No heartbeat goes out; custody fences after 12 s, the session ends at 14, the leader finds the
  loss after 15. A request for jobs that still hangs here may have claimed one more job: it is lost with the others.
- *The worker is frozen for 20 s and wakes.* Its own clock tells it to stop its handlers before anything else; what it
  sends gets 410. A result that was reached is taken until 14 s, and by a later session; the leader judges it by grant.
- *The leader changes.* The next heartbeat carries the new epoch, at most 5 s later; the new leader waits for it.
- *The worker registers twice* (an answer was lost): both sessions list its jobs; the one that goes on beating gets them
  with its next heartbeat, before 15 s of silence of the other.
- *It registers at another replica while this session is alive*: this one hears no more of it, and is over after 14 s.
  The leader hears nothing of an incarnation that another supersedes, so what it still sends does no harm.
- *A fault in here* ends the session, as if this replica had been killed for it alone.

Fails with `Problem`s.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Final

from distriqueue.gateway.http_workers.deliveries import Delivery
from distriqueue.gateway.http_workers.keepers import LOST, Keeper
from distriqueue.gateway.http_workers.messages import (
    HeartbeatAnswer,
    HeartbeatRequest,
    HeldJob,
    Job,
    NextAnswer,
    NextRequest,
    ReportAnswer,
    ReportRequest,
    StopOrder,
    read_grant,
)
from distriqueue.gateway.http_workers.outcomes import checked_checkpoint, checked_result
from distriqueue.gateway.http_workers.seals import ReceiptSeal, SealKey
from distriqueue.gateway.identities import Identity
from distriqueue.gateway.problems import Conflict, FieldError, Gone, Unavailable, Unprocessable
from distriqueue_protocol.messages import GrantId, Registration, StopReason, Ticket
from distriqueue_worker.clocks import utc_text
from distriqueue_worker.commands import Checkpointed, Progressed

CONFIRM_SECONDS: Final = 4.5
"""How long the broker may take to confirm; a word of a worker that is older says little about whether it lives."""
LEAVE_SECONDS: Final = 15.0
WAIT_LEAST_SECONDS: Final = 1.0
"""A claim takes a moment: no request for jobs waits less."""
CLOSE_SECONDS: Final = 1.0
"""How long claims that are open when the replica ends get their answers."""
_OVER: Final = frozenset({StopReason.OVER, StopReason.DELETED})


def _any(_ticket: Ticket) -> bool:
    return True


class WorkerSession:
    """One session; `open` it, then hand it the requests of its worker, and call `tick` four times a second.

    Args:
        caller: Whose it is.
        registration: Who the worker is.
        incarnation: The name of this session.
        broker_url: Where RabbitMQ is.
        key: Seals receipts.
        may_run: Whether a job may be given to this worker now. Does not raise.
        ended: Called once when the session is over.
    """

    def __init__(
        self,
        *,
        caller: Identity,
        registration: Registration,
        incarnation: str,
        broker_url: str,
        key: SealKey,
        may_run: Callable[[Ticket], Awaitable[bool]],
        ended: Callable[[], None],
    ) -> None:
        self._caller = caller
        self._key = key
        self._keeper = Keeper(
            registration=registration, incarnation=incarnation, broker_url=broker_url, may_run=may_run, ended=ended
        )
        self._last_request = 0

    async def open(self, jobs: Iterable[ReceiptSeal]) -> None:
        """Begin, with the jobs that the worker holds of an earlier session; returns when the broker knows.

        Raises:
            Unavailable: It does not in time. The session is over then.
        """
        for job in jobs:
            self._keeper.adopt(job.grant, job.ticket(), claim=job.claim, start_time=job.started)
        self._keeper.start()
        try:
            await self._beat("the session was not begun: register again")
        except BaseException:
            self._keeper.end("it could not be begun")
            raise

    async def heartbeat(self, request: HeartbeatRequest) -> HeartbeatAnswer:
        """See `desks.HttpWorkers.heartbeat`."""
        self._check()
        self._receive(request.received)
        keeper = self._keeper
        listed = {read_grant(job.grant): job for job in request.jobs}
        checkpoints = {
            read_grant(job.grant): checked_checkpoint(job.checkpoint, f"/jobs/{index}/checkpoint")
            for index, job in enumerate(request.jobs)
            if job.checkpoint is not None
        }
        with keeper.event() as now:
            for grant, job in listed.items():
                if grant in keeper.handlers:
                    self._hear(grant, job, checkpoints.get(grant), now)
            for grant in keeper.deliveries.dead(received=request.received, listed=listed):
                keeper.drop(grant, now)
        await self._beat("the heartbeat does not count: send another one")
        return HeartbeatAnswer(stop=tuple(self._orders(listed)), leader=keeper.custody.hears_leader)

    async def next(self, request: NextRequest, wait: float) -> NextAnswer:
        """See `desks.HttpWorkers.next`."""
        self._check()
        self._receive(request.received)
        if request.request:
            if request.request <= self._last_request:
                return NextAnswer()
            self._last_request = request.request
        keeper = self._keeper
        poll = keeper.waiting.for_jobs(request.max)
        try:
            with keeper.event() as now:
                self._give_back(request, now)
            if request.max and not keeper.deliveries.waiting():
                async with asyncio.timeout(max(wait, WAIT_LEAST_SECONDS)):
                    await poll.done
        except TimeoutError:
            pass
        finally:
            current = keeper.poll_ended(poll)
        return self._hand_out(request.max) if current else NextAnswer()

    async def report(self, request: ReportRequest, *, is_of: Callable[[Ticket], bool] = _any) -> ReportAnswer:
        """See `desks.HttpWorkers.report`; `is_of` says whether a ticket is of the job that is meant."""
        keeper = self._keeper
        if keeper.over is not None:
            raise Gone(keeper.over)
        grant = read_grant(request.grant)
        result = checked_result(request)
        checkpoint = None if request.checkpoint is None else checked_checkpoint(request.checkpoint, "/checkpoint")
        running = keeper.custody.running.get(grant)
        known = keeper.reported.get(grant)
        ticket = running.ticket if running is not None else known.ticket if known is not None else None
        if ticket is not None and not is_of(ticket):
            raise Conflict("the grant is of another job: send the report of an attempt to the job that it is of")
        if running is not None:
            with keeper.event() as now:
                if checkpoint is not None:
                    keeper.custody.note(grant, checkpoint, now)
                keeper.custody.end(grant, None if running.stopping in _OVER else result, utc_text(), now)
                keeper.forget(grant)
            if grant in keeper.custody.ledger:
                known = keeper.remember(grant, running.ticket)
        if known is None:
            raise Conflict("this session does not hold that grant, or the attempt is over: forget it")
        if not known.confirmed:
            await _until(
                keeper.waiting.for_report(grant), "the broker did not confirm the report in time: send it again"
            )
        return ReportAnswer(grant=request.grant)

    async def leave(self) -> None:
        """See `desks.HttpWorkers.leave`."""
        keeper = self._keeper
        if keeper.over is not None:
            return
        goodbye = keeper.waiting.for_goodbye()
        with keeper.event() as now:
            for grant in keeper.deliveries.unsent():
                keeper.give_back(grant, now)
            keeper.custody.shut_down(0.0, now)
        await _until(goodbye, "the broker does not answer: leave again, or just go", seconds=LEAVE_SECONDS)

    async def close(self) -> None:
        """The replica ends: claim nothing more, give out what was granted, and let go without a word of goodbye."""
        keeper = self._keeper
        keeper.closing = True
        keeper.decide_soon()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await keeper.quiet.wait()
        keeper.end("this replica ends: register again, with the jobs that are held")
        await keeper.ended()

    def end(self, why: str) -> None:
        """It is over at once."""
        self._keeper.end(why)

    def tick(self) -> None:
        """Look at the clock."""
        self._keeper.tick()

    # In the words of custody

    def _check(self) -> None:
        keeper = self._keeper
        if keeper.over is not None or keeper.fenced:
            raise Gone(keeper.over or LOST)
        if keeper.custody.drain is not None:
            raise Gone("the worker has left this session")

    def _receive(self, received: int) -> None:
        if not self._keeper.deliveries.receive(received):
            why = "nothing with that number was delivered in this session: begin with 0 in each session"
            raise Unprocessable(why, errors=(FieldError("/received", why),))

    def _hear(self, grant: GrantId, job: HeldJob, checkpoint: Checkpointed | None, now: float) -> None:
        handler, custody = self._keeper.handlers[grant], self._keeper.custody
        if job.progress is not None and handler.said != job.progress:
            handler.said = job.progress
            custody.note(grant, Progressed(job.progress.percent, job.progress.message), now)
        if checkpoint is not None and handler.left != checkpoint:
            handler.left = checkpoint
            custody.note(grant, checkpoint, now)

    def _orders(self, listed: Iterable[GrantId]) -> Iterator[StopOrder]:
        """What has to stop of that which a worker lists: by an order, or because nobody here knows of it."""
        for grant in listed:
            running = self._keeper.custody.running.get(grant)
            if running is None:
                if grant not in self._keeper.reported:
                    yield StopOrder(grant=str(grant), reason=StopReason.OVER)
            elif running.stopping is not None:
                yield StopOrder(grant=str(grant), reason=running.stopping)

    def _give_back(self, request: NextRequest, now: float) -> None:
        """What the worker surely has not received, and does not want or need not start, goes to others."""
        for index, delivery in enumerate(self._keeper.deliveries.waiting()):
            unwanted = index >= request.max or self._keeper.custody.running[delivery.grant].stopping is not None
            if unwanted and (request.request or not delivery.sent):
                self._keeper.give_back(delivery.grant, now)

    def _hand_out(self, most: int) -> NextAnswer:
        self._check()
        return NextAnswer(jobs=tuple(self._job(delivery) for delivery in self._keeper.deliveries.send(most)))

    def _job(self, delivery: Delivery) -> Job:
        grant, custody, handler = delivery.grant, self._keeper.custody, self._keeper.handlers[delivery.grant]
        if custody.running[grant].held.start_time is None:
            custody.start(grant, utc_text())
        held, ticket = custody.running[grant].held, handler.ticket
        receipt = ReceiptSeal.of(grant, ticket, claim=held.claim, caller=self._caller, started=held.start_time)
        return Job(
            number=delivery.number,
            grant=str(grant),
            receipt=receipt.sealed(self._key),
            id=ticket.uid,
            namespace=ticket.namespace,
            name=ticket.name,
            type=ticket.type,
            attempt=ticket.attempt,
            max_attempts=ticket.max_attempts,
            priority=ticket.priority,
            payload=ticket.payload,
            timeout_seconds=ticket.timeout_seconds,
            checkpoint=handler.checkpoint,
        )

    async def _beat(self, otherwise: str) -> None:
        with self._keeper.event() as now:
            self._keeper.custody.ask(now)
        if self._keeper.over is None:
            await _until(self._keeper.waiting.for_beat(now), f"the broker did not confirm in time: {otherwise}")
        self._check()


async def _until(answer: asyncio.Future[None], otherwise: str, *, seconds: float = CONFIRM_SECONDS) -> None:
    try:
        async with asyncio.timeout(seconds):
            await answer
    except TimeoutError:
        raise Unavailable(otherwise, retry_after=1.0) from None
