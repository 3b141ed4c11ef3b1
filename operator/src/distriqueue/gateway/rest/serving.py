"""The HTTP server of the REST door: uvicorn in the gateway's own loop, with limits that it does not have by itself.

Guarantees: it leaves the process's signals alone; a head of a request is bounded in size and in the time that it takes;
a connection whose peer takes nothing can be cut at once (`cut`). `stop` lets requests under way end within their time,
and cuts the rest. Fails with `OSError` at `start` when the port is taken.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Generator
from typing import Final

import uvicorn
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_LIMIT_BYTES: Final = 64 * 1024
"""Largest head of a request: path, query and headers together."""
HEAD_SECONDS: Final = 20.0
"""How long a head, once it has begun, may take to arrive; and a TLS handshake, with the first request."""
KEEP_ALIVE_SECONDS: Final = 75
"""How long a connection is kept for another request: longer than the 60 s after which proxies let go of theirs."""
BACKLOG: Final = 2048
_CUT: Final = "distriqueue.cut"


def cut(scope: Scope) -> None:
    """Close the connection of a request at once; what was not sent is lost.

    Args:
        scope: Of the request.
    """
    found = scope.get("extensions", {}).get(_CUT)
    if found is not None:
        found["transport"].abort()


class _Protocol(HttpToolsProtocol):
    """Bounds the head of a request, and tells the app which connection it came by."""

    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_arrived()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = 0
        self._head_arrived()
        self._await_head()
        self.scope["extensions"] = {_CUT: {"transport": self.transport}}

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_arrived()
        super().on_headers_complete()

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_LIMIT_BYTES:
            # The parser turns what a callback raises into its own error, and uvicorn answers that by 400.
            raise ValueError("the head of the request is too large")

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _head_arrived(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals to the program."""
        yield


class RestServer:
    """Serves an app.

    Args:
        app: What is served.
        grace_seconds: How long requests under way may take when it stops.
        tls: How, with TLS; None: without.
    """

    def __init__(self, app: ASGIApp, *, grace_seconds: int, tls: ssl.SSLContext | None = None) -> None:
        self._grace = grace_seconds
        self._app = app
        self._tls = tls
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self, *, host: str, port: int) -> None:
        """Listen, and return when connections are taken.

        Args:
            host: The address to bind.
            port: The port; 0 for any, found in `port` afterwards.

        Raises:
            OSError: The port is taken.
        """
        config = uvicorn.Config(
            self._app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=self._grace,
        )
        config.load()
        config.ssl = self._tls
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve([listener]), name="REST server")
        while not self._server.started and not self._serving.done():  # noqa: ASYNC110 - it has a flag and no event
            await asyncio.sleep(0.01)
        if self._serving.done():
            self._serving.result()

    async def stop(self) -> None:
        """Stop listening, let requests under way end, and cut those that do not within the grace."""
        if self._server is None or self._serving is None:
            return
        self._server.should_exit = True
        await self._serving
