"""What can go wrong for a caller of the gateway, with one root.

Guarantees: every failure of `distriqueue.client` is a `ClientError`; no error of the HTTP library escapes. `retryable`
says whether the same call may succeed later without anybody changing it. Refusals of the gateway are `ProblemError`s,
with the fields of the problem document (RFC 9457); a job that did not succeed raises `JobFailed`, `JobDead` or
`JobCancelled`, with the job.
"""
# ruff: noqa: N818  (the names say what happened, as those of `distriqueue.kube.errors` do)

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from distriqueue.client.models import Job

TYPE_PREFIX: Final = "urn:distriqueue:problem:"
_TEXT_LIMIT: Final = 500
_SERVER_ERROR: Final = 500


class ClientError(Exception):
    """The root of all errors of the client.

    Attributes:
        retryable: True if the same call may succeed later without anybody changing it.
    """

    retryable: ClassVar[bool] = False


class ConnectionFailed(ClientError):
    """No answer: no connection, one that broke, or a time-out. The request may have been carried out."""

    retryable = True


class WaitTimeout(ClientError, TimeoutError):
    """The job was not over in the time given; it goes on."""

    retryable = True

    def __init__(self, message: str, *, job: Job) -> None:
        super().__init__(message)
        self.job = job


class UnexpectedAnswer(ClientError):
    """Something answered that is no gateway, or one that this version does not understand."""


class BatchRefused(ClientError):
    """Some of many submissions were refused, or not answered; the others are made.

    Attributes:
        made: The jobs that were made, by the place of their submission.
        refused: Why the others were not, likewise. Where the gateway was away, all that were not answered or not sent
            any more have that error.
        names: The names under which those of `refused` were sent, likewise. One that was not answered may have been
            made: `client.get("namespace/name")` says so.
    """

    def __init__(
        self, made: "Mapping[int, Job]", refused: "Mapping[int, ClientError]", *, names: Mapping[int, str] | None = None
    ) -> None:
        place, problem = next(iter(refused.items()))
        super().__init__(
            f"{len(refused)} of {len(made) + len(refused)} submissions were refused; number {place}: {problem}"
        )
        self.made = dict(made)
        self.refused = dict(refused)
        self.names = dict(names or {})


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field.

    Attributes:
        field: The field, as a JSON pointer into the request, such as ``/payload``, or ``query/`` and a parameter; empty
            for the whole of it.
        message: What is wrong with it, and what would be right.
    """

    field: str
    message: str


class ProblemError(ClientError):
    """The gateway refused.

    Attributes:
        status: The HTTP status.
        slug: What kind of problem it is, in kebab-case, such as ``not-found``.
        title: The same for people.
        detail: What happened here, and what to do.
        errors: What is wrong with single fields.
        retry_after: Seconds after which to try again, or None.
    """

    statuses: ClassVar[tuple[int, ...]] = ()

    def __init__(
        self,
        *,
        status: int,
        slug: str,
        title: str,
        detail: str,
        errors: Sequence[FieldError] = (),
        retry_after: float | None = None,
    ) -> None:
        fields = "; ".join(f"{error.field or 'request'}: {error.message}" for error in errors)
        super().__init__(f"{detail or title} ({fields})" if fields else detail or title)
        self.status = status
        self.slug = slug
        self.title = title
        self.detail = detail
        self.errors = tuple(errors)
        self.retry_after = retry_after


class InvalidRequest(ProblemError):
    """400 or 422: something in the request is wrong; `errors` names the fields."""

    statuses = (400, 422)


class Unauthenticated(ProblemError):
    """401: no token, or one that the cluster does not know (any more)."""

    statuses = (401,)


class Forbidden(ProblemError):
    """403: the token's user may not do this here."""

    statuses = (403,)


class NotFound(ProblemError):
    """404: there is no such job."""

    statuses = (404,)


class Conflict(ProblemError):
    """409: the job is not in a state in which this can be done, or its name is taken."""

    statuses = (409,)


class Gone(ProblemError):
    """410: a cursor that is too old; begin again."""

    statuses = (410,)


class TooLarge(ProblemError):
    """413: the request, most often the payload, is larger than the limit."""

    statuses = (413,)


class TooManyRequests(ProblemError):
    """429: come back after `retry_after`."""

    statuses = (429,)
    retryable = True


class Unavailable(ProblemError):
    """502, 503 or 504: the gateway, or the API server behind it, is away for now."""

    statuses = (502, 503, 504)
    retryable = True


class InternalError(ProblemError):
    """Any other 5xx: the gateway failed; its log has the cause."""


class JobError(ClientError):
    """A job that is over and did not succeed.

    Attributes:
        job: The job as it ended; ``job.error`` is the error of its last attempt.
    """

    def __init__(self, message: str, *, job: Job) -> None:
        super().__init__(message)
        self.job = job


class ResultMismatch(JobError):
    """It succeeded, and its result is not of the type that was asked for."""


class JobFailed(JobError):
    """It will not be tried again, for a reason that another attempt cannot mend."""


class JobDead(JobError):
    """Every attempt was used up."""


class JobCancelled(JobError):
    """Somebody cancelled it."""


class JobDeleted(JobError):
    """It was deleted while it was waited for; `job` is the last state that was seen."""


_CLASSES: Final[Mapping[int, type[ProblemError]]] = {
    status: kind
    for kind in (
        InvalidRequest,
        Unauthenticated,
        Forbidden,
        NotFound,
        Conflict,
        Gone,
        TooLarge,
        TooManyRequests,
        Unavailable,
    )
    for status in kind.statuses
}


def from_problem(status: int, document: Mapping[str, Any], *, retry_after: float | None = None) -> ProblemError:
    """Return the error that a problem document stands for; what it lacks is filled in.

    Args:
        status: The HTTP status.
        document: The document, or an empty mapping when something else than the gateway answered.
        retry_after: The Retry-After header, in seconds.
    """
    kind = _CLASSES.get(status) or (InternalError if status >= _SERVER_ERROR else ProblemError)
    type_ = str(document.get("type") or "")
    listed = document.get("errors")
    return kind(
        status=status,
        slug=type_.removeprefix(TYPE_PREFIX) if type_.startswith(TYPE_PREFIX) else "",
        title=str(document.get("title") or f"HTTP status {status}"),
        detail=str(document.get("detail") or "")[: 10 * _TEXT_LIMIT],
        errors=[
            FieldError(str(entry.get("field") or ""), str(entry.get("message") or ""))
            for entry in (listed if isinstance(listed, list) else [])
            if isinstance(entry, Mapping)
        ],
        retry_after=retry_after,
    )
