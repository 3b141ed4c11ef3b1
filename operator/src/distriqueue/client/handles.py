"""A job in the hands of whoever submitted it: wait for it, take its result, change it."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from typing import Any, Final, Generic, Literal, Protocol, TypeVar, overload

import pydantic

from distriqueue.client.errors import JobCancelled, JobDead, JobError, JobFailed, ResultMismatch, WaitTimeout
from distriqueue.client.models import Explanation, Job, JobStatus

T = TypeVar("T")

_ERRORS: Final[dict[JobStatus, type[JobError]]] = {
    JobStatus.FAILED: JobFailed,
    JobStatus.DEAD: JobDead,
    JobStatus.CANCELLED: JobCancelled,
}


class Jobs(Protocol):
    """What a handle needs of the client."""

    async def get(self, job: str) -> Job:
        """Return a job as it is now."""

    async def change(self, job: str, verb: str) -> Job:
        """Cancel, retry, suspend or resume."""

    async def explain(self, job: str) -> Explanation:
        """Say what it waits for."""

    async def until_over(self, job: Job, *, since: datetime | None) -> Job:
        """Wait until it is over, in an end later than `since`."""


class JobHandle(Generic[T]):
    """One job.

    Attributes:
        job: The job as it was seen last.
    """

    def __init__(self, jobs: Jobs, job: Job, result_type: "pydantic.TypeAdapter[T] | None" = None) -> None:
        self._jobs = jobs
        self._adapter = result_type
        self._over_since: datetime | None = None
        self.job = job

    def __repr__(self) -> str:
        return f"<JobHandle {self.job.namespace}/{self.job.name} {self.job.status}>"

    @property
    def id(self) -> str:
        """The job's id."""
        return self.job.id

    @property
    def namespace(self) -> str:
        """The job's namespace."""
        return self.job.namespace

    @property
    def name(self) -> str:
        """The job's name."""
        return self.job.name

    async def wait(self, timeout: float | None = None) -> Job:  # noqa: ASYNC109 - as of a future
        """Wait until the job is over, however it ends, and return it.

        Args:
            timeout: Seconds; None waits for ever.

        Raises:
            WaitTimeout: It was not over in time.
            JobDeleted: It was deleted.
            ClientError: The gateway refuses to say.
        """
        try:
            async with asyncio.timeout(timeout):
                self.job = await self._jobs.until_over(self.job, since=self._over_since)
        except TimeoutError as error:
            if isinstance(error, WaitTimeout):
                raise
            raise WaitTimeout(f"{self.namespace}/{self.name} was not over in {timeout} s", job=self.job) from None
        return self.job

    async def result(self, timeout: float | None = None) -> T:  # noqa: ASYNC109 - as of a future
        """Wait until the job is over, and return what its handler returned.

        Args:
            timeout: Seconds; None waits for ever.

        Raises:
            JobFailed: It failed, and will not be tried again.
            JobDead: Every attempt failed.
            JobCancelled: It was cancelled.
            ResultMismatch: The result is not of the type that was asked for.
            WaitTimeout: It was not over in time.
            ClientError: As of `wait`.
        """
        job = await self.wait(timeout)
        if (kind := _ERRORS.get(job.status)) is not None:
            why = job.error or job.message or job.reason or "no reason was given"
            raise kind(f"{job.namespace}/{job.name} is {job.status}: {why}", job=job)
        if self._adapter is None:
            return job.result  # type: ignore[return-value]  # without a type T is Any
        try:
            return self._adapter.validate_python(job.result)
        except pydantic.ValidationError as error:
            raise ResultMismatch(f"the result of {job.namespace}/{job.name} is another: {error}", job=job) from error

    async def refresh(self) -> Job:
        """Look how the job is now."""
        self.job = await self._jobs.get(self.id)
        return self.job

    async def cancel(self) -> Job:
        """Ask for its end. One that waits never starts; of one that runs, the handler is told to stop."""
        self.job = await self._jobs.change(self.id, "cancel")
        return self.job

    async def retry(self) -> Job:
        """Have it run again with its whole budget of attempts; `wait` then waits for the new end."""
        over_since = self.job.completion_time
        self.job = await self._jobs.change(self.id, "retry")
        self._over_since = self.job.completion_time or over_since
        return self.job

    async def suspend(self) -> Job:
        """Let no attempt start."""
        self.job = await self._jobs.change(self.id, "suspend")
        return self.job

    async def resume(self) -> Job:
        """Let attempts start again."""
        self.job = await self._jobs.change(self.id, "resume")
        return self.job

    async def explain(self) -> Explanation:
        """Say what it waits for."""
        return await self._jobs.explain(self.id)


async def as_completed(
    handles: Iterable[JobHandle[T]],
    *,
    timeout: float | None = None,  # noqa: ASYNC109 - as of asyncio's
) -> AsyncIterator[JobHandle[T]]:
    """Yield handles in the order in which their jobs are over.

    Args:
        handles: The jobs.
        timeout: Seconds for all of them together; None waits for ever.

    Raises:
        WaitTimeout: One was not over in time.
        ClientError: As of `JobHandle.wait`; the others are no longer waited for.
    """
    waiting = {asyncio.ensure_future(handle.wait(timeout)): handle for handle in handles}
    done: asyncio.Queue[asyncio.Task[Job]] = asyncio.Queue()
    for task in waiting:
        task.add_done_callback(done.put_nowait)
    try:
        for _ in range(len(waiting)):
            task = await done.get()
            task.result()
            yield waiting.pop(task)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


@overload
async def gather(
    handles: Iterable[JobHandle[T]],
    *,
    timeout: float | None = None,  # noqa: ASYNC109 - as of a future
    return_exceptions: Literal[False] = False,
) -> list[T]: ...
@overload
async def gather(
    handles: Iterable[JobHandle[T]],
    *,
    timeout: float | None = None,  # noqa: ASYNC109 - as of a future
    return_exceptions: Literal[True],
) -> list[T | BaseException]: ...
async def gather(
    handles: Iterable[JobHandle[T]],
    *,
    timeout: float | None = None,  # noqa: ASYNC109 - as of a future
    return_exceptions: bool = False,
) -> Any:
    """Return the results of jobs, in the order of the handles.

    Args:
        handles: The jobs.
        timeout: Seconds for all of them together; None waits for ever.
        return_exceptions: Give errors in the place of results, as `asyncio.gather` does.

    Raises:
        ClientError: Of the first job that has no result; the others go on running.
    """
    tasks = [asyncio.ensure_future(handle.result(timeout)) for handle in handles]
    try:
        return await asyncio.gather(*tasks, return_exceptions=return_exceptions)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
