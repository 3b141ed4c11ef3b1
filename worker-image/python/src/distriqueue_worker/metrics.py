"""The metrics of a worker: all of them in one container, on a registry that is handed in.

Guarantees: names start with `distriqueue_worker_`, labels have few values (job types are those that the worker has a
handler for).
"""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

PREFIX: Final = "distriqueue_worker"
DURATION_BUCKETS: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
"""Seconds."""


class WorkerMetrics:
    """Counters and gauges of one worker process.

    Args:
        registry: Where they are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.jobs = Counter(f"{PREFIX}_jobs", "Handlers that ended.", ["type", "outcome"], registry=registry)
        self.duration = Histogram(
            f"{PREFIX}_job_duration_seconds",
            "From the start of a handler to its end.",
            ["type"],
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self.claims = Counter(f"{PREFIX}_claims", "Claims by what became of them.", ["answer"], registry=registry)
        self.tickets = Counter(
            f"{PREFIX}_tickets", "Tickets received, and of them handed back or rejected.", ["event"], registry=registry
        )
        self.heartbeats_sent = Counter(f"{PREFIX}_heartbeats_sent", "Heartbeats published.", registry=registry)
        self.heartbeats_confirmed = Counter(
            f"{PREFIX}_heartbeats_confirmed", "Heartbeats that the broker confirmed.", registry=registry
        )
        self.reports_published = Counter(
            f"{PREFIX}_reports_published", "Reports published, repetitions included.", registry=registry
        )
        self.reports_failed = Counter(
            f"{PREFIX}_reports_failed", "Reports that were published and not confirmed.", registry=registry
        )
        self.connections = Counter(
            f"{PREFIX}_connections", "Connections to the broker that were made.", registry=registry
        )
        self.fences = Counter(
            f"{PREFIX}_fences", "Incarnations that ended because the lease was lost.", registry=registry
        )
        self.grants_ignored = Counter(
            f"{PREFIX}_grants_ignored", "Grants for claims that were closed already.", registry=registry
        )
        for answer in ("Granted", "Closed"):
            self.claims.labels(answer)
        for event in ("received", "handed_back", "rejected"):
            self.tickets.labels(event)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Register a gauge that is read when it is scraped."""
        Gauge(f"{PREFIX}_{name}", text, registry=self.registry).set_function(read)
