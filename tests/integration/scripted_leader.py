"""The leader's side of the protocol by script, on a real broker: what a worker is tested against.

It is no leader: it has no resources, no book and no takeover. It publishes the tickets it is told to, answers claims as
the test says (grants by default), settles reports if it should, and remembers everything that a worker said.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from pydantic import JsonValue

from distriqueue.broker import topology
from distriqueue_protocol import names
from distriqueue_protocol.messages import (
    Answer,
    Claim,
    EpochCall,
    GrantId,
    Heartbeat,
    LeaderMessage,
    Message,
    Progress,
    Refusal,
    Report,
    SessionMessage,
    StopOrder,
    StopReason,
    Ticket,
)
from distriqueue_protocol.names import MessageType, Priority

CALL_SECONDS = 1.0
PATIENCE_SECONDS = 30.0


@dataclass
class Heard:
    """What a worker said, in the order of arrival."""

    sessions: list[SessionMessage] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)

    @property
    def heartbeats(self) -> list[tuple[SessionMessage, Heartbeat]]:
        return [(message, message.heartbeat) for message in self.sessions if message.heartbeat]

    @property
    def progress(self) -> list[Progress]:
        return [word for message in self.sessions for word in message.progress]


class ScriptedLeader:
    """One leader of one epoch.

    Attributes:
        judge: Answers a claim: a refusal, or None to grant. Claims are not answered while `answering` is off.
        settling: Whether reports are settled.
        checkpoint: What goes with every grant.
    """

    def __init__(self, channel: AbstractChannel, epoch: int, pool: str) -> None:
        self.epoch = epoch
        self.pool = pool
        self.heard = Heard()
        self.judge: Callable[[Claim], Refusal | None] = lambda _claim: None
        self.answering = True
        self.settling = True
        self.checkpoint: JsonValue = None
        self.calling = True
        self.granted: dict[GrantId, Claim] = {}
        self._answers: dict[tuple[str, int], Answer] = {}
        self._counter = itertools.count(1)
        self._channel = channel
        self._changed = asyncio.Condition()
        self._waiting: list[tuple[str, Claim]] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def leading(cls, url: str, *, epoch: int = 10, pool: str = "default") -> AsyncIterator["ScriptedLeader"]:
        async with await aio_pika.connect(f"{url}?heartbeat=5") as connection:
            channel = await connection.channel()
            reports = await topology.declare_shared(channel)
            await topology.declare_pool(channel, pool)
            inbox = await topology.declare_inbox(channel, epoch)
            leader = cls(channel, epoch, pool)
            await inbox.consume(leader._on_session, no_ack=True)
            await reports.consume(leader._on_report)
            caller = asyncio.create_task(leader._call())
            try:
                yield leader
            finally:
                caller.cancel()
                await asyncio.gather(caller, return_exceptions=True)

    async def submit(self, name: str, **fields: Any) -> Ticket:
        """Publish a ticket; everything but the name has a default."""
        defaults: dict[str, Any] = {
            "namespace": "test",
            "uid": f"uid-{name}",
            "type": "*",
            "attempt": 1,
            "epoch": self.epoch,
            "payload": {"sleepSeconds": 0},
        }
        ticket = Ticket(name=name, **{**defaults, **fields})
        await self.publish_ticket(ticket.encode(), priority=ticket.priority)
        return ticket

    async def publish_ticket(self, body: bytes, *, priority: Priority = Priority.MEDIUM) -> None:
        key = names.ticket_queue(self.pool, priority)
        await self._publish(names.TICKETS_EXCHANGE, key, MessageType.TICKET, body)

    async def tell(self, incarnation: str, **fields: Any) -> None:
        """Send a worker a message."""
        message = LeaderMessage(**{"epoch": self.epoch, **fields})
        await self._publish(names.ANSWERS_EXCHANGE, incarnation, MessageType.ANSWER, message.encode())

    async def stop(self, grant: GrantId, reason: StopReason = StopReason.CANCELLED) -> None:
        """Order the only worker there is to stop the handler of a grant."""
        incarnation = self.heard.sessions[-1].incarnation
        await self.tell(incarnation, stops=(StopOrder(grant=grant, reason=reason),))

    async def answer_waiting(self) -> None:
        """Answer the claims that came while `answering` was off."""
        waiting, self._waiting = self._waiting, []
        for incarnation, claim in waiting:
            await self._answer(incarnation, (claim,))

    async def until(self, condition: Callable[[Heard], Any], *, patience: float = PATIENCE_SECONDS) -> None:
        """Wait until what was heard fulfils a condition."""
        try:
            async with asyncio.timeout(patience), self._changed:
                await self._changed.wait_for(lambda: condition(self.heard))
        except TimeoutError:
            raise AssertionError(f"not within {patience} s; heard: {self.summary()}") from None

    async def registered(self) -> str:
        """Wait for a worker that hears this leader; return its incarnation."""
        await self.until(lambda heard: any(message.epoch == self.epoch for message, _ in heard.heartbeats))
        return self.heard.heartbeats[-1][0].incarnation

    async def report(self, name: str, *, patience: float = PATIENCE_SECONDS) -> Report:
        """Wait for the report of a job."""
        await self.until(lambda heard: any(report.name == name for report in heard.reports), patience=patience)
        return next(report for report in self.heard.reports if report.name == name)

    async def grant(self, name: str) -> GrantId:
        """Wait until a job is held by a worker, as its heartbeat says."""
        uid = f"uid-{name}"
        await self.until(lambda heard: any(claim.uid == uid for claim in heard.claims))
        return next(grant for grant, claim in self.granted.items() if claim.uid == uid)

    async def waiting(self, priority: Priority = Priority.MEDIUM) -> int:
        """How many tickets lie in a queue, by the broker's word."""
        queue = await self._channel.declare_queue(names.ticket_queue(self.pool, priority), passive=True)
        return queue.declaration_result.message_count or 0

    async def consumers(self, priority: Priority = Priority.MEDIUM) -> int:
        """How many consumers a queue has, by the broker's word."""
        queue = await self._channel.declare_queue(names.ticket_queue(self.pool, priority), passive=True)
        return queue.declaration_result.consumer_count or 0

    def summary(self) -> str:
        heard = self.heard
        last = heard.heartbeats[-1][1] if heard.heartbeats else None
        return f"{len(heard.sessions)} session messages, {heard.claims=}, {heard.reports=}, last heartbeat {last}"

    async def _call(self) -> None:
        while True:
            if self.calling:
                body = EpochCall(epoch=self.epoch)
                await self._publish(names.EPOCHS_EXCHANGE, "", MessageType.EPOCH, body.encode())
            await asyncio.sleep(CALL_SECONDS)

    async def _on_session(self, message: AbstractIncomingMessage) -> None:
        session = SessionMessage.decode(message.body)
        self.heard.sessions.append(session)
        self.heard.claims.extend(session.claims)
        if self.answering:
            await self._answer(session.incarnation, session.claims)
        else:
            self._waiting.extend((session.incarnation, claim) for claim in session.claims)
        await self._notify()

    async def _answer(self, incarnation: str, claims: tuple[Claim, ...]) -> None:
        answers = []
        for claim in claims:
            key = (incarnation, claim.id)
            if key not in self._answers:
                refusal = self.judge(claim)
                grant = None if refusal else GrantId(self.epoch, next(self._counter))
                if grant:
                    self.granted[grant] = claim
                checkpoint = self.checkpoint if grant else None
                self._answers[key] = Answer(claim=claim.id, grant=grant, refusal=refusal, checkpoint=checkpoint)
            answers.append(self._answers[key])
        if answers:
            await self.tell(incarnation, answers=tuple(answers))

    async def _on_report(self, message: AbstractIncomingMessage) -> None:
        report = Report.decode(message.body)
        assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
        self.heard.reports.append(report)
        if self.settling:
            await self.tell(report.incarnation, settled=(report.grant,))
        await message.ack()
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _publish(self, exchange: str, key: str, kind: MessageType, body: bytes | Message) -> None:
        content = body if isinstance(body, bytes) else body.encode()
        found = await self._channel.get_exchange(exchange, ensure=False)
        message = aio_pika.Message(content, type=kind, content_type="application/json", delivery_mode=2)
        await found.publish(message, routing_key=key)
