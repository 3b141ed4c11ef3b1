"""The gateway's program: one replica with all its doors, in one event loop.

Guarantees: nothing listens but the probes until the jobs have been read once, so no answer is made of half of them; a
submission needs the API server alone. On a stop, connections are taken for a while yet (`shutdown_delay_seconds`,
during which it says that it is not ready), streams end, requests under way have their time, and HTTP workers are let go
without a word on their behalf. Fails with what ended a part that must not end: a port that is taken, no credentials.
"""

import asyncio
import math
import socket
from contextlib import AsyncExitStack
from typing import Any, Final

import structlog

from distriqueue.gateway.brokers import BrokerWatch
from distriqueue.gateway.caches import ClusterCache, JobCache
from distriqueue.gateway.http_workers import HttpWorkers
from distriqueue.gateway.identities import REVIEWS, Access
from distriqueue.gateway.rest.app import create_app
from distriqueue.gateway.rest.doors import Doors
from distriqueue.gateway.rest.limiting import RateLimiter
from distriqueue.gateway.rest.serving import RestServer
from distriqueue.gateway.rpc.servers import RpcServer
from distriqueue.gateway.services import ClusterService, JobService
from distriqueue.gateway.settings import GatewaySettings
from distriqueue.gateway.tls import Certificates
from distriqueue.kube.client import KubeClient
from distriqueue.telemetry.gateways import GatewayMetrics
from distriqueue.telemetry.serving import StatusServer, process_registry

_LOG: Final = structlog.get_logger(__name__)

_READS: Final = 16
SPARE_CONNECTIONS: Final = 2 * REVIEWS + _READS
"""Connections to the API server beside those of writes and watches: both kinds of reviews, and reads."""
_CLUSTER_WATCHES: Final = 2
"""Of the workers and of the Lease."""
_SYNC_PAUSE: Final = 0.05


def connections(settings: GatewaySettings) -> int:
    """Return how many connections to the API server a replica needs: each watch holds one for good."""
    watches = max(1, len(settings.namespaces)) + _CLUSTER_WATCHES
    return settings.write_concurrency + watches + SPARE_CONNECTIONS


class Program:
    """One replica of the gateway.

    Attributes:
        server: Probes and metrics.
        rest_port: Where REST is served; 0 before.
        grpc_port: Where gRPC is served; 0 before.
        serving: Set when all doors are open.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._stop = asyncio.Event()
        registry = process_registry()
        self._metrics = GatewayMetrics(registry)
        self._jobs: JobCache | None = None
        self._cluster: ClusterCache | None = None
        self.serving = asyncio.Event()
        self.rest_port = 0
        self.grpc_port = 0
        self.server = StatusServer(registry, ready=self._ready, sample=self._sample)

    def stop(self) -> None:
        """Ask the program to end."""
        self._stop.set()

    async def run(self) -> None:
        """Run until stopped."""
        settings = self._settings
        certificates = (
            Certificates(settings.tls_cert_file, settings.tls_key_file)
            if settings.tls_cert_file is not None and settings.tls_key_file is not None
            else None
        )
        async with AsyncExitStack() as stack:
            await self.server.start(host=settings.http_host, port=settings.http_port)
            stack.push_async_callback(self.server.stop)
            client = await stack.enter_async_context(
                await KubeClient.connect(
                    settings.kubeconfig,
                    pool_size=connections(settings),
                    user_agent="distriqueue-gateway",
                )
            )
            access = Access.create(client, settings, count=self._metrics.review)
            stack.callback(access.close)
            self._jobs = jobs = JobCache(
                client,
                settings.namespaces,
                queue=settings.stream_queue,
                readers=settings.streams,
                readers_of_one=settings.streams_per_caller,
            )
            self._cluster = cluster = ClusterCache(
                client, namespace=settings.pod_namespace, lease_name=settings.lease_name
            )
            broker = BrokerWatch(
                settings.broker_url(), name=f"distriqueue gateway {settings.pod_name or socket.gethostname()}"
            )
            cluster.broker = broker.reachable
            feeds = [asyncio.create_task(part.run(), name=type(part).__name__) for part in (jobs, cluster, broker)]
            for feed in feeds:
                stack.push_async_callback(_cancel, feed)
            stopping = asyncio.create_task(self._stop.wait(), name="stopping")
            stack.push_async_callback(_cancel, stopping)
            synced = asyncio.create_task(_synced(jobs, cluster), name="first reading")
            stack.push_async_callback(_cancel, synced)
            await _first({synced, stopping, *feeds})
            if self._stop.is_set():
                return
            doors = self._doors(client, access=access, jobs=jobs, cluster=cluster, certificates=certificates)
            await self._open(stack, doors, certificates)
            self.serving.set()
            _LOG.info("serving", rest=self.rest_port, grpc=self.grpc_port, probes=self.server.port)
            await _first({stopping, *feeds})
            self.stop()
            await asyncio.sleep(settings.shutdown_delay_seconds)
            doors.closing.set()

    def _doors(
        self,
        client: KubeClient,
        *,
        access: Access,
        jobs: JobCache,
        cluster: ClusterCache,
        certificates: Certificates | None,
    ) -> Doors:
        settings = self._settings
        address = settings.pod_ip if ":" not in settings.pod_ip else f"[{settings.pod_ip}]"
        return Doors(
            access=access,
            jobs=JobService(client, jobs=jobs, cluster=cluster, access=access, writes=settings.write_concurrency),
            cluster=ClusterService(jobs=jobs, cluster=cluster, access=access),
            workers=HttpWorkers(
                settings.broker_url(),
                access=access,
                own_address=f"{address}:{settings.rest_port}",
                settings=settings,
                peer_context=None if certificates is None else certificates.peer_context,
            ),
            settings=settings,
            metrics=self._metrics,
            limiter=RateLimiter(rate=settings.requests_per_second, burst=settings.request_burst),
        )

    async def _open(self, stack: AsyncExitStack, doors: Doors, certificates: Certificates | None) -> None:
        """Open the doors; they close in the opposite order."""
        settings = self._settings
        rpc = RpcServer(
            doors.jobs,
            doors.access,
            settings=settings,
            metrics=doors.metrics,
            limiter=doors.limiter,
            ready=lambda: all(self._ready().values()),
            credentials=None if certificates is None else certificates.grpc_credentials(),
        )
        await rpc.start(host=settings.grpc_host, port=settings.grpc_port)
        stack.push_async_callback(rpc.stop, grace=settings.shutdown_seconds)
        self.grpc_port = rpc.port
        rest = RestServer(
            create_app(doors),
            grace_seconds=math.ceil(settings.shutdown_seconds),
            tls=None if certificates is None else certificates.context,
        )
        await rest.start(host=settings.rest_host, port=settings.rest_port)
        stack.push_async_callback(rest.stop)
        self.rest_port = rest.port
        await doors.workers.start()
        stack.push_async_callback(doors.workers.stop)

    def _ready(self) -> dict[str, bool]:
        # Without a leader or the broker a gateway is as good as it can be: it takes jobs in and answers.
        return {
            "jobs are watched": self._jobs is not None and self._jobs.synced,
            "the cluster is watched": self._cluster is not None and self._cluster.synced,
            "serves": self.serving.is_set() and not self._stop.is_set(),
        }

    def _sample(self) -> None:
        if self._jobs is not None:
            self._metrics.feed_age.set(self._jobs.last_event_age)
            self._metrics.jobs_cached.set(len(self._jobs))


async def _synced(jobs: JobCache, cluster: ClusterCache) -> None:
    while not (jobs.synced and cluster.synced):  # noqa: ASYNC110 - asked for a moment, at the start only
        await asyncio.sleep(_SYNC_PAUSE)


async def _first(tasks: set[asyncio.Task[Any]]) -> None:
    """Wait for the first of these, and raise what ended it."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


async def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
