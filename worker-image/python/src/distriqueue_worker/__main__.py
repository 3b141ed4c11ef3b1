"""`python -m distriqueue_worker`: run a worker until it is told to stop.

SIGTERM and SIGINT let handlers finish within the grace; a second one stops them at once. Exit codes: 0 left gracefully,
1 left with reports that the broker did not confirm, 2 wrong configuration, 70 a handler could not be stopped in time,
71 a fault of the program.
"""

import asyncio
import contextlib
import signal
import sys
from typing import Final

import uvloop
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from distriqueue_protocol.settings import SettingsError
from distriqueue_worker import logs
from distriqueue_worker.registries import Registry
from distriqueue_worker.serving import Endpoint
from distriqueue_worker.settings import Settings
from distriqueue_worker.tasks import TaskError
from distriqueue_worker.watchdogs import Watchdog
from distriqueue_worker.worker import Worker

EXIT_CONFIGURATION: Final = 2


def main() -> int:
    """Run the worker; return the exit code."""
    try:
        settings = Settings.load()
        logs.configure(settings.log_level, settings.log_format)
        registry = Registry.load(settings.worker_tasks, default_task=settings.worker_default_task)
        with logs.captured_output():
            return uvloop.run(_run(settings, registry))
    except (SettingsError, TaskError, OSError) as error:
        print(f"distriqueue-worker: {error}", file=sys.stderr)  # noqa: T201 - logging may not be set up
        return EXIT_CONFIGURATION


async def _run(settings: Settings, registry: Registry) -> int:
    metrics = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=metrics)
    worker = Worker(settings, registry, metrics)
    loop = asyncio.get_running_loop()
    graces = [settings.worker_shutdown_grace_seconds]
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: worker.stop(graces.pop() if graces else 0.0))
    endpoint = Endpoint(
        settings.http_host, settings.http_port, registry=metrics, alive=worker.alive, ready=worker.ready
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(endpoint)
        stack.enter_context(Watchdog(lambda: worker.custody.overdue_at))
        logs.get_logger().info("serving metrics and probes", host=settings.http_host, port=endpoint.port)
        return await worker.run()


if __name__ == "__main__":
    sys.exit(main())
