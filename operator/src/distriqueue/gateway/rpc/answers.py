"""What answers the calls of JobService: the service layer, called as REST calls it.

Guarantees: nothing is decided here. Each method takes the caller and a message, and returns a message; what is refused
is a `Problem`.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import lru_cache
from typing import Final

from distriqueue.gateway.changes import ChangeKind
from distriqueue.gateway.identities import Identity
from distriqueue.gateway.problems import FieldError, Problem, Unprocessable
from distriqueue.gateway.queries import DEFAULT_LIMIT
from distriqueue.gateway.rpc import conversions
from distriqueue.gateway.rpc.refusals import message_of
from distriqueue.gateway.rpc.stubs import jobs_pb2
from distriqueue.gateway.services import JobRef, JobService, Submitted
from distriqueue.gateway.views import JobSubmission, JobView

BATCH_LIMIT: Final = 1000
"""Most submissions of one call."""

SHARED: Final = 64
"""Jobs that were just told, and are kept as messages for the other streams; each may have some 100 KiB."""

_KINDS: Final = {
    ChangeKind.JOB: jobs_pb2.CHANGE_KIND_JOB,
    ChangeKind.DELETED: jobs_pb2.CHANGE_KIND_DELETED,
    ChangeKind.RESET: jobs_pb2.CHANGE_KIND_RESET,
    ChangeKind.SYNCED: jobs_pb2.CHANGE_KIND_SYNCED,
}


class JobAnswers:
    """One method for each call, by its name in snake_case. Every one raises `Problem`s only."""

    def __init__(self, jobs: JobService) -> None:
        self._jobs = jobs

    async def submit(self, caller: Identity, request: jobs_pb2.SubmitRequest) -> jobs_pb2.SubmitResponse:
        """Create a job."""
        submitted = await self._jobs.submit(
            caller,
            request.namespace or None,
            conversions.submission(request.job),
            idempotency_key=request.idempotency_key or None,
            dry_run=request.dry_run,
        )
        found = submitted.explanation
        return jobs_pb2.SubmitResponse(
            job=conversions.job(submitted.job),
            created=submitted.created,
            explanation=None if found is None else conversions.explanation(found),
        )

    async def submit_many(self, caller: Identity, request: jobs_pb2.SubmitManyRequest) -> jobs_pb2.SubmitManyResponse:
        """Create jobs; what cannot be read is refused for itself, and the others are created."""
        if len(request.jobs) > BATCH_LIMIT:
            wrong = FieldError("/jobs", f"{len(request.jobs)} submissions: send at most {BATCH_LIMIT} in one call")
            raise Unprocessable("1 field is not as it has to be: see errors", errors=(wrong,))
        read = [_read(message) for message in request.jobs]
        good = [item for item in read if isinstance(item, JobSubmission)]
        made = iter(await self._jobs.submit_many(caller, request.namespace or None, good))
        return jobs_pb2.SubmitManyResponse(
            outcomes=[_outcome(item if isinstance(item, Problem) else next(made)) for item in read]
        )

    async def get(self, caller: Identity, request: jobs_pb2.GetRequest) -> jobs_pb2.GetResponse:
        """Return a job."""
        return jobs_pb2.GetResponse(job=conversions.job(await self._jobs.get(caller, JobRef.parse(request.id))))

    async def list(self, caller: Identity, request: jobs_pb2.ListRequest) -> jobs_pb2.ListResponse:
        """Return a page."""
        query = conversions.query(
            request.filter,
            limit=request.page_size or DEFAULT_LIMIT,
            cursor=request.page_token,
            order=request.order,
        )
        return conversions.page(await self._jobs.list(caller, query))

    async def watch(self, caller: Identity, request: jobs_pb2.WatchRequest) -> AsyncGenerator[jobs_pb2.WatchResponse]:
        """Follow jobs."""
        query = conversions.query(request.filter)
        async with aclosing(self._jobs.watch(caller, query, since=request.position or None)) as changes:
            async for change in changes:
                if change.kind not in _KINDS:
                    continue  # a position without a change has no message
                yield jobs_pb2.WatchResponse(
                    kind=_KINDS[change.kind],
                    position=change.id,
                    job=_shown(change.data) if change.data else None,
                )

    async def cancel(self, caller: Identity, request: jobs_pb2.CancelRequest) -> jobs_pb2.CancelResponse:
        """Ask for the end of a job."""
        return jobs_pb2.CancelResponse(job=conversions.job(await self._jobs.cancel(caller, JobRef.parse(request.id))))

    async def retry(self, caller: Identity, request: jobs_pb2.RetryRequest) -> jobs_pb2.RetryResponse:
        """Have a job run again."""
        return jobs_pb2.RetryResponse(job=conversions.job(await self._jobs.retry(caller, JobRef.parse(request.id))))

    async def suspend(self, caller: Identity, request: jobs_pb2.SuspendRequest) -> jobs_pb2.SuspendResponse:
        """Let no attempt start."""
        return jobs_pb2.SuspendResponse(job=conversions.job(await self._jobs.suspend(caller, JobRef.parse(request.id))))

    async def resume(self, caller: Identity, request: jobs_pb2.ResumeRequest) -> jobs_pb2.ResumeResponse:
        """Let attempts start again."""
        return jobs_pb2.ResumeResponse(job=conversions.job(await self._jobs.resume(caller, JobRef.parse(request.id))))

    async def explain(self, caller: Identity, request: jobs_pb2.ExplainRequest) -> jobs_pb2.ExplainResponse:
        """Say what a job waits for."""
        found = await self._jobs.explain(caller, JobRef.parse(request.id))
        return jobs_pb2.ExplainResponse(explanation=conversions.explanation(found))


@lru_cache(maxsize=SHARED)
def _shown(data: bytes) -> jobs_pb2.Job:
    """Return the job of a change; all streams get the same bytes, at about the same time."""
    return conversions.job(JobView.model_validate_json(data))


def _read(message: jobs_pb2.JobSubmission) -> JobSubmission | Problem:
    try:
        return conversions.submission(message)
    except Problem as problem:
        return problem


def _outcome(made: Submitted | Problem) -> jobs_pb2.SubmitOutcome:
    if isinstance(made, Problem):
        return jobs_pb2.SubmitOutcome(problem=message_of(made))
    return jobs_pb2.SubmitOutcome(job=conversions.job(made.job))
