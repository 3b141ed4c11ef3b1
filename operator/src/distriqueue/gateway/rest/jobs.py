"""The routes of jobs: each reads its parameters, calls the one service, and shows what that says.

Guarantees: every route that names a job has two paths, by uid and by namespace and name, and does the same at both.
Fails with the problems of the services.
"""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.requests import Request
from starlette.responses import Response

from distriqueue.gateway.identities import Identity
from distriqueue.gateway.problems import InvalidRequest, Problem, Unavailable
from distriqueue.gateway.rest.answers import JSON, shown
from distriqueue.gateway.rest.bodies import read_model
from distriqueue.gateway.rest.callers import Caller
from distriqueue.gateway.rest.documents import answer, header, takes
from distriqueue.gateway.rest.doors import doors_of
from distriqueue.gateway.rest.failures import ProblemDocument, responses
from distriqueue.gateway.rest.parameters import (
    POSITION_LIMIT,
    ListQuery,
    NamePart,
    NamespacePart,
    StatisticsQuery,
    StreamQuery,
    Uid,
)
from distriqueue.gateway.rest.streams import MEDIA_TYPE, EventStream
from distriqueue.gateway.services import JobRef
from distriqueue.gateway.views import ExplanationView, JobPage, JobSubmission, JobView, Namespace, Statistics, View

BATCH_LIMIT: Final = 1000
"""Most submissions of one batch."""

router: Final = APIRouter(tags=["jobs"], default_response_class=Response)


class DryRun(View):
    """What would become of a submission. Nothing was created."""

    job: JobView
    """The job as it would be created, with all defaults."""
    explanation: ExplanationView | None = None
    """What it would wait for."""


class Batch(BaseModel):
    """Several jobs at once."""

    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", use_attribute_docstrings=True, validate_by_name=True
    )

    namespace: Namespace | None = None
    """Of those that name none."""
    jobs: Annotated[list[JobSubmission], Field(min_length=1, max_length=BATCH_LIMIT)]
    """The jobs, 1 to 1000. Each is made or refused by itself."""


class BatchItem(View):
    """What became of one of them: a job or a problem."""

    job: JobView | None = None
    """The job that was made."""
    problem: ProblemDocument | None = None
    """Why it was not."""


class BatchAnswer(View):
    """What became of each, in the order of the submissions."""

    items: list[BatchItem]
    """As many as there were jobs."""
    created: int
    """How many were made."""
    refused: int
    """How many were not."""


READ: Final = (Batch,)
WRITTEN: Final = (DryRun, BatchAnswer)

_EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "email": {"type": "email", "payload": {"to": "ann@example.com", "subject": "Hello"}, "priority": "High"},
    "calculate": {
        "namespace": "default",
        "name": "sum-1",
        "labels": {"app": "shop"},
        "type": "calculate",
        "payload": {"operation": "add", "operands": [2, 3]},
        "maxAttempts": 5,
        "timeoutSeconds": 60,
    },
}
_LOCATION: Final = header("The path of the job.")
_ETAG: Final = header("Changes with the job; send it back as If-None-Match.")

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[!-~]([ -~]*[!-~])?$",
        description="With the same key, the same caller gets the same job in the same namespace, however often it "
        "asks: 201 the first time, 200 afterwards, and 422 for a request that asks for something else.",
    ),
]


DryRunFlag = Annotated[
    bool, Query(alias="dryRun", description="true: only say whether it would be taken, and what it would wait for.")
]

# --- submitting ------------------------------------------------------------------------------------------------------


async def submit(
    request: Request,
    caller: Caller,
    idempotency_key: IdempotencyKey = None,
    dry_run: DryRunFlag = False,  # noqa: FBT002 - of the query: nobody calls it by position
) -> Response:
    """Submit a job.

    It is taken while no leader exists and while the broker is down, too, and runs when they are back.
    """
    doors = doors_of(request)
    submission = await read_model(request, JobSubmission, limit=doors.settings.request_limit_bytes)
    made = await doors.jobs.submit(caller, None, submission, idempotency_key=idempotency_key, dry_run=dry_run)
    if dry_run:
        return shown(DryRun(job=made.job, explanation=made.explanation))
    headers = {"Location": f"/api/jobs/{made.job.id}"}
    return shown(made.job, status=201 if made.created else 200, headers=headers)


_SUBMIT: Final[dict[int | str, dict[str, Any]]] = {
    201: answer(JobView, "The job was created.", headers={"Location": _LOCATION}),
    200: {
        "description": "The job of an earlier request with this Idempotency-Key; or, of a dry run, what would be.",
        "headers": {"Location": header("The path of the job; not of a dry run.", required=False)},
        "content": {
            JSON: {
                "schema": {"anyOf": [{"$ref": "#/components/schemas/JobView"}, {"$ref": "#/components/schemas/DryRun"}]}
            }
        },
    },
    **responses(400, 403, 404, 409, 413, 415, 422),
}
for _path, _operation, _summary in (
    ("/api/jobs", "submitJob", "Submit a job"),
    ("/api/jobs/register", "registerJob", "Submit a job (the same as POST /api/jobs)"),
):
    router.add_api_route(
        _path,
        submit,
        methods=["POST"],
        operation_id=_operation,
        summary=_summary,
        status_code=201,
        responses=_SUBMIT,
        openapi_extra=takes(JobSubmission, **_EXAMPLES),
        response_model=None,
    )


@router.post(
    "/api/jobs/batch",
    operation_id="submitJobs",
    summary="Submit many jobs",
    responses={200: answer(BatchAnswer, "What became of each."), **responses(400, 403, 413, 415, 422)},
    openapi_extra=takes(Batch, two={"namespace": "default", "jobs": list(_EXAMPLES.values())}),
    response_model=None,
)
async def submit_batch(request: Request, caller: Caller) -> Response:
    """Submit up to 1000 jobs in one request.

    A body that is not as it has to be refuses all of them. After that each is made or refused by itself.
    """
    doors = doors_of(request)
    batch = await read_model(request, Batch, limit=doors.settings.request_limit_bytes)
    found = await doors.jobs.submit_many(caller, None, [_placed(job, batch.namespace) for job in batch.jobs])
    items = [
        BatchItem(problem=ProblemDocument.model_validate(one.document()))
        if isinstance(one, Problem)
        else BatchItem(job=one.job)
        for one in found
    ]
    created = sum(item.job is not None for item in items)
    return shown(BatchAnswer(items=items, created=created, refused=len(items) - created))


def _placed(submission: JobSubmission, namespace: str | None) -> JobSubmission:
    if namespace is None or submission.namespace is not None:
        return submission
    return submission.model_copy(update={"namespace": namespace})


# --- reading ---------------------------------------------------------------------------------------------------------


@router.get(
    "/api/jobs",
    operation_id="listJobs",
    summary="List jobs",
    responses={200: answer(JobPage, "A page of jobs."), **responses(403, 422)},
    response_model=None,
)
async def list_jobs(request: Request, caller: Caller, parameters: ListQuery) -> Response:
    """List jobs, newest first, by any of the filters.

    A page ends at about 8 MiB, too, before it has as many jobs as `limit` says: `next` tells whether there are more.
    Answered from memory: a job that was just made may not be there for some milliseconds.
    """
    return shown(await doors_of(request).jobs.list(caller, parameters.query()))


@router.get(
    "/api/jobs/statistics",
    operation_id="jobStatistics",
    summary="Count jobs",
    responses={200: answer(Statistics, "The counts."), **responses(403, 422)},
    response_model=None,
)
async def statistics(request: Request, caller: Caller, parameters: StatisticsQuery) -> Response:
    """Count jobs by status, type and pool, and tell what ended of late, how long it waited and how long it ran."""
    return shown(await doors_of(request).jobs.statistics(caller, parameters.query()))


@router.get(
    "/api/jobs/stream",
    operation_id="streamJobs",
    summary="Follow jobs",
    responses={
        200: {
            "description": "Server-sent events: `job` and `deleted` with a JobView as data, `synced` when all that was "
            "there at the beginning has been said, `reset` when everything that was heard before is void, `problem` as "
            "the last one before the gateway ends the stream. Comments fill silences.",
            "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
        },
        **responses(400, 403, 422),
    },
    response_model=None,
)
async def stream(
    request: Request,
    caller: Caller,
    parameters: StreamQuery,
    last_event_id: Annotated[
        str | None,
        Header(
            alias="Last-Event-ID",
            max_length=POSITION_LIMIT,
            description="The id of the last event that was read: the stream goes on after it.",
        ),
    ] = None,
) -> Response:
    """Follow jobs as server-sent events: first those that are there, then every change.

    After a cut, a client goes on with the id of the last event that it has read, at any replica, and hears of every job
    that changed meanwhile once, in its latest state.
    """
    doors = doors_of(request)
    if doors.metrics.open_streams >= doors.settings.streams:
        raise Unavailable("this replica has as many streams open as it may: try again, or another one", retry_after=5.0)
    since = last_event_id or parameters.last_event_id or None
    if since is not None and not since.isprintable():
        raise InvalidRequest("Last-Event-ID is no id of this stream: send the one of the last event as it came")
    changes = doors.jobs.watch(caller, parameters.query(), since=since)
    return await EventStream.begin(changes, settings=doors.settings, metrics=doors.metrics, closing=doors.closing)


# --- one job ---------------------------------------------------------------------------------------------------------

Act = Callable[[Request, Identity, JobRef], Awaitable[Response]]


def both_ways(
    method: str, suffix: str, *, operation: str, summary: str, responses_: dict[int | str, dict[str, Any]]
) -> Callable[[Act], Act]:
    """Give a route its two paths.

    Args:
        method: Of HTTP.
        suffix: What follows the job's name.
        operation: Its id; the one by name has `ByName` behind it.
        summary: Its title.
        responses_: What it answers.
    """

    def add(act: Act) -> Act:
        async def by_uid(request: Request, caller: Caller, uid: Uid) -> Response:
            return await act(request, caller, JobRef(uid=uid))

        async def by_name(request: Request, caller: Caller, namespace: NamespacePart, name: NamePart) -> Response:
            return await act(request, caller, JobRef(namespace=namespace, name=name))

        for path, endpoint, ending in (
            (f"/api/jobs/{{uid:uid}}{suffix}", by_uid, ""),
            (f"/api/jobs/{{namespace:namespace}}/{{name:name}}{suffix}", by_name, "ByName"),
        ):
            router.add_api_route(
                path,
                endpoint,
                methods=[method],
                operation_id=operation + ending,
                summary=summary,
                description=act.__doc__,
                responses=responses_,
                status_code=HTTPStatus.NO_CONTENT if HTTPStatus.NO_CONTENT in responses_ else HTTPStatus.OK,
                response_model=None,
            )
        return act

    return add


@both_ways(
    "GET",
    "",
    operation="getJob",
    summary="Read a job",
    responses_={
        200: answer(JobView, "The job.", headers={"ETag": _ETAG}),
        304: {"description": "It is as If-None-Match says."},
        **responses(403, 404),
    },
)
async def get_job(request: Request, caller: Identity, ref: JobRef) -> Response:
    """Read a job with its attempts, its result or its error."""
    job = await doors_of(request).jobs.get(caller, ref)
    tag = f'W/"{job.resource_version}"'
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers={"ETag": tag})
    return shown(job, headers={"ETag": tag})


@both_ways(
    "DELETE",
    "",
    operation="deleteJob",
    summary="Delete a job",
    responses_={204: {"description": "It is deleted."}, **responses(403, 404, 409)},
)
async def delete_job(request: Request, caller: Identity, ref: JobRef) -> Response:
    """Delete a job with its history. One that runs is stopped."""
    await doors_of(request).jobs.delete(caller, ref)
    return Response(status_code=204)


@both_ways(
    "GET",
    "/explain",
    operation="explainJob",
    summary="Say why a job waits",
    responses_={200: answer(ExplanationView, "Why it waits, and what to do."), **responses(403, 404)},
)
async def explain_job(request: Request, caller: Identity, ref: JobRef) -> Response:
    """Say what a job waits for, how many come first, and when it may start."""
    return shown(await doors_of(request).jobs.explain(caller, ref))


_CHANGED: Final[dict[int | str, dict[str, Any]]] = {
    200: answer(JobView, "The job as it is after the request; what it asks for follows."),
    **responses(403, 404, 405, 409, 422),
}


@both_ways("POST", "/cancel", operation="cancelJob", summary="Cancel a job", responses_=_CHANGED)
async def cancel_job(request: Request, caller: Identity, ref: JobRef) -> Response:
    """Cancel a job.

    One that waits never starts; of one that runs, the handler is told to stop. Again and again is fine.
    """
    return shown(await doors_of(request).jobs.cancel(caller, ref))


@both_ways("POST", "/retry", operation="retryJob", summary="Run a job again", responses_=_CHANGED)
async def retry_job(request: Request, caller: Identity, ref: JobRef) -> Response:
    """Run a job again, with its whole budget of attempts.

    One that waits for its next attempt starts at once; one that
    runs is stopped first.
    """
    return shown(await doors_of(request).jobs.retry(caller, ref))


@both_ways("POST", "/suspend", operation="suspendJob", summary="Suspend a job", responses_=_CHANGED)
async def suspend_job(request: Request, caller: Identity, ref: JobRef) -> Response:
    """Let no attempt of a job start until it is resumed. One that runs goes on to its end."""
    return shown(await doors_of(request).jobs.suspend(caller, ref))


@both_ways("POST", "/resume", operation="resumeJob", summary="Resume a job", responses_=_CHANGED)
async def resume_job(request: Request, caller: Identity, ref: JobRef) -> Response:
    """Let attempts of a suspended job start again."""
    return shown(await doors_of(request).jobs.resume(caller, ref))
