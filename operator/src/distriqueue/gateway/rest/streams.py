"""Server-sent events: changes of jobs as they happen, to readers who may be slow, silent or gone.

Guarantees: a reader costs a bounded queue of references and nothing else; one that takes nothing for
`stream_stall_seconds` is cut, and one for whom too many changes wait is told so and let go: both resume by the id of
the last event that they have read. A silence is filled with comments. A stream ends by itself when the replica ends, or
when the caller's right does: its last event is then `problem`.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final, Protocol, Self

import orjson
import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from distriqueue.gateway.changes import Change, ChangeKind
from distriqueue.gateway.problems import Internal, Problem, TooSlow
from distriqueue.gateway.rest.departures import until_gone
from distriqueue.gateway.rest.edges import STREAM_KEY
from distriqueue.gateway.rest.serving import cut
from distriqueue.telemetry.gateways import GatewayMetrics

_LOG: Final = structlog.get_logger(__name__)

MEDIA_TYPE: Final = "text/event-stream"
RETRY_MILLISECONDS: Final = 1000
"""How long a reader waits before it comes back after a cut."""
BREATH: Final = 64
"""After so many events that were there already, others get their turn."""

_KEEP_ALIVE: Final = b": keep-alive\n\n"
_CLOSING: Final = b": this replica ends, come back\n\n"


def frame(change: Change) -> bytes:
    """Return a change as an event; a position alone as an id without data, which readers keep and do not show."""
    if change.kind is ChangeKind.POSITION:
        return b": keep-alive\nid: %s\n\n" % change.id.encode()
    return b"event: %s\nid: %s\ndata: %s\n\n" % (change.kind.encode(), change.id.encode(), change.data or b"{}")


class StreamSettings(Protocol):
    """What is read of the gateway's settings."""

    @property
    def stream_keep_alive_seconds(self) -> float:
        """After so long without an event there is a comment."""

    @property
    def stream_stall_seconds(self) -> float:
        """After so long without taking anything a reader is cut."""


class EventStream(Response):
    """The answer that is a stream.

    Args:
        first: What it says first; None if there is nothing.
        changes: What it says then. It is closed with the stream.
        settings: How long silences and stalls may be.
        metrics: Count streams and events.
        closing: Set when the replica ends.
    """

    media_type = MEDIA_TYPE

    def __init__(
        self,
        first: Change | None,
        changes: AsyncIterator[Change],
        *,
        settings: StreamSettings,
        metrics: GatewayMetrics,
        closing: asyncio.Event,
    ) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._first = first
        self._changes = changes
        self._settings = settings
        self._metrics = metrics
        self._closing = closing
        self._sending_since: float | None = None
        self._sent_at = time.monotonic()

    @classmethod
    async def begin(
        cls,
        changes: AsyncIterator[Change],
        *,
        settings: StreamSettings,
        metrics: GatewayMetrics,
        closing: asyncio.Event,
    ) -> Self:
        """Wait for the first change, so that what refuses the whole stream is raised before anything was answered.

        Raises:
            Problem: The stream is refused.
        """
        first = await anext(changes, None)
        return cls(first, changes, settings=settings, metrics=metrics, closing=closing)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Say everything, until one side ends it."""
        scope[STREAM_KEY] = True
        self._metrics.stream_began()
        reason = "Error"
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            reason = await self._run(scope, receive, send)
        finally:
            self._metrics.stream_ended(reason)
            if isinstance(self._changes, AsyncGenerator):
                await self._changes.aclose()

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> str:
        pump = asyncio.create_task(self._pump(send), name="stream: events")
        gone = asyncio.create_task(until_gone(receive), name="stream: reader")
        closing = asyncio.create_task(self._closing.wait(), name="stream: end of the replica")
        tasks = {pump, gone, closing}
        try:
            while not any(task.done() for task in tasks):
                await asyncio.wait(tasks, timeout=self._pause(), return_when=asyncio.FIRST_COMPLETED)
                if self._stalled():
                    cut(scope)
                    return "Stalled"
                if self._silent() and not any(task.done() for task in tasks):
                    async with asyncio.timeout(self._settings.stream_stall_seconds):
                        await self._say(send, _KEEP_ALIVE)
            if gone.done():
                return "Client"
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)
            reason, words = ("Stopping", _CLOSING) if closing.done() or pump.cancelled() else _last_words(pump)
            async with asyncio.timeout(self._settings.stream_stall_seconds):
                await self._say(send, words)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            cut(scope)
            return "Stalled"
        else:
            return reason
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _pump(self, send: Send) -> None:
        await self._say(send, b"retry: %d\n\n" % RETRY_MILLISECONDS)
        if self._first is None:
            return
        await self._say(send, frame(self._first))
        count = 1
        sent = self._metrics.events_sent
        sent.inc()
        async for change in self._changes:
            await self._say(send, frame(change))
            sent.inc()
            count += 1
            if count % BREATH == 0:
                await asyncio.sleep(0)

    async def _say(self, send: Send, words: bytes) -> None:
        self._sending_since = time.monotonic()
        await send({"type": "http.response.body", "body": words, "more_body": True})
        self._sending_since = None
        self._sent_at = time.monotonic()

    def _pause(self) -> float:
        """Return how long nothing has to be looked at: until the next comment, but no longer than a stall takes."""
        silence = self._sent_at + self._settings.stream_keep_alive_seconds - time.monotonic()
        return min(max(0.01, silence), self._settings.stream_stall_seconds)

    def _stalled(self) -> bool:
        since = self._sending_since
        return since is not None and time.monotonic() - since >= self._settings.stream_stall_seconds

    def _silent(self) -> bool:
        quiet = time.monotonic() - self._sent_at
        return self._sending_since is None and quiet >= self._settings.stream_keep_alive_seconds


def _last_words(pump: asyncio.Task[None]) -> tuple[str, bytes]:
    """Return why the changes ended, and what the reader is told."""
    error = pump.exception()
    if error is None:
        return "Stopping", _CLOSING
    if isinstance(error, Problem):
        problem: Problem = error
    else:
        _LOG.error("a stream failed", exc_info=error)
        problem = Internal(
            "the gateway failed to go on with this stream; its log says why. Come back with your last id"
        )
    words = b"event: problem\ndata: %s\n\n" % orjson.dumps(problem.document())
    return ("Slow" if isinstance(problem, TooSlow) else "Error"), words
