"""What the routes need, in one place: services, limits, metrics, and the word that this replica is about to end."""

import asyncio
from dataclasses import dataclass, field

from starlette.requests import Request

from distriqueue.gateway.http_workers import HttpWorkers
from distriqueue.gateway.identities import Access
from distriqueue.gateway.rest.limiting import RateLimiter
from distriqueue.gateway.services import ClusterService, JobService
from distriqueue.gateway.settings import GatewaySettings
from distriqueue.telemetry.gateways import GatewayMetrics


@dataclass(frozen=True)
class Doors:
    """See the module.

    Attributes:
        access: Says who a token is.
        jobs: The jobs.
        cluster: Workers, election and health.
        workers: The sessions of HTTP workers.
        settings: Limits above all.
        metrics: What is counted.
        limiter: How often a caller may ask.
        closing: Set when this replica ends: streams do, too.
    """

    access: Access
    jobs: JobService
    cluster: ClusterService
    workers: HttpWorkers
    settings: GatewaySettings
    metrics: GatewayMetrics
    limiter: RateLimiter
    closing: asyncio.Event = field(default_factory=asyncio.Event)


def doors_of(request: Request) -> Doors:
    """Return the doors of the app that serves a request."""
    found = request.app.state.doors
    if not isinstance(found, Doors):
        raise TypeError("the app was made without doors: it can describe itself and nothing more")
    return found
