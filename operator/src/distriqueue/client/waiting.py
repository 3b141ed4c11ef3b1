"""Waiting for jobs to be over: one event stream for all that wait in a namespace, and questions where that fails.

Guarantees: a job that is over is seen, whatever is cut: the stream resumes, and begins with what was over before it;
while it is down, lists are asked instead; and each wait looks for itself now and then, which also finds out that a job
was deleted. A stream that nobody needs any more ends by itself.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from distriqueue.client.errors import ClientError, JobDeleted, NotFound
from distriqueue.client.following import Cut, follow, parse_job
from distriqueue.client.models import FINAL, Job, JobPage, parameters
from distriqueue.client.transport import Transport

LOOK_SECONDS: Final = 60.0
"""How often each wait asks for its job itself."""
ASK_SECONDS: Final = 2.0
"""How often lists are asked where there is no stream at all."""
LINGER_SECONDS: Final = 10.0
"""How long a stream is kept when nobody waits: the next job may come soon."""
PAGE: Final = 500
_STATUSES: Final = sorted(FINAL)

IsOver = Callable[[Job], bool]


@dataclass(eq=False)
class _Waiter:
    job: Job
    is_over: IsOver
    answer: asyncio.Future[Job] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def see(self, job: Job) -> None:
        if not self.answer.done() and self.is_over(job):
            self.answer.set_result(job)


class Watch:
    """Waits for jobs of one namespace."""

    def __init__(self, transport: Transport, namespace: str) -> None:
        self._transport = transport
        self._namespace = namespace
        self._waiters: dict[str, list[_Waiter]] = {}
        self._since: datetime | None = None
        self._task: asyncio.Task[None] | None = None
        self._heard = False
        self._needed = asyncio.Event()

    async def until_over(self, job: Job, is_over: IsOver) -> Job:
        """Wait until a job is over, and return it as it is then.

        Args:
            job: As it was seen last.
            is_over: Whether a state of it is what is waited for.

        Raises:
            JobDeleted: It was deleted before anybody saw its end.
            ClientError: The gateway refuses to say.
        """
        if is_over(job):
            return job
        waiter = _Waiter(job, is_over)
        self._waiters.setdefault(job.id, []).append(waiter)
        # A stream begins with everything that is over already. One that has begun may have said what we wait for.
        late = self._open(job.created_time) and self._heard
        try:
            return await self._look_until(waiter, at_once=late)
        finally:
            self._waiters[job.id].remove(waiter)
            if not self._waiters[job.id]:
                del self._waiters[job.id]
            if not self._waiters:
                self._needed.clear()

    async def close(self) -> None:
        """End the stream."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look_until(self, waiter: _Waiter, *, at_once: bool) -> Job:
        if at_once:
            with suppress(NotFound):  # a replica that has not heard of it yet; the stream will
                waiter.see(await self._get(waiter.job))
        while True:
            pause = LOOK_SECONDS * random.uniform(0.75, 1.25)  # noqa: S311 - spreads questions, no secret
            done, _ = await asyncio.wait((waiter.answer,), timeout=pause)
            if done:
                return waiter.answer.result()
            try:
                waiter.see(await self._get(waiter.job))
            except NotFound as error:
                message = f"the job {waiter.job.namespace}/{waiter.job.name} was deleted while it was waited for"
                raise JobDeleted(message, job=waiter.job) from error
            except ClientError as error:
                if not error.retryable:
                    raise

    async def _get(self, job: Job) -> Job:
        answer = await self._transport.request("GET", f"/api/jobs/{job.id}")
        return parse_job(answer.content)

    def _open(self, created: datetime) -> bool:
        """See to it that a stream covers jobs created then; return whether one does that already."""
        self._needed.set()
        if self._task is not None and not self._task.done():
            if self._since is not None and self._since <= created:
                return True
            self._task.cancel()
        self._since = created if self._since is None else min(self._since, created)
        self._heard = False
        self._task = asyncio.create_task(self._run(self._since), name=f"watch of {self._namespace}")
        return False

    async def _run(self, since: datetime) -> None:
        query = parameters(self._namespace, {"status": _STATUSES, "created_after": since})
        lingering = asyncio.create_task(self._linger())
        streaming = asyncio.create_task(self._stream(query))
        try:
            await asyncio.wait((lingering, streaming), return_when=asyncio.FIRST_COMPLETED)
            if streaming.done() and not streaming.cancelled() and (error := streaming.exception()) is not None:
                for waiter in self._all():
                    if not waiter.answer.done():
                        waiter.answer.set_exception(error)
        finally:
            # No await before this: whoever begins to wait from here on opens another stream.
            if self._task is asyncio.current_task():
                self._since, self._task = None, None
            for task in (lingering, streaming):
                task.cancel()
            await asyncio.gather(lingering, streaming, return_exceptions=True)

    async def _linger(self) -> None:
        """Return when nobody has waited for a while."""
        while True:
            if self._needed.is_set():
                await asyncio.sleep(LINGER_SECONDS)
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(self._needed.wait(), LINGER_SECONDS)
                continue
            return

    async def _stream(self, query: dict[str, object]) -> None:
        with suppress(ClientError):  # whoever may not watch, or is behind a proxy without streams, may still list
            async for change in follow(self._transport, query):
                self._heard = True
                if isinstance(change, Cut):
                    with suppress(ClientError):  # the stream may be well again before the list is
                        await self._ask(query)
                elif change.job is not None:
                    self._see(change.job)
        while True:
            self._heard = True
            try:
                await self._ask(query)
            except ClientError as error:
                if not error.retryable:
                    raise
            await asyncio.sleep(ASK_SECONDS)

    async def _ask(self, query: dict[str, object]) -> None:
        """Ask for what is over, page by page."""
        cursor: str | None = None
        while True:
            page_query = {**query, "limit": PAGE, **({"cursor": cursor} if cursor else {})}
            answer = await self._transport.request("GET", "/api/jobs", patience_seconds=0, params=page_query)
            page = JobPage.model_validate_json(answer.content, extra="ignore")
            for job in page.items:
                self._see(job)
            cursor = page.next
            if cursor is None or not self._waiters:
                return

    def _see(self, job: Job) -> None:
        for waiter in self._waiters.get(job.id, ()):
            waiter.see(job)

    def _all(self) -> list[_Waiter]:
        return [waiter for waiters in self._waiters.values() for waiter in waiters]
