"""The gateway's metrics, on an injected registry: one class holds them all.

Guarantees: names and labels are part of the product (docs/metrics.md); no label has values that callers choose freely:
a route is its template, a method that no route knows is `OTHER`.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

METHODS: Final = frozenset({"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"})
UNMATCHED: Final = "unmatched"
"""The route of a request that no route matched."""

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class GatewayMetrics:
    """Everything that the gateway counts.

    Attributes:
        open_streams: How many there are now, REST's and gRPC's.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Histogram(
            "distriqueue_gateway_request_seconds",
            "Requests of the REST interface, from their head to the end of the answer; streams are not among them.",
            ["route", "method", "status"],
            registry=registry,
            buckets=_SECONDS,
        )
        self._calls = Histogram(
            "distriqueue_gateway_rpc_seconds",
            "Calls of the gRPC interface, from their message to the end of the answer; streams are not among them.",
            ["call", "code"],
            registry=registry,
            buckets=_SECONDS,
        )
        self.requests_under_way = Gauge(
            "distriqueue_gateway_requests_under_way", "Requests that have no answer yet.", registry=registry
        )
        self._streams = Gauge("distriqueue_gateway_streams", "Streams of changes that are open.", registry=registry)
        self.open_streams = 0
        self._streams_ended = Counter(
            "distriqueue_gateway_streams_ended_total",
            "Streams of changes that ended, by what ended them.",
            ["reason"],
            registry=registry,
        )
        self.events_sent = Counter(
            "distriqueue_gateway_stream_events_total", "Events that were sent on streams.", registry=registry
        )
        self.limited = Counter(
            "distriqueue_gateway_requests_limited_total", "Requests refused for their caller's rate.", registry=registry
        )
        self._reviews = Counter(
            "distriqueue_gateway_reviews_total",
            "Questions for who a token is (token) and what its owner may do (access), by how they were answered.",
            ["kind", "outcome"],
            registry=registry,
        )
        self.jobs_cached = Gauge("distriqueue_gateway_jobs_cached", "Jobs in the cache.", registry=registry)
        self.feed_age = Gauge(
            "distriqueue_gateway_feed_last_event_age_seconds",
            "Seconds since the watch of jobs was last heard.",
            registry=registry,
        )
        for reason in ("Client", "Slow", "Stalled", "Stopping", "Error"):
            self._streams_ended.labels(reason)

    def request_ended(self, *, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            route: Its route's template, or `UNMATCHED`.
            method: As it came.
            status: Of the answer.
            seconds: What it took.
        """
        self._requests.labels(route, method if method in METHODS else "OTHER", str(status)).observe(seconds)

    def call_ended(self, *, call: str, code: str, seconds: float) -> None:
        """Count a call of gRPC.

        Args:
            call: Its name in the proto.
            code: The status code's name, such as `OK`.
            seconds: What it took.
        """
        self._calls.labels(call, code).observe(seconds)

    def review(self, kind: str, outcome: str) -> None:
        """Count a question for who a token is, or for what its owner may do, and how it was answered."""
        self._reviews.labels(kind, outcome).inc()

    def stream_began(self) -> None:
        """Count a stream."""
        self.open_streams += 1
        self._streams.set(self.open_streams)

    def stream_ended(self, reason: str) -> None:
        """Count a stream's end.

        Args:
            reason: `Client` (it went away), `Slow` (too many changes waited for it), `Stalled` (it took nothing),
                `Stopping` (this replica ends), `Error`.
        """
        self.open_streams -= 1
        self._streams.set(self.open_streams)
        self._streams_ended.labels(reason).inc()
