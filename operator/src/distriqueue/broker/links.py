"""The leader's link to RabbitMQ for one term: publishes tickets and answers, consumes the inbox and the reports.

Guarantees: a ticket is published mandatory and persistent, and `publish_ticket` returns only after the broker's
confirm; reports are delivered in order and stay unacknowledged until `ack_reports`; once `bind_inbox` has returned,
nothing that workers say is missed. The link is made of plain connections: when one of them, a channel or a consumer
goes, `lost` is set and the term is over. A robust connection would put a vanished queue back in silence, and what was
published in between would be gone.

A broker with an alarm (memory, disk) blocks whoever publishes: `blocked` says so, tickets wait for its end, and that
is no reason to end a term. A queue that answers nobody (`repairs`) is replaced: `consume` does so before it fails, and
`repair_pool` when a ticket got no confirm.

Fails with `BrokerUnreachableError` when no connection can be made, and with `TicketNotTakenError` for a ticket.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Final, Self, cast

import aio_pika
import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq import Channel as UnderlayChannel
from aiormq.abc import DeliveredMessage
from pamqp import commands as spec
from yarl import URL

from distriqueue.broker import repairs, topology
from distriqueue.broker.acknowledgements import AckWindow
from distriqueue.broker.errors import BrokerUnreachableError, NoConfirmError, QueueReplacedError, TicketNotTakenError
from distriqueue.telemetry import failpoints
from distriqueue_protocol import names
from distriqueue_protocol.messages import EpochCall, LeaderMessage, Marker, Ticket
from distriqueue_protocol.names import MessageType, Priority

_LOG: Final = logging.getLogger(__name__)

HEARTBEAT_SECONDS: Final = 3
"""AMQP heartbeat of the leader's connections. The client's word wins over the broker's, so it stands in the URL; a
frozen leader's reports move on after two to three of these."""
CONFIRM_SECONDS: Final = 10.0
"""Without a confirm for so long, the queue or the broker is in trouble."""
CONNECT_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 2.0
REPORTS_PREFETCH: Final = 2000
BLOCKED_POLL_SECONDS: Final = 0.5
"""How often we look whether the broker has blocked us; a publish that meets it knows at once."""

Received = Callable[[str, bytes], None]
"""Takes the type and the body of a message."""
ReceivedReport = Callable[[str, bytes, int], None]
"""Takes type, body and delivery tag of a message of the report queue."""


def amqp_url(url: str, *, heartbeat: int) -> str:
    """The URL with a heartbeat, unless it names one."""
    parsed = URL(url)
    return str(parsed if "heartbeat" in parsed.query else parsed.update_query(heartbeat=heartbeat))


class LeaderLink:
    """See the module; made by `open`."""

    def __init__(self, *, shard: int) -> None:
        self._shard = shard
        self._url = ""
        self._name = ""
        self._watching_blocks: asyncio.Task[None] | None = None
        self._connections: list[AbstractConnection] = []
        self._consuming: AbstractConnection | None = None
        self._inbox_channel: AbstractChannel | None = None
        self._epoch = 0
        self._declaring: AbstractChannel | None = None
        self._publishing: AbstractConnection | None = None
        self._tickets: UnderlayChannel | None = None
        self._answers: UnderlayChannel | None = None
        self._reports: UnderlayChannel | None = None
        self._inbox_name = ""
        self._reports_name = ""
        self._window = AckWindow()
        self._acking = asyncio.Lock()
        self._closing = False
        self.lost = asyncio.Event()
        self.lost_reason = ""
        self.blocked = False

    @classmethod
    async def connect(cls, url: str, *, name: str, shard: int = names.DEFAULT_SHARD) -> Self:
        """Connect, and declare what all share.

        Args:
            url: `amqp://` or `amqps://`, with user and password.
            name: What the broker's own tools show for the connection.
            shard: Whose jobs are led.

        Raises:
            BrokerUnreachableError: The broker does not answer, or refuses the credentials.
        """
        link = cls(shard=shard)
        link._url, link._name = url, name
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                # Publishing and consuming have a connection each: the broker slows a publisher down by its socket.
                publishing = await link._connect(url, f"{name} publishing")
                consuming = await link._connect(url, f"{name} consuming")
                # What declares must not be blocked by an alarm either.
                link._declaring = await consuming.channel(publisher_confirms=False)
                reports = await topology.declare_shared(link._declaring, shard=shard)
                link._reports_name = reports.name
                tickets = await publishing.channel(publisher_confirms=True, on_return_raises=True)
                link._tickets = await link._watch(tickets)
                link._answers = await link._watch(await publishing.channel(publisher_confirms=False))
                link._reports = await link._watch(await consuming.channel(publisher_confirms=False))
                link._consuming = consuming
                link._publishing = publishing
                link._watching_blocks = asyncio.create_task(link._watch_blocks(), name="watching for alarms")
        except (OSError, aiormq.exceptions.AMQPError, TimeoutError) as error:
            await link.close()
            raise BrokerUnreachableError(f"RabbitMQ does not answer: {type(error).__name__}: {error}") from error
        return link

    async def _connect(self, url: str, name: str) -> AbstractConnection:
        connection = await aio_pika.connect(
            amqp_url(url, heartbeat=HEARTBEAT_SECONDS), client_properties={"connection_name": name}
        )
        self._connections.append(connection)
        connection.close_callbacks.add(lambda _, error: self._lose(f"connection closed: {error}"))
        return connection

    async def _watch(self, channel: AbstractChannel) -> UnderlayChannel:
        channel.close_callbacks.add(lambda _, error: self._lose(f"channel closed: {error}"))
        # The hot paths talk to the client underneath: aio-pika's message objects cost as much again as the message.
        return cast("UnderlayChannel", await channel.get_underlay_channel())

    async def _watch_blocks(self) -> None:
        """Keep `blocked` up to date; the client library tells nobody, it only lets those wait who ask."""
        while not self.lost.is_set():
            try:
                async with asyncio.timeout(BLOCKED_POLL_SECONDS):
                    await self._unblocked()
            except TimeoutError:
                self._note_blocked(blocked=True)
                await self._unblocked()
            self._note_blocked(blocked=False)
            await asyncio.sleep(BLOCKED_POLL_SECONDS)

    async def _unblocked(self) -> None:
        """Return when the broker takes what we publish; at once unless it has an alarm."""
        transport = self._publishing.transport if self._publishing is not None else None
        if transport is None:
            raise aiormq.exceptions.ChannelInvalidStateError("the link is closed")
        await transport.connection.ready()

    def _note_blocked(self, *, blocked: bool) -> None:
        if blocked != self.blocked:
            self.blocked = blocked
            if blocked:
                _LOG.warning("RabbitMQ has an alarm and takes no messages: tickets wait until it is over")
            else:
                _LOG.info("RabbitMQ takes messages again")

    def _lose(self, reason: str) -> None:
        if not self._closing and not self.lost.is_set():
            self.lost_reason = reason
            self.lost.set()

    async def bind_inbox(self, epoch: int) -> None:
        """Declare and bind the inbox of an epoch; from here on nothing that workers say is missed.

        Raises:
            BrokerUnreachableError: The broker is gone.
        """
        self._epoch = epoch
        async with self._translated():
            if self._consuming is None:
                raise aiormq.exceptions.ChannelInvalidStateError("the link is closed")
            self._inbox_channel = await self._consuming.channel(publisher_confirms=False)
            inbox = await topology.declare_inbox(self._inbox_channel, epoch, shard=self._shard)
            self._inbox_name = inbox.name

    async def consume(self, *, inbox: Received, reports: ReceivedReport) -> None:
        """Begin to deliver.

        Raises:
            BrokerUnreachableError: The broker is gone.
            QueueReplacedError: The report queue answered nobody; the next connection finds a new one.
        """
        async with self._translated():
            if self._inbox_channel is None:
                raise aiormq.exceptions.ChannelInvalidStateError("the inbox is not bound")
            channel = await self._watch(self._inbox_channel)
            self._on_cancel(channel)

            async def on_inbox(message: DeliveredMessage) -> None:
                inbox(message.header.properties.message_type or "", message.body)

            # No acknowledgements: what is lost with the inbox is made good by the next heartbeats.
            await channel.basic_consume(self._inbox_name, on_inbox, no_ack=True)
            channel = self._need(self._reports)
            self._on_cancel(channel)

            async def on_report(message: DeliveredMessage) -> None:
                tag = message.delivery_tag or 0
                self._window.delivered(tag)
                reports(message.header.properties.message_type or "", message.body, tag)

            await channel.basic_qos(prefetch_count=REPORTS_PREFETCH)
        try:
            async with self._translated():
                await channel.basic_consume(self._reports_name, on_report)
        except BrokerUnreachableError as error:
            # This link is of no use any more, however the following ends; its connections go with a queue that goes.
            lost, self._closing = self.lost.is_set(), True
            # The workers send what lay in it again: none has let go of a report before it was settled.
            if not lost and await repairs.delete_lost(self._url, [self._reports_name], name=self._name):
                raise QueueReplacedError("the report queue answered nobody and was deleted") from error
            raise

    def _on_cancel(self, channel: UnderlayChannel) -> None:
        """A queue that was deleted under us cancels its consumer, and nothing else would tell."""
        channel.on_consumer_cancel_callbacks.add(lambda tag: self._lose(f"consumer {tag} cancelled: its queue is gone"))

    async def declare_pool(self, pool: str) -> None:
        """Declare the ticket queues of a pool.

        Raises:
            BrokerUnreachableError: The broker is gone.
        """
        async with self._translated():
            if self._declaring is not None:
                await topology.declare_pool(self._declaring, pool, shard=self._shard)

    async def repair_pool(self, pool: str) -> list[Priority]:
        """Replace those ticket queues of a pool that answer nobody.

        Returns:
            The priorities whose queues were replaced: no ticket is in them any more.

        Raises:
            BrokerUnreachableError: The broker is gone, or serves no queue at all.
        """
        queues = {names.ticket_queue(pool, priority, shard=self._shard): priority for priority in Priority}
        lost = await repairs.delete_lost(self._url, queues, name=self._name)
        if lost:
            await self.declare_pool(pool)
        return [queues[queue] for queue in lost]

    async def publish_ticket(self, ticket: Ticket, *, pool: str, priority: Priority) -> None:
        """Publish a ticket and wait for the confirm; one that begins under an alarm waits for its end first.

        Raises:
            NoConfirmError: The broker takes messages, and does not confirm this one.
            TicketNotTakenError: The broker does not have it, or nobody can say.
        """
        try:
            await self._unblocked()
            async with asyncio.timeout(CONFIRM_SECONDS):
                await self._need(self._tickets).basic_publish(
                    ticket.encode(),
                    exchange=names.TICKETS_EXCHANGE,
                    routing_key=names.ticket_queue(pool, priority, shard=self._shard),
                    properties=spec.Basic.Properties(
                        delivery_mode=2, message_type=MessageType.TICKET.value, content_type="application/json"
                    ),
                    mandatory=True,
                    wait=False,
                )
        except TimeoutError as error:
            if self.blocked:
                raise TicketNotTakenError("RabbitMQ has an alarm") from error
            raise NoConfirmError("no confirm") from error
        except (OSError, aiormq.exceptions.AMQPError) as error:
            raise TicketNotTakenError(f"{type(error).__name__}: {error}") from error

    async def send(self, incarnation: str, message: LeaderMessage) -> None:
        """Send a message to one worker; nothing says whether it arrives."""
        failpoints.passing("answer-send")
        await self._publish(
            message.encode(), MessageType.ANSWER, exchange=names.ANSWERS_EXCHANGE, routing_key=incarnation
        )
        failpoints.passing("answer-sent")

    async def call_roll(self) -> None:
        """Say to all workers which epoch leads."""
        call = EpochCall(epoch=self._epoch, shard=self._shard)
        await self._publish(call.encode(), MessageType.EPOCH, exchange=names.EPOCHS_EXCHANGE, routing_key="")

    async def send_marker(self, number: int) -> None:
        """Send a marker through the inbox and through the report queue."""
        body = Marker(epoch=self._epoch, id=number).encode()
        failpoints.passing("marker-send")
        await self._publish(body, MessageType.MARKER, exchange="", routing_key=self._inbox_name)
        failpoints.passing("marker-between")
        await self._publish(
            body, MessageType.MARKER, exchange=names.REPORTS_EXCHANGE, routing_key=self._reports_name, persistent=True
        )

    async def _publish(
        self, body: bytes, kind: MessageType, *, exchange: str, routing_key: str, persistent: bool = False
    ) -> None:
        properties = spec.Basic.Properties(
            delivery_mode=2 if persistent else 1, message_type=kind.value, content_type="application/json"
        )
        with contextlib.suppress(OSError, aiormq.exceptions.AMQPError):  # then the link is lost, and `lost` says so
            await self._need(self._answers).basic_publish(
                body, exchange=exchange, routing_key=routing_key, properties=properties, wait=False
            )

    async def ack_reports(self, tags: tuple[int, ...]) -> None:
        """Acknowledge deliveries of the report queue."""
        # One call at a time: a frame for many must not overtake those for single deliveries of another call.
        async with self._acking:
            with contextlib.suppress(OSError, aiormq.exceptions.AMQPError):  # a lost link redelivers to the next leader
                for tag, multiple in self._window.done(tags):
                    failpoints.passing("report-ack")
                    await self._need(self._reports).basic_ack(tag, multiple, wait=False)
                    failpoints.passing("report-acked")

    @staticmethod
    @contextlib.asynccontextmanager
    async def _translated() -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                yield
        except (OSError, aiormq.exceptions.AMQPError, TimeoutError) as error:
            raise BrokerUnreachableError(f"RabbitMQ is gone: {type(error).__name__}: {error}") from error

    @staticmethod
    def _need(channel: UnderlayChannel | None) -> UnderlayChannel:
        if channel is None:
            raise aiormq.exceptions.ChannelInvalidStateError("the link is closed")
        return channel

    async def close(self) -> None:
        """Close the connections; what was not acknowledged goes to the next leader."""
        self._closing = True
        if self._watching_blocks is not None:
            self._watching_blocks.cancel()
            await asyncio.gather(self._watching_blocks, return_exceptions=True)
        # Side by side: one that an alarm blocks does not answer, and the reports of the other wait for the next leader.
        await asyncio.gather(*map(self._close, self._connections))

    @staticmethod
    async def _close(connection: AbstractConnection) -> None:
        with contextlib.suppress(OSError, aiormq.exceptions.AMQPError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await connection.close()
