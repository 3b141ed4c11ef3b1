"""The worker's link to the broker: connects, declares its own queue, consumes, publishes, and says what happened.

Guarantees: session messages are published in the order of `send`, on one channel. Each published message is answered by
exactly one event, confirmed or failed, unless its connection went, which is an event of its own. Deliveries carry the
number of their connection; what is said about an older one does nothing. The link reconnects for ever, with a growing
pause. It decides nothing. Fails never: a broker that is away, a channel that it closes, and a consumer that it cancels
are all a connection that is lost and made anew; for names that the leader has not declared yet it waits. A broker with
an alarm (memory, disk) takes no messages of whoever publishes: `blocked` says so, and nothing is confirmed meanwhile.

It uses aio-pika's plain connections (a robust one restores consumers behind one's back) and the channels beneath, whose
calls do not build an object and a task for every message.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import aio_pika
import aiormq
from aio_pika.abc import AbstractChannel
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from pamqp.commands import Basic
from pydantic import ValidationError

from distriqueue_protocol.messages import EpochCall, GrantId, LeaderMessage, Report, SessionMessage, Ticket
from distriqueue_protocol.names import (
    ANSWERS_EXCHANGE,
    EPOCHS_EXCHANGE,
    REPORTS_EXCHANGE,
    SESSIONS_EXCHANGE,
    MessageType,
    Priority,
    report_queue,
    sessions_key,
    ticket_queue,
    worker_queue,
)
from distriqueue_worker import failpoints
from distriqueue_worker.acknowledging import Deliveries
from distriqueue_worker.commands import Tag
from distriqueue_worker.logs import get_logger

CONNECT_SECONDS: Final = 10.0
"""How long each step of connecting may take."""
CLOSE_SECONDS: Final = 2.0
BLOCKED_LOOK_SECONDS: Final = 0.5
"""How often the link looks whether the broker has blocked it."""
LOOK_AGAIN_SECONDS: Final = 1.0
"""Until the leader has declared the queues, the link looks for them so often."""
BACKOFF_FIRST: Final = 0.2
BACKOFF_MOST: Final = 5.0
_JSON: Final = "application/json"
_PERSISTENT: Final = 2
_TRANSIENT: Final = 1


class Events(Protocol):
    """What the link says, always in the loop."""

    def connected(self, connection: int) -> None:
        """The answer queue is bound and consumed; messages may be sent."""

    def disconnected(self, connection: int, why: str) -> None:
        """The connection is gone, or was never there."""

    def consuming(self, connection: int) -> None:
        """All ticket queues are consumed."""

    def ticket(self, ticket: Ticket, tag: Tag) -> None:
        """A ticket was delivered."""

    def unreadable(self, tag: Tag, why: str) -> None:
        """A delivery is no ticket; it was rejected."""

    def epoch(self, call: EpochCall) -> None:
        """A leader says that it leads."""

    def answer(self, message: LeaderMessage) -> None:
        """A leader answers."""

    def message_confirmed(self, sequence: int) -> None:
        """The broker confirmed a session message."""

    def report_confirmed(self, grant: GrantId) -> None:
        """The broker confirmed a report."""

    def report_failed(self, grant: GrantId) -> None:
        """The broker returned or refused a report, or cannot say any more."""


@dataclass(slots=True)
class Wire:
    """One connection and what belongs to it."""

    number: int
    connection: aio_pika.abc.AbstractConnection
    lost: asyncio.Future[str]
    sessions: Channel
    reports: Channel
    tickets: Channel
    answers: Channel
    kept: list[AbstractChannel]
    deliveries: Deliveries = field(default_factory=Deliveries)
    settling: asyncio.Lock = field(default_factory=asyncio.Lock)
    acks: list[int] = field(default_factory=list)
    nacks: list[int] = field(default_factory=list)
    consumers: list[str] = field(default_factory=list)
    steering: asyncio.Task[None] | None = None
    watching: asyncio.Task[None] | None = None
    found: bool = False
    """The ticket queues were there; if they go, the broker cancels their consumers, or closes the channel."""


class Link:
    """The link of one worker.

    Args:
        url: The broker's URL; holds a password and is not logged.
        name: The connection's name in the broker's listings.
        pool: Whose ticket queues are consumed.
        shard: The shard of the leader.
        events: Told what happens.
        keys: The incarnation now, and all keys under which the leader may answer.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        pool: str,
        shard: int,
        events: Events,
        keys: Callable[[], tuple[str, ...]],
    ) -> None:
        self._url = url
        self._name = name
        self._queues = [ticket_queue(pool, priority, shard=shard) for priority in Priority]
        self._reports_key = report_queue(shard=shard)
        self._sessions_key = sessions_key(shard=shard)
        self._events = events
        self._keys = keys
        self._number = 0
        self._wire: Wire | None = None
        self._attempt: asyncio.Task[None] | None = None
        self._at_once = False
        self._prefetch: int | None = None
        self._steer = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._log = get_logger()
        self.blocked = False
        """Whether the broker has an alarm and takes nothing of what is published here."""

    # What the worker asks for

    async def run(self) -> None:
        """Keep a connection up until cancelled."""
        failures = 0
        while True:
            self._number += 1
            number = self._number
            self._at_once = False
            self._attempt = asyncio.create_task(self._connect(number))
            why = "told to reconnect"
            try:
                await asyncio.shield(self._attempt)
                failures = 0
                why = await self._wire.lost if self._wire is not None else "gone at once"
            except asyncio.CancelledError:
                if not self._attempt.cancelled():
                    self._attempt.cancel()
                    await asyncio.gather(self._attempt, return_exceptions=True)
                    await self._drop()
                    raise
            except Exception as error:  # noqa: BLE001 - whatever a broken connection raises, another one is made
                why = f"{type(error).__name__}: {error}"
            await self._drop()
            self._events.disconnected(number, why)
            if not self._at_once:
                pause = min(BACKOFF_FIRST * 2**failures, BACKOFF_MOST)
                failures = min(failures + 1, 16)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing

    def reconnect(self) -> None:
        """Close the connection, also one that is just being made, and make another."""
        self._at_once = True
        if self._wire is not None:
            self._lose(self._wire, "told to reconnect")
        elif self._attempt is not None:
            self._attempt.cancel()

    def send(self, message: SessionMessage) -> None:
        """Publish a session message; not mandatory, for there may be no leader."""
        wire = self._wire
        if wire is not None:
            publishing = wire.sessions.basic_publish(
                message.encode(),
                exchange=SESSIONS_EXCHANGE,
                routing_key=self._sessions_key,
                properties=_properties(MessageType.SESSION, _TRANSIENT),
                wait=False,
            )
            self._spawn(self._send(wire, message.sequence, publishing))

    def publish(self, report: Report) -> None:
        """Publish a report: mandatory and persistent."""
        wire = self._wire
        if wire is None:
            self._events.report_failed(report.grant)
            return
        publishing = wire.reports.basic_publish(
            report.encode(),
            exchange=REPORTS_EXCHANGE,
            routing_key=self._reports_key,
            properties=_properties(MessageType.REPORT, _PERSISTENT),
            mandatory=True,
            wait=False,
        )
        self._spawn(self._publish(report.grant, publishing))

    def consume(self, prefetch: int | None) -> None:
        """Consume the ticket queues with this prefetch, or (None) no more."""
        self._prefetch = prefetch
        self._steer.set()

    def ack(self, tag: Tag) -> None:
        """Acknowledge a ticket at the next `flush`."""
        if self._wire is not None and self._wire.number == tag.connection:
            self._wire.acks.append(tag.number)

    def hand_back(self, tag: Tag) -> None:
        """Give a ticket back to its queue at the next `flush`."""
        if self._wire is not None and self._wire.number == tag.connection:
            self._wire.nacks.append(tag.number)

    def flush(self) -> None:
        """Send what `ack` and `hand_back` have gathered, in as few frames as it takes."""
        wire = self._wire
        if wire is not None and (wire.acks or wire.nacks):
            acks, wire.acks = list(wire.deliveries.settle(wire.acks)), []
            nacks, wire.nacks = list(wire.deliveries.settle(wire.nacks)), []
            self._spawn(self._settle(wire, acks, nacks))

    # Connecting

    async def _connect(self, number: int) -> None:
        async with asyncio.timeout(CONNECT_SECONDS):
            connection = await aio_pika.connect(
                self._url, client_properties={"connection_name": self._name}, timeout=CONNECT_SECONDS
            )
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        connection.close_callbacks.add(lambda _, error: _settle_once(lost, f"the connection was closed: {error!r}"))
        try:
            await self._wait_for_topology(connection, lost, queues=(self._reports_key,))
            async with asyncio.timeout(CONNECT_SECONDS):
                wire = await self._open(number, connection, lost)
                await self._listen(wire)
        except BaseException:
            await _close(connection)
            raise
        self._wire = wire
        wire.steering = self._spawn(self._steer_consumers(wire))
        wire.watching = self._spawn(self._watch_alarms(wire))
        self._events.connected(number)

    async def _wait_for_topology(
        self, connection: aio_pika.abc.AbstractConnection, lost: asyncio.Future[str], *, queues: Iterable[str]
    ) -> None:
        """Wait until the leader has declared what we need; a missing name costs its channel, not the connection."""
        said = False
        while not lost.done():
            channel = connection.channel(publisher_confirms=False)
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await channel.initialize()
                    beneath = await channel.get_underlay_channel()
                    for exchange in (SESSIONS_EXCHANGE, ANSWERS_EXCHANGE, EPOCHS_EXCHANGE, REPORTS_EXCHANGE):
                        await beneath.exchange_declare(exchange, passive=True)
                    for queue in queues:
                        await beneath.queue_declare(queue, passive=True)
                    await channel.close()
            except aiormq.exceptions.ChannelNotFoundEntity as error:
                if not said:
                    self._log.warning("waiting for the leader to declare the queues", missing=str(error))
                said = True
                await asyncio.wait({lost}, timeout=LOOK_AGAIN_SECONDS)
            else:
                return
        raise ConnectionError(lost.result())

    async def _open(self, number: int, connection: aio_pika.abc.AbstractConnection, lost: asyncio.Future[str]) -> Wire:
        kept: list[AbstractChannel] = []

        async def open_channel(what: str, *, confirms: bool = False) -> Channel:
            channel = connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
            await channel.initialize()
            channel.close_callbacks.add(
                lambda _, error: _settle_once(lost, f"the channel for {what} was closed: {error!r}")
            )
            kept.append(channel)
            beneath = await channel.get_underlay_channel()
            assert isinstance(beneath, Channel)  # noqa: S101 - there is no other, and its abstract form knows less
            beneath.on_consumer_cancel_callbacks.add(
                lambda _: _settle_once(lost, f"the broker cancelled a consumer of {what}")
            )
            return beneath

        return Wire(
            number,
            connection,
            lost,
            sessions=await open_channel("sessions", confirms=True),
            reports=await open_channel("reports", confirms=True),
            tickets=await open_channel("tickets"),
            answers=await open_channel("answers"),
            kept=kept,
        )

    async def _listen(self, wire: Wire) -> None:
        keys = self._keys()
        queue = worker_queue(keys[0], wire.number)
        await wire.answers.queue_declare(queue, exclusive=True, auto_delete=True)
        for key in keys:
            await wire.answers.queue_bind(queue, ANSWERS_EXCHANGE, routing_key=key)
        await wire.answers.queue_bind(queue, EPOCHS_EXCHANGE)
        await wire.answers.basic_consume(queue, self._on_answer, no_ack=True)

    def _lose(self, wire: Wire, why: str) -> None:
        _settle_once(wire.lost, why)

    async def _drop(self) -> None:
        wire, self._wire = self._wire, None
        self._prefetch = None
        self._steer.clear()
        self.blocked = False
        if wire is not None:
            for task in (wire.steering, wire.watching):
                if task is not None:
                    task.cancel()
            await _close(wire.connection)

    async def _watch_alarms(self, wire: Wire) -> None:
        """Keep `blocked` up to date; the client library tells nobody, it only lets those wait who ask."""
        while (transport := wire.connection.transport) is not None:
            try:
                async with asyncio.timeout(BLOCKED_LOOK_SECONDS):
                    await transport.connection.ready()
            except TimeoutError:
                self.blocked = True
                self._log.warning("the broker has an alarm and takes no messages")
                await transport.connection.ready()
                self.blocked = False
                self._log.info("the broker takes messages again")
            await asyncio.sleep(BLOCKED_LOOK_SECONDS)

    # Consuming

    async def _steer_consumers(self, wire: Wire) -> None:
        """Bring the consumers to where they should be, again and again: wishes may change while the broker answers."""
        while True:
            await self._steer.wait()
            self._steer.clear()
            if self._wire is not wire:
                continue
            prefetch = self._prefetch
            try:
                if prefetch is not None and not wire.found:
                    # The leader declares a pool's queues when the first worker of that pool has spoken: not before.
                    await self._wait_for_topology(wire.connection, wire.lost, queues=self._queues)
                    wire.found = True
                async with asyncio.timeout(CONNECT_SECONDS):
                    # Waiting for each answer matters: what is delivered before it would be dropped unseen.
                    while wire.consumers:
                        await wire.tickets.basic_cancel(wire.consumers.pop())
                    if prefetch is None:
                        continue
                    await wire.tickets.basic_qos(prefetch_count=prefetch)
                    for queue in self._queues:
                        consumed = await wire.tickets.basic_consume(queue, self._ticket_reader(wire))
                        wire.consumers.append(consumed.consumer_tag or "")
            except Exception as error:  # noqa: BLE001 - whatever it is, without consumers this connection is no use
                self._lose(wire, f"consuming failed: {error!r}")
                return
            if not self._steer.is_set():
                self._events.consuming(wire.number)

    def _ticket_reader(self, wire: Wire) -> Callable[[DeliveredMessage], Coroutine[Any, Any, None]]:
        async def read(message: DeliveredMessage) -> None:
            if message.delivery_tag is None:
                return
            wire.deliveries.add(message.delivery_tag)
            tag = Tag(wire.number, message.delivery_tag)
            ticket = _read_ticket(message)
            if isinstance(ticket, Ticket):
                failpoints.passing("ticket-received")
                self._events.ticket(ticket, tag)
                return
            self._events.unreadable(tag, ticket)
            for number, _ in wire.deliveries.settle([message.delivery_tag]):
                await wire.tickets.basic_reject(number, requeue=False, wait=False)

        return read

    async def _on_answer(self, message: DeliveredMessage) -> None:
        kind = message.header.properties.message_type
        try:
            if kind == MessageType.ANSWER:
                failpoints.passing("answer-received")
                self._events.answer(LeaderMessage.decode(message.body))
                failpoints.passing("answer-taken")
            elif kind == MessageType.EPOCH:
                self._events.epoch(EpochCall.decode(message.body))
            else:
                self._log.warning("message of an unknown type ignored", type=kind)
        except ValidationError as error:
            self._log.warning("unreadable message of a leader ignored", type=kind, problem=error.errors()[0]["msg"])

    # Publishing

    async def _send(self, wire: Wire, sequence: int, publishing: Coroutine[Any, Any, Any]) -> None:
        try:
            failpoints.passing("session-send")
            confirmation = await publishing
        except Exception as error:  # noqa: BLE001 - a gap in the session is mended by a new connection's heartbeat
            self._lose(wire, f"a session message was not confirmed: {error!r}")
            return
        if isinstance(confirmation, Basic.Ack) and self._wire is wire:
            failpoints.passing("session-confirmed")
            self._events.message_confirmed(sequence)

    async def _publish(self, grant: GrantId, publishing: Coroutine[Any, Any, Any]) -> None:
        confirmed = False
        try:
            failpoints.passing("report-publish")
            confirmed = isinstance(await publishing, Basic.Ack)
        except (aiormq.exceptions.AMQPError, OSError, RuntimeError) as error:
            self._log.warning("report not confirmed", grant=str(grant), problem=repr(error)[:200])
        finally:
            if confirmed:
                failpoints.passing("report-confirmed")
                self._events.report_confirmed(grant)
            else:
                self._events.report_failed(grant)

    async def _settle(self, wire: Wire, acks: list[tuple[int, bool]], nacks: list[tuple[int, bool]]) -> None:
        try:
            # In the order in which they were gathered: a frame for many must not overtake one for a single delivery.
            async with wire.settling:
                failpoints.passing("ticket-ack")
                for tag, multiple in acks:
                    await wire.tickets.basic_ack(tag, multiple=multiple, wait=False)
                    failpoints.passing("ticket-acked")
                for tag, multiple in nacks:
                    await wire.tickets.basic_nack(tag, multiple=multiple, requeue=True, wait=False)
        except Exception as error:  # noqa: BLE001 - the deliveries are in doubt, and a new connection ends that
            self._lose(wire, f"an acknowledgement could not be sent: {error!r}")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _read_ticket(message: DeliveredMessage) -> Ticket | str:
    kind = message.header.properties.message_type
    if kind != MessageType.TICKET:
        return f"its type is '{kind}'"
    try:
        return Ticket.decode(message.body)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"


def _properties(kind: MessageType, mode: int) -> Basic.Properties:
    return Basic.Properties(content_type=_JSON, message_type=str(kind), delivery_mode=mode)


def _settle_once(future: asyncio.Future[str], value: str) -> None:
    if not future.done():
        future.set_result(value)


async def _close(connection: aio_pika.abc.AbstractConnection) -> None:
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await connection.close()
    except (aiormq.exceptions.AMQPError, OSError, RuntimeError, TimeoutError, asyncio.CancelledError):
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
