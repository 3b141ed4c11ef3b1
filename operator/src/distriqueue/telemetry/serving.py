"""The operator's own HTTP port: `/metrics`, `/healthz`, `/readyz`.

Guarantees: answers come from the event loop that does the work, so an answer proves that the loop turns. Liveness
depends on nothing else, above all not on the backlog: a restart would not make it shorter. Readiness is a predicate
that is passed in. Fails with `OSError` at `start` when the port is taken.
"""

from collections.abc import Callable, Mapping

from aiohttp import web
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest


def process_registry() -> CollectorRegistry:
    """Return a registry with what Prometheus knows of every Python process."""
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry


class StatusServer:
    """Serves metrics and probes."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        ready: Callable[[], Mapping[str, bool]],
        sample: Callable[[], None],
    ) -> None:
        """Prepare the server.

        Args:
            registry: What `/metrics` shows.
            ready: The conditions of readiness by name; all must hold.
            sample: Called before each scrape, to bring gauges up to date.
        """
        self._registry = registry
        self._ready = ready
        self._sample = sample
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, *, host: str, port: int) -> None:
        """Listen.

        Args:
            host: The address to bind.
            port: The port; 0 for any, found in `port` afterwards.
        """
        app = web.Application()
        app.add_routes(
            [web.get("/metrics", self._metrics), web.get("/healthz", self._healthz), web.get("/readyz", self._readyz)]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        self._sample()
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        conditions = self._ready()
        text = "".join(f"{'ok' if holds else 'NOT'} {name}\n" for name, holds in conditions.items())
        return web.Response(text=text, status=200 if all(conditions.values()) else 503)
