"""Problems: every way in which a door says no, as RFC 9457 documents, the same at REST, gRPC and on a stream.

Guarantees: a `Problem` carries an HTTP status, a stable word for programs (`slug`, the end of its `type` URN), and a
sentence for people that says what to do; where single fields are wrong, `errors` names each by its JSON pointer. What
the API server refuses is translated here and nowhere else (`from_kube`), in its own words; errors of our own side (the
rights of the gateway's account, credentials) become `Internal` and `Unavailable`, whose texts tell nothing from within.
"""
# ruff: noqa: N818  (the names say what happened; "Error" at the end of each would say nothing more)

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar, Final

from distriqueue.kube import errors as kube

_LOG: Final = logging.getLogger(__name__)

URN: Final = "urn:distriqueue:problem:"
"""What a problem's `type` begins with; its slug follows."""

MEDIA_TYPE: Final = "application/problem+json"

RETRY_SECONDS: Final = 2.0
"""When to come back, where nobody knows better."""

_DETAIL_LIMIT: Final = 4000
_CAUSES_LIMIT: Final = 20


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field that is wrong.

    Attributes:
        field: Where it is: a JSON pointer into the body, or ``query/`` and the parameter; empty for the whole of it.
        message: What is wrong, and what to write instead.
    """

    field: str
    message: str


class Problem(Exception):
    """The root of all that a door refuses.

    Attributes:
        status: HTTP status.
        slug: The word for programs.
        title: The kind of problem, the same for each of its kind.
        retryable: The same request may succeed later without anybody changing it.
        detail: What happened here, and what to do.
        errors: The fields that are wrong.
        retry_after: When to come back, in seconds.
    """

    status: ClassVar[int] = HTTPStatus.INTERNAL_SERVER_ERROR
    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str, *, errors: Sequence[FieldError] = (), retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)
        self.retry_after = retry_after

    def document(self, instance: str | None = None) -> dict[str, Any]:
        """Return the RFC 9457 document.

        Args:
            instance: Names this occurrence: the path of the request.
        """
        document: dict[str, Any] = {
            "type": f"{URN}{self.slug}",
            "title": self.title,
            "status": int(self.status),
            "detail": self.detail,
        }
        if instance is not None:
            document["instance"] = instance
        if self.errors:
            document["errors"] = [{"field": error.field, "message": error.message} for error in self.errors]
        return document


class InvalidRequest(Problem):
    """The request cannot be read: no JSON, a malformed header."""

    status = HTTPStatus.BAD_REQUEST
    slug = "invalid-request"
    title = "The request cannot be read"


class Unauthenticated(Problem):
    """Nobody knows who calls."""

    status = HTTPStatus.UNAUTHORIZED
    slug = "unauthenticated"
    title = "Not authenticated"


class Forbidden(Problem):
    """The caller may not do that."""

    status = HTTPStatus.FORBIDDEN
    slug = "forbidden"
    title = "Not allowed"


class NotFound(Problem):
    """There is no such thing."""

    status = HTTPStatus.NOT_FOUND
    slug = "not-found"
    title = "Not found"


class Conflict(Problem):
    """The state of the thing does not allow it."""

    status = HTTPStatus.CONFLICT
    slug = "conflict"
    title = "Conflict"


class Gone(Problem):
    """It was there, and will not come back."""

    status = HTTPStatus.GONE
    slug = "gone"
    title = "Gone"


class TooLarge(Problem):
    """The request is larger than is taken."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    slug = "too-large"
    title = "Too large"


class Unprocessable(Problem):
    """The request was read, and what it says is wrong; `errors` names the fields."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    slug = "unprocessable"
    title = "Not as it has to be"


class TooManyRequests(Problem):
    """The caller asks for more than its share."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    slug = "too-many-requests"
    title = "Too many requests"
    retryable = True


class Internal(Problem):
    """Our own fault; the log has the cause, the answer has not."""


class Unavailable(Problem):
    """Something that the answer needs is away."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    slug = "unavailable"
    title = "Not available now"
    retryable = True


class Unsettled(Unavailable):
    """Whether it was done is not known. No `retry_after`: whoever repeats it unseen may have it done twice."""


class TooSlow(Unavailable):
    """The reader of a stream fell so far behind that it was cut; it resumes with the last id that it has read."""

    slug = "too-slow"
    title = "The reader of the stream is too slow"


def from_kube(error: kube.KubeError) -> Problem:
    """Return the problem that an error of the API server is for whoever called us.

    Args:
        error: What the call made with the gateway's own account ended with.
    """
    for kind, translate in _TRANSLATIONS:
        if isinstance(error, kind):
            return translate(error)
    _LOG.error("not expected of the API server: %s: %s", type(error).__name__, error.message)
    return Internal("something went wrong in the gateway; its log says what")


def _refused(error: kube.KubeError) -> Problem:
    if error.code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return TooLarge(_text(error.message))
    return Unprocessable(_text(error.message), errors=_field_errors(error.causes))


def _forbidden(error: kube.KubeError) -> Problem:
    if error.code == HTTPStatus.FORBIDDEN and _is_of_the_namespace(error):
        # The caller may do it; what stands against it lies in the namespace, and the API server's words say so.
        return Conflict(_text(error.message))
    if _POLICY.search(error.message):
        # Nobody lacks a right: the cluster has a rule against this job, and says so in its own words.
        return Forbidden(_text(error.message))
    _LOG.error("the gateway's own account is refused: %s", error.message)
    return Unavailable(
        "the gateway's own account is not allowed to do this: its ClusterRole is missing or incomplete; tell whoever "
        "runs it",
        retry_after=error.retry_after or RETRY_SECONDS,
    )


def _away(sentence: str) -> Callable[[kube.KubeError], Problem]:
    return lambda error: Unavailable(sentence, retry_after=error.retry_after or RETRY_SECONDS)


_TRANSLATIONS: Final[tuple[tuple[type[kube.KubeError], Callable[[kube.KubeError], Problem]], ...]] = (
    (kube.NotFound, lambda error: NotFound(_text(error.message))),
    (kube.AlreadyExists, lambda error: Conflict(f"{_text(error.message)}: choose another name, or leave it out")),
    (kube.Conflict, lambda error: Conflict(f"{_text(error.message)}: read the job again and decide anew")),
    (kube.Gone, lambda error: Gone(_text(error.message))),
    (kube.Refused, _refused),
    (kube.Forbidden, _forbidden),
    (kube.NoCredentials, _forbidden),
    (kube.Throttled, _away("the Kubernetes API server has too much to do: try again")),
    (kube.Unreachable, _away("the Kubernetes API server cannot be reached, and nothing was done: try again")),
    (
        kube.Unanswered,
        _away(
            "the Kubernetes API server did not answer, and whether it did what was asked is not known: try again "
            "(a submission with an Idempotency-Key is made only once)"
        ),
    ),
)
"""In the order in which they are asked: the narrower class first."""


_POLICY: Final = re.compile(
    r"admission webhook \"[^\"]*\" denied the request|ValidatingAdmissionPolicy .* denied request"
)
"""How the API server begins the words of a webhook or a policy that refuses; they come with 403, among others."""


def _is_of_the_namespace(error: kube.KubeError) -> bool:
    """Say whether a 403 is no matter of rights: the namespace is terminating, or a quota is used up."""
    causes = {cause.get("reason") for cause in error.causes}
    return "NamespaceTerminating" in causes or "exceeded quota" in error.message


def _text(message: str) -> str:
    return message[:_DETAIL_LIMIT].strip() or "the API server gave no reason"


def _field_errors(causes: Sequence[Mapping[str, Any]]) -> tuple[FieldError, ...]:
    """Return the causes of a refusal, their places as the caller of the gateway knows them."""
    return tuple(
        FieldError(_pointer(str(cause.get("field") or "")), _text(str(cause.get("message") or "")))
        for cause in causes[:_CAUSES_LIMIT]
    )


_PART: Final = re.compile(r"[^.\[\]]+")
_IN_BODY: Final = {"spec", "metadata"}


def _pointer(field: str) -> str:
    """Return a field path such as ``spec.backoff.maxSeconds`` as a JSON pointer into a submission."""
    parts = _PART.findall(field)
    if parts and parts[0] in _IN_BODY:
        parts = parts[1:]
    return "".join(f"/{part.replace('~', '~0').replace('/', '~1')}" for part in parts)
