"""Every failure as a problem document (RFC 9457): what services refuse, what no route knows, what nobody expected.

Guarantees: an answer of 400 or more is `application/problem+json` whoever raised it, with the headers that its status
asks for; nothing internal is in its text.
"""

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from distriqueue.gateway.problems import MEDIA_TYPE, FieldError, InvalidRequest, NotFound, Problem, Unprocessable

CHALLENGE: Final = 'Bearer realm="distriqueue"'


class MethodNotAllowed(Problem):
    """The path exists, and not for this method."""

    status = 405
    slug = "method-not-allowed"
    title = "Method not allowed"


class UnsupportedMediaType(Problem):
    """The body is not JSON, by its own word."""

    status = 415
    slug = "unsupported-media-type"
    title = "Unsupported media type"


class FieldProblem(BaseModel):
    """One field, or one parameter, that is wrong."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    field: str
    """Where it is: a JSON pointer into the body, such as /backoff/maxSeconds, or the parameter, such as query/limit."""

    message: str
    """What is wrong, and what would be right."""


class ProblemDocument(BaseModel):
    """A problem (RFC 9457): what went wrong, and what to do."""

    model_config = ConfigDict(
        use_attribute_docstrings=True,
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:distriqueue:problem:not-found",
                    "title": "Not found",
                    "status": 404,
                    "detail": "there is no job 'default/report-1'",
                    "instance": "/api/jobs/default/report-1",
                }
            ]
        },
    )

    type: str
    """What kind of problem it is, for programs: urn:distriqueue:problem: and a word."""

    title: str
    """The same for people."""

    status: int = Field(ge=400, le=599)
    """The HTTP status."""

    detail: str
    """What went wrong this time, and what to do about it."""

    instance: str | None = None
    """The path that was asked for."""

    errors: list[FieldProblem] | None = None
    """The fields that are wrong, when the body or the parameters are."""


def problem_answer(problem: Problem, *, path: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer that a problem is.

    Args:
        problem: The problem.
        path: What was asked for.
        headers: Further headers.
    """
    shown = {**(headers or {})}
    if problem.status == HTTPStatus.UNAUTHORIZED:
        shown["WWW-Authenticate"] = CHALLENGE
    if problem.retry_after is not None:
        shown["Retry-After"] = str(max(1, math.ceil(problem.retry_after)))
    return Response(
        orjson.dumps(problem.document(path)), status_code=problem.status, media_type=MEDIA_TYPE, headers=shown
    )


def install(app: FastAPI) -> None:
    """Have an app answer its failures so."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI's description of the problems that an operation may answer with; those of all are added.

    Args:
        statuses: Its own.
    """
    return {status: PROBLEMS[status] for status in sorted({*statuses, *_ALWAYS})}


_ALWAYS: Final = (401, 429, 500, 503)
_DESCRIPTIONS: Final = {
    400: "The request cannot be read: the body is not JSON, or is nested too deeply.",
    401: "There is no token, or the cluster does not know it.",
    403: "The caller has no right to do this.",
    404: "There is no such thing.",
    405: "The path is one of something else, which does not take this method.",
    409: "It contradicts what is there.",
    410: "It was there, and is gone.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    422: "The request can be read, and is wrong: errors names the fields.",
    429: "The caller asks too often.",
    500: "The gateway failed; its log says why.",
    503: "The API server or the broker is away, or this replica has not read the jobs yet: ask again.",
}

_SECONDS: Final = {
    "Retry-After": {
        "description": "Seconds after which to ask again.",
        "required": False,
        "schema": {"type": "integer", "minimum": 1},
    }
}
_HEADERS: Final[dict[int, dict[str, Any]]] = {
    401: {
        "WWW-Authenticate": {
            "description": "How to show who one is: by a bearer token.",
            "required": True,
            "schema": {"type": "string"},
        }
    },
    405: {"Allow": {"description": "The methods that it takes.", "required": True, "schema": {"type": "string"}}},
    429: _SECONDS,
    503: _SECONDS,
}
PROBLEMS: Final[dict[int, dict[str, Any]]] = {
    status: {
        "description": description,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
        **({"headers": _HEADERS[status]} if status in _HEADERS else {}),
    }
    for status, description in _DESCRIPTIONS.items()
}
"""How OpenAPI describes the problems, by status."""


async def _problem(request: Request, error: Exception) -> Response:
    if not isinstance(error, Problem):
        raise TypeError(type(error).__name__) from error
    return problem_answer(error, path=request.url.path)


async def _validation(request: Request, error: Exception) -> Response:
    """A parameter is wrong: of the path, the query or the headers."""
    if not isinstance(error, RequestValidationError):
        raise TypeError(type(error).__name__) from error
    errors = tuple(
        FieldError("/".join(map(str, item["loc"])), str(item["msg"]).removeprefix("Value error, "))
        for item in error.errors()
    )
    problem = Unprocessable("; ".join(f"{error.field}: {error.message}" for error in errors), errors=errors)
    return problem_answer(problem, path=request.url.path)


async def _http(request: Request, error: Exception) -> Response:
    """What the framework refuses by itself: unknown paths and methods."""
    if not isinstance(error, HTTPException):
        raise TypeError(type(error).__name__) from error
    path = request.url.path
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = ", ".join(_methods(request))
        problem: Problem = MethodNotAllowed(f"{path} takes {allowed}, and not {request.method}")
        return problem_answer(problem, path=path, headers={"Allow": allowed})
    if error.status_code == HTTPStatus.NOT_FOUND:
        problem = NotFound(
            "there is nothing at this path: /api/docs lists all paths. A job is named by its uid, or by its namespace "
            "and name"
        )
    else:
        problem = InvalidRequest("the request cannot be read")
    return problem_answer(problem, path=path)


def _methods(request: Request) -> list[str]:
    """Return the methods that a path takes, of all its routes."""
    found: set[str] = set()
    for route in request.app.routes:
        match, _ = route.matches(request.scope)
        if match is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    return sorted(found)
