"""Drives a custody by hand: a made-up clock, no broker, and the leader's words as the test gives them."""

import itertools
from typing import Any, TypeVar

from pydantic import JsonValue

from distriqueue_protocol.messages import (
    Answer,
    GrantId,
    Heartbeat,
    LeaderMessage,
    Outcome,
    Refusal,
    Registration,
    Report,
    SessionMessage,
    StopOrder,
    StopReason,
    Ticket,
)
from distriqueue_protocol.names import Priority
from distriqueue_worker.commands import Command, Publish, Result, Send, Tag, Word
from distriqueue_worker.custody import Custody

EPOCH = 10
START = "2026-11-22T10:00:00.000000Z"
END = "2026-11-22T10:00:01.000000Z"
DONE = Result(Outcome.SUCCEEDED, value={"done": True})

C = TypeVar("C", bound=Command)


class Steering:
    """A worker with two slots at time 0."""

    def __init__(self, *, slots: int = 2) -> None:
        numbers = itertools.count(1)
        registration = Registration(worker="w", concurrency=slots, types=("*",), start_time=START)
        self.custody = Custody(registration, incarnations=lambda: f"incarnation-{next(numbers)}")
        self.now = 0.0
        self.connection = 0
        self.log: list[Command] = []
        self._tags = itertools.count(1)
        self._grants = itertools.count(1)

    # Time and commands

    def decide(self) -> list[Command]:
        """Let custody decide, and remember what it said."""
        self.custody.decide(self.now)
        commands = self.custody.take()
        self.log.extend(commands)
        return commands

    def after(self, seconds: float, *, step: float = 0.25) -> list[Command]:
        """Let time pass in ticks, as the worker's loop does; return all commands of that time."""
        commands: list[Command] = []
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + step, end)
            commands.extend(self.decide())
        return commands

    def freeze(self, seconds: float) -> None:
        """Let time pass without a tick."""
        self.now += seconds

    def said(self, kind: type[C]) -> list[C]:
        """All commands of a kind so far."""
        return [command for command in self.log if isinstance(command, kind)]

    def sent(self) -> list[SessionMessage]:
        return [command.message for command in self.said(Send)]

    def heartbeats(self) -> list[Heartbeat]:
        return [message.heartbeat for message in self.sent() if message.heartbeat is not None]

    def published(self) -> list[Report]:
        return [command.report for command in self.said(Publish)]

    # Events

    def connect(self) -> None:
        self.connection += 1
        self.custody.connect(self.connection, self.now)
        self.decide()

    def disconnect(self) -> None:
        self.custody.disconnect(self.connection, self.now)
        self.decide()

    def confirm(self) -> None:
        """The broker confirms the last heartbeat."""
        sequence = [message.sequence for message in self.sent() if message.heartbeat is not None][-1]
        self.custody.confirm_message(sequence, self.now)
        self.decide()

    def hear(self, epoch: int = EPOCH) -> None:
        self.custody.hear_epoch(epoch, 0, self.now)
        self.decide()

    def be_ready(self) -> None:
        self.custody.be_ready(self.connection, self.now)
        self.decide()

    def begin(self) -> None:
        """Connect, register, hear a leader, consume."""
        self.connect()
        self.confirm()
        self.hear()
        self.confirm()
        self.be_ready()

    def live(self, seconds: float) -> list[Command]:
        """Let time pass with a broker that confirms every heartbeat and a leader that calls."""
        commands: list[Command] = []
        for _ in range(int(seconds / 0.25)):
            commands.extend(self.after(0.25))
            self.hear(self.custody.epoch)
            if self.sent()[-1].heartbeat is not None:
                self.confirm()
        return commands

    def ticket(self, name: str, *, priority: Priority = Priority.MEDIUM, **fields: Any) -> Tag:
        tag = Tag(self.connection, next(self._tags))
        defaults: dict[str, Any] = {
            "namespace": "test",
            "uid": f"uid-{name}",
            "type": "*",
            "attempt": 1,
            "epoch": EPOCH,
        }
        ticket = Ticket(name=name, priority=priority, **{**defaults, **fields})
        self.custody.hold(ticket, tag, self.now)
        return tag

    def tell(self, *, epoch: int = EPOCH, **fields: Any) -> None:
        self.custody.hear_leader(LeaderMessage(epoch=epoch, **fields), self.now)
        self.decide()

    def grant(self, claim: int, *, epoch: int = EPOCH, checkpoint: JsonValue = None) -> GrantId:
        grant = GrantId(epoch, next(self._grants))
        self.tell(epoch=epoch, answers=(Answer(claim=claim, grant=grant, checkpoint=checkpoint),))
        if grant in self.custody.running:
            self.custody.start(grant, START)
        return grant

    def refuse(self, claim: int, refusal: Refusal = Refusal.TAKEN) -> None:
        self.tell(answers=(Answer(claim=claim, refusal=refusal),))

    def stop(self, grant: GrantId, reason: str = StopReason.OVER) -> None:
        self.tell(stops=(StopOrder(grant=grant, reason=reason),))

    def note(self, grant: GrantId, word: Word) -> None:
        self.custody.note(grant, word, self.now)
        self.decide()

    def end(self, grant: GrantId, result: Result | None = DONE) -> None:
        self.custody.end(grant, result, END, self.now)
        self.decide()

    def claim(self, name: str = "job") -> int:
        """Bring a job to where it is claimed; return the claim's number."""
        self.ticket(name)
        self.decide()
        (claim,) = [number for number, one in self.custody.intake.claims.items() if one.ticket.name == name]
        return claim

    def run(self, name: str = "job", *, checkpoint: JsonValue = None) -> GrantId:
        """Bring a job to where its handler runs."""
        return self.grant(self.claim(name), checkpoint=checkpoint)

    def claims(self) -> list[str]:
        """The names of the jobs with open claims."""
        return [claim.ticket.name for claim in self.custody.intake.claims.values()]
