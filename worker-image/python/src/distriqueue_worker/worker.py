"""The worker: joins custody, link, runtime and metrics in one event loop, and nothing more.

Every event of the link and the runtime goes to custody with the time; at the end of a turn of the loop custody decides,
and its commands are carried out in order. Guarantees: `run` returns when the worker has left gracefully, with the exit
code; when handlers cannot be stopped the process ends at once instead. A failure in here is a fault of the program: the
process ends, and the leader gives its jobs to others.
"""

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Final, NoReturn

from prometheus_client import CollectorRegistry

from distriqueue_protocol.messages import EpochCall, GrantId, LeaderMessage, Registration, Ticket
from distriqueue_protocol.names import DEFAULT_SHARD, WORKER_DEAD_SECONDS
from distriqueue_worker.clocks import monotonic, utc_text
from distriqueue_worker.commands import (
    EXIT_FENCED,
    Ack,
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
    Word,
)
from distriqueue_worker.custody import Custody
from distriqueue_worker.link import Link
from distriqueue_worker.logs import IDENTITY, get_logger
from distriqueue_worker.metrics import WorkerMetrics
from distriqueue_worker.registries import Registry
from distriqueue_worker.runtime import Runtime
from distriqueue_worker.settings import Settings

TICK_SECONDS: Final = 0.25
"""How often custody looks at the clock when nothing else happens."""
STALLED_SECONDS: Final = 10.0
"""A loop that did not turn for so long is not alive."""
EXIT_FAULT: Final = 71
"""Exit code: a fault of the program itself."""
_LOUD: Final = {
    Notice.REGISTERED: "info",
    Notice.LEADER_HEARD: "info",
    Notice.LEADER_SILENT: "warning",
    Notice.FENCED: "error",
    Notice.REBORN: "warning",
    Notice.DRAINING: "info",
    Notice.STOP_ORDERED: "info",
    Notice.GRANT_IGNORED: "warning",
}


class Worker:
    """One worker.

    Args:
        settings: What it was told.
        registry: The tasks it can run.
        metrics: A registry for its metrics.
    """

    def __init__(self, settings: Settings, registry: Registry, metrics: CollectorRegistry) -> None:
        self._settings = settings
        self._name = settings.name
        self._log = get_logger()
        self._metrics = WorkerMetrics(metrics)
        self.custody = Custody(_registration(settings, registry), incarnations=self._new_incarnation)
        self._runtime = Runtime(
            registry,
            metrics=self._metrics,
            on_end=self._handler_ended,
            on_word=self._handler_said,
            on_stuck=self._handler_stuck,
            lives_until=self._lives_until,
            stop_grace=settings.worker_stop_grace_seconds,
            secrets=settings.worker_secrets_directory,
        )
        self._link = Link(
            settings.broker_url(),
            name=f"worker {self._name}",
            pool=settings.worker_pool,
            shard=DEFAULT_SHARD,
            events=self,
            keys=self.custody.answer_keys,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._done: asyncio.Future[int] | None = None
        self._deciding = False
        self._ticked = monotonic()
        self._gauges()

    async def run(self) -> int:
        """Work until told to stop; return the exit code."""
        self._loop = asyncio.get_running_loop()
        self._done = self._loop.create_future()
        IDENTITY.update(worker=self._name, incarnation=self.custody.incarnation, epoch=0)
        self._log.info(
            "worker starts",
            pool=self._settings.worker_pool,
            concurrency=self._settings.worker_concurrency,
            types=self.custody.registration.types,
        )
        link = asyncio.create_task(self._link.run())
        link.add_done_callback(self._link_ended)
        self._tick()
        try:
            return await self._done
        finally:
            link.cancel()
            await asyncio.gather(link, return_exceptions=True)

    def _link_ended(self, link: asyncio.Task[None]) -> None:
        if not link.cancelled():
            self._log.critical("fault in the link", exc_info=link.exception())
            _end(EXIT_FAULT)

    def stop(self, grace: float) -> None:
        """Leave: let handlers finish within so many seconds."""
        with self._event() as now:
            self.custody.shut_down(grace, now)

    def alive(self) -> str:
        """What is wrong with the loop, or nothing. For probes, from another thread."""
        age = monotonic() - self._ticked
        return f"the event loop has been blocked for {age:.0f} s" if age > STALLED_SECONDS else ""

    def ready(self) -> str:
        """Why the worker can take no jobs, or nothing. For probes, from another thread."""
        if not self.custody.connected:
            return "not connected to the broker"
        if not self.custody.registered:
            return "not registered yet"
        return "draining" if self.custody.drain is not None else ""

    # Events of the link

    def connected(self, connection: int) -> None:
        """See `link.Events`."""
        self._metrics.connections.inc()
        self._log.info("connected to the broker", connection=connection)
        with self._event() as now:
            self.custody.connect(connection, now)

    def disconnected(self, connection: int, why: str) -> None:
        """See `link.Events`."""
        self._log.warning("no connection to the broker", connection=connection, why=why)
        with self._event() as now:
            self.custody.disconnect(connection, now)

    def consuming(self, connection: int) -> None:
        """See `link.Events`."""
        with self._event() as now:
            self.custody.be_ready(connection, now)

    def ticket(self, ticket: Ticket, tag: Tag) -> None:
        """See `link.Events`."""
        self._metrics.tickets.labels("received").inc()
        with self._event() as now:
            self.custody.hold(ticket, tag, now)

    def unreadable(self, tag: Tag, why: str) -> None:
        """See `link.Events`."""
        self._metrics.tickets.labels("rejected").inc()
        self._log.error("unreadable ticket rejected", delivery=tag.number, why=why)

    def epoch(self, call: EpochCall) -> None:
        """See `link.Events`."""
        with self._event() as now:
            self.custody.hear_epoch(call.epoch, call.shard, now)

    def answer(self, message: LeaderMessage) -> None:
        """See `link.Events`."""
        with self._event() as now:
            self.custody.hear_leader(message, now)

    def message_confirmed(self, sequence: int) -> None:
        """See `link.Events`."""
        with self._event() as now:
            self.custody.confirm_message(sequence, now)

    def report_confirmed(self, grant: GrantId) -> None:
        """See `link.Events`."""
        with self._event() as now:
            self.custody.confirm_report(grant, now)

    def report_failed(self, grant: GrantId) -> None:
        """See `link.Events`."""
        self._metrics.reports_failed.inc()
        with self._event() as now:
            self.custody.fail_report(grant, now)

    # Turns

    @contextmanager
    def _event(self) -> Iterator[float]:
        # Whoever calls would swallow what is raised here, and go on with a custody that is not whole.
        try:
            yield monotonic()
        except Exception:  # noqa: BLE001 - whatever it is, it ends here
            self._log.critical("fault in custody", exc_info=True)
            _end(EXIT_FAULT)
        if not self._deciding and self._loop is not None:
            self._deciding = True
            self._loop.call_soon(self._decide)

    def _tick(self) -> None:
        assert self._loop is not None  # noqa: S101 - set before the first tick
        self._loop.call_later(TICK_SECONDS, self._tick)
        self._ticked = monotonic()
        self._decide()

    def _decide(self) -> None:
        self._deciding = False
        try:
            self.custody.decide(monotonic())
            for command in self.custody.take():
                self._carry_out(command)
            self._link.flush()
        except Exception:  # noqa: BLE001 - whatever it is, it ends here
            self._log.critical("fault in custody", exc_info=True)
            _end(EXIT_FAULT)

    def _carry_out(self, command: Command) -> None:  # noqa: C901 - one line for each command there is
        match command:
            case Send(message):
                self._metrics.heartbeats_sent.inc(message.heartbeat is not None)
                self._link.send(message)
            case Publish(report):
                self._metrics.reports_published.inc()
                self._link.publish(report)
            case Ack(tag):
                self._link.ack(tag)
            case HandBack(tag):
                self._metrics.tickets.labels("handed_back").inc()
                self._link.hand_back(tag)
            case Start(grant, ticket, checkpoint):
                self._metrics.claims.labels("Granted").inc()
                self.custody.start(grant, self._runtime.start(grant, ticket, checkpoint))
            case Stop(grant, reason, at_once):
                self._log.warning("stopping a handler", grant=str(grant), reason=reason, at_once=at_once)
                self._runtime.stop(grant, at_once=at_once)
            case Consume(prefetch):
                self._link.consume(prefetch)
            case StopConsuming():
                self._link.consume(None)
            case Reconnect():
                self._link.reconnect()
            case Exit(code, why):
                self._leave(code, why)
            case Noticed(event, fields):
                self._notice(event, fields)

    def _notice(self, event: Notice, fields: dict[str, object]) -> None:
        match event:
            case Notice.REFUSED:
                self._metrics.claims.labels(str(fields["reason"])).inc()
            case Notice.CLAIM_CLOSED:
                self._metrics.claims.labels("Closed").inc()
            case Notice.HEARTBEAT_CONFIRMED:
                self._metrics.heartbeats_confirmed.inc()
                self._runtime.renew()
            case Notice.FENCED:
                self._metrics.fences.inc()
            case Notice.GRANT_IGNORED:
                self._metrics.grants_ignored.inc()
        IDENTITY.update(incarnation=self.custody.incarnation, epoch=self.custody.epoch)
        getattr(self._log, _LOUD.get(event, "debug"))(str(event), **{key: _plain(one) for key, one in fields.items()})

    def _handler_ended(self, grant: GrantId, result: Result | None, completion_time: str) -> None:
        with self._event() as now:
            self.custody.end(grant, result, completion_time, now)

    def _handler_said(self, grant: GrantId, word: Word) -> None:
        with self._event() as now:
            self.custody.note(grant, word, now)

    def _handler_stuck(self, _grant: GrantId) -> None:
        # Its slot is free, and its job somebody else's, only when it is dead: it ends with the process.
        self.stop(self._settings.worker_shutdown_grace_seconds)

    def _lives_until(self) -> float:
        lease_from = self.custody.lease_from
        return (monotonic() if lease_from is None else lease_from) + WORKER_DEAD_SECONDS

    def _leave(self, code: int, why: str) -> None:
        self._log.log(40 if code else 20, "worker ends", code=code, why=why)
        if code == EXIT_FENCED:
            _end(code)
        if self._done is not None and not self._done.done():
            self._done.set_result(code)

    def _new_incarnation(self) -> str:
        letters = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in self._name.lower())
        return f"{letters[:48].strip('-') or 'worker'}-{secrets.token_hex(6)}"

    def _gauges(self) -> None:
        custody = self.custody
        gauges: list[tuple[str, str, Callable[[], float]]] = [
            ("slots", "Handlers that may run at once.", lambda: custody.slots),
            (
                "slots_busy",
                "Slots taken by open claims and running handlers.",
                lambda: custody.slots - custody.free_slots,
            ),
            ("handlers_running", "Handlers that run now.", lambda: len(custody.running)),
            ("reports_unsettled", "Reports that the leader has not settled yet.", lambda: len(custody.ledger)),
            ("connected", "Whether there is a connection to the broker.", lambda: custody.connected),
            ("broker_blocked", "Whether the broker has an alarm and takes no messages.", lambda: self._link.blocked),
            ("hears_leader", "Whether a leader was heard in the last 12 seconds.", lambda: custody.hears_leader),
            ("leader_epoch", "The highest epoch that was heard.", lambda: custody.epoch),
        ]
        for name, text, read in gauges:
            self._metrics.gauge(name, text, read)


def _registration(settings: Settings, registry: Registry) -> Registration:
    try:
        version = metadata.version("distriqueue")
    except metadata.PackageNotFoundError:  # run from a checkout
        version = "dev"
    return Registration(
        worker=settings.name,
        pool=settings.worker_pool,
        concurrency=settings.worker_concurrency,
        types=registry.types,
        version=version,
        start_time=utc_text(),
        hostname=socket.gethostname(),
        pod_namespace=settings.pod_namespace,
        pod_name=settings.pod_name,
        pod_uid=settings.pod_uid,
        payload_references=True,
    )


def _plain(value: object) -> object:
    return str(value) if isinstance(value, tuple) else value


def _end(code: int) -> NoReturn:
    sys.stderr.flush()
    os._exit(code)
