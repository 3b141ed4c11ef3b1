"""The routes of workers: the list of all of them, and the protocol of those that speak HTTP alone.

Guarantees: they hand what they read to the desk (`distriqueue.gateway.http_workers`) and show what it says; custody is
its matter. Fails with the desk's problems.
"""

from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from distriqueue.gateway.http_workers import FORWARDED_HEADER, Passage
from distriqueue.gateway.http_workers.messages import (
    WAIT_LIMIT_SECONDS,
    HeartbeatAnswer,
    HeartbeatRequest,
    JobReportRequest,
    NextAnswer,
    NextRequest,
    Registered,
    RegisterRequest,
    ReportAnswer,
    ReportRequest,
    Session,
)
from distriqueue.gateway.identities import Identity
from distriqueue.gateway.rest.answers import shown
from distriqueue.gateway.rest.bodies import read_model
from distriqueue.gateway.rest.callers import Caller, token_of
from distriqueue.gateway.rest.departures import while_there
from distriqueue.gateway.rest.documents import answer, takes
from distriqueue.gateway.rest.doors import doors_of
from distriqueue.gateway.rest.failures import responses
from distriqueue.gateway.rest.parameters import NamePart, NamespacePart, Uid, WorkerPart
from distriqueue.gateway.services import JobRef
from distriqueue.gateway.views import WorkerList, WorkerView

router: Final = APIRouter(tags=["workers"], default_response_class=Response)

ModelT = TypeVar("ModelT", bound=BaseModel)

SessionPart = Annotated[
    str,
    Path(
        description="The session, as the registration gave it.",
        json_schema_extra={"pattern": "^[A-Za-z0-9_.-]+$", "minLength": 1, "maxLength": 2048},
    ),
]
Wait = Annotated[float, Query(ge=0, le=WAIT_LIMIT_SECONDS, description="Seconds to wait for a job when there is none.")]


class SessionNextRequest(NextRequest):
    """Ask for jobs, with the session in the body."""

    session: Session = Field(description="As the registration gave it.")


class SessionReportRequest(ReportRequest):
    """How an attempt ended, with the session in the body."""

    session: Session = Field(description="As the registration gave it.")


READ: Final = (SessionNextRequest, SessionReportRequest)

_SESSION: Final = responses(400, 403, 404, 410, 413, 415, 422)
_REPORT: Final = responses(400, 403, 404, 409, 410, 413, 415, 422)
_GRANT: Final = "4711-12"


@router.get(
    "/api/workers",
    operation_id="listWorkers",
    summary="List workers",
    responses={200: answer(WorkerList, "All workers."), **responses(403)},
    response_model=None,
)
async def list_workers(request: Request, caller: Caller) -> Response:
    """List the workers that the operator knows, also those that went offline of late."""
    return shown(await doors_of(request).cluster.workers(caller))


@router.get(
    "/api/workers/{name:worker}",
    operation_id="getWorker",
    summary="Read a worker",
    responses={200: answer(WorkerView, "The worker."), **responses(403, 404)},
    response_model=None,
)
async def get_worker(request: Request, caller: Caller, name: WorkerPart) -> Response:
    """Read a worker."""
    return shown(await doors_of(request).cluster.worker(caller, name))


@router.post(
    "/api/workers/register",
    operation_id="registerWorker",
    summary="Begin a session",
    responses={
        200: answer(Registered, "The session, once the broker has confirmed it."),
        **responses(400, 403, 409, 410, 413, 415, 422),
    },
    openapi_extra=takes(RegisterRequest, mail={"name": "shell-1", "types": ["email"], "capacity": 2}),
    response_model=None,
)
async def register(request: Request, caller: Caller) -> Response:
    """Begin to work: needs the verb `run` on distributedjobs in the namespaces whose jobs are taken."""
    return shown(await doors_of(request).workers.register(caller, await _body(request, RegisterRequest)))


@router.post(
    "/api/workers/{session}/heartbeat",
    operation_id="heartbeat",
    summary="Say that the worker lives, and what it has",
    responses={200: answer(HeartbeatAnswer, "The broker has it."), **_SESSION},
    openapi_extra=takes(HeartbeatRequest, idle={"received": 3, "jobs": []}),
    response_model=None,
)
async def heartbeat(request: Request, caller: Caller, session: SessionPart) -> Response:
    """Tell all that the worker has, every 5 seconds. What is not answered by 200 does not count as a heartbeat."""
    beat = await _body(request, HeartbeatRequest)
    return shown(await doors_of(request).workers.heartbeat(caller, session, beat, passage=_passage(request)))


@router.post(
    "/api/workers/{session}/jobs/next",
    operation_id="nextJobs",
    summary="Ask for jobs",
    responses={200: answer(NextAnswer, "Jobs to start; none when there were none in time."), **_SESSION},
    openapi_extra=takes(NextRequest, one={"received": 3, "max": 1}),
    response_model=None,
)
async def next_jobs(request: Request, caller: Caller, session: SessionPart, wait: Wait = 0.0) -> Response:
    """Ask for jobs, and wait for them."""
    return await _next(request, caller, session, await _body(request, NextRequest), wait)


@router.post(
    "/api/jobs/next",
    operation_id="nextJobsOfSession",
    summary="Ask for jobs, with the session in the body",
    responses={200: answer(NextAnswer, "Jobs to start; none when there were none in time."), **_SESSION},
    openapi_extra=takes(SessionNextRequest, one={"session": "SESSION", "received": 3, "max": 1}),
    response_model=None,
)
async def next_jobs_of_session(request: Request, caller: Caller, wait: Wait = 0.0) -> Response:
    """The same as POST /api/workers/{session}/jobs/next."""
    asked = await _body(request, SessionNextRequest)
    return await _next(request, caller, asked.session, asked, wait)


@router.post(
    "/api/workers/{session}/jobs/report",
    operation_id="reportJob",
    summary="Report an attempt",
    responses={200: answer(ReportAnswer, "The broker has the report: the worker may forget the job."), **_REPORT},
    openapi_extra=takes(ReportRequest, success={"grant": _GRANT, "outcome": "succeeded", "result": {"sum": 3}}),
    response_model=None,
)
async def report(request: Request, caller: Caller, session: SessionPart) -> Response:
    """Say how an attempt ended. 409 says that nobody wants to know it from this session any more."""
    return await _report(request, caller, session, await _body(request, ReportRequest))


@router.post(
    "/api/jobs/report",
    operation_id="reportJobOfSession",
    summary="Report an attempt, with the session in the body",
    responses={200: answer(ReportAnswer, "The broker has the report: the worker may forget the job."), **_REPORT},
    openapi_extra=takes(
        SessionReportRequest, success={"session": "SESSION", "grant": _GRANT, "outcome": "succeeded", "result": 3}
    ),
    response_model=None,
)
async def report_of_session(request: Request, caller: Caller) -> Response:
    """The same as POST /api/workers/{session}/jobs/report."""
    reported = await _body(request, SessionReportRequest)
    return await _report(request, caller, reported.session, reported)


@router.post(
    "/api/workers/{session}/leave",
    operation_id="leave",
    summary="End a session",
    status_code=204,
    responses={204: {"description": "The session is over."}, **responses(403, 404, 410)},
    response_model=None,
)
async def leave(request: Request, caller: Caller, session: SessionPart) -> Response:
    """End a session: the worker runs nothing any more. What it has not reported is tried again elsewhere."""
    await doors_of(request).workers.leave(caller, session, passage=_passage(request))
    return Response(status_code=204)


_PUT: Final[dict[str, Any]] = {
    "methods": ["PUT"],
    "summary": "Report an attempt to its job",
    "responses": {200: answer(ReportAnswer, "The broker has the report."), **_REPORT, **responses(405)},
    "openapi_extra": takes(
        JobReportRequest, success={"session": "SESSION", "grant": _GRANT, "outcome": "succeeded", "result": 3}
    ),
    "response_model": None,
    "tags": ["jobs"],
}


async def put_status(request: Request, caller: Caller, uid: Uid) -> Response:
    """Say how an attempt of a job ended: needs the grant of that attempt and the session that it was given to."""
    return await _report_job(request, caller, JobRef(uid=uid))


async def put_status_by_name(request: Request, caller: Caller, namespace: NamespacePart, name: NamePart) -> Response:
    """Say how an attempt of a job ended: needs the grant of that attempt and the session that it was given to."""
    return await _report_job(request, caller, JobRef(namespace=namespace, name=name))


router.add_api_route("/api/jobs/{uid:uid}/status", put_status, operation_id="putJobStatus", **_PUT)
router.add_api_route(
    "/api/jobs/{namespace:namespace}/{name:name}/status",
    put_status_by_name,
    operation_id="putJobStatusByName",
    **_PUT,
)


async def _next(request: Request, caller: Identity, session: str, asked: NextRequest, wait: float) -> Response:
    desk = doors_of(request).workers
    polling = desk.next(caller, session, asked, wait=wait, passage=_passage(request))
    return shown(await while_there(request, polling))


async def _report(request: Request, caller: Identity, session: str, reported: ReportRequest) -> Response:
    desk = doors_of(request).workers
    return shown(await desk.report(caller, session, reported, passage=_passage(request)))


async def _report_job(request: Request, caller: Identity, ref: JobRef) -> Response:
    reported = await _body(request, JobReportRequest)
    desk = doors_of(request).workers
    return shown(await desk.report_job(caller, ref, reported, passage=_passage(request)))


def _passage(request: Request) -> Passage:
    headers = request.headers
    return Passage(token=token_of(headers.get("authorization")), forwarded=FORWARDED_HEADER in headers)


async def _body(request: Request, model: type[ModelT]) -> ModelT:
    return await read_model(request, model, limit=doors_of(request).settings.request_limit_bytes)
