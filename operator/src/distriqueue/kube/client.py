"""One connection pool to the API server: JSON in, JSON out, and watches.

Guarantees: every failure is a `KubeError` (see `errors`), and it tells apart what certainly did not happen from what
nobody knows. A request that changes something is sent at most once: aiohttp would quietly send a PUT a second time
when a kept-alive connection turns out to be closed, and then a write of ours could conflict with itself. A guard given
with a request is asked when its body is about to be written to an open connection, after all waiting. Credentials that
the API server no longer takes are read again once.

It goes to aiohttp directly instead of through the API classes that are generated for the kubernetes client, which
cost three times the CPU for each call (docs/decisions/0003-status-writes.md has figures); configuration,
authentication and TLS are that client's.
"""

import asyncio
import socket
import time
import urllib.parse
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import orjson
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from yarl import URL

from distriqueue.kube.credentials import Credentials
from distriqueue.kube.decoding import decode
from distriqueue.kube.errors import (
    Forbidden,
    KubeError,
    NoCredentials,
    NotLeading,
    Unanswered,
    Unreachable,
    from_answer,
    from_status,
)

_HTTP_ERROR: Final = 400
_HTTP_UNAUTHORIZED: Final = 401

CONNECT_SECONDS: Final = 5.0
"""How long a new connection may take, TLS included."""

KEEP_ALIVE_SECONDS: Final = 30.0
"""How long an unused connection is kept: well below the 90 s after which the API server closes it."""

_RELOAD_SECONDS: Final = 5.0
"""Credentials that were refused are read again at most this often."""

_READ_BUFFER: Final = 256 * 1024

_EVENTS_IN_A_ROW: Final = 200
"""After so many events without a pause, others get their turn: some 5 ms."""

_UNTRUSTED: Final = "Untrusted"
"""`reason` of an error whose cause is a TLS certificate, ours or the server's."""

MERGE_PATCH: Final = "application/merge-patch+json"
METADATA_ONLY: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
"""`accept` for a request whose answer is to carry the metadata of the object and nothing else."""
METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""The same for a list."""


class _Body(Payload):
    """A request body that is written once, and only if the guard agrees at that moment.

    Attributes:
        sent: It was handed to the connection: the API server may act on it.
        held_back: The guard said no, and nothing was sent.
    """

    def __init__(self, value: bytes, *, content_type: str, guard: Callable[[], bool] | None) -> None:
        super().__init__(value, content_type=content_type)
        self._bytes = value
        self._guard = guard
        self.sent = False
        self.held_back = False

    @property
    def size(self) -> int:
        return len(self._bytes)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._bytes.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        if self.sent:  # `_sent_once` keeps aiohttp from trying
            raise ConnectionError("a request that changes something is not sent twice")
        if self._guard is not None and not self._guard():
            self.held_back = True
            # aiohttp holds the headers back until the first piece of the body: nothing went out.
            raise ConnectionError("the guard says no")
        # no await between the guard and this write
        self.sent = True
        await writer.write(self._bytes if content_length is None else self._bytes[:content_length])


class KubeClient:
    """A pool of kept-alive connections to one API server. Make it with `connect`; it closes as a context manager.

    Paths and names in them are used as they stand: names of Kubernetes objects need no escaping.
    """

    def __init__(self, credentials: Credentials, *, pool_size: int, user_agent: str) -> None:
        self.credentials = credentials
        self._reloaded_at = float("-inf")
        self._way: Any = {
            "allow_redirects": False,
            "proxy": credentials.proxy,
            "server_hostname": credentials.server_hostname,
        }
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=pool_size,
                ssl=credentials.tls,
                keepalive_timeout=KEEP_ALIVE_SECONDS,
                socket_factory=_socket,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "Accept": "application/json",
                # Compression costs both sides more CPU than a cluster's network is worth.
                "Accept-Encoding": "identity",
                "User-Agent": user_agent,
            },
            read_bufsize=_READ_BUFFER,
        )

    @classmethod
    async def connect(
        cls, kubeconfig: Path | None = None, *, pool_size: int = 32, user_agent: str = "distriqueue"
    ) -> Self:
        """Load credentials and return a client; connections are made when they are needed.

        Args:
            kubeconfig: The kubeconfig to use; None means the service account in a pod, or else the usual places.
            pool_size: Most connections at a time; further requests wait for one.
            user_agent: How the API server's logs and priority levels know us.

        Raises:
            NoCredentials: None were found.
        """
        return cls(await Credentials.load(kubeconfig), pool_size=pool_size, user_agent=user_agent)

    async def __aenter__(self) -> Self:
        """Return the client itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close all connections."""
        await self.close()

    async def close(self) -> None:
        """Close all connections; requests under way fail with `Unanswered`."""
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        accept: str | None = None,
        timeout: float = 10.0,  # noqa: ASYNC109  # a budget that the HTTP client keeps, cheaper than a scope of its own
        guard: Callable[[], bool] | None = None,
    ) -> dict[str, Any]:
        """Send a request and return the object in the answer.

        Raises:
            KubeError: As `request_raw` does.
        """
        answer = await self.request_raw(
            method,
            path,
            body=body,
            params=params,
            content_type=content_type,
            accept=accept,
            timeout=timeout,
            guard=guard,
        )
        try:
            decoded: dict[str, Any] = decode(answer)
        except orjson.JSONDecodeError as error:
            raise Unanswered(f"{method} {path}: the answer is no JSON: {error}") from error
        return decoded

    async def request_raw(
        self,
        method: str,
        path: str,
        *,
        body: bytes | Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        accept: str | None = None,
        timeout: float = 10.0,  # noqa: ASYNC109  # as above
        guard: Callable[[], bool] | None = None,
    ) -> bytes:
        """Send a request and return the answer as it came, in JSON.

        Args:
            method: GET, POST, PUT, PATCH or DELETE.
            path: Path below the server's URL, such as ``/api/v1/namespaces/default/pods/a``.
            body: The object to send, or its JSON.
            params: Query parameters.
            content_type: Of the body; for PATCH one of the patch types.
            accept: What the answer is to look like; whole objects unless said otherwise.
            timeout: Seconds for all of it: waiting for a connection, sending, the answer.
            guard: Asked when the request is about to go out; it is not sent when this returns False.

        Raises:
            NotLeading: The guard said no.
            Unanswered: Nobody knows whether it happened.
            KubeError: Any other refusal or failure; see `errors`.
        """
        data = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        if data is None and method == "DELETE":
            data = b"{}"  # with a body, it passes through the same gate as every other change
        headers = {} if accept is None else {"Accept": accept}
        if data is not None:
            headers["Content-Type"] = content_type
        url = self._url(path, params)
        generation = self.credentials.generation
        try:
            return await self._send(method, url, data, headers=headers, timeout=timeout, guard=guard)
        except (Forbidden, Unreachable) as error:
            # Both say that nothing happened: what follows is no repeated write.
            if not await self._renewed(error, generation):
                raise
            return await self._send(method, url, data, headers=headers, timeout=timeout, guard=guard)

    async def stream(
        self, path: str, params: Mapping[str, str] | None = None, *, inactivity: float
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Open a watch and yield its events as they come; ends when the API server ends it.

        Lines may be of any length. Close the iterator (`contextlib.aclosing`) or its connection lives until collected.

        Args:
            path: Path of a collection.
            params: Query parameters; ``watch`` is added.
            inactivity: The stream is given up when nothing came for this many seconds.

        Yields:
            Watch events: mappings with ``type`` and ``object``. An ERROR event is raised instead.

        Raises:
            Gone: The resourceVersion to start from is too old.
            Unanswered: The connection broke, or nothing came for too long.
            KubeError: Any other refusal; see `errors`.
        """
        url = self._url(path, {"watch": "1", **(params or {})})
        timeout = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=CONNECT_SECONDS, sock_read=inactivity)
        generation = self.credentials.generation
        try:
            with _translated(f"watch of {path}", body=None):
                async with self._session.get(
                    url, headers=await self._headers({}), timeout=timeout, **self._way
                ) as answer:
                    if answer.status >= _HTTP_ERROR:
                        raise from_answer(
                            answer.status, await answer.read(), retry_after=answer.headers.get("Retry-After")
                        )
                    try:
                        async for event in _events(answer.content):
                            yield event
                    finally:
                        _break_off(answer)
        except (Forbidden, Unreachable) as error:
            await self._renewed(error, generation)  # for the next try, which is the caller's
            raise

    async def _send(
        self,
        method: str,
        url: URL,
        data: bytes | None,
        *,
        headers: dict[str, str],
        timeout: float,  # noqa: ASYNC109  # as above
        guard: Callable[[], bool] | None,
    ) -> bytes:
        headers = await self._headers(headers)
        budget = aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_SECONDS)
        body = None if data is None else _Body(data, content_type=headers["Content-Type"], guard=guard)
        if body is None and guard is not None and not guard():
            raise NotLeading(f"{method} {url.path}: not sent, the guard says no")
        once = None if body is None else (_sent_once,)
        with _translated(f"{method} {url.path}", body=body):
            async with self._session.request(
                method, url, data=body, headers=headers, timeout=budget, middlewares=once, **self._way
            ) as answer:
                content = await answer.read()
                if answer.status >= _HTTP_ERROR:
                    raise from_answer(answer.status, content, retry_after=answer.headers.get("Retry-After"))
        return content

    async def _headers(self, headers: dict[str, str]) -> dict[str, str]:
        authorization = await self.credentials.authorization()
        return headers if authorization is None else {**headers, "Authorization": authorization}

    def _url(self, path: str, params: Mapping[str, str] | None) -> URL:
        query = f"?{urllib.parse.urlencode(params)}" if params else ""
        return URL(f"{self.credentials.server}{path}{query}", encoded=True)

    async def _renewed(self, error: KubeError, generation: int) -> bool:
        """Read the credentials again if `error` may come from them; say whether another try makes sense."""
        if error.code != _HTTP_UNAUTHORIZED and error.reason != _UNTRUSTED:
            return False
        now = time.monotonic()
        if generation == self.credentials.generation:
            if now - self._reloaded_at < _RELOAD_SECONDS:
                return False
            self._reloaded_at = now
            try:
                await self.credentials.reload(generation)
            except NoCredentials:
                return False
        return True


class _BrokenOffError(aiohttp.ClientError):
    """The connection broke under a request that is not to be repeated."""


async def _sent_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Hide from aiohttp the errors for which it repeats a PUT or DELETE on a connection of its own choice."""
    try:
        return await handler(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _BrokenOffError(str(error) or type(error).__name__) from error


async def _events(content: aiohttp.StreamReader) -> AsyncGenerator[dict[str, Any], None]:
    """Cut what comes into lines, without a limit to their length, and lines into events."""
    begun: list[bytes] = []  # the pieces of a line whose end has not come yet
    count = 0
    async for data in content.iter_any():
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = b"".join((*begun, lines[0]))
            begun.clear()
        if rest:
            begun.append(rest)
        for line in lines:
            yield _event(line)
            count += 1
            if count % _EVENTS_IN_A_ROW == 0:
                await asyncio.sleep(0)  # a burst must not keep the Lease from being renewed


def _break_off(answer: aiohttp.ClientResponse) -> None:
    """Close the connection of an answer that has not ended, without the ceremony of TLS: nothing is left to say."""
    if answer.connection is not None and answer.connection.transport is not None:
        answer.connection.transport.abort()


def _event(line: bytes) -> dict[str, Any]:
    try:
        event: dict[str, Any] = decode(line)
    except orjson.JSONDecodeError as error:
        raise Unanswered(f"a watch event is no JSON: {error}") from error
    if event["type"] == "ERROR":
        raise from_status(event["object"])
    return event


@contextmanager
def _translated(what: str, *, body: _Body | None) -> Iterator[None]:
    """Translate the HTTP library's errors; `body` knows whether anything was sent."""
    try:
        yield
    except (aiohttp.ClientError, OSError, TimeoutError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _is_closed(error):
            raise
        if body is not None and body.held_back:
            raise NotLeading(f"{what}: not sent, the guard says no") from None
        untrusted = isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError)
        nothing_sent = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
        if body is not None:
            nothing_sent = not body.sent
        kind = Unreachable if nothing_sent or untrusted else Unanswered
        text = str(error) or type(error).__name__
        raise kind(f"{what}: {text}", reason=_UNTRUSTED if untrusted else "") from error


def _is_closed(error: RuntimeError) -> bool:
    return str(error) in {"Session is closed", "Connector is closed."}


def _socket(info: tuple[Any, Any, int, str, Any]) -> socket.socket:
    """Make a socket that notices within 25 s that the other end is gone without a word."""
    family, kind, protocol, *_ = info
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):  # not on every system
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made
