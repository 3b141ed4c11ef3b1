"""A worker process around the real worker's own custody: everything but its decisions is made up."""

from collections.abc import Callable
from random import Random
from typing import Any

from distriqueue_protocol.messages import EpochCall, GrantId, LeaderMessage, Outcome, Registration, Ticket
from distriqueue_protocol.names import WORKER_DEAD_SECONDS
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
from tests.simulation.broker import Broker, Connection
from tests.simulation.histories import History, Run
from tests.simulation.scheduling import Process

DECIDE_SECONDS = 0.25


class SimulatedWorker(Process):
    """One process of a worker; `ended` is called with it when it has gone."""

    def __init__(  # noqa: PLR0913 - all that is made up around it
        self,
        *,
        name: str,
        pod: str,
        slots: int,
        broker: Broker,
        history: History,
        rng: Random,
        clock: Callable[[], str],
        incarnations: Callable[[], str],
        ended: Callable[["SimulatedWorker"], None],
    ) -> None:
        super().__init__(broker.scheduler, name)
        self.pod = pod
        self._broker = broker
        self._history = history
        self._rng = rng
        self._clock = clock
        self._ended = ended
        self._runs: dict[GrantId, Run] = {}
        self._wire: Connection | None = None
        self._number = 0
        self.pool = "default"
        registration = Registration(
            worker=name, pool=self.pool, concurrency=slots, start_time=clock(), pod_name=name, pod_uid=pod
        )
        self.custody = Custody(registration, incarnations=incarnations)
        self.scheduler.say(name, "begins as", self.custody.incarnation, "in", pod)
        self._connect()
        self._decide_again()

    @property
    def idle(self) -> bool:
        """Whether it holds nothing."""
        return not self.custody.running and not len(self.custody.ledger)

    # --- life --------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """The process ends, and its handlers with it."""
        super().kill()
        for run in self._runs.values():
            self._history.end(run)
        self._runs = {}
        if self._wire is not None:
            self._wire.close()
        self._ended(self)

    def freeze(self, seconds: float) -> None:
        """Stop it for a while; the broker may close its connection meanwhile."""
        super().freeze(seconds)
        if self._wire is not None and seconds > 10:
            self.scheduler.after(self._rng.uniform(10, 15), self._wire.drop)

    def overdue(self) -> bool:
        """Whether its lease is over by its own clock."""
        lease = self.custody.lease_from
        return lease is not None and self.scheduler.now - lease >= WORKER_DEAD_SECONDS

    def mark_overdue(self) -> None:
        """While it is frozen past its lease, or just woken, its handlers are counted apart."""
        if self.frozen and self.overdue():
            for run in self._runs.values():
                run.overdue = True

    def woken(self) -> None:
        """Nobody can keep it from running before it looks at its clock."""
        if self.overdue():
            for run in self._runs.values():
                run.overdue = True

    def shut_down(self, grace: float) -> None:
        """SIGTERM."""
        self.post(lambda: self._event(lambda now: self.custody.shut_down(grace, now)))

    def _decide_again(self) -> None:
        self._event(lambda _now: None)
        self.after(DECIDE_SECONDS, self._decide_again)

    def _event(self, tell: Callable[[float], Any]) -> None:
        now = self.scheduler.now
        tell(now)
        self.custody.decide(now)
        for command in self.custody.take():
            if self.alive:
                self._carry_out(command)

    # --- connection --------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._number += 1
        number = self._number
        wire = self._broker.connect(self, lambda: self._lost(number))
        self._wire = wire

        def bind() -> None:
            keys = self.custody.answer_keys()
            wire.up(
                lambda: self._broker.bind_answers(wire, keys, self._hear),
                confirmed=lambda: self._event(lambda now: self.custody.connect(number, now)),
            )

        self.after(self._rng.uniform(0.01, 0.3), lambda: bind() if wire.open_here else None)

    def _lost(self, number: int) -> None:
        if number == self._number:
            self._wire = None
            self._event(lambda now: self.custody.disconnect(number, now))
            if self._wire is None:
                self._connect()

    def _hear(self, message: LeaderMessage | EpochCall) -> None:
        if isinstance(message, EpochCall):
            self._event(lambda now: self.custody.hear_epoch(message.epoch, message.shard, now))
        else:
            self._event(lambda now: self.custody.hear_leader(message, now))

    # --- commands ----------------------------------------------------------------------------------------------

    def _carry_out(self, command: object) -> None:  # noqa: C901 - one case for each command
        wire, custody, broker = self._wire, self.custody, self._broker
        match command:
            case Send(message) if wire is not None:
                wire.publish(
                    lambda: broker.publish_session(message),
                    confirmed=lambda: self._event(lambda now: custody.confirm_message(message.sequence, now)),
                )
            case Publish(report) if wire is not None:
                wire.publish(
                    lambda: broker.publish_report(report),
                    confirmed=lambda: self._event(lambda now: custody.confirm_report(report.grant, now)),
                )
            case Consume(prefetch) if wire is not None:
                self._consume(wire, self._number, prefetch)
            case StopConsuming() if wire is not None:
                wire.up(lambda: broker.cancel(wire))
            case Ack(tag) if wire is not None and tag.connection == self._number:
                wire.up(lambda: broker.settle_ticket(wire, tag.number, requeue=False))
            case HandBack(tag) if wire is not None and tag.connection == self._number:
                wire.up(lambda: broker.settle_ticket(wire, tag.number, requeue=True))
            case Start(grant, ticket):
                self._start(grant, ticket)
            case Stop(grant):
                stubborn = self._rng.random() < 0.05
                self.after(30 if stubborn else self._rng.uniform(0, 0.1), lambda: self._end(grant, None))
            case Noticed(event, fields) if event is Notice.REBORN:
                self.scheduler.say(self.name, "is now", custody.incarnation, "after", fields["supersedes"])
            case Reconnect():
                if wire is not None:
                    wire.close()
                self._connect()
            case Exit():
                self.kill()

    def _consume(self, wire: Connection, number: int, prefetch: int) -> None:
        def deliver(ticket: Ticket, tag: int) -> None:
            self._event(lambda now: self.custody.hold(ticket, Tag(number, tag), now))

        def begin() -> None:
            if not wire.open_there:
                return
            if self._broker.consume(wire, self.pool, prefetch, deliver):
                wire.down(lambda: self._event(lambda now: self.custody.be_ready(number, now)))
            else:
                self.scheduler.after(1.0, begin)

        wire.up(begin)

    def _start(self, grant: GrantId, ticket: Ticket) -> None:
        self._runs[grant] = self._history.begin(ticket, grant, worker=self.name, incarnation=self.custody.incarnation)
        self.custody.start(grant, self._clock())
        plan = ticket.payload["plan"]
        outcome = plan[min(ticket.attempt, len(plan)) - 1] if isinstance(plan, list) else "ok"
        result = Result(Outcome.SUCCEEDED, value={"grant": str(grant)})
        if outcome != "ok":
            result = Result(Outcome.FAILED, reason="HandlerError", error="it failed", permanent=outcome == "permanent")
        seconds = ticket.payload["seconds"]
        self.after(seconds if isinstance(seconds, float) else 0.0, lambda: self._end(grant, result))

    def _end(self, grant: GrantId, result: Result | None) -> None:
        run = self._runs.pop(grant, None)
        if run is not None:
            self._history.end(run)
            self._event(lambda now: self.custody.end(grant, result, self._clock(), now))
