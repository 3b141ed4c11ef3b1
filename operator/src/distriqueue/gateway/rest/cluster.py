"""The routes of the cluster: who leads, how it is, and the figures of this replica."""

from typing import Any, Final

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from distriqueue.gateway.rest.answers import JSON, shown
from distriqueue.gateway.rest.callers import Caller
from distriqueue.gateway.rest.documents import answer
from distriqueue.gateway.rest.doors import doors_of
from distriqueue.gateway.rest.failures import responses
from distriqueue.gateway.views import ClusterStatus, Election, Health, Leader

router: Final = APIRouter(tags=["cluster"], default_response_class=Response)

_FIGURES: Final[dict[str, Any]] = {
    "description": "Figures by name.",
    "content": {JSON: {"schema": {"type": "object", "additionalProperties": {"type": "number"}}}},
}


@router.get(
    "/api/cluster/status",
    operation_id="clusterStatus",
    summary="The system in short",
    responses={200: answer(ClusterStatus, "The system in short."), **responses()},
    response_model=None,
)
async def cluster_status(request: Request, _caller: Caller) -> Response:
    """Who leads, whether the broker answers, and how many workers and jobs there are."""
    return shown(doors_of(request).cluster.cluster_status())


@router.get(
    "/api/raft/status",
    operation_id="election",
    summary="The election",
    responses={200: answer(Election, "The election."), **responses()},
    response_model=None,
)
async def election(request: Request, _caller: Caller) -> Response:
    """Who leads, since when and until when, by the Lease: this system elects by Kubernetes' own consensus."""
    return shown(doors_of(request).cluster.election())


@router.get(
    "/api/leader",
    operation_id="leader",
    summary="Who leads",
    responses={200: answer(Leader, "The leader."), **responses()},
    response_model=None,
)
async def leader(request: Request, _caller: Caller) -> Response:
    """Who leads; 503 when nobody does."""
    return shown(doors_of(request).cluster.leader())


@router.get(
    "/api/health",
    operation_id="health",
    summary="Whether jobs get done",
    responses={200: answer(Health, "The checks."), **responses()},
    response_model=None,
)
async def health(request: Request, _caller: Caller) -> Response:
    """Whether jobs get done. Jobs are taken in where they do not, too."""
    return shown(doors_of(request).cluster.health())


@router.get(
    "/api/metrics",
    operation_id="metrics",
    summary="Figures of this replica",
    responses={200: _FIGURES, **responses()},
    response_model=None,
)
async def metrics(request: Request, _caller: Caller) -> Response:
    """Some figures as JSON. Prometheus finds all of them at /metrics of the port for probes."""
    return Response(orjson.dumps(doors_of(request).cluster.metrics()), media_type=JSON)
