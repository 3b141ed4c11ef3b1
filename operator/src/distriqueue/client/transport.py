"""Requests to the gateway: the token, retries, and errors translated once.

Guarantees: a request is repeated only when repeating does no harm: the caller says so by `repeatable`, and otherwise it
is repeated only if it certainly did not reach the gateway. A token file is read again when the gateway no longer knows
its token, so the rotation of a service account's token is never seen. Fails with `ClientError`, and with nothing else.
"""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from distriqueue.client.errors import ClientError, ConnectionFailed, ProblemError, Unauthenticated, from_problem

CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 60.0
"""Between two pieces of an answer. The gateway itself answers within seconds, or with an error."""
STREAM_SILENCE_SECONDS: Final = 45.0
"""A stream that is silent for so long is dead: the gateway sends a comment every 15 s."""
CONNECTIONS: Final = 64
PAUSES_SECONDS: Final = (0.1, 5.0)
"""Before the first repetition, and at most; doubled each time, and varied by half."""

_HTTP_ERROR: Final = 400
_UNSENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""The gateway has seen nothing of a request that failed like this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where the gateway is, and how to speak to it.

    Attributes:
        url: As in ``https://distriqueue-gateway.distriqueue:8000``.
        token: A bearer token, or None.
        token_file: A file with the token, as of a mounted service account; read again when the token is refused.
        ca_file: The certificate authority of the gateway, as PEM; None for those of the system.
        patience_seconds: How long a repeatable request is repeated.
    """

    url: str
    token: str | None = None
    token_file: Path | None = None
    ca_file: Path | None = None
    patience_seconds: float = 30.0


class Patience:
    """The pauses between repetitions, and their end.

    Args:
        seconds: How long it lasts from now on; needs a running loop.
    """

    def __init__(self, seconds: float) -> None:
        self._now = asyncio.get_running_loop().time
        self._deadline = self._now() + seconds
        self._pause, self._longest = PAUSES_SECONDS

    async def pause(self, error: ClientError) -> None:
        """Wait before the next repetition, as long as the gateway asked for if it did.

        Args:
            error: How the last attempt ended; raised when there is no time for another one.
        """
        asked = error.retry_after if isinstance(error, ProblemError) else None
        wait = max(asked or 0.0, self._pause * random.uniform(0.5, 1.5))  # noqa: S311 - spreads callers, no secret
        if self._now() + wait > self._deadline:
            raise error
        await asyncio.sleep(wait)
        self._pause = min(self._longest, 2 * self._pause)


class Transport:
    """Speaks HTTP with one gateway address; a context manager."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Prepare; nothing is connected yet.

        Raises:
            ClientError: Token and token file were both given, or a file cannot be read.
        """
        if endpoint.token is not None and endpoint.token_file is not None:
            raise ClientError("give either a token or a token_file, not both")
        self._endpoint = endpoint
        self._token = endpoint.token
        try:
            if endpoint.token_file is not None:
                self._token = endpoint.token_file.read_text().strip()
            trusted = ssl.create_default_context(cafile=endpoint.ca_file) if endpoint.ca_file else True
        except (OSError, ssl.SSLError) as error:
            raise ClientError(f"cannot read the token file or the CA file: {error}") from error
        self._http = httpx.AsyncClient(
            base_url=endpoint.url.rstrip("/"),
            verify=trusted,
            timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS),
            headers={"User-Agent": "distriqueue-client"},
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def request(
        self,
        method: str,
        path: str,
        *,
        repeatable: bool = True,
        params: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        patience_seconds: float | None = None,
    ) -> httpx.Response:
        """Send a request, again if need be, and return its successful answer.

        Args:
            method: The HTTP method.
            path: Below the gateway's address.
            repeatable: Whether carrying it out twice is the same as once.
            params: The query; lists repeat the parameter.
            body: JSON, or None.
            headers: Further headers.
            patience_seconds: How long it is repeated, if not as long as the endpoint says.

        Raises:
            ProblemError: The gateway refused.
            ConnectionFailed: No answer, in spite of repetitions.
        """
        patience = self.patience(patience_seconds)
        while True:
            try:
                return await self._once(method, path, params=params, body=body, headers=headers)
            except ClientError as error:
                unsent = isinstance(error.__cause__, _UNSENT)
                if not (unsent or (repeatable and error.retryable)):
                    raise
                await patience.pause(error)

    def patience(self, seconds: float | None = None) -> "Patience":
        """Return how long something is repeated.

        Args:
            seconds: If not as long as the endpoint says.
        """
        return Patience(self._endpoint.patience_seconds if seconds is None else seconds)

    @asynccontextmanager
    async def stream(
        self, path: str, *, params: Mapping[str, Any], headers: Mapping[str, str]
    ) -> AsyncIterator[AsyncIterator[str]]:
        """Open an event stream; gives its lines.

        Raises:
            ProblemError: The gateway refused.
            ConnectionFailed: No connection, or it broke, or went silent.
        """
        timeout = httpx.Timeout(STREAM_SILENCE_SECONDS, connect=CONNECT_SECONDS)
        accept = {"Accept": "text/event-stream", **headers}
        token = self._token
        try:
            async with self._http.stream(
                "GET", path, params=params, headers={**accept, **_bearer(token)}, timeout=timeout
            ) as answer:
                if answer.status_code >= _HTTP_ERROR:
                    await answer.aread()
                    refusal = _refusal(answer)
                    if isinstance(refusal, Unauthenticated) and self._renew(token):
                        raise ConnectionFailed(f"GET {path}: the token was renewed, and it is tried again")
                    raise refusal
                yield answer.aiter_lines()
        except httpx.TransportError as error:
            raise ConnectionFailed(f"GET {path}: {_words(error)}") from error

    async def _once(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None,
        body: bytes | None,
        headers: Mapping[str, str] | None,
    ) -> httpx.Response:
        while True:
            token = self._token
            sent = {**(headers or {}), **_bearer(token)}
            if body is not None:
                sent["Content-Type"] = "application/json"
            try:
                answer = await self._http.request(method, path, params=params, content=body, headers=sent)
            except httpx.HTTPError as error:
                raise ConnectionFailed(f"{method} {path}: {_words(error)}") from error
            if answer.status_code < _HTTP_ERROR:
                return answer
            refusal = _refusal(answer)
            if not (isinstance(refusal, Unauthenticated) and self._renew(token)):
                raise refusal

    def _renew(self, refused: str | None) -> bool:
        """Read the token file again; return whether there is another token now than the one that was refused."""
        if self._endpoint.token_file is not None:
            try:
                self._token = self._endpoint.token_file.read_text().strip()
            except OSError:
                return False  # the refusal says more than a file that is just being replaced
        return self._token != refused


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _bearer(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _refusal(answer: httpx.Response) -> ProblemError:
    try:
        document = answer.json()
    except ValueError:
        document = None  # a proxy in between answered
    try:
        retry_after = float(answer.headers["Retry-After"])
    except (KeyError, ValueError):
        retry_after = None
    return from_problem(answer.status_code, document if isinstance(document, dict) else {}, retry_after=retry_after)
