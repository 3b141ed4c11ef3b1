"""The operator's program: a warm standby that leads whenever it can.

Guarantees: this replica stands for election only while RabbitMQ answers it, so a Lease is never held by somebody who
could not dispatch. On a stop the term ends first, then the Lease is released, so the next leader finds no write under
way.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, Final

import structlog

from distriqueue.api.phases import WorkerPhase
from distriqueue.api.raw import RawWorker
from distriqueue.broker.errors import BrokerUnreachableError
from distriqueue.broker.links import LeaderLink
from distriqueue.core.commands import EmitEvent
from distriqueue.core.leader import LeaderSettings
from distriqueue.kube.client import KubeClient
from distriqueue.kube.config_maps import ConfigMapReader
from distriqueue.kube.deletions import Deleter
from distriqueue.kube.election import Durations, Elector, Leadership, new_identity
from distriqueue.kube.events import EventRecorder
from distriqueue.kube.feeds import Feed
from distriqueue.kube.resources import JOBS
from distriqueue.kube.statuses import StatusWriter
from distriqueue.kube.workers import WorkerResources
from distriqueue.operator.observing import Observer, PodSeen, WorkerSeen
from distriqueue.operator.settings import OperatorSettings
from distriqueue.operator.stores import UNFINISHED, JobStore
from distriqueue.operator.terms import Term, TermEnd, Writers
from distriqueue.telemetry.metrics import OperatorMetrics
from distriqueue.telemetry.serving import StatusServer, process_registry

_LOG: Final = structlog.get_logger(__name__)

RECONNECT_SECONDS: Final = (0.2, 5.0)
ENDED_PODS: Final = 2000
"""Pods that are remembered as ended, for a takeover that comes after their end."""
CRASHED_PAUSE_SECONDS: Final = 2.0
"""Before a replica whose term crashed stands again: another one may do better, and nobody is served by a busy loop."""
DELETED_WORKERS: Final = 2000
"""DistributedWorkers that are remembered as deleted by somebody, for a takeover that comes after it."""


class Program:
    """One replica of the operator."""

    def __init__(self, settings: OperatorSettings) -> None:
        self._settings = settings
        self._stop = asyncio.Event()
        self._registry = process_registry()
        self._metrics = OperatorMetrics(self._registry)
        self._store = JobStore()
        self._term: Term | None = None
        self._feed: Feed | None = None
        self._emit: Callable[[EmitEvent], None] = lambda _: None
        self._connected = False
        self._ended_pods: OrderedDict[str, None] = OrderedDict()
        self._deleted_workers: OrderedDict[str, RawWorker] = OrderedDict()
        self._minimum_epoch = 0
        self.server = StatusServer(self._registry, ready=self._ready, sample=self._sample)

    def stop(self) -> None:
        """Ask the program to end: the term ends, the Lease is released."""
        self._stop.set()

    async def run(self) -> None:
        """Run until stopped."""
        settings = self._settings
        agent = "distriqueue-operator"
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(
                await KubeClient.connect(
                    settings.kubeconfig, pool_size=settings.write_concurrency + 16, user_agent=agent
                )
            )
            # The Lease has a connection of its own: bulk traffic must not delay a renewal.
            lease_client = await stack.enter_async_context(
                await KubeClient.connect(settings.kubeconfig, pool_size=4, user_agent=agent)
            )
            await self.server.start(host=settings.http_host, port=settings.http_port)
            stack.push_async_callback(self.server.stop)
            _LOG.info("serving", port=self.server.port)
            self._feed = Feed(client, JOBS, settings.namespaces or None, self._store.deliver)
            feeding = asyncio.create_task(self._feed.run(), name="feed of jobs")
            stack.push_async_callback(_cancel, feeding)
            identity = new_identity(settings.pod_name)
            observer = Observer(
                client.credentials, identity=identity, namespace=settings.pod_namespace, deliver=self._on_seen
            )
            observer.start()
            stack.push_async_callback(observer.stop)
            elector = Elector(
                lease_client,
                settings.pod_namespace,
                settings.lease_name,
                identity,
                Durations(
                    lease=settings.lease_duration_seconds,
                    renew=settings.lease_renew_deadline_seconds,
                    retry=settings.lease_retry_seconds,
                ),
            )
            workers = WorkerResources(client, namespace=settings.pod_namespace, lease_name=settings.lease_name)
            writer = StatusWriter(client, JOBS, concurrency=settings.write_concurrency)
            events = EventRecorder(
                client,
                namespace=settings.pod_namespace,
                lease_name=settings.lease_name,
                instance=identity,
                count=self._metrics.event,
            )
            self._emit = events.emit
            recording = asyncio.create_task(events.run(), name="recording events")
            stack.push_async_callback(_cancel, recording)
            writers = Writers(
                statuses=writer, jobs=Deleter(client, JOBS), workers=workers, config_maps=ConfigMapReader(client)
            )
            leading = asyncio.create_task(self._lead_again(elector, writers), name="leading")
            stack.push_async_callback(_cancel, leading)
            stopping = asyncio.create_task(self._stop.wait(), name="stopping")
            stack.push_async_callback(_cancel, stopping)
            done, _ = await asyncio.wait({leading, feeding, stopping}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()  # raises what ended it
            self.stop()
            await leading

    async def _lead_again(self, elector: Elector, writers: Writers) -> None:
        """Stand for election whenever RabbitMQ answers, lead, and again."""
        pause, longest = RECONNECT_SECONDS
        name = f"distriqueue {self._settings.pod_name or elector.identity}"
        while not self._stop.is_set():
            try:
                link = await LeaderLink.connect(self._settings.broker_url(), name=name)
            except BrokerUnreachableError as error:
                _LOG.warning("not a candidate: RabbitMQ does not answer", error=str(error))
                await self._pause(pause)
                pause = min(2 * pause, longest)
                continue
            pause = RECONNECT_SECONDS[0]
            self._connected = True
            leadership: Leadership | None = None
            end: TermEnd | None = None
            try:
                leadership = await self._win(elector, link)
                if leadership is not None:
                    end = await self._serve(leadership, link, writers)
            finally:
                self._connected = False
                if leadership is not None:
                    await leadership.release()
                await link.close()
            if end is not None and end.cause == "Crashed":
                await self._pause(CRASHED_PAUSE_SECONDS)

    async def _win(self, elector: Elector, link: LeaderLink) -> Leadership | None:
        """Wait for the Lease; None when the broker or the program goes first."""
        acquiring = asyncio.create_task(elector.acquire(lambda: self._minimum_epoch), name="acquiring")
        others = [asyncio.create_task(event.wait()) for event in (link.lost, self._stop)]
        try:
            await asyncio.wait({acquiring, *others}, return_when=asyncio.FIRST_COMPLETED)
            return acquiring.result() if acquiring.done() else None
        finally:
            for task in others:
                task.cancel()
            if not acquiring.done():
                acquiring.cancel()
                await asyncio.gather(acquiring, return_exceptions=True)
                if acquiring.done() and not acquiring.cancelled() and acquiring.exception() is None:
                    # It won in the very moment in which it was called off.
                    await acquiring.result().release()

    async def _serve(self, leadership: Leadership, link: LeaderLink, writers: Writers) -> TermEnd:
        settings = self._settings
        feed = self._feed
        end = TermEnd("Crashed", "the term raised")
        if feed is None:
            return end
        self._metrics.term_began(leadership.epoch)
        self._term = Term(
            leadership=leadership,
            link=link,
            store=self._store,
            writers=writers,
            emit=self._emit,
            metrics=self._metrics,
            settings=LeaderSettings(
                payload_limit=settings.payload_limit_bytes,
                default_ttl=None if settings.keep_finished else settings.default_ttl_seconds,
                reopened_per_second=settings.reopened_per_second,
            ),
            write_concurrency=settings.write_concurrency,
        )
        try:
            end = await self._term.run(
                catch_up=lambda: feed.catch_up(selector=UNFINISHED, expected=self._store.uids),
                stop=self._stop,
                ended_pods=lambda: list(self._ended_pods),
                deleted_workers=lambda: list(self._deleted_workers.values()),
            )
        finally:
            self._term = None
            self._minimum_epoch = max(self._minimum_epoch, end.minimum_epoch)
            self._metrics.term_ended(end.cause)
            _LOG.info("term ended", epoch=leadership.epoch, cause=end.cause, reason=end.reason)
        return end

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return

    def _on_seen(self, seen: PodSeen | WorkerSeen) -> None:
        """Kopf has seen a pod or a worker resource; called in our loop."""
        if isinstance(seen, PodSeen):
            if not seen.ended:
                return
            self._ended_pods[seen.uid] = None
            while len(self._ended_pods) > ENDED_PODS:
                self._ended_pods.popitem(last=False)
            if self._term is not None:
                self._term.pod_ended(seen.uid)
            return
        self._deleted_workers.pop(seen.name, None)
        if not seen.deleted or seen.resource is None:
            return
        if seen.resource.get("status", {}).get("phase") != WorkerPhase.OFFLINE:
            # It may run something, and the next leader finds its resource in no list.
            self._deleted_workers[seen.name] = seen.resource
            while len(self._deleted_workers) > DELETED_WORKERS:
                self._deleted_workers.popitem(last=False)
        if self._term is not None:
            self._term.worker_vanished(seen.name)

    def _ready(self) -> dict[str, bool]:
        # A standby is ready too: it is warm. Without RabbitMQ nobody leads, but this replica would not be made better
        # by being taken out of a Service; so readiness asks for the watch alone.
        return {"jobs are watched": self._feed is not None and self._feed.synced}

    def _sample(self) -> None:
        if self._feed is not None:
            self._metrics.feed_age.set(self._feed.last_event_age)
        self._metrics.broker_blocked.set(self._term is not None and self._term.blocked)
        if self._term is not None and self._term.leader is not None:
            self._metrics.sample(self._term.leader, mono=time.monotonic())


async def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
