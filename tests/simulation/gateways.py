"""Replicas of the gateway around the real custody: sessions of HTTP workers, with made-up HTTP before and AMQP behind.

A session does what `distriqueue.gateway.http_workers.keepers` and `sessions` do, with the same `Custody` and the same
`Deliveries`. Requests and answers may be lost, late or doubled.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from pydantic import JsonValue

from distriqueue.gateway.http_workers.deliveries import Deliveries
from distriqueue.gateway.http_workers.keepers import NOT_STARTED
from distriqueue_protocol.messages import (
    EpochCall,
    GrantId,
    HeldGrant,
    LeaderMessage,
    Registration,
    StopReason,
    Ticket,
)
from distriqueue_worker.commands import (
    Ack,
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
from distriqueue_worker.sessions import PacedSession
from tests.simulation.broker import Broker, Connection
from tests.simulation.scheduling import Pace, Process

TICK_SECONDS = 0.25
UNSENT_SECONDS = 2.0
CONFIRM_SECONDS = 4.5
GONE, UNAVAILABLE, CONFLICT, OK = 410, 503, 409, 200

Reply = Callable[[int, object], None]
_OVER = {StopReason.OVER, StopReason.DELETED}


@dataclass(frozen=True)
class Handed:
    """A job in an answer."""

    number: int
    grant: GrantId
    ticket: Ticket
    claim: int
    checkpoint: JsonValue


@dataclass(frozen=True)
class Held:
    """A job that a worker has when it registers again."""

    grant: GrantId
    ticket: Ticket
    claim: int


@dataclass
class Poll:
    """A request for jobs that waits."""

    most: int
    reply: Reply
    open: bool = True


@dataclass
class _Waiting:
    beats: list[tuple[float, Reply]] = field(default_factory=list)
    reports: dict[GrantId, list[Reply]] = field(default_factory=dict)


class Gateway(Process):
    """One replica."""

    def __init__(self, *, name: str, broker: Broker, rng: Random, pace: Pace, clock: Callable[[], str]) -> None:
        super().__init__(broker.scheduler, name, pace)
        self.broker = broker
        self.rng = rng
        self.clock = clock
        self.sessions: dict[str, GatewaySession] = {}
        self._tick()

    def _tick(self) -> None:
        for session in list(self.sessions.values()):
            session.tick()
        self.after(self.turn_seconds(TICK_SECONDS), self._tick)

    def kill(self) -> None:
        """SIGKILL: the connections close, what was sent goes on."""
        super().kill()
        for session in list(self.sessions.values()):
            session.close()

    def freeze(self, seconds: float) -> None:
        """SIGSTOP: after a while the broker closes its connections."""
        super().freeze(seconds)
        for session in self.sessions.values():
            if session.wire is not None and seconds > 10:
                self.scheduler.after(self.rng.uniform(10, 15), session.wire.drop)

    def register(self, registration: Registration, incarnation: str, jobs: list[Held], reply: Reply) -> None:
        """A worker begins a session."""
        old = self.sessions.get(registration.supersedes or "")
        if old is not None:
            old.end()
        session = self.sessions[incarnation] = GatewaySession(self, registration, incarnation, jobs)
        session.beat(lambda status, _: reply(status, (self, incarnation)) if status == OK else session.fail(reply))


class GatewaySession:
    """The session of one worker."""

    def __init__(self, gateway: Gateway, registration: Registration, incarnation: str, jobs: list[Held]) -> None:
        self.gateway = gateway
        self.incarnation = incarnation
        self.over = False
        self.fenced = False
        self.wire: Connection | None = None
        self.deliveries = Deliveries()
        self._started: dict[GrantId, Start] = {}
        self._reported: dict[GrantId, bool] = {}
        self._waiting = _Waiting()
        self._poll: Poll | None = None
        self._last_request = 0
        self._unpolled_since = gateway.mono()
        self._number = 0
        self._leaving: Reply | None = None
        self._capacity = registration.concurrency
        self.pool = registration.pool
        names = iter([incarnation])
        self.custody = Custody(
            registration, incarnations=lambda: next(names, f"{incarnation}-no"), session=PacedSession()
        )
        for job in jobs:
            held = HeldGrant(grant=job.grant, uid=job.ticket.uid, attempt=job.ticket.attempt, claim=job.claim)
            self.custody.adopt(job.ticket, held, gateway.mono())
            self.deliveries.adopt(job.grant)
        self.custody.resize(0, gateway.mono())
        gateway.scheduler.say(gateway.name, "begins session", incarnation, "after", registration.supersedes)
        self._connect()

    # --- what the worker asks ----------------------------------------------------------------------------------

    def beat(self, reply: Reply, *, received: int = 0, listed: frozenset[GrantId] | None = None) -> None:
        """A heartbeat, or (without a list) the registration."""
        if self.over or self.fenced or not self.deliveries.receive(received):
            reply(GONE, None)
            return

        def tell(now: float) -> None:
            if listed is not None:
                for grant in self.deliveries.dead(received=received, listed=listed):
                    self._drop(grant, now)
            self.custody.ask(now)

        asked_at = self.gateway.mono()

        def answered(status: int, _: object) -> None:
            stops = [grant for grant in listed or () if self._must_stop(grant)]
            reply(status, stops)

        self._waiting.beats.append((asked_at, answered))
        self.gateway.after(CONFIRM_SECONDS, lambda: self._give_up(asked_at, answered))
        self.event(tell)

    def _give_up(self, asked_at: float, reply: Reply) -> None:
        if (asked_at, reply) in self._waiting.beats:
            self._waiting.beats.remove((asked_at, reply))
            reply(UNAVAILABLE, None)

    def _must_stop(self, grant: GrantId) -> bool:
        running = self.custody.running.get(grant)
        return grant not in self._reported if running is None else running.stopping is not None

    def next(self, reply: Reply, *, request: int, received: int, most: int, wait: float) -> None:
        """A request for jobs."""
        if self.over or self.fenced or not self.deliveries.receive(received):
            reply(GONE, None)
            return
        if request <= self._last_request:
            reply(OK, [])
            return
        self._last_request = request
        if self._poll is not None:
            self._poll.open = False
            self._poll.reply(OK, [])
        poll = self._poll = Poll(most, reply)

        def tell(now: float) -> None:
            for index, delivery in enumerate(self.deliveries.waiting()):
                if index >= most or self.custody.running[delivery.grant].stopping is not None:
                    self._give_back(delivery.grant, now)

        self.event(tell)
        if poll.open and (self.deliveries.waiting() or not most):
            self._hand_out(poll)
        self.gateway.after(wait, lambda: self._hand_out(poll))

    def _hand_out(self, poll: Poll) -> None:
        if not poll.open:
            return
        poll.open = False
        self._poll = None
        self._unpolled_since = self.gateway.mono()
        if self.over or self.fenced:
            poll.reply(GONE, None)
            return
        jobs = []
        for delivery in self.deliveries.send(poll.most):
            grant, start = delivery.grant, self._started[delivery.grant]
            self.custody.start(grant, self.gateway.clock())
            claim = self.custody.running[grant].held.claim
            jobs.append(Handed(delivery.number, grant, start.ticket, claim, start.checkpoint))
        poll.reply(OK, jobs)
        self.event(lambda _now: None)

    def report(self, reply: Reply, *, grant: GrantId, result: Result) -> None:
        """A handler has ended."""
        if self.over:
            reply(GONE, None)
            return
        running = self.custody.running.get(grant)
        if running is not None:

            def tell(now: float) -> None:
                self.custody.end(grant, None if running.stopping in _OVER else result, self.gateway.clock(), now)
                self._forget(grant)
                if grant in self.custody.ledger:
                    self._reported[grant] = False

            self._waiting.reports.setdefault(grant, []).append(reply)
            self.event(tell)
        elif self._reported.get(grant) is False:
            self._waiting.reports.setdefault(grant, []).append(reply)
        if grant not in self._reported:
            self._waiting.reports.pop(grant, None)
            reply(CONFLICT, None)
        elif self._reported[grant]:
            self._waiting.reports.pop(grant, None)
            reply(OK, None)

    def leave(self, reply: Reply) -> None:
        """The worker goes."""
        if self.over:
            reply(GONE, None)
            return
        self._leaving = reply

        def tell(now: float) -> None:
            for grant in self.deliveries.unsent():
                self._give_back(grant, now)
            self.custody.shut_down(0.0, now)

        self.event(tell)

    def fail(self, reply: Reply) -> None:
        """The registration was not confirmed."""
        self.end()
        reply(UNAVAILABLE, None)

    # --- turns -------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Look at the clock."""

        def tell(now: float) -> None:
            if self._poll is None and now - self._unpolled_since >= UNSENT_SECONDS and not self.fenced:
                for grant in self.deliveries.unsent():
                    self._give_back(grant, now)

        self.event(tell)

    def event(self, tell: Callable[[float], None]) -> None:
        """Tell custody, and carry out what it decides."""
        if not self._live():
            return
        now = self.gateway.mono()
        tell(now)
        self.custody.resize(self._slots(), now)
        self.custody.decide(now)
        while commands := self.custody.take():
            for command in commands:
                if self._live():
                    self._carry_out(command, now)
        if self.custody.lease_from is not None:
            confirmed = [one for one in self._waiting.beats if one[0] <= self.custody.lease_from]
            self._waiting.beats = [one for one in self._waiting.beats if one not in confirmed]
            for _, reply in confirmed:
                reply(OK, None)
        for grant in [grant for grant in self._waiting.reports if grant not in self.custody.ledger]:
            self._confirm(grant)
        if self._poll is not None and self.deliveries.waiting():
            self._hand_out(self._poll)

    def _live(self) -> bool:
        return self.gateway.alive and not self.over

    def _slots(self) -> int:
        running = len(self.custody.running)
        if self._poll is None or self.fenced:
            return running
        wanted = self._poll.most - len(self.deliveries.waiting())
        return max(running, min(running + wanted, self._capacity))

    def _drop(self, grant: GrantId, now: float) -> None:
        self.custody.end(grant, None, self.gateway.clock(), now)
        self._forget(grant)

    def _give_back(self, grant: GrantId, now: float) -> None:
        ordered = self.custody.running[grant].stopping is not None
        self.custody.end(grant, None if ordered else NOT_STARTED, self.gateway.clock(), now)
        self._forget(grant)

    def _forget(self, grant: GrantId) -> None:
        self.deliveries.remove(grant)
        self._started.pop(grant, None)

    def _confirm(self, grant: GrantId) -> None:
        if grant in self._reported:
            self._reported[grant] = True
        for reply in self._waiting.reports.pop(grant, ()):
            reply(OK if grant in self._reported else CONFLICT, None)

    def end(self) -> None:
        """It is over; whoever waits is told."""
        if self.over:
            return
        self.over = True
        self.gateway.scheduler.say(self.gateway.name, "ends session", self.incarnation)
        self.close()
        self.gateway.sessions.pop(self.incarnation, None)
        self._refuse(reports=True)
        if self._leaving is not None:
            self._leaving(OK, None)

    def close(self) -> None:
        """Its connection closes."""
        self._number += 1
        if self.wire is not None:
            self.wire.close()

    def _refuse(self, *, reports: bool) -> None:
        replies = [reply for _, reply in self._waiting.beats]
        self._waiting.beats = []
        if self._poll is not None:
            self._poll.open = False
            replies.append(self._poll.reply)
            self._poll = None
        if reports:
            replies += [reply for several in self._waiting.reports.values() for reply in several]
            self._waiting.reports = {}
        for reply in replies:
            reply(GONE, None)

    # --- connection --------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._number += 1
        number = self._number
        wire = self.wire = self.gateway.broker.connect(self.gateway, lambda: self._lost(number))

        def bind() -> None:
            if wire.open_here and not self.over:
                keys = self.custody.answer_keys()
                wire.up(
                    lambda: self.gateway.broker.bind_answers(wire, keys, self._hear),
                    confirmed=lambda: self.event(lambda now: self._connected(number, now)),
                )

        self.gateway.after(self.gateway.rng.uniform(0.01, 0.3), bind)

    def _connected(self, number: int, now: float) -> None:
        self.custody.connect(number, now)
        if self._waiting.beats:
            self.custody.ask(max(asked_at for asked_at, _ in self._waiting.beats))

    def _lost(self, number: int) -> None:
        if number == self._number and not self.over:
            self.wire = None
            self.event(lambda now: self.custody.disconnect(number, now))
            if self._live():
                self._connect()

    def _hear(self, message: LeaderMessage | EpochCall) -> None:
        if isinstance(message, EpochCall):
            self.event(lambda now: self.custody.hear_epoch(message.epoch, message.shard, now))
        else:
            self.event(lambda now: self.custody.hear_leader(message, now))

    def _carry_out(self, command: object, now: float) -> None:  # noqa: C901 - one case for each command
        wire, custody, broker = self.wire, self.custody, self.gateway.broker
        match command:
            case Send(message) if wire is not None:
                wire.publish(
                    lambda: broker.publish_session(message),
                    confirmed=lambda: self.event(lambda now: custody.confirm_message(message.sequence, now)),
                )
            case Publish(report) if wire is not None:
                wire.publish(
                    lambda: broker.publish_report(report), confirmed=lambda: self._report_confirmed(report.grant)
                )
            case Consume(prefetch) if wire is not None:
                self._consume(wire, self._number, prefetch)
            case StopConsuming() if wire is not None:
                wire.up(lambda: broker.cancel(wire))
            case Ack(tag) if wire is not None and tag.connection == self._number:
                wire.up(lambda: broker.settle_ticket(wire, tag.number, requeue=False))
            case HandBack(tag) if wire is not None and tag.connection == self._number:
                wire.up(lambda: broker.settle_ticket(wire, tag.number, requeue=True))
            case Start(grant, _, _):
                self.deliveries.add(grant)
                self._started[grant] = command
            case Stop(grant, _, _):
                if custody.drain is not None or grant in self.deliveries.unsent():
                    self._drop(grant, now)
            case Noticed(event, _) if event is Notice.FENCED:
                self.fenced = True
                self._refuse(reports=False)
            case Noticed(event, _) if event is Notice.REBORN:
                self.end()
            case Reconnect() | Exit():
                self.end()

    def _report_confirmed(self, grant: GrantId) -> None:
        self._confirm(grant)
        self.event(lambda now: self.custody.confirm_report(grant, now))

    def _consume(self, wire: Connection, number: int, prefetch: int) -> None:
        def deliver(ticket: Ticket, tag: int) -> None:
            if ticket.payload_secret is None:
                self.event(lambda now: self.custody.hold(ticket, Tag(number, tag), now))
                return
            # It stands in a Secret, which no HTTP worker has mounted: others run it.
            self.gateway.after(
                self.gateway.rng.uniform(0.3, 1.0),
                lambda: wire.up(lambda: self.gateway.broker.settle_ticket(wire, tag, requeue=True)),
            )

        def begin() -> None:
            if not wire.open_there:
                return
            if self.gateway.broker.consume(wire, self.pool, prefetch, deliver):
                wire.down(lambda: self.event(lambda now: self.custody.be_ready(number, now)))
            else:
                self.gateway.scheduler.after(1.0, begin)

        wire.up(begin)
