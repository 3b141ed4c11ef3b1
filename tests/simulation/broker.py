"""A made-up RabbitMQ: ticket queues, per-epoch inboxes, the report queue, answers, and connections that break.

It does what `docs/decisions` says that the real one does: a publish that routes nowhere is confirmed; what is unacked
goes to the next consumer first and in order; the report queue has a single active consumer; an inbox and a worker's
answer queue go with their connection; what was stuck in an old socket may arrive after newer messages. While there are
faults it is worse than the real one: any message may come a second time, much later.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random

from distriqueue_protocol.messages import EpochCall, LeaderMessage, Marker, Report, SessionMessage, Ticket
from distriqueue_protocol.names import Priority
from tests.simulation.scheduling import Action, Pipe, Process, Scheduler

QueueName = tuple[str, Priority]


@dataclass
class Weather:
    """What goes wrong with connections while there are faults.

    Attributes:
        late: What was in a socket that was cut may arrive later.
        slow: Share of the messages that take up to 3 s.
        doubled: Share of the messages that arrive a second time, up to 30 s later.
    """

    late: bool = False
    slow: float = 0.0
    doubled: float = 0.0


class Connection:
    """A TCP connection with AMQP on it. Both ends learn that it is gone at moments of their own."""

    def __init__(self, broker: "Broker", process: Process, lost: Action) -> None:
        self.broker = broker
        self.process = process
        self.cut_up = False
        self.cut_down = False
        self.open_here = True
        self.open_there = True
        self._lost = lost
        self._late: float | None = None
        self._up = Pipe(broker.scheduler, broker.latency)
        self._down: dict[str, Pipe] = {}
        self.deliveries: dict[int, tuple[QueueName, Ticket]] = {}
        self.reports: dict[int, Report | Marker] = {}
        self.number = 0

    def publish(self, action: Action, confirmed: Action | None = None) -> None:
        """A message: what was stuck in the socket when the network was cut may arrive all the same, later."""
        self.up(action, confirmed, message=True)

    def up(self, action: Action, confirmed: Action | None = None, *, message: bool = False) -> None:
        """From the client to the broker; `confirmed` comes back to the client."""

        def arrive() -> None:
            if self.cut_up:
                if self._late is not None and message:
                    self.broker.scheduler.after(self._late, action)
            elif self.open_there:
                action()
                if message:
                    self.broker.double(action)
                if confirmed is not None:
                    self.down(confirmed)

        self._up.send(arrive)

    def down(self, action: Action, channel: str = "") -> None:
        """From the broker to the client; each channel keeps its own order."""

        def arrive() -> None:
            if not self.cut_down:
                self.process.post(lambda: action() if self.open_here else None)

        self._channel(channel).send(arrive)

    def _channel(self, name: str) -> Pipe:
        if name not in self._down:
            self._down[name] = Pipe(self.broker.scheduler, self.broker.latency)
        return self._down[name]

    def stall(self, channel: str, seconds: float) -> None:
        """What the client reads of a channel lags behind for a while."""
        self._channel(channel).stall(seconds)

    def stall_up(self, seconds: float) -> None:
        """The broker reads nothing from this connection for a while: its memory alarm is on."""
        self._up.stall(seconds)

    def close(self) -> None:
        """The client closes it, or its process has died: the broker reads what was sent before, and then knows."""
        self.open_here = False
        self._up.send(self._close_there)

    def sever(self, *, here: float, there: float, up: bool = True, down: bool = True) -> None:
        """The network between them is cut, in one direction or both; each end notices after a while."""
        if self.cut_up or self.cut_down:
            return
        self.cut_up, self.cut_down = up, down
        if self.broker.weather.late and self.broker.rng.random() < 0.5:
            self._late = self.broker.rng.uniform(0.5, 20)
        self.broker.scheduler.after(there, self._close_there)
        self.broker.scheduler.after(here, lambda: self.process.post(self._close_here))

    def drop(self) -> None:
        """The broker closes it: the client knows soon."""
        self._close_there()
        self.broker.scheduler.after(self.broker.latency(), lambda: self.process.post(self._close_here))

    def _close_here(self) -> None:
        if self.open_here:
            self.open_here = False
            self._lost()
            self.broker.scheduler.after(0, self._close_there)

    def _close_there(self) -> None:
        if self.open_there:
            self.open_there = False
            self.broker.forget(self)


@dataclass(eq=False)
class TicketQueue:
    """One quorum queue and its consumers."""

    waiting: deque[Ticket] = field(default_factory=deque)
    consumers: dict[Connection, tuple[int, Callable[[Ticket, int], None]]] = field(default_factory=dict)
    unacked: dict[Connection, int] = field(default_factory=dict)


class Broker:
    """See the module."""

    def __init__(self, scheduler: Scheduler, rng: Random) -> None:
        self.scheduler = scheduler
        self.rng = rng
        self.weather = Weather()
        self.connections: list[Connection] = []
        self.queues: dict[QueueName, TicketQueue] = {}
        self.inboxes: dict[int, tuple[Connection, deque[SessionMessage | Marker]]] = {}
        self.inbox_readers: dict[int, Callable[[SessionMessage | Marker], None]] = {}
        self.answers: dict[Connection, tuple[tuple[str, ...], Callable[[LeaderMessage | EpochCall], None]]] = {}
        self.reports: deque[Report | Marker] = deque()
        self.report_consumers: dict[Connection, Callable[[Report | Marker, int], None]] = {}
        self.on_ack: Callable[[Report], None] = lambda _report: None
        self.on_arrival: Callable[[Report | Marker, int], None] = lambda _message, _place: None
        self.on_reset: Callable[[], None] = lambda: None
        self._places = 0

    def latency(self) -> float:
        """Of one direction of one connection."""
        if self.weather.slow and self.rng.random() < self.weather.slow:
            return self.rng.uniform(0.1, 3.0)
        return self.rng.uniform(0.0005, 0.01)

    def double(self, action: Action) -> None:
        """Let what has arrived arrive again, if the weather is so."""
        if self.weather.doubled and self.rng.random() < self.weather.doubled:
            self.scheduler.after(self.rng.uniform(0.01, 30), action)

    def connect(self, process: Process, lost: Action) -> Connection:
        """Open a connection; at once, the caller waits before it if it likes."""
        connection = Connection(self, process, lost)
        self.connections.append(connection)
        remaining = process.cut_off_until - self.scheduler.now
        if remaining > 0:
            connection.sever(here=min(remaining, 5.0), there=0.0)
        return connection

    def cut_off(self, process: Process) -> None:
        """The host of a process reaches the broker no more: its connections break, new ones are not made."""
        rng = self.rng
        up = rng.random() < 0.8  # a cut of one direction breaks the connection, too, once an end notices
        down = not up or rng.random() < 0.7
        for connection in self.connections:
            if connection.process is process:
                connection.sever(here=rng.uniform(1, 15), there=rng.uniform(1, 15), up=up, down=down)

    def forget(self, connection: Connection) -> None:
        """A connection is gone for the broker: what was unacked goes back in order, its queues are deleted."""
        self.connections.remove(connection)
        self.answers.pop(connection, None)
        for epoch in [epoch for epoch, (owner, _) in self.inboxes.items() if owner is connection]:
            del self.inboxes[epoch]
            self.inbox_readers.pop(epoch, None)
        for queue in self.queues.values():
            queue.consumers.pop(connection, None)
            queue.unacked.pop(connection, None)
        for name, ticket in reversed(connection.deliveries.values()):
            self.queues[name].waiting.appendleft(ticket)
        connection.deliveries = {}
        self.report_consumers.pop(connection, None)
        self.reports.extendleft(reversed(connection.reports.values()))
        connection.reports = {}
        for name in self.queues:
            self._pump(name)
        self._pump_reports()

    def reset(self) -> None:
        """The broker has lost its disk: everything is gone, and all connections with it."""
        for queue in self.queues.values():
            queue.waiting.clear()
        if self.rng.random() < 0.5:
            self.queues.clear()
        self.reports.clear()
        self.on_reset()
        for connection in list(self.connections):
            connection.deliveries = {}
            connection.reports = {}
            connection.drop()

    def raise_alarm(self, seconds: float) -> None:
        """The memory alarm: nobody is read from for a while."""
        for connection in self.connections:
            connection.stall_up(seconds)

    # --- tickets -----------------------------------------------------------------------------------------------

    def declare_pool(self, pool: str) -> None:
        """Declare the queues of a pool."""
        for priority in Priority:
            self.queues.setdefault((pool, priority), TicketQueue())

    def publish_ticket(self, name: QueueName, ticket: Ticket) -> bool:
        """A ticket; False when there is no queue for it, and it is returned."""
        if name not in self.queues:
            return False
        self.queues[name].waiting.append(ticket)
        self._pump(name)
        return True

    def consume(self, connection: Connection, pool: str, prefetch: int, deliver: Callable[[Ticket, int], None]) -> bool:
        """Consume the three queues of a pool; False when they are not declared."""
        names = [(pool, priority) for priority in Priority]
        if not all(name in self.queues for name in names):
            return False
        for name in names:
            self.queues[name].consumers[connection] = (prefetch, deliver)
            self._pump(name)
        return True

    def cancel(self, connection: Connection) -> None:
        """Consume no more; what is unacked stays."""
        for queue in self.queues.values():
            queue.consumers.pop(connection, None)

    def settle_ticket(self, connection: Connection, number: int, *, requeue: bool) -> None:
        """Ack, or nack with requeue."""
        delivery = connection.deliveries.pop(number, None)
        if delivery is None:
            return
        name, ticket = delivery
        if name not in self.queues:
            return
        queue = self.queues[name]
        queue.unacked[connection] = queue.unacked.get(connection, 1) - 1
        if requeue:
            queue.waiting.appendleft(ticket)
        self._pump(name)

    def _pump(self, name: QueueName) -> None:
        queue = self.queues[name]
        while queue.waiting:
            ready = [
                connection
                for connection, (prefetch, _) in queue.consumers.items()
                if queue.unacked.get(connection, 0) < prefetch
            ]
            if not ready:
                return
            connection = self.rng.choice(ready)
            connection.number += 1
            number, ticket = connection.number, queue.waiting.popleft()
            connection.deliveries[number] = (name, ticket)
            queue.unacked[connection] = queue.unacked.get(connection, 0) + 1
            _, deliver = queue.consumers[connection]
            connection.down(partial(deliver, ticket, number), "tickets")

    # --- sessions ----------------------------------------------------------------------------------------------

    def bind_inbox(self, connection: Connection, epoch: int) -> None:
        """Declare and bind the inbox of an epoch."""
        self.inboxes[epoch] = (connection, deque())

    def read_inbox(self, epoch: int, deliver: Callable[[SessionMessage | Marker], None]) -> None:
        """Consume it, without acknowledgements."""
        if epoch in self.inboxes:
            self.inbox_readers[epoch] = deliver
            connection, waiting = self.inboxes[epoch]
            while waiting:
                connection.down(partial(deliver, waiting.popleft()), "inbox")

    def publish_session(self, message: SessionMessage) -> None:
        """Heartbeats and claims: a copy for each inbox that there is."""
        for epoch in list(self.inboxes):
            self.publish_inbox(epoch, message)

    def publish_inbox(self, epoch: int, message: SessionMessage | Marker) -> None:
        """Into one inbox."""
        if epoch not in self.inboxes:
            return
        connection, waiting = self.inboxes[epoch]
        deliver = self.inbox_readers.get(epoch)
        if deliver is None:
            waiting.append(message)
        else:
            connection.down(partial(deliver, message), "inbox")

    def bind_answers(
        self, connection: Connection, keys: tuple[str, ...], deliver: Callable[[LeaderMessage | EpochCall], None]
    ) -> None:
        """A worker's own queue."""
        self.answers[connection] = (keys, deliver)

    def send(self, incarnation: str, message: LeaderMessage) -> None:
        """To one worker."""
        for connection, (keys, deliver) in list(self.answers.items()):
            if incarnation in keys:
                connection.down(partial(deliver, message))

    def call_roll(self, call: EpochCall) -> None:
        """To all workers."""
        for connection, (_, deliver) in list(self.answers.items()):
            connection.down(partial(deliver, call))

    # --- reports -----------------------------------------------------------------------------------------------

    def publish_report(self, message: Report | Marker) -> None:
        """Into the report queue."""
        self._places += 1
        self.on_arrival(message, self._places)
        self.reports.append(message)
        self._pump_reports()

    def consume_reports(self, connection: Connection, deliver: Callable[[Report | Marker, int], None]) -> None:
        """Consume the report queue; the first consumer is the active one."""
        self.report_consumers[connection] = deliver
        self._pump_reports()

    def _pump_reports(self) -> None:
        if not self.report_consumers:
            return
        connection, deliver = next(iter(self.report_consumers.items()))
        while self.reports:
            message = self.reports.popleft()
            connection.number += 1
            connection.reports[connection.number] = message
            connection.down(partial(deliver, message, connection.number), "reports")

    def ack_reports(self, connection: Connection, tags: tuple[int, ...]) -> None:
        """Forget them."""
        for tag in tags:
            message = connection.reports.pop(tag, None)
            if isinstance(message, Report):
                self.on_ack(message)
