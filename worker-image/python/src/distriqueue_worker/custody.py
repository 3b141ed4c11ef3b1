"""The worker's side of the chain of custody: what it has asked for, what it runs and has to report, and when to stop.

Every decision of a worker is made here and in the parts it is made of (`intake`, `sessions`, `ledgers`, `draining`):
which ticket to claim, whether a grant may start, when to hand tickets back, when handlers must stop, when it becomes a
new incarnation, when it may leave. The surroundings bring events, each with the time, and carry out commands
(`commands.py`). The real worker and the simulator drive the same class.

Guarantees:
- A handler starts only for a grant that answers a claim which is still open, from a leader that is not older than any
  that was heard, and only while the worker can prove that it is alive.
- A heartbeat lists all open claims, running handlers and unsettled reports.
- 12 s after the last *confirmed* heartbeat was *sent* everything is let go; 14 s after it no handler is alive, or the
  process is not. The clock is looked at before any event is: an event that waited through a freeze changes nothing.
- A result that a handler really reached is reported, whatever happened meanwhile: the leader judges reports by grant.
  Of a handler that an order stopped it is reported that it was, and why; of one whose job is over or deleted, nothing.
- A grant that was ordered to stop before it was answered, or in the same message, starts nothing.

Pure: no I/O, no clock, no randomness of its own. Times are seconds of one monotonic clock that never goes back. Not
safe for threads: one loop drives it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

from distriqueue_protocol.messages import (
    Answer,
    GrantId,
    Heartbeat,
    HeldGrant,
    LeaderMessage,
    Outcome,
    Registration,
    Report,
    StopOrder,
    StopReason,
    Ticket,
)
from distriqueue_protocol.names import (
    DEFAULT_SHARD,
    LEADER_SILENCE_SECONDS,
    WORKER_DEAD_SECONDS,
    WORKER_FENCE_SECONDS,
)
from distriqueue_worker.commands import (
    EXIT_DONE,
    EXIT_FENCED,
    EXIT_UNCONFIRMED,
    Command,
    Exit,
    Notice,
    Noticed,
    OwnStop,
    Publish,
    Reconnect,
    Result,
    Send,
    Start,
    Stop,
    Tag,
    Word,
)
from distriqueue_worker.draining import Drain
from distriqueue_worker.intake import Intake
from distriqueue_worker.ledgers import ReportLedger
from distriqueue_worker.progressing import ProgressBook
from distriqueue_worker.sessions import Session
from distriqueue_worker.tasks import CHECKPOINT_BYTES

REASK_SECONDS: Final = 2.0
"""A claim unanswered for so long is asked again with the next heartbeat; the answer will be the same."""
WATCH_SECONDS: Final = 0.5
"""How long before the end of the lease a loop that has not begun to stop its handlers counts as blocked."""
WAKE_SECONDS: Final = 0.25
"""What a worker that wakes after its lease gets to stop its handlers before the process ends."""
EARLY_ORDERS: Final = 1024
"""So many stop orders for grants that are not here are remembered, in case their answers are still under way."""
_NOT_REPORTED: Final = frozenset({StopReason.OVER, StopReason.DELETED})
_OWN: Final = frozenset({OwnStop.LEASE_LOST, OwnStop.SHUTDOWN})
_AT_ONCE: Final = _OWN | {StopReason.OVER}
"""Another worker has the job, or gets it in a moment: no time to do anything about it."""


@dataclass(slots=True)
class Running:
    """A grant whose handler runs, or is being stopped."""

    ticket: Ticket
    held: HeldGrant
    since: float
    stopping: str | None = None
    """Why it is being stopped: an order's reason, or one of `OwnStop`."""


class Custody:
    """The state of one worker.

    Args:
        registration: Who the worker is; `supersedes` is filled in here.
        incarnations: Makes a new, unique incarnation id each time it is called.
        shard: The shard whose leader counts.
        session: A paced one, when the handlers are not in this process: see `ask`.
    """

    def __init__(
        self,
        registration: Registration,
        *,
        incarnations: Callable[[], str],
        shard: int = DEFAULT_SHARD,
        session: Session | None = None,
    ) -> None:
        self._new_incarnation = incarnations
        self._shard = shard
        self._commands: list[Command] = []
        self._session = session or Session()
        self._connection = 0
        self._heard: float | None = None
        self._fence_ends: float | None = None
        self._exited = False
        self.registration = registration
        self.incarnation = incarnations()
        self.slots = registration.concurrency
        self.epoch = 0
        self.hears_leader = False
        """Whether the leader with the highest epoch was heard in the last 12 s."""
        self.lease_from: float | None = None
        """When the last heartbeat was sent that the broker has confirmed; None before the first of an incarnation."""
        self.intake = Intake(self.slots, self._emit)
        self.running: dict[GrantId, Running] = {}
        self.ledger = ReportLedger()
        self.progress = ProgressBook()
        self._early_orders: dict[GrantId, None] = {}
        self.drain: Drain | None = None

    # What others may know

    @property
    def connected(self) -> bool:
        """Whether there is a connection to the broker."""
        return self._connection > 0

    @property
    def registered(self) -> bool:
        """Whether the broker has confirmed a heartbeat of this incarnation, and its lease runs."""
        return self.lease_from is not None and self._fence_ends is None

    @property
    def free_slots(self) -> int:
        """Slots for which a claim may be sent now."""
        return self.slots - len(self.intake.claims) - len(self.running)

    @property
    def overdue_at(self) -> float | None:
        """From when on handlers that still run show that the loop does not; None while none runs.

        A watchdog in another thread looks at it, and ends the process. Before the loop has begun to stop the handlers
        this is a little before the end of the lease, so that two looks still lie within it.
        """
        if not self.running or self.lease_from is None:
            return None
        return self.lease_from + WORKER_DEAD_SECONDS - WATCH_SECONDS if self._fence_ends is None else self._fence_ends

    def answer_keys(self) -> tuple[str, ...]:
        """The routing keys under which a leader may answer: this incarnation, and those of unsettled reports."""
        return (self.incarnation, *sorted(self.ledger.incarnations() - {self.incarnation}))

    def take(self) -> list[Command]:
        """The commands decided since the last call, to be carried out in this order."""
        commands, self._commands = self._commands, []
        return commands

    # What the gateway, which keeps custody for a worker elsewhere, needs besides

    def adopt(self, ticket: Ticket, held: HeldGrant, now: float) -> None:
        """Take over a grant of an earlier incarnation of the same worker, before the first heartbeat lists it."""
        self.running[held.grant] = Running(ticket, held, since=now)
        self.progress.open(held.grant, None, CHECKPOINT_BYTES)

    def resize(self, slots: int, now: float) -> None:
        """So many slots there are from now on; with fewer than are taken, nothing is claimed until some are free."""
        self._look_at_clock(now)
        self.slots = slots

    def ask(self, now: float) -> None:
        """A heartbeat is wanted now. A paced session sends no other, and its lease counts from this moment."""
        self._look_at_clock(now)
        self._session.ask(now)

    # Events

    def connect(self, connection: int, now: float) -> None:
        """A connection is up, numbered from 1, and its answer queue bound: the first thing on it is a heartbeat."""
        self._look_at_clock(now)
        self._connection = connection
        self._session.urgent = True

    def disconnect(self, connection: int, now: float) -> None:
        """A connection is gone. Nothing held is lost; deliveries are void, and the broker gives them to others."""
        self._look_at_clock(now)
        if connection == self._connection:
            self._disconnect(now)

    def be_ready(self, connection: int, now: float) -> None:
        """The broker has confirmed the consumers of all ticket queues."""
        self._look_at_clock(now)
        if connection == self._connection:
            self.intake.be_ready()

    def hold(self, ticket: Ticket, tag: Tag, now: float) -> None:
        """A ticket was delivered."""
        self._look_at_clock(now)
        if tag.connection == self._connection:
            self.intake.hold(ticket, tag)

    def hear_epoch(self, epoch: int, shard: int, now: float) -> None:
        """A leader says that it leads."""
        self._look_at_clock(now)
        if shard == self._shard:
            self._hear(epoch, now)

    def hear_leader(self, message: LeaderMessage, now: float) -> None:
        """The leader answers claims, settles reports, or orders stops. A leader of an old epoch is not listened to."""
        self._look_at_clock(now)
        if not self._hear(message.epoch, now):
            self._notice(Notice.OLD_EPOCH_IGNORED, epoch=message.epoch, highest=self.epoch)
            return
        for order in message.stops:
            self._remember(order)
        for answer in message.answers:
            self._answer(answer, now)
        for grant in message.settled:
            if self.ledger.settle(grant):
                self._notice(Notice.SETTLED, grant=grant)
        for order in message.stops:
            if order.grant in self.running:
                self._notice(Notice.STOP_ORDERED, grant=order.grant, reason=order.reason)
                self._stop(order.grant, order.reason)

    def confirm_message(self, sequence: int, now: float) -> None:
        """The broker has confirmed a session message; only one with a heartbeat renews the lease."""
        self._look_at_clock(now)
        self.progress.confirm(sequence)
        sent = self._session.confirm(sequence)
        if sent is None or self._fence_ends is not None:
            return
        if self.lease_from is None:
            self._notice(Notice.REGISTERED)
        self._notice(Notice.HEARTBEAT_CONFIRMED)
        self.lease_from = sent if self.lease_from is None else max(self.lease_from, sent)
        if self.drain is not None and self.drain.leaving == sequence:
            self.drain.left = True

    def confirm_report(self, grant: GrantId, now: float) -> None:
        """The broker has confirmed a report."""
        self._look_at_clock(now)
        self.ledger.confirm(grant, now)

    def fail_report(self, grant: GrantId, now: float) -> None:
        """The broker has returned or refused a report, or the connection was gone before it answered."""
        self._look_at_clock(now)
        self.ledger.fail(grant, now)

    def start(self, grant: GrantId, start_time: str) -> None:
        """The handler of a grant was started; `start_time` as reports carry it."""
        running = self.running.get(grant)
        if running is not None:
            running.held = running.held.model_copy(update={"start_time": start_time})

    def note(self, grant: GrantId, word: Word, now: float) -> None:
        """The handler of a grant says how far it has come, or leaves a checkpoint."""
        self._look_at_clock(now)
        self.progress.hear(grant, word)

    def end(self, grant: GrantId, result: Result | None, completion_time: str, now: float) -> None:
        """The handler of a grant is dead: with a result, or because it was stopped (None)."""
        self._look_at_clock(now)
        running = self.running.pop(grant, None)
        if running is None:
            return
        checkpoint = self.progress.close(grant)
        result = _judged(running.stopping, result)
        if result is not None:
            if result.outcome is Outcome.SUCCEEDED:
                checkpoint = None
            self._report(running, result, completion_time=completion_time, checkpoint=checkpoint, now=now)
        elif running.stopping in _NOT_REPORTED:
            self._session.soon = True  # the leader waits for a heartbeat that does not list it
        self.intake.free(ran_for=now - running.since)
        self._look_at_clock(now)

    def shut_down(self, grace: float, now: float) -> None:
        """Take no more jobs, give handlers `grace` seconds to finish, and leave. A second call shortens the grace."""
        self._look_at_clock(now)
        self._notice(Notice.DRAINING, grace_seconds=grace)
        if self.drain is not None:
            self.drain.shorten(grace, now)
            return
        self.drain = Drain.begin(grace, now)
        self._session.urgent = True
        self.intake.let_go()

    def decide(self, now: float) -> None:
        """Decide what follows from the events and from the time; call it after events and four times a second."""
        self._look_at_clock(now)
        if self._exited:
            return
        self._listen(now)
        self._wind_down(now)
        if self.connected and self.registered and self.hears_leader and self.drain is None:
            self.intake.fill(self.free_slots, now)
        if self.connected:
            for report in self.ledger.take_fresh():
                self._emit(Publish(report))
            for report in self.ledger.take_due(now):
                self._emit(Publish(report))
            self._speak(now)

    # The lease

    def _look_at_clock(self, now: float) -> None:
        if self._fence_ends is None and self.lease_from is not None and now - self.lease_from >= WORKER_FENCE_SECONDS:
            self._fence(self.lease_from, now)
        if self._fence_ends is not None:
            if not self.running:
                self._begin_anew(now)
            elif now >= self._fence_ends:
                self._exit(EXIT_FENCED, f"{len(self.running)} handlers could not be stopped before the lease was over")

    def _fence(self, lease_from: float, now: float) -> None:
        self._notice(Notice.FENCED, lease_age=round(now - lease_from, 3), running=len(self.running))
        self._fence_ends = max(lease_from + WORKER_DEAD_SECONDS, now + WAKE_SECONDS)
        self.intake.let_go()
        self.intake.close_claims()
        for grant in tuple(self.running):
            self._stop(grant, OwnStop.LEASE_LOST)

    def _begin_anew(self, now: float) -> None:
        old, self.incarnation = self.incarnation, self._new_incarnation()
        self.registration = self.registration.model_copy(update={"supersedes": old})
        self.lease_from = self._fence_ends = None
        self._early_orders.clear()
        self._notice(Notice.REBORN, supersedes=old)
        # Answers come by a queue that is bound to the incarnation; a new connection brings all that in one step.
        self._disconnect(now)
        self._emit(Reconnect())

    def _disconnect(self, now: float) -> None:
        self._connection = 0
        self.intake.disconnect()
        self._session.disconnect()
        self.progress.disconnect()
        self.ledger.reconnect(now)
        if self.drain is not None:
            self.drain.leaving = 0

    # Listening to leaders

    def _hear(self, epoch: int, now: float) -> bool:
        if epoch < self.epoch:
            return False
        if epoch > self.epoch:
            self.epoch = epoch
            self._session.urgent = True
            self.progress.repeat()
        self._heard = now
        if not self.hears_leader:
            self.hears_leader = True
            self._session.urgent = True
            self._notice(Notice.LEADER_HEARD, epoch=epoch)
        return True

    def _listen(self, now: float) -> None:
        if self.hears_leader and self._heard is not None and now - self._heard >= LEADER_SILENCE_SECONDS:
            self.hears_leader = False
            self._session.urgent = True
            self._notice(Notice.LEADER_SILENT, epoch=self.epoch)
            self.intake.let_go()
            self.intake.close_claims()

    def _answer(self, answer: Answer, now: float) -> None:
        claim = self.intake.answered(answer.claim)
        if claim is None:
            if answer.grant is not None and answer.grant not in self.running and answer.grant not in self.ledger:
                self._notice(Notice.GRANT_IGNORED, claim=answer.claim, grant=answer.grant)
                self._session.soon = True  # its slot is free when a heartbeat lists neither the claim nor the grant
            return
        if answer.grant is None:
            self._notice(Notice.REFUSED, reason=answer.refusal or "", job=claim.ticket.name, claim=answer.claim)
            self.intake.free()
            return
        if answer.grant in self._early_orders:
            self._notice(Notice.GRANT_IGNORED, claim=answer.claim, grant=answer.grant)
            self._session.soon = True
            self.intake.free()
            return
        ticket = claim.ticket
        if answer.payload is not None:
            ticket = ticket.model_copy(update={"payload": answer.payload})
        held = HeldGrant(grant=answer.grant, uid=ticket.uid, attempt=ticket.attempt, claim=answer.claim)
        self.running[answer.grant] = Running(ticket, held, since=now)
        self.progress.open(answer.grant, answer.checkpoint, CHECKPOINT_BYTES)
        self._emit(Start(answer.grant, ticket, answer.checkpoint))

    # Handlers and reports

    def _remember(self, order: StopOrder) -> None:
        if order.grant not in self.running and order.grant not in self.ledger:
            self._early_orders[order.grant] = None
            if len(self._early_orders) > EARLY_ORDERS:
                del self._early_orders[next(iter(self._early_orders))]

    def _stop(self, grant: GrantId, reason: str) -> None:
        running = self.running[grant]
        before, running.stopping = running.stopping, _stronger(running.stopping, reason)
        hurry = reason in _AT_ONCE and before not in _AT_ONCE
        if before is None or hurry:
            self._emit(Stop(grant, reason, at_once=hurry))

    def _report(
        self, running: Running, result: Result, *, completion_time: str, checkpoint: JsonValue, now: float
    ) -> None:
        ticket = running.ticket
        report = Report(
            namespace=ticket.namespace,
            name=ticket.name,
            uid=ticket.uid,
            attempt=ticket.attempt,
            grant=running.held.grant,
            worker=self.registration.worker,
            incarnation=self.incarnation,
            outcome=result.outcome,
            result=result.value,
            reason=result.reason,
            error=result.error,
            log_tail=result.log_tail,
            checkpoint=checkpoint,
            permanent=result.permanent,
            start_time=running.held.start_time or completion_time,
            completion_time=completion_time,
        )
        self.ledger.add(report, running.held, now)

    # Leaving

    def _wind_down(self, now: float) -> None:
        drain = self.drain
        if drain is None:
            return
        if self.intake.claims and now >= drain.close_claims:
            self.intake.close_claims()
            self._session.soon = True
        if now >= drain.stop and not drain.stopped:
            drain.stopped = True
            for grant in tuple(self.running):
                self._stop(grant, OwnStop.SHUTDOWN)
        if self.running and drain.must_be_stopped(now):
            self._exit(EXIT_FENCED, f"{len(self.running)} handlers could not be stopped within the grace")
        elif self.ledger.unconfirmed and drain.must_be_confirmed(now):
            self._exit(EXIT_UNCONFIRMED, f"{self.ledger.unconfirmed} reports were not confirmed by the broker")
        elif not (self.intake.claims or self.running or self.ledger.unconfirmed):
            self._leave(drain, now)

    def _leave(self, drain: Drain, now: float) -> None:
        if drain.released is None:
            drain.released = now
        if drain.is_over(now):
            self._exit(EXIT_DONE, "drained")
        elif self.connected and not drain.leaving and drain.may_say_goodbye(len(self.ledger), now):
            # Reports that are confirmed and not settled stay listed even now: a heartbeat without them would free
            # their slots before the leader has read them.
            drain.leaving = self._beat(now, leaving=True)

    def _exit(self, code: int, why: str) -> None:
        if not self._exited:
            self._exited = True
            self._emit(Exit(code, why))

    # Speaking

    def _speak(self, now: float) -> None:
        if self._fence_ends is not None or (self.drain is not None and self.drain.leaving):
            return
        if self._session.due(now):
            self._beat(now)
            return
        progress = self.progress.take(now) if self.hears_leader and self.progress.due(now) else ()
        if self.intake.unsent or progress:
            claims = self.intake.take_unsent()
            message = self._session.say(self.incarnation, self.epoch, claims=claims, progress=progress)
            self.progress.sent(message.sequence, progress)
            self._emit(Send(message))

    def _beat(self, now: float, *, leaving: bool = False) -> int:
        claims = self.intake.claims.values()
        again = tuple(open_.claim for open_ in claims if self._session.urgent or now - open_.asked >= REASK_SECONDS)
        unsent = tuple(claim for claim in self.intake.take_unsent() if claim not in again)
        heartbeat = Heartbeat(
            registration=self.registration,
            claims=tuple(open_.claim for open_ in claims),
            grants=tuple(running.held for running in self.running.values()),
            reports=self.ledger.held(),
            hears_leader=self.hears_leader,
            draining=self.drain is not None,
            leaving=leaving,
        )
        progress = self.progress.take(now) if self.hears_leader else ()
        message = self._session.beat(
            self.incarnation, self.epoch, claims=again + unsent, progress=progress, heartbeat=heartbeat, now=now
        )
        self.progress.sent(message.sequence, progress)
        self._emit(Send(message))
        return message.sequence

    def _emit(self, command: Command) -> None:
        self._commands.append(command)

    def _notice(self, event: Notice, **fields: object) -> None:
        self._emit(Noticed(event, fields))


def _stronger(before: str | None, reason: str) -> str:
    """Of two reasons to stop a handler, the one that decides what is reported of it."""
    if before is None or reason in _NOT_REPORTED:
        return reason
    if before in _NOT_REPORTED or before == OwnStop.LEASE_LOST or reason == OwnStop.SHUTDOWN:
        return before
    return reason


def _judged(stopping: str | None, result: Result | None) -> Result | None:
    """What is reported of a handler that is dead; None: nothing."""
    if stopping is None:
        return result
    if stopping in _NOT_REPORTED:
        return None
    if result is not None and (result.outcome is Outcome.SUCCEEDED or stopping not in _OWN):
        return result
    if stopping == OwnStop.LEASE_LOST:
        return None
    if stopping == OwnStop.SHUTDOWN:
        why = "the worker was shut down and its grace was over"
    else:
        why = f"the leader ordered to stop it: {stopping}"
    return Result(Outcome.INTERRUPTED, reason=stopping, error=why)
