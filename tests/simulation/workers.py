"""A worker process around the real worker's own custody: everything but its decisions is made up."""

from collections.abc import Callable
from random import Random
from typing import Any

from pydantic import JsonValue

from distriqueue_protocol.messages import EpochCall, GrantId, LeaderMessage, Outcome, Registration, Ticket
from distriqueue_protocol.names import WORKER_DEAD_SECONDS
from distriqueue_worker.commands import (
    Ack,
    Checkpointed,
    Consume,
    Exit,
    HandBack,
    Notice,
    Noticed,
    Progressed,
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
from distriqueue_worker.watchdogs import LOOK_SECONDS, Watchdog
from tests.simulation.broker import Broker, Connection
from tests.simulation.histories import History, Run
from tests.simulation.scheduling import Pace, Process

DECIDE_SECONDS = 0.25
HEALTHY_SECONDS = 6.0
STUCK = 0.05
"""Share of the handlers that cannot be killed: threads."""
STUCK_SECONDS = 60.0
_REASONS = {"fail": "ValueError", "permanent": "ValueError", "timeout": "Timeout", "memory": "OutOfMemory"}


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
        pace: Pace,
        clock: Callable[[], str],
        incarnations: Callable[[], str],
        ended: Callable[["SimulatedWorker"], None],
    ) -> None:
        super().__init__(broker.scheduler, name, pace)
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
            worker=name,
            pool=self.pool,
            concurrency=slots,
            start_time=clock(),
            pod_name=name,
            pod_uid=pod,
            payload_references=True,
        )
        self.custody = Custody(registration, incarnations=incarnations)
        self.scheduler.say(name, "begins as", self.custody.incarnation, "in", pod)
        self._watchdog = Watchdog(lambda: self.custody.overdue_at, end=self.kill)
        self._connect()
        self._decide_again()
        self._look_again()

    @property
    def idle(self) -> bool:
        """Whether it holds nothing."""
        return not self.custody.running and not len(self.custody.ledger)

    # --- life --------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """The process ends, and its handlers with it."""
        if not self.alive:
            return
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
        for run in self._runs.values():
            run.woken_at = None
        if self._wire is not None and seconds > 10:
            self.scheduler.after(self._rng.uniform(10, 15), self._wire.drop)

    def overdue(self) -> bool:
        """Whether its lease is over by its own clock."""
        lease = self.custody.lease_from
        return lease is not None and self.mono() - lease >= WORKER_DEAD_SECONDS

    def mark_overdue(self) -> None:
        """While it is frozen past its lease, its handlers are counted apart."""
        if self.frozen and self.overdue():
            for run in self._runs.values():
                run.overdue = True

    def woken(self) -> None:
        """Nobody can keep it from running before it looks at its clock."""
        self.mark_woken(overdue=self.overdue())

    def mark_woken(self, *, overdue: bool) -> None:
        """Its handlers run on."""
        for run in self._runs.values():
            run.overdue = run.overdue or overdue
            if run.overdue:
                run.woken_at = self.scheduler.now

    def shut_down(self, grace: float) -> None:
        """SIGTERM."""
        self.post(lambda: self._event(lambda now: self.custody.shut_down(grace, now)))

    def _decide_again(self) -> None:
        self._event(lambda _now: None)
        self.after(self.turn_seconds(DECIDE_SECONDS), self._decide_again)

    def _look_again(self) -> None:
        """The watchdog has a thread of its own: it looks while the loop is blocked, and not while all is frozen."""
        if self.alive:
            if not self.frozen:
                self._watchdog.look(self.mono())
            self.scheduler.after(self.turn_seconds(LOOK_SECONDS), self._look_again)

    def turn_seconds(self, seconds: float) -> float:
        """As all do, unless its lease is not renewed."""
        lease = self.custody.lease_from
        healthy = lease is not None and self.mono() - lease < HEALTHY_SECONDS
        return super().turn_seconds(seconds) if healthy else seconds

    def _event(self, tell: Callable[[float], Any]) -> None:
        now = self.mono()
        tell(now)
        self.custody.decide(now)
        for command in self.custody.take():
            if self.alive:
                self._carry_out(command)

    # --- connection --------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._number += 1
        number = self._number
        wire = self._wire = self._broker.connect(self, lambda: self._lost(number))

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
            case Start(grant, ticket, checkpoint):
                self._start(grant, ticket, checkpoint)
            case Stop(grant, _, at_once):
                self._stop(grant, at_once=at_once)
            case Noticed(event, fields) if event is Notice.REBORN:
                self.scheduler.say(self.name, "is now", custody.incarnation, "after", fields["supersedes"])
            case Reconnect():
                if wire is not None:
                    wire.close()
                self._connect()
            case Exit():
                self.kill()

    def _stop(self, grant: GrantId, *, at_once: bool) -> None:
        """A handler that is asked may take a while, and may come to its end; one that is killed dies, or cannot."""
        rng = self._rng
        stuck = rng.random() < STUCK
        seconds = rng.uniform(0, rng.choice([0.1, 0.1, 14.0])) if at_once else rng.uniform(0, rng.choice([0.1, 14.0]))
        result = None if at_once or rng.random() < 0.7 else Result(Outcome.SUCCEEDED, value={"grant": str(grant)})
        self.scheduler.after(STUCK_SECONDS if stuck else seconds, lambda: self._end(grant, result))

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

    def _start(self, grant: GrantId, ticket: Ticket, checkpoint: JsonValue) -> None:
        run = self._history.begin(ticket, grant, worker=self.name, incarnation=self.custody.incarnation)
        # A Secret is mounted: it was there before the worker.
        mounted = ticket.payload_secret is not None and not ticket.payload
        payload = self._history.payloads[ticket.uid] if mounted else ticket.payload
        self._history.handed(run, payload, checkpoint)
        self._runs[grant] = run
        self.custody.start(grant, self._clock())
        self.after(self._rng.uniform(0, 5.0), lambda: self._say(run, 1))
        plan = payload["plan"]
        outcome = plan[min(ticket.attempt, len(plan)) - 1] if isinstance(plan, list) else "ok"
        result = Result(Outcome.SUCCEEDED, value={"grant": str(grant)})
        if outcome != "ok":
            result = Result(
                Outcome.FAILED, reason=_REASONS[str(outcome)], error="it failed", permanent=outcome == "permanent"
            )
        seconds = payload["seconds"]
        self.scheduler.after(seconds if isinstance(seconds, float) else 0.0, lambda: self._end(grant, result))

    def _say(self, run: Run, step: int) -> None:
        """A handler says how far it has come, and leaves a checkpoint."""
        if run.grant not in self._runs:
            return
        self._event(lambda now: self.custody.note(run.grant, Progressed(step, f"step {step}"), now))
        if self._rng.random() < 0.5:
            checkpoint: JsonValue = {"uid": run.uid, "grant": list(run.grant), "step": step}
            self._event(lambda now: self.custody.note(run.grant, Checkpointed(checkpoint, 100), now))
        self.after(self._rng.uniform(0.5, 5.0), lambda: self._say(run, step + 1))

    def _end(self, grant: GrantId, result: Result | None) -> None:
        """A handler ends; it is a process of its own, so a loop that is blocked hears of it later."""
        if not self.alive:
            return
        if self.frozen:
            self.post(lambda: self._end(grant, result))
            return
        run = self._runs.pop(grant, None)
        if run is not None:
            self._history.end(run)
            completed = self._clock()
            self.post(lambda: self._event(lambda now: self.custody.end(grant, result, completed, now)))
