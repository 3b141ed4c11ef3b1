"""The client: jobs by the gateway's REST interface, from asyncio. `blocking` has the same for everybody else.

Guarantees: a submission that was cut is never doubled. Each is sent with an Idempotency-Key, and those of a batch with
names that were made here, so it is repeated until it is answered. What may not be repeated (a retry by hand) is not.
Fails with `ClientError`, and with nothing else.
"""

import asyncio
import os
import re
import secrets
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack, overload

import pydantic
from pydantic.alias_generators import to_camel

from distriqueue.api.limits import NAME_LIMIT
from distriqueue.client.errors import (
    BatchRefused,
    ClientError,
    Conflict,
    FieldError,
    Forbidden,
    InvalidRequest,
    NotFound,
    ProblemError,
    UnexpectedAnswer,
    from_problem,
)
from distriqueue.client.following import Cut, follow, parse_job
from distriqueue.client.handles import JobHandle
from distriqueue.client.models import Change, Explanation, Filter, Job, JobPage, Options, parameters
from distriqueue.client.transport import Endpoint, Transport
from distriqueue.client.waiting import Watch
from distriqueue.gateway.views import JobSubmission

T = TypeVar("T")
Payload = Mapping[str, Any] | pydantic.BaseModel

BATCH: Final = 200
"""Most submissions of one request."""
BATCH_BYTES: Final = 4 * 1024 * 1024
"""Most bytes of one request for many: half of what the gateway takes. A single submission is far smaller."""
PAGE: Final = 200
"""Jobs of one request for a list."""
_NAME_RANDOM_BYTES: Final = 8


class AsyncClient:
    """A client of one gateway; an async context manager, or `close` it.

    Args:
        url: As in ``https://distriqueue-gateway.distriqueue:8000``.
        token: A bearer token of Kubernetes.
        token_file: A file with the token; read again when the token is refused, so a service account's may rotate.
        ca_file: Whom to trust with https, as PEM; the system's authorities without it.
        namespace: Of jobs, where a call names none.
        patience_seconds: How long a request is repeated when the gateway is away.

    Raises:
        ClientError: Both tokens were given, or a file cannot be read.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        token_file: str | Path | None = None,
        ca_file: str | Path | None = None,
        namespace: str = "default",
        patience_seconds: float = 30.0,
    ) -> None:
        self.namespace = namespace
        self._transport = Transport(
            Endpoint(
                url=url,
                token=token,
                token_file=None if token_file is None else Path(token_file),
                ca_file=None if ca_file is None else Path(ca_file),
                patience_seconds=patience_seconds,
            )
        )
        self._watches: dict[str, Watch] = {}

    @classmethod
    def from_environment(cls) -> Self:
        """Make a client as the environment says: DISTRIQUEUE_URL and so on; see docs/client.md.

        Raises:
            ClientError: DISTRIQUEUE_URL is not set, both tokens are, or a file cannot be read.
        """
        return cls(**environment())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End streams and connections. Jobs go on."""
        await asyncio.gather(*(watch.close() for watch in self._watches.values()))
        await self._transport.close()

    # --- submitting --------------------------------------------------------------------------------------------------

    @overload
    async def submit(
        self,
        type: str,
        payload: Payload | None = None,
        *,
        result_type: type[T] | pydantic.TypeAdapter[T],
        namespace: str | None = None,
        name: str | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[Options],
    ) -> JobHandle[T]: ...
    @overload
    async def submit(
        self,
        type: str,
        payload: Payload | None = None,
        *,
        namespace: str | None = None,
        name: str | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[Options],
    ) -> JobHandle[Any]: ...
    async def submit(
        self,
        type: str,  # noqa: A002 - the field's name
        payload: Payload | None = None,
        *,
        result_type: Any = None,
        namespace: str | None = None,
        name: str | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[Options],
    ) -> JobHandle[Any]:
        """Submit a job.

        Args:
            type: The kind of work.
            payload: The handler's input: a mapping, or a pydantic model.
            result_type: What the result is to be read as: a pydantic model, any other type, or a TypeAdapter.
            namespace: Where; the client's own without it.
            name: Of the resource; the gateway makes one without it.
            idempotency_key: With the same key the same caller gets the same job, from another process too. Without it,
                one is made that holds for this call.
            options: See `Options`.

        Raises:
            InvalidRequest: Something in it is wrong; `errors` names the fields.
            ClientError: The gateway refused, or did not answer.
        """
        asked = {} if name is None else {"name": name}
        submission = _submission(type, payload, {**options, **asked}, namespace=namespace or self.namespace)
        answer = await self._transport.request(
            "POST",
            "/api/jobs",
            body=_body(submission),
            headers={"Idempotency-Key": idempotency_key or uuid.uuid4().hex},
        )
        return JobHandle(self, parse_job(answer.content), _adapter(result_type))

    @overload
    async def submit_many(
        self,
        type: str,
        payloads: Iterable[Payload],
        *,
        result_type: type[T] | pydantic.TypeAdapter[T],
        namespace: str | None = None,
        **options: Unpack[Options],
    ) -> list[JobHandle[T]]: ...
    @overload
    async def submit_many(
        self,
        type: str,
        payloads: Iterable[Payload],
        *,
        namespace: str | None = None,
        **options: Unpack[Options],
    ) -> list[JobHandle[Any]]: ...
    async def submit_many(
        self,
        type: str,  # noqa: A002 - the field's name
        payloads: Iterable[Payload],
        *,
        result_type: Any = None,
        namespace: str | None = None,
        **options: Unpack[Options],
    ) -> list[JobHandle[Any]]:
        """Submit a job for each payload, in requests of many; they have names that were made here.

        Args:
            type: The kind of work, of all.
            payloads: Their inputs.
            result_type: As of `submit`.
            namespace: Where; the client's own without it.
            options: Of all; see `Options`.

        Returns:
            The jobs, in the order of the payloads.

        Raises:
            BatchRefused: Some were refused or not answered; it has the jobs that were made.
            ClientError: The gateway refused the request, or did not answer, and nothing is known to be made.
        """
        place = namespace or self.namespace
        adapter = _adapter(result_type)
        submissions = [
            _submission(type, payload, {**options, "name": _made_name(type)}, namespace=place) for payload in payloads
        ]
        outcomes: dict[int, Job | ClientError] = {}
        cause: ClientError | None = None
        try:
            for numbers in _batches([len(_body(submission)) for submission in submissions]):
                await self._submit_batch(submissions, numbers, outcomes, namespace=place)
        except ClientError as error:
            if not any(isinstance(outcome, Job) for outcome in outcomes.values()):
                raise
            # Whoever asked for them is to know those that are made.
            cause = error
            outcomes = {number: outcomes.get(number, error) for number in range(len(submissions))}
        made = {number: outcome for number, outcome in outcomes.items() if isinstance(outcome, Job)}
        refused = {number: outcome for number, outcome in outcomes.items() if isinstance(outcome, ClientError)}
        if refused:
            names = {number: submissions[number].name or "" for number in refused}
            raise BatchRefused(made, refused, names=names) from cause
        return [JobHandle(self, made[number], adapter) for number in range(len(submissions))]

    async def _submit_batch(
        self,
        submissions: Sequence[JobSubmission],
        numbers: Sequence[int],
        outcomes: dict[int, Job | ClientError],
        *,
        namespace: str,
    ) -> None:
        """Submit these in one request, and write down what became of each as soon as it is known."""
        waiting = [*numbers]
        repeated = False
        patience = self._transport.patience()
        while waiting:
            listed = b",".join(_body(submissions[number]) for number in waiting)
            try:
                answer = await self._transport.request(
                    "POST", "/api/jobs/batch", body=b'{"jobs":[' + listed + b"]}", patience_seconds=0
                )
            except ClientError as error:
                for number in waiting:
                    outcomes.pop(number, None)  # what was said before is no longer all that happened
                if not error.retryable:
                    raise
                # Some of them may have been made: those answer with a conflict from now on.
                repeated = True
                await patience.pause(error)
                continue
            for number, answered in zip(waiting, _items(answer.content, len(waiting)), strict=True):
                mine = repeated and isinstance(answered, Conflict)
                outcomes[number] = (
                    await self._found(f"{namespace}/{submissions[number].name}", answered) if mine else answered
                )
            passing = {
                number: outcome
                for number in waiting
                if isinstance(outcome := outcomes[number], ClientError) and outcome.retryable
            }
            waiting, repeated = [*passing], True
            if passing:
                try:
                    await patience.pause(next(iter(passing.values())))
                except ClientError:
                    break

    async def _found(self, job: str, conflict: Job | ProblemError) -> Job | ProblemError:
        """Return the job of an earlier try; the conflict where it is none: a quota, a namespace that ends."""
        try:
            return await self.get(job)
        except (NotFound, Forbidden):
            return conflict

    # --- reading -----------------------------------------------------------------------------------------------------

    async def get(self, job: str) -> Job:
        """Return a job as it is now.

        Args:
            job: Its id, or ``namespace/name``.

        Raises:
            NotFound: There is none.
            ClientError: The gateway refused, or did not answer.
        """
        return parse_job((await self._transport.request("GET", f"/api/jobs/{job}")).content)

    @overload
    async def handle(self, job: str, *, result_type: type[T] | pydantic.TypeAdapter[T]) -> JobHandle[T]: ...
    @overload
    async def handle(self, job: str) -> JobHandle[Any]: ...
    async def handle(self, job: str, *, result_type: Any = None) -> JobHandle[Any]:
        """Return a handle of a job that was submitted elsewhere.

        Args:
            job: Its id, or ``namespace/name``.
            result_type: As of `submit`.

        Raises:
            NotFound: There is none.
            ClientError: The gateway refused, or did not answer.
        """
        return JobHandle(self, await self.get(job), _adapter(result_type))

    async def list(
        self, *, namespace: str | None = None, oldest_first: bool = False, **filter_: Unpack[Filter]
    ) -> AsyncIterator[Job]:
        """Yield the jobs that match, page by page.

        Args:
            namespace: Of the jobs; the client's own without it, and ``"*"`` for all.
            oldest_first: Otherwise the newest come first.
            filter_: See `Filter`.

        Raises:
            ClientError: The gateway refused, or did not answer.
        """
        query = self._query(namespace, filter_)
        query |= {"limit": PAGE, "order": "oldest" if oldest_first else "newest"}
        while True:
            answer = await self._transport.request("GET", "/api/jobs", params=query)
            try:
                page = JobPage.model_validate_json(answer.content, extra="ignore")
            except pydantic.ValidationError as error:
                raise UnexpectedAnswer(f"the gateway sent a page that cannot be read: {error}") from error
            for job in page.items:
                yield job
            if page.next is None:
                return
            query["cursor"] = page.next

    async def watch(
        self, *, namespace: str | None = None, position: str | None = None, **filter_: Unpack[Filter]
    ) -> AsyncIterator[Change]:
        """Yield the jobs that match, and then every change, for ever; cuts are resumed.

        Args:
            namespace: As of `list`.
            position: Of the last change that was read; None begins with everything.
            filter_: See `Filter`.

        Raises:
            ClientError: The gateway refused.
        """
        async for change in follow(self._transport, self._query(namespace, filter_), position=position):
            if not isinstance(change, Cut):
                yield change

    async def explain(self, job: str) -> Explanation:
        """Say what a job waits for, and for how long about.

        Args:
            job: Its id, or ``namespace/name``.
        """
        answer = await self._transport.request("GET", f"/api/jobs/{job}/explain")
        try:
            return Explanation.model_validate_json(answer.content, extra="ignore")
        except pydantic.ValidationError as error:
            raise UnexpectedAnswer(f"the gateway sent an explanation that cannot be read: {error}") from error

    # --- changing ----------------------------------------------------------------------------------------------------

    async def cancel(self, job: str) -> Job:
        """Ask for the end of a job; the job's id, or ``namespace/name``."""
        return await self.change(job, "cancel")

    async def retry(self, job: str) -> Job:
        """Have a job run again; the job's id, or ``namespace/name``. Never repeated by itself."""
        return await self.change(job, "retry")

    async def suspend(self, job: str) -> Job:
        """Let no attempt of a job start; the job's id, or ``namespace/name``."""
        return await self.change(job, "suspend")

    async def resume(self, job: str) -> Job:
        """Let attempts of a job start again; the job's id, or ``namespace/name``."""
        return await self.change(job, "resume")

    async def delete(self, job: str) -> None:
        """Delete a job with its history; the job's id, or ``namespace/name``."""
        await self._transport.request("DELETE", f"/api/jobs/{job}", repeatable=False)

    async def change(self, job: str, verb: str) -> Job:
        """Cancel, retry, suspend or resume a job.

        Args:
            job: Its id, or ``namespace/name``.
            verb: Which of these.

        Raises:
            ClientError: The gateway refused, or did not answer.
        """
        # A second retry would ask for one more run; the others say what is to be, and may be said twice.
        answer = await self._transport.request("POST", f"/api/jobs/{job}/{verb}", repeatable=verb != "retry")
        return parse_job(answer.content)

    async def until_over(self, job: Job, *, since: datetime | None) -> Job:
        """Wait until a job is over.

        Args:
            job: As it was seen last.
            since: An end that does not count any more: the one before a retry.

        Raises:
            JobDeleted: It was deleted.
            ClientError: The gateway refuses to say.
        """
        watch = self._watches.get(job.namespace)
        if watch is None:
            watch = self._watches[job.namespace] = Watch(self._transport, job.namespace)
        return await watch.until_over(job, lambda seen: seen.finished and seen.completion_time != since)

    def _query(self, namespace: str | None, filter_: Mapping[str, Any]) -> dict[str, Any]:
        place = namespace or self.namespace
        return parameters(None if place == "*" else place, filter_)


def environment() -> dict[str, Any]:
    """Return the arguments of a client, as the environment says.

    Raises:
        ClientError: DISTRIQUEUE_URL is not set.
    """
    names = ("url", "token", "token_file", "ca_file", "namespace")
    found = {name: value for name in names if (value := os.environ.get(f"DISTRIQUEUE_{name.upper()}"))}
    if "url" not in found:
        raise ClientError("set DISTRIQUEUE_URL to the address of the gateway, as in https://gateway.example:8000")
    return found


def _submission(type_: str, payload: Payload | None, options: Mapping[str, Any], *, namespace: str) -> JobSubmission:
    # As they are sent, so that what is wrong has the same name whoever finds it.
    fields: dict[str, Any] = {to_camel(key): value for key, value in options.items()}
    fields |= {"type": type_, "namespace": namespace}
    if isinstance(payload, pydantic.BaseModel):
        fields["payload"] = payload.model_dump(mode="json", by_alias=True)
    elif payload is not None:
        fields["payload"] = dict(payload)
    try:
        return JobSubmission.model_validate(fields)
    except pydantic.ValidationError as error:
        errors = [
            FieldError("".join(f"/{part}" for part in item["loc"]), item["msg"])
            for item in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        raise InvalidRequest(
            status=422,
            slug="unprocessable",
            title="Not as it has to be",
            detail=f"{len(errors)} field(s) are not as they have to be, and nothing was sent",
            errors=errors,
        ) from error


def _body(submission: JobSubmission) -> bytes:
    return submission.model_dump_json(by_alias=True, exclude_unset=True).encode()


def _batches(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Cut submissions of so many bytes into requests; yields the places of each."""
    batch: list[int] = []
    size = 0
    for number, bytes_ in enumerate(sizes):
        if batch and (len(batch) == BATCH or size + bytes_ > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(number)
        size += bytes_ + 1
    if batch:
        yield batch


def _adapter(result_type: Any) -> pydantic.TypeAdapter[Any] | None:
    if result_type is None or isinstance(result_type, pydantic.TypeAdapter):
        return result_type
    return pydantic.TypeAdapter(result_type)


def _made_name(type_: str) -> str:
    """Return a name that nobody else makes: by it a submission is known again when its answer was lost."""
    stem = re.sub(r"[^a-z0-9]+", "-", type_).strip("-") or "job"
    return f"{stem[: NAME_LIMIT // 2]}-{secrets.token_hex(_NAME_RANDOM_BYTES)}"


class _Item(pydantic.BaseModel):
    job: Job | None = None
    problem: dict[str, Any] | None = None


class _Batch(pydantic.BaseModel):
    items: list[_Item]


def _items(content: bytes, count: int) -> list[Job | ProblemError]:
    try:
        batch = _Batch.model_validate_json(content, extra="ignore")
    except pydantic.ValidationError as error:
        raise UnexpectedAnswer(f"the gateway sent an answer that cannot be read: {error}") from error
    found = [item.job or from_problem(_status(item.problem or {}), item.problem or {}) for item in batch.items]
    if len(found) != count:
        raise UnexpectedAnswer(f"the gateway answered {len(found)} of {count} submissions")
    return found


def _status(problem: Mapping[str, Any]) -> int:
    status = problem.get("status")
    return status if isinstance(status, int) else 500
