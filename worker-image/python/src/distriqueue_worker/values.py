"""JSON that leaves a worker: results and checkpoints.

Guarantees: what `compact` returns is a copy that nobody else holds, fits into its limit, and comes back from every
reader as it is: no NaN, no lone surrogates, no integer that 64 bits cannot hold, nothing nested too deep for a message.
Fails with `NotJSONError` and `TooLargeError`, whose messages say what to do instead.
"""

import json
import re
from typing import Any, Final

from pydantic import BaseModel, JsonValue, TypeAdapter

ROOM_LEVELS: Final = 8
"""Readers refuse what is nested deeper than 200 levels; some of them are taken by the messages around a value."""
SMALLEST_INTEGER: Final = -(2**63)
LARGEST_INTEGER: Final = 2**63 - 1

_JSON: Final[TypeAdapter[JsonValue]] = TypeAdapter(JsonValue)
_MANY_DIGITS: Final = re.compile(rb"[0-9]{19}")


class NotJSONError(ValueError):
    """It is not JSON, or JSON that does not survive the way."""


class TooLargeError(ValueError):
    """It has more bytes than there is room for."""


def compact(value: object, *, limit: int) -> tuple[JsonValue, int]:
    """A copy of a value as plain JSON, and how many bytes of compact UTF-8 it has.

    Args:
        value: Something that is JSON, or a pydantic model.
        limit: The most bytes.

    Raises:
        NotJSONError: It is not JSON; whatever the methods of an author's class raise ends up here, too.
        TooLargeError: It is larger than the limit.
    """
    try:
        plain = value.model_dump(mode="json", by_alias=True) if isinstance(value, BaseModel) else value
        text = json.dumps(plain, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
        copy = _read(text) if len(text) <= limit else None
    except Exception as error:
        raise NotJSONError(str(error) or type(error).__name__) from error
    if len(text) > limit:
        raise TooLargeError(f"it has {len(text)} bytes of JSON, and {limit} is the limit")
    if _MANY_DIGITS.search(text):
        _check_integers(copy)
    return copy, len(text)


def _read(text: bytes) -> JsonValue:
    value = _JSON.validate_json(b"[" * ROOM_LEVELS + text + b"]" * ROOM_LEVELS)
    for _ in range(ROOM_LEVELS):
        assert isinstance(value, list)  # noqa: S101 - the brackets from above
        value = value[0]
    return value


def _check_integers(value: JsonValue) -> None:
    """Kubernetes keeps integers in 64 bits, and would make another number of a larger one without a word."""
    waiting: list[Any] = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
        elif isinstance(one, int) and not SMALLEST_INTEGER <= one <= LARGEST_INTEGER:
            raise NotJSONError(
                f"it holds an integer of {one.bit_length()} bits, and 64 with the sign is what Kubernetes keeps: "
                "write it as a string"
            )
