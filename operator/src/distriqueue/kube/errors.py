"""What can go wrong between us and the API server, translated once, here.

Guarantees: every call of `distriqueue.kube.client` that fails raises a `KubeError`; none of the HTTP library's errors
escape. The class says what the caller may conclude, above all whether a write may have happened:

============== =================================== ==========================================
class          answer                              did the write happen?
============== =================================== ==========================================
NotFound       404                                 no
Conflict       409                                 no: somebody wrote first, read and decide again
AlreadyExists  409, reason AlreadyExists           no
Gone           410                                 (reads only) list again
Refused        400, 405, 413, 415, 422             no, and never will as it stands
Forbidden      401, 403                            no
Throttled      429                                 no: it was not even looked at
Unanswered     time-out, broken connection, 5xx    nobody knows: read again, decide again
Unreachable    no connection, or nothing was sent  no
NotLeading     nothing was sent: the guard said no no
============== =================================== ==========================================

`Unreachable` is an `Unanswered`: whoever treats the unknown rightly treats it rightly too.
"""
# ruff: noqa: N818  (the names say what happened; "Error" at the end of each would say nothing more)

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import orjson

_HTTP_UNAUTHORIZED: Final = 401
_HTTP_FORBIDDEN: Final = 403
_HTTP_NOT_FOUND: Final = 404
_HTTP_CONFLICT: Final = 409
_HTTP_GONE: Final = 410
_HTTP_TOO_MANY_REQUESTS: Final = 429
_HTTP_SERVER_ERROR: Final = 500
_MESSAGE_LIMIT: Final = 2000


class KubeError(Exception):
    """The root of all errors of the Kubernetes side.

    Attributes:
        retryable: True if the same call may succeed later without anybody changing it.
        message: What the API server said, or what broke.
        code: The HTTP status; 0 when there was none.
        reason: The API server's word for the cause, such as ``AlreadyExists``; may be empty.
        causes: The causes the API server listed: mappings with ``reason``, ``message`` and ``field``.
        retry_after: How long the API server asked us to wait, in seconds; 0 when it did not.
    """

    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        code: int = 0,
        reason: str = "",
        causes: tuple[Mapping[str, Any], ...] = (),
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.causes = causes
        self.retry_after = retry_after


class NoCredentials(KubeError):
    """There is neither a service account nor a usable kubeconfig."""


class NotFound(KubeError):
    """The object, its namespace or its kind does not exist."""


class Conflict(KubeError):
    """Somebody wrote first: the resourceVersion or uid that the write was decided on is no longer there."""

    retryable = True


class AlreadyExists(Conflict):
    """An object of this name exists already."""

    retryable = False


class Gone(KubeError):
    """The resourceVersion is too old to go on from (or the page token is): list again."""

    retryable = True


class Refused(KubeError):
    """The API server will not have this object: schema, CEL rule, size or syntax. `message` and `causes` say why."""


class Forbidden(KubeError):
    """Not allowed, or not recognised. Permissions may come back, so it is worth asking again later."""

    retryable = True


class Throttled(KubeError):
    """The API server has too much to do and did not look at the request; `retry_after` says when to come back."""

    retryable = True


class Unanswered(KubeError):
    """No answer, or one that leaves the outcome open: a write may or may not have happened."""

    retryable = True


class Unreachable(Unanswered):
    """No connection, or it broke before anything was sent: certainly nothing happened."""


class NotLeading(KubeError):
    """The guard of the call said no when it was about to be sent: certainly nothing happened."""


def from_answer(code: int, body: bytes, *, retry_after: str | None = None) -> KubeError:
    """Return the error that an answer with a status of 400 or more stands for.

    Args:
        code: The HTTP status.
        body: The body: a Kubernetes ``Status`` as JSON, or whatever a proxy in between wrote.
        retry_after: The Retry-After header, in seconds; a date in it is ignored.
    """
    status: Any
    try:
        status = orjson.loads(body)
    except orjson.JSONDecodeError:
        status = None
    if not isinstance(status, dict):
        status = {"message": body[:_MESSAGE_LIMIT].decode(errors="replace").strip()}
    return from_status({**status, "code": code}, retry_after=_seconds(retry_after))


def from_status(status: Mapping[str, Any], *, retry_after: float = 0.0) -> KubeError:
    """Return the error that a Kubernetes ``Status`` stands for, as a watch delivers it in an ERROR event."""
    code = status.get("code")
    code = code if isinstance(code, int) else 0
    reason = str(status.get("reason") or "")
    message = str(status.get("message") or reason or f"HTTP status {code}")
    details = status.get("details")
    details = details if isinstance(details, dict) else {}
    causes = tuple(cause for cause in details.get("causes") or () if isinstance(cause, dict))
    seconds = details.get("retryAfterSeconds")
    if not retry_after and isinstance(seconds, int):
        retry_after = float(seconds)
    return _class_of(code, reason)(message, code=code, reason=reason, causes=causes, retry_after=retry_after)


def _class_of(code: int, reason: str) -> type[KubeError]:
    by_code: dict[int, type[KubeError]] = {
        _HTTP_UNAUTHORIZED: Forbidden,
        _HTTP_FORBIDDEN: Forbidden,
        _HTTP_NOT_FOUND: NotFound,
        _HTTP_CONFLICT: AlreadyExists if reason == "AlreadyExists" else Conflict,
        _HTTP_GONE: Gone,
        _HTTP_TOO_MANY_REQUESTS: Throttled,
    }
    if code in by_code:
        return by_code[code]
    # A 503 is not proof that nothing happened: a proxy says it too when its upstream broke off.
    return Unanswered if code == 0 or code >= _HTTP_SERVER_ERROR else Refused


def _seconds(header: str | None) -> float:
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0
