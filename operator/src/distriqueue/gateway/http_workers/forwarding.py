"""One hop to the replica that keeps a session.

Guarantees: the caller's own token goes along, and nothing else of its request but the body; the answer is what the
other replica said, its problems included. An address comes from a seal, never from a caller. Fails with `Gone` when
nobody is there any more (the worker registers anew), with `Unavailable` when it is not known what became of the
request.
"""

import ssl
from collections.abc import Callable
from typing import Any, Final, TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError

from distriqueue.gateway import problems
from distriqueue.gateway.http_workers.passages import FORWARDED_HEADER, Passage
from distriqueue.gateway.problems import FieldError, Gone, Internal, Problem, Unavailable

CONNECT_SECONDS: Final = 2.0
ANSWER_SECONDS: Final = 20.0
"""How long an answer may take, beyond what the request itself waits."""
OWNER_GONE: Final = "the replica that kept this session is gone: register again, with the jobs that are held"
_FAILURE: Final = 400

AnswerT = TypeVar("AnswerT", bound=BaseModel)

_PROBLEMS: Final[dict[int, type[Problem]]] = {
    int(kind.status): kind
    for kind in (
        problems.InvalidRequest,
        problems.Unauthenticated,
        problems.Forbidden,
        problems.NotFound,
        problems.Conflict,
        problems.Gone,
        problems.TooLarge,
        problems.Unprocessable,
        problems.TooManyRequests,
        problems.Unavailable,
    )
}


class Forwarder:
    """Hands requests on.

    Args:
        peer_context: What the other replicas' certificate is checked by; None without TLS. Asked for each connection.
    """

    def __init__(self, peer_context: Callable[[], ssl.SSLContext] | None) -> None:
        self._peer_context = peer_context
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Get ready."""
        self._session = aiohttp.ClientSession(auto_decompress=True)

    async def stop(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def send(
        self,
        owner: str,
        method: str,
        path: str,
        body: BaseModel | None,
        *,
        answer: type[AnswerT] | None,
        passage: Passage,
        wait: float = 0.0,
    ) -> AnswerT | None:
        """Hand a request on; None when no answer is expected.

        Raises:
            Problem: What the other replica said; `Gone` when it is not there.
        """
        if self._session is None:
            raise Unavailable("this replica ends", retry_after=1.0)
        secure = self._peer_context is not None
        headers = {FORWARDED_HEADER: "1", "Content-Type": "application/json"}
        if passage.token is not None:
            headers["Authorization"] = f"Bearer {passage.token}"
        content = b"{}" if body is None else body.model_dump_json(by_alias=True, exclude_unset=True).encode()
        try:
            async with self._session.request(
                method,
                f"http{'s' if secure else ''}://{owner}{path}",
                data=content,
                headers=headers,
                ssl=self._peer_context() if self._peer_context is not None else True,
                timeout=aiohttp.ClientTimeout(total=wait + ANSWER_SECONDS, sock_connect=CONNECT_SECONDS),
                allow_redirects=False,
            ) as response:
                text = await response.read()
                status, retry_after = response.status, response.headers.get("Retry-After", "")
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            raise Gone(OWNER_GONE) from None
        except (aiohttp.ClientError, TimeoutError, OSError):
            raise Unavailable(
                "the replica that keeps this session did not answer: send it again", retry_after=1.0
            ) from None
        if status >= _FAILURE:
            raise _problem(status, text, retry_after)
        return None if answer is None else _read(answer, text)


def _read(answer: type[AnswerT], text: bytes) -> AnswerT:
    try:
        return answer.model_validate_json(text)
    except ValidationError:
        raise Internal("another replica of the gateway gave an answer that this one cannot read") from None


class _Document(BaseModel):
    """What is read of a problem document."""

    detail: str = ""
    errors: list[dict[str, Any]] = []


def _problem(status: int, text: bytes, retry_after: str) -> Problem:
    try:
        document = _Document.model_validate_json(text)
    except ValidationError:
        document = _Document()
    kind = _PROBLEMS.get(status, Internal)
    errors = tuple(FieldError(str(error.get("field", "")), str(error.get("message", ""))) for error in document.errors)
    return kind(
        document.detail or "another replica of the gateway failed to answer",
        errors=errors,
        retry_after=float(retry_after) if retry_after.isdecimal() else None,
    )
