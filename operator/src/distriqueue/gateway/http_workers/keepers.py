"""What keeps custody for one HTTP worker: the worker's own custody and link, driven as a worker drives them.

Every event of the link and every word of the worker goes to custody with the time; at the end of a turn of the loop
custody decides, and its commands are carried out in order. Handlers are elsewhere: a start is a delivery that waits for
a request, a stop an order that waits for a heartbeat. Guarantees: there are as many slots as a request that waits now
asks for, and no other claim is made. It ends with the incarnation: with its lease, with the worker's leave, or by a
fault in here, which is the same to the leader as if this replica had been killed.
"""

import asyncio
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import structlog
from pydantic import JsonValue

from distriqueue.api.conditions import AttemptReason
from distriqueue.gateway.http_workers.answers import Poll, Waiting
from distriqueue.gateway.http_workers.deliveries import Deliveries
from distriqueue.gateway.http_workers.messages import ProgressWord
from distriqueue.gateway.problems import Gone
from distriqueue_protocol.messages import EpochCall, GrantId, HeldGrant, LeaderMessage, Outcome, Registration, Ticket
from distriqueue_protocol.names import DEFAULT_SHARD
from distriqueue_worker.clocks import monotonic, utc_text
from distriqueue_worker.commands import (
    EXIT_DONE,
    Ack,
    Checkpointed,
    Command,
    Consume,
    Exit,
    HandBack,
    Notice,
    Noticed,
    Publish,
    Reconnect,
    Result,
    Send,
    Start,
    Stop,
    StopConsuming,
    Tag,
)
from distriqueue_worker.custody import Custody
from distriqueue_worker.link import Link
from distriqueue_worker.sessions import PacedSession

GATHER_SECONDS: Final = 0.03
"""How long a request that has a job waits for more of them, when more are claimed."""
UNSENT_SECONDS: Final = 2.0
"""With no request waiting for so long, what was granted and not sent goes to others."""
LAST_WORDS_SECONDS: Final = 5.0
"""How long reports that came just before the lease was lost may take to be confirmed."""
NOT_OURS_SECONDS: Final = (0.3, 1.0)
"""How long a ticket is kept that this worker may not run, so that it does not come back at once."""
REMEMBERED: Final = 4096
"""Reports that are remembered, so that one which is sent again is answered."""
NOT_STARTED: Final = Result(
    Outcome.INTERRUPTED, reason=AttemptReason.NOT_STARTED, error="no worker took it from the gateway"
)
"""What is reported of a grant that others get before its worker could start it."""
LOST: Final = "the lease of this session is lost: stop what still runs, and register again with what is not reported"
FAULT: Final = "a fault in the gateway ended this session: register again, with the jobs that are held"

_LOG: Final = structlog.get_logger("distriqueue.gateway.http_workers")


@dataclass(slots=True)
class Handler:
    """What is known of a grant that the worker may be running.

    Attributes:
        ticket: The job; without its payload when it was adopted.
        checkpoint: What an earlier attempt left.
        said: The last progress that was heard.
        left: The last checkpoint that was heard.
    """

    ticket: Ticket
    checkpoint: JsonValue = None
    said: ProgressWord | None = None
    left: Checkpointed | None = None


@dataclass(slots=True)
class Reported:
    """A grant whose report is here."""

    ticket: Ticket
    confirmed: bool = False


class Keeper:
    """See the module.

    Args:
        registration: Who the worker is.
        incarnation: The name of this session.
        broker_url: Where RabbitMQ is.
        may_run: Whether a job may be given to this worker now. Does not raise.
        ended: Called once when all is over.
    """

    def __init__(
        self,
        *,
        registration: Registration,
        incarnation: str,
        broker_url: str,
        may_run: Callable[[Ticket], Awaitable[bool]],
        ended: Callable[[], None],
    ) -> None:
        self.over: str | None = None
        """Why it is over; None while it is not."""
        self.fenced = False
        """The lease is lost: reports are taken and nothing else."""
        self.closing = False
        """Claims nothing more."""
        self.quiet = asyncio.Event()
        """Set when it is closing and nothing comes from the leader or goes to the broker any more."""
        self.deliveries = Deliveries()
        self.handlers: dict[GrantId, Handler] = {}
        self.reported: OrderedDict[GrantId, Reported] = OrderedDict()
        self.waiting = Waiting()
        names = iter([incarnation])
        self.custody = Custody(
            registration,
            # All ends with this incarnation; the next name is for one that never speaks.
            incarnations=lambda: next(names, f"{incarnation[:60]}-no"),
            session=PacedSession(),
        )
        self._link = Link(
            broker_url,
            name=f"http worker {registration.worker}",
            pool=registration.pool,
            shard=DEFAULT_SHARD,
            events=self,
            keys=self.custody.answer_keys,
        )
        self._capacity = registration.concurrency
        self._may_run = may_run
        self._ended = ended
        self._reborn_at: float | None = None
        self._unpolled_since = monotonic()
        self._deciding = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._running: asyncio.Task[None] | None = None
        self._log = _LOG.bind(worker=registration.worker, incarnation=incarnation)

    def start(self) -> None:
        """Connect; grants that are adopted have to be by now."""
        self.custody.resize(0, monotonic())
        self._running = asyncio.create_task(self._link.run())
        self._running.add_done_callback(self._link_ended)

    async def ended(self) -> None:
        """Wait until the connection is closed, once it is over."""
        if self._running is not None:
            await asyncio.wait({self._running})

    # What the worker says

    @contextmanager
    def event(self) -> Iterator[float]:
        """Tell custody something, with the time; it decides at the end of the turn.

        Raises:
            Gone: What was told raised something: the session is over by it.
        """
        try:
            yield monotonic()
        except Exception:  # noqa: BLE001 - a custody that is not whole must not go on
            self._fault()
            raise Gone(FAULT) from None
        self.decide_soon()

    def adopt(self, grant: GrantId, ticket: Ticket, *, claim: int, start_time: str | None) -> None:
        """The worker holds a grant of an earlier session."""
        held = HeldGrant(grant=grant, uid=ticket.uid, attempt=ticket.attempt, claim=claim, start_time=start_time)
        self.custody.adopt(ticket, held, monotonic())
        self.deliveries.adopt(grant)
        self.handlers[grant] = Handler(ticket)

    def drop(self, grant: GrantId, now: float) -> None:
        """A grant has no handler, and no result."""
        self.custody.end(grant, None, utc_text(), now)
        self.forget(grant)

    def give_back(self, grant: GrantId, now: float) -> None:
        """A grant was certainly never started: others get it, and nobody's failure is counted.

        It has to be said, because the leader may have written already that the attempt runs.
        """
        ordered = self.custody.running[grant].stopping is not None
        self.custody.end(grant, None if ordered else NOT_STARTED, utc_text(), now)
        self.forget(grant)

    def forget(self, grant: GrantId) -> None:
        """The handler of a grant is dead, and custody knows."""
        self.deliveries.remove(grant)
        self.handlers.pop(grant, None)

    def remember(self, grant: GrantId, ticket: Ticket) -> Reported:
        """A report is in custody."""
        known = self.reported[grant] = Reported(ticket)
        while len(self.reported) > REMEMBERED:
            self.reported.popitem(last=False)
        return known

    def poll_ended(self, poll: Poll) -> bool:
        """A request waits no longer; returns whether it was the one that counts."""
        current = self.waiting.poll is poll
        if current:
            self.waiting.poll = None
            self._unpolled_since = monotonic()
        self.decide_soon()
        return current

    # Life

    def tick(self) -> None:
        """Look at the clock; four times a second."""
        if self.over is not None:
            return
        with self.event() as now:
            if self.waiting.poll is None and now - self._unpolled_since >= UNSENT_SECONDS and not self.fenced:
                for grant in self.deliveries.unsent():
                    self.give_back(grant, now)

    def end(self, why: str) -> None:
        """It is over, whoever waits; what the broker has is kept, and everything else is the worker's to say again."""
        if self.over is not None:
            return
        self.over = why
        self._log.info("session ended", why=why, running=len(self.custody.running), unsettled=len(self.custody.ledger))
        self.waiting.refuse_all(why, reports=True)
        self.waiting.say_goodbye()
        if self._running is not None:
            self._running.cancel()
        for task in self._tasks:
            task.cancel()
        self._ended()

    # Events of the link

    def connected(self, connection: int) -> None:
        """See `link.Events`."""
        self._log.debug("connected to the broker", connection=connection)
        with self.event() as now:
            self.custody.connect(connection, now)
            asked_at = self.waiting.newest_beat()
            if asked_at is not None:
                self.custody.ask(asked_at)

    def disconnected(self, connection: int, why: str) -> None:
        """See `link.Events`."""
        self._log.warning("no connection to the broker", connection=connection, why=why)
        with self.event() as now:
            self.custody.disconnect(connection, now)

    def consuming(self, connection: int) -> None:
        """See `link.Events`."""
        with self.event() as now:
            self.custody.be_ready(connection, now)

    def ticket(self, ticket: Ticket, tag: Tag) -> None:
        """See `link.Events`; a ticket that this worker may not run goes back after a moment."""
        self._spawn(self._admit(ticket, tag))

    def unreadable(self, tag: Tag, why: str) -> None:
        """See `link.Events`."""
        self._log.error("unreadable ticket rejected", delivery=tag.number, why=why)

    def epoch(self, call: EpochCall) -> None:
        """See `link.Events`."""
        with self.event() as now:
            self.custody.hear_epoch(call.epoch, call.shard, now)

    def answer(self, message: LeaderMessage) -> None:
        """See `link.Events`."""
        with self.event() as now:
            self.custody.hear_leader(message, now)

    def message_confirmed(self, sequence: int) -> None:
        """See `link.Events`."""
        with self.event() as now:
            self.custody.confirm_message(sequence, now)

    def report_confirmed(self, grant: GrantId) -> None:
        """See `link.Events`."""
        self._confirm(grant)
        with self.event() as now:
            self.custody.confirm_report(grant, now)

    def report_failed(self, grant: GrantId) -> None:
        """See `link.Events`."""
        with self.event() as now:
            self.custody.fail_report(grant, now)

    async def _admit(self, ticket: Ticket, tag: Tag) -> None:
        if await self._may_run(ticket):
            with self.event() as now:
                self.custody.hold(ticket, tag, now)
            return
        await asyncio.sleep(random.uniform(*NOT_OURS_SECONDS))  # noqa: S311 - spreads load, guards nothing
        self._link.hand_back(tag)
        self._link.flush()

    def _link_ended(self, link: asyncio.Task[None]) -> None:
        if not link.cancelled():
            self._log.error("fault in the link", exc_info=link.exception())
            self.end(FAULT)

    # Turns

    def decide_soon(self) -> None:
        """Let custody decide at the end of this turn of the loop."""
        if not self._deciding and self.over is None:
            self._deciding = True
            asyncio.get_running_loop().call_soon(self._decide)

    def _decide(self) -> None:
        self._deciding = False
        if self.over is not None:
            return
        try:
            now = monotonic()
            self.custody.resize(self._slots(), now)
            self.custody.decide(now)
            while commands := self.custody.take():
                for command in commands:
                    self._carry_out(command, now)
            if self.over is None:
                self._link.flush()
                self._answer_waiting(now)
        except Exception:  # noqa: BLE001 - a custody that is not whole must not go on
            self._fault()

    def _fault(self) -> None:
        self._log.critical("fault in a session", exc_info=True)
        self.end(FAULT)

    def _slots(self) -> int:
        """As many as are taken, and those that a request which waits asks for and that have no job yet."""
        running = len(self.custody.running)
        poll = self.waiting.poll
        if poll is None or self.closing or self.fenced:
            return running
        wanted = poll.most - len(self.deliveries.waiting())
        return max(running, min(running + wanted, self._capacity))

    def _answer_waiting(self, now: float) -> None:
        custody, waiting = self.custody, self.waiting
        if custody.lease_from is not None:
            waiting.confirm_beats(custody.lease_from)
        for grant in [grant for grant in waiting.reports if grant not in custody.ledger]:
            self._confirm(grant)  # the leader has settled it before the broker's word came
        if waiting.poll is not None:
            self._look_for_jobs(waiting.poll, now)
        if self.closing and not custody.intake.claims and not custody.ledger.unconfirmed:
            self.quiet.set()
        if self._reborn_at is not None:
            patient = now - self._reborn_at < LAST_WORDS_SECONDS
            if not (custody.ledger.unconfirmed and patient):
                self.end(LOST)

    def _look_for_jobs(self, poll: Poll, now: float) -> None:
        found = len(self.deliveries.waiting())
        claims = self.custody.intake.claims
        if found and poll.gather_until is None:
            poll.gather_until = now + GATHER_SECONDS
            asyncio.get_running_loop().call_later(GATHER_SECONDS, self.decide_soon)
        gathered = found >= poll.most or (poll.gather_until is not None and now >= poll.gather_until)
        if (found and (gathered or not claims)) or (self.closing and not claims):
            poll.finish()

    def _confirm(self, grant: GrantId) -> None:
        known = self.reported.get(grant)
        if known is not None:
            known.confirmed = True
        self.waiting.confirm_report(grant)

    def _carry_out(self, command: Command, now: float) -> None:  # noqa: C901 - one case for each command
        match command:
            case Send(message):
                self._link.send(message)
            case Publish(report):
                self._link.publish(report)
            case Consume(prefetch):
                self._link.consume(prefetch)
            case StopConsuming():
                self._link.consume(None)
            case Ack(tag):
                self._link.ack(tag)
            case HandBack(tag):
                self._link.hand_back(tag)
            case Start(grant, ticket, checkpoint):
                self.deliveries.add(grant)
                self.handlers[grant] = Handler(ticket, checkpoint)
            case Stop(grant, _, _):
                # The next heartbeat is told. One that was never handed out, or of a worker that left, is dead already.
                if self.custody.drain is not None or grant in self.deliveries.unsent():
                    self.drop(grant, now)
                    self.decide_soon()
            case Reconnect():
                self._link.reconnect()
            case Exit(code, why):
                self.end("the worker has left" if code == EXIT_DONE else f"{LOST} ({why})")
            case Noticed(event, fields):
                self._notice(event, fields, now)

    def _notice(self, event: Notice, fields: dict[str, object], now: float) -> None:
        match event:
            case Notice.FENCED:
                self.fenced = True
                self._log.warning("the worker is silent: its lease is lost", **fields)
                self.waiting.refuse_all(LOST, reports=False)
            case Notice.REBORN:
                self._reborn_at = now
            case _:
                self._log.debug(str(event), **{key: str(value) for key, value in fields.items()})

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
