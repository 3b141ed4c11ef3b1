"""The body of a request, from bytes to a model: bounded before it is read, and named field by field where it is wrong.

Guarantees: nothing larger than the limit is kept, whatever the head of the request claims; JSON is taken strictly (no
NaN, no halves of surrogate pairs, whole numbers beyond 64 bits become floating point as they do in the API server), and
so are types: a number in quotes is text. Fails with the problems of `distriqueue.gateway.problems`, and with
`starlette.requests.ClientDisconnect` when the caller has gone.
"""

import difflib
from collections.abc import Iterator
from typing import Any, Final, TypeVar, get_args

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from distriqueue.gateway.problems import FieldError, InvalidRequest, TooLarge, Unprocessable
from distriqueue.gateway.rest.failures import UnsupportedMediaType

DEPTH_LIMIT: Final = 64
"""Most arrays and objects inside one another in a body."""
ERRORS_SHOWN: Final = 20
"""Most wrong fields that one answer names."""

ModelT = TypeVar("ModelT", bound=BaseModel)


async def read_model(request: Request, model: type[ModelT], *, limit: int) -> ModelT:
    """Read the body as a model.

    Args:
        request: The request.
        model: What the body is to be.
        limit: Most bytes.

    Raises:
        UnsupportedMediaType: The body says that it is something else than JSON.
        TooLarge: It is above the limit.
        InvalidRequest: It is no JSON, or nested too deeply.
        Unprocessable: It is JSON, and no such model; `errors` names the fields.
    """
    check_type(request)
    return parse(await read_bytes(request, limit=limit), model)


def check_type(request: Request) -> None:
    """Refuse a body that does not say that it is JSON.

    Raises:
        UnsupportedMediaType: It says something else, or nothing.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise UnsupportedMediaType(
            f"the body is {kind or 'of no declared type'}, and this takes application/json: send the header "
            "'Content-Type: application/json' (curl does so with --json)"
        )


async def read_bytes(request: Request, *, limit: int) -> bytes:
    """Read the body, but never more of it than the limit.

    Raises:
        TooLarge: It is above the limit.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def parse(body: bytes, model: type[ModelT]) -> ModelT:
    """Return the model that a body is.

    Raises:
        InvalidRequest: It is no JSON, or nested too deeply.
        Unprocessable: It is JSON, and no such model; `errors` names the fields.
    """
    try:
        value: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    # As many brackets are needed to be as deep; mostly there are fewer, and nobody has to look.
    if body.count(b"{") + body.count(b"[") > DEPTH_LIMIT and depth(value) > DEPTH_LIMIT:
        raise too_deep()
    try:
        return _validated(value, model)
    except ValidationError as error:
        if not any(item["type"].startswith("int_") for item in error.errors(include_url=False, include_input=False)):
            raise unprocessable(error, model) from None
    try:
        return _validated(_whole(value), model)  # JSON knows one kind of number: 5.0 is a whole one
    except ValidationError as error:
        raise unprocessable(error, model) from None


def _validated(value: Any, model: type[ModelT]) -> ModelT:
    # From text again: only there does `strict` let a moment be the text that it is in JSON.
    return model.model_validate_json(orjson.dumps(value), strict=True)


def _whole(value: Any) -> Any:
    """Return JSON whose floating-point numbers are whole ones where they can be."""
    if isinstance(value, dict):
        return {key: _whole(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_whole(part) for part in value]
    # Beyond this a whole number does not fit into 64 bits.
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**63 else value


def unprocessable(error: ValidationError, model: type[BaseModel]) -> Unprocessable:
    """Return the problem that names the fields which are wrong."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    errors = tuple(
        FieldError(
            pointer(item["loc"]),
            _unknown(item["loc"], model) if item["type"] == "extra_forbidden" else sentence(item["msg"]),
        )
        for item in found[:ERRORS_SHOWN]
    )
    return Unprocessable(wrong(errors, count=len(found), what="field"), errors=errors)


def _unknown(location: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """Return the sentence about a field that there is not, with the one that was probably meant."""
    *path, name = location
    inner: type[BaseModel] | None = model
    for part in path:
        field = next((each for each in inner.model_fields.values() if each.alias == part), None) if inner else None
        inner = next(_models(field.annotation), None) if field is not None else inner if isinstance(part, int) else None
    known = [field.alias or key for key, field in inner.model_fields.items()] if inner is not None else []
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    return f"there is no such field: did you mean {near[0]!r}?" if near else "there is no such field"


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that an annotation allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def wrong(errors: tuple[FieldError, ...], *, count: int, what: str) -> str:
    """Return the sentence about wrong fields.

    Args:
        errors: Those that are shown.
        count: How many there are.
        what: What they are: ``field`` or ``parameter``.
    """
    place = errors[0].field or "the body"
    first = f"{place}: {errors[0].message}"
    return first if count == 1 else f"{count} {what}s are wrong, the first: {first}"


def pointer(location: tuple[int | str, ...]) -> str:
    """Return a place in a body as a JSON pointer."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in location)


def sentence(message: str) -> str:
    """Return pydantic's words without the prefix of those that are our own."""
    return message.removeprefix("Value error, ")


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is larger than {limit} bytes: send less at a time, or large data by reference")


def too_deep() -> InvalidRequest:
    """Return the problem of a body that is nested too deeply."""
    return InvalidRequest(f"the body is nested more than {DEPTH_LIMIT} deep: send flatter data, or a text with JSON")


def depth(value: Any) -> int:
    """Return how deep arrays and objects are nested, or that it is more than the limit."""
    level: list[Any] = [value]
    levels = 0
    while level and levels <= DEPTH_LIMIT:
        level = [part for part in level if isinstance(part, dict | list)]
        if level:
            levels += 1
        level = [inner for part in level for inner in (part.values() if isinstance(part, dict) else part)]
    return levels
