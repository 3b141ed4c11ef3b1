"""The client for programs without asyncio: the same calls, which return when they are done.

It is a thin face: one thread of its own runs the loop in which `AsyncClient` works. Guarantees: safe to use from
several threads at a time; an interrupt (Ctrl-C) ends the call that waits, and the client remains usable. Fails as
`AsyncClient` does.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, Unpack, overload

import pydantic

from distriqueue.client.clients import AsyncClient, Payload, environment
from distriqueue.client.handles import JobHandle, as_completed, gather
from distriqueue.client.models import Change, Explanation, Filter, Job, Options

T = TypeVar("T")


class _Loop:
    """A loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="distriqueue client", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # after an interrupt; of a call that is done it changes nothing

    def iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        async def following() -> T:
            return await anext(source)

        try:
            while True:
                try:
                    item = self.run(following())
                except StopAsyncIteration:
                    return
                yield item
        finally:
            close = getattr(source, "aclose", None)
            if close is not None:
                with suppress(RuntimeError):  # the loop is closed already
                    self.run(close())

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class BlockingHandle(Generic[T]):
    """One job; see `JobHandle`, whose calls these are."""

    def __init__(self, loop: _Loop, handle: JobHandle[T]) -> None:
        self._loop = loop
        self._handle = handle

    def __repr__(self) -> str:
        return repr(self._handle).replace("JobHandle", "BlockingHandle")

    @property
    def job(self) -> Job:
        """The job as it was seen last."""
        return self._handle.job

    @property
    def id(self) -> str:
        """The job's id."""
        return self._handle.id

    @property
    def namespace(self) -> str:
        """The job's namespace."""
        return self._handle.namespace

    @property
    def name(self) -> str:
        """The job's name."""
        return self._handle.name

    def wait(self, timeout: float | None = None) -> Job:
        """See `JobHandle.wait`."""
        return self._loop.run(self._handle.wait(timeout))

    def result(self, timeout: float | None = None) -> T:
        """See `JobHandle.result`."""
        return self._loop.run(self._handle.result(timeout))

    def refresh(self) -> Job:
        """See `JobHandle.refresh`."""
        return self._loop.run(self._handle.refresh())

    def cancel(self) -> Job:
        """See `JobHandle.cancel`."""
        return self._loop.run(self._handle.cancel())

    def retry(self) -> Job:
        """See `JobHandle.retry`."""
        return self._loop.run(self._handle.retry())

    def suspend(self) -> Job:
        """See `JobHandle.suspend`."""
        return self._loop.run(self._handle.suspend())

    def resume(self) -> Job:
        """See `JobHandle.resume`."""
        return self._loop.run(self._handle.resume())

    def explain(self) -> Explanation:
        """See `JobHandle.explain`."""
        return self._loop.run(self._handle.explain())


class Client:
    """A client of one gateway; a context manager, or `close` it. Its arguments are those of `AsyncClient`."""

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
        self._client = AsyncClient(
            url,
            token=token,
            token_file=token_file,
            ca_file=ca_file,
            namespace=namespace,
            patience_seconds=patience_seconds,
        )
        self._loop = _Loop()

    @classmethod
    def from_environment(cls) -> Self:
        """See `AsyncClient.from_environment`."""
        return cls(**environment())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End streams, connections and the thread. Jobs go on."""
        self._loop.run(self._client.close())
        self._loop.close()

    @overload
    def submit(
        self,
        type: str,
        payload: Payload | None = None,
        *,
        result_type: type[T] | pydantic.TypeAdapter[T],
        namespace: str | None = None,
        name: str | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[Options],
    ) -> BlockingHandle[T]: ...
    @overload
    def submit(
        self,
        type: str,
        payload: Payload | None = None,
        *,
        namespace: str | None = None,
        name: str | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[Options],
    ) -> BlockingHandle[Any]: ...
    def submit(self, type: str, payload: Payload | None = None, **arguments: Any) -> BlockingHandle[Any]:  # noqa: A002
        """See `AsyncClient.submit`."""
        return BlockingHandle(self._loop, self._loop.run(self._client.submit(type, payload, **arguments)))

    @overload
    def submit_many(
        self,
        type: str,
        payloads: Iterable[Payload],
        *,
        result_type: type[T] | pydantic.TypeAdapter[T],
        namespace: str | None = None,
        **options: Unpack[Options],
    ) -> list[BlockingHandle[T]]: ...
    @overload
    def submit_many(
        self,
        type: str,
        payloads: Iterable[Payload],
        *,
        namespace: str | None = None,
        **options: Unpack[Options],
    ) -> list[BlockingHandle[Any]]: ...
    def submit_many(self, type: str, payloads: Iterable[Payload], **arguments: Any) -> list[BlockingHandle[Any]]:  # noqa: A002
        """See `AsyncClient.submit_many`."""
        handles = self._loop.run(self._client.submit_many(type, payloads, **arguments))
        return [BlockingHandle(self._loop, handle) for handle in handles]

    @overload
    def gather(
        self,
        handles: Iterable[BlockingHandle[T]],
        *,
        timeout: float | None = None,
        return_exceptions: Literal[False] = False,
    ) -> list[T]: ...
    @overload
    def gather(
        self, handles: Iterable[BlockingHandle[T]], *, timeout: float | None = None, return_exceptions: Literal[True]
    ) -> list[T | BaseException]: ...
    def gather(
        self, handles: Iterable[BlockingHandle[T]], *, timeout: float | None = None, return_exceptions: bool = False
    ) -> Any:
        """Return the results of jobs, in the order of the handles; see `gather`."""
        inner = [handle._handle for handle in handles]  # noqa: SLF001 - the other half of this class
        if return_exceptions:
            return self._loop.run(gather(inner, timeout=timeout, return_exceptions=True))
        return self._loop.run(gather(inner, timeout=timeout))

    def as_completed(
        self, handles: Iterable[BlockingHandle[T]], *, timeout: float | None = None
    ) -> Iterator[BlockingHandle[T]]:
        """Yield handles in the order in which their jobs are over; see `as_completed`."""
        by_handle = {handle._handle: handle for handle in handles}  # noqa: SLF001 - as above
        for done in self._loop.iterate(as_completed(by_handle, timeout=timeout)):
            yield by_handle[done]

    def get(self, job: str) -> Job:
        """See `AsyncClient.get`."""
        return self._loop.run(self._client.get(job))

    @overload
    def handle(self, job: str, *, result_type: type[T] | pydantic.TypeAdapter[T]) -> BlockingHandle[T]: ...
    @overload
    def handle(self, job: str) -> BlockingHandle[Any]: ...
    def handle(self, job: str, *, result_type: Any = None) -> BlockingHandle[Any]:
        """See `AsyncClient.handle`."""
        return BlockingHandle(self._loop, self._loop.run(self._client.handle(job, result_type=result_type)))

    def list(
        self, *, namespace: str | None = None, oldest_first: bool = False, **filter_: Unpack[Filter]
    ) -> Iterator[Job]:
        """See `AsyncClient.list`."""
        return self._loop.iterate(self._client.list(namespace=namespace, oldest_first=oldest_first, **filter_))

    def watch(
        self, *, namespace: str | None = None, position: str | None = None, **filter_: Unpack[Filter]
    ) -> Iterator[Change]:
        """See `AsyncClient.watch`."""
        return self._loop.iterate(self._client.watch(namespace=namespace, position=position, **filter_))

    def explain(self, job: str) -> Explanation:
        """See `AsyncClient.explain`."""
        return self._loop.run(self._client.explain(job))

    def cancel(self, job: str) -> Job:
        """See `AsyncClient.cancel`."""
        return self._loop.run(self._client.cancel(job))

    def retry(self, job: str) -> Job:
        """See `AsyncClient.retry`."""
        return self._loop.run(self._client.retry(job))

    def suspend(self, job: str) -> Job:
        """See `AsyncClient.suspend`."""
        return self._loop.run(self._client.suspend(job))

    def resume(self, job: str) -> Job:
        """See `AsyncClient.resume`."""
        return self._loop.run(self._client.resume(job))

    def delete(self, job: str) -> None:
        """See `AsyncClient.delete`."""
        self._loop.run(self._client.delete(job))
