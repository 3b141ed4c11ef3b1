"""Kopf, in a thread and a loop of its own: it watches the pods of workers and the DistributedWorkers.

Guarantees: its handlers do O(1) each and hand what they saw to the main loop; kopf writes nothing (no finalizers, no
annotations, no events), is never cancelled, and is started again when it ends by an error. DistributedJobs are not
watched by it: docs/decisions/0002-job-feed.md has the figures.

How it fails: while it is away, a worker whose pod has gone is noticed after 15 s instead of at once. Nothing else leans
on it.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

import kopf

from distriqueue.api import names
from distriqueue.api.raw import RawWorker
from distriqueue.core.pods import containers_ended
from distriqueue.kube.credentials import Credentials

_LOG: Final = logging.getLogger(__name__)

WORKER_PODS: Final = {"app.kubernetes.io/component": "worker"}
"""The label by which pods of workers are found; the chart sets it."""

RESTART_SECONDS: Final = 5.0
STOP_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class PodSeen:
    """A worker's pod was seen.

    Attributes:
        uid: The pod's.
        name: The pod's.
        ended: The kubelet says that all its containers have ended.
    """

    uid: str
    name: str
    ended: bool


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """A DistributedWorker was seen.

    Attributes:
        name: Its name.
        deleted: It is gone.
        resource: As it was last; two sights are the same without it.
    """

    name: str
    deleted: bool
    resource: RawWorker | None = field(default=None, compare=False)


Deliver = Callable[[PodSeen | WorkerSeen], None]


class Observer:
    """See the module. `start` it in the main loop, `stop` it there."""

    def __init__(self, credentials: Credentials, *, identity: str, namespace: str, deliver: Deliver) -> None:
        """Prepare the thread.

        Args:
            credentials: Who we are; kopf logs in by the same.
            identity: By what name kopf knows this process.
            namespace: Where the workers' pods and the DistributedWorkers are.
            deliver: Called in the loop that called `start`.
        """
        self._credentials = credentials
        self._identity = identity
        self._namespace = namespace
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether kopf has begun to watch."""
        return self._ready.is_set()

    async def stop(self) -> None:
        """Ask kopf to end, and wait for it."""
        self._stop.set()
        await asyncio.to_thread(self._thread.join, STOP_SECONDS)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                asyncio.run(
                    kopf.operator(
                        registry=self._registry(),
                        settings=_settings(),
                        namespaces=[self._namespace],
                        standalone=True,
                        # Kopf would make one up from the user's name, and the user of a container has none.
                        identity=cast("Any", self._identity),
                        stop_flag=self._stop,
                        ready_flag=self._ready,
                    )
                )
            except Exception:  # noqa: BLE001 - whatever it is: the operator goes on without, and kopf is started anew
                _LOG.exception("kopf ended")
            self._ready.clear()
            self._stop.wait(RESTART_SECONDS)

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        # Coroutines, though none of them waits: kopf would run plain functions in threads of their own.
        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.ConnectionInfo:
            return connection_info(self._credentials)

        @kopf.on.event("", "v1", "pods", labels=WORKER_PODS, registry=registry)
        async def pod(body: kopf.Body, **_: Any) -> None:
            metadata = body.metadata
            self._hand_over(PodSeen(metadata["uid"], metadata["name"], containers_ended(body)))

        @kopf.on.event(names.GROUP, names.VERSION, names.WORKER_PLURAL, registry=registry)
        async def worker(name: str, type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf's name
            resource = cast("RawWorker", {"metadata": {"name": name}, "status": dict(body.status)})
            self._hand_over(WorkerSeen(name, type == "DELETED", resource))

        return registry

    def _hand_over(self, seen: PodSeen | WorkerSeen) -> None:
        if not self._stop.is_set():
            self._loop.call_soon_threadsafe(self._deliver, seen)


def connection_info(credentials: Credentials) -> kopf.ConnectionInfo:
    """The same credentials in kopf's words."""
    configuration = credentials.configuration
    token: Mapping[str, str] = configuration.api_key or {}
    header = token.get("BearerToken", "").strip()  # a token file may end with a newline
    scheme, _, value = header.partition(" ")
    return kopf.ConnectionInfo(
        server=credentials.server,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        username=configuration.username or None,
        password=configuration.password or None,
        scheme=scheme if value else None,
        token=(value or scheme) or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        proxy_url=credentials.proxy,
    )


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    # A worker task of kopf lives for this long after its object's last event: short, or memory grows with the burst.
    settings.queueing.idle_timeout = 0.1
    settings.watching.chunk_size = 500
    settings.watching.server_timeout = 60
    settings.watching.client_timeout = 75
    settings.networking.request_timeout = 30
    return settings
