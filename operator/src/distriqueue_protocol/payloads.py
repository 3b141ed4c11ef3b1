"""A payload that stands elsewhere as JSON text: read alike by the leader (a ConfigMap) and by workers (a Secret).

Guarantees: what is returned is a JSON object within the limit, and survives the way through messages to a handler (no
NaN, nothing nested too deep). Fails with a `PayloadTextError` whose words say what to do and quote nothing of the text,
because that may be secret.
"""

import re
from typing import Any, ClassVar, Final

from pydantic import JsonValue
from pydantic_core import from_json, to_json

from distriqueue_protocol.names import PAYLOAD_LIMIT_BYTES

LEVELS_MOST: Final = 190
"""Readers refuse what is nested deeper than 200 levels; some of them are taken by the messages around a payload."""

_POSITION: Final = re.compile(r"line \d+ column \d+")


class PayloadTextError(ValueError):
    """A text is no payload. `reason` is the word for programs."""

    reason: ClassVar[str] = "InvalidPayload"


class PayloadTextTooLargeError(PayloadTextError):
    """It is one, and too large."""

    reason: ClassVar[str] = "PayloadTooLarge"


def too_large(what: str, *, size: int, limit: int) -> str:
    """The sentence about a payload that is too large, wherever it stands.

    Args:
        what: What is too large, such as `spec.payload`.
        size: Its bytes as JSON text without spaces.
        limit: The most bytes.
    """
    return (
        f"{what} has {size} bytes, the limit is {limit}: store the data elsewhere and put a reference to it into the "
        "payload"
    )


def too_deep(what: str) -> str:
    """The sentence about a payload that is nested too deeply, wherever it stands."""
    return f"{what} is nested deeper than {LEVELS_MOST} levels: make it flatter"


def read_payload_text(text: str | bytes, *, what: str, limit: int = PAYLOAD_LIMIT_BYTES) -> dict[str, JsonValue]:
    """The JSON object that a text is.

    Args:
        text: JSON; bytes are UTF-8.
        what: Where it stands, for the error, such as `key a of ConfigMap b`.
        limit: The most bytes that it may have as JSON text without spaces.

    Raises:
        PayloadTextTooLargeError: It has more bytes.
        PayloadTextError: It is no JSON object.
    """
    try:
        value: Any = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        position = _POSITION.search(str(error))
        where = f" (at {position.group()})" if position else ""
        raise PayloadTextError(f"{what} is not JSON{where}: write a JSON object there") from None
    if not isinstance(value, dict):
        raise PayloadTextError(f'{what} is JSON and no object: write a JSON object there, as in {{"to": "you"}}')
    size = len(to_json(value))
    if size > limit:
        raise PayloadTextTooLargeError(too_large(what, size=size, limit=limit))
    if is_too_deep(value):
        raise PayloadTextError(too_deep(what))
    return value


def is_too_deep(value: JsonValue) -> bool:
    """Say whether a value is nested deeper than `LEVELS_MOST`."""
    level: list[JsonValue] = [value]
    for _ in range(LEVELS_MOST):
        inner: list[JsonValue] = []
        for one in level:
            if isinstance(one, dict):
                inner.extend(one.values())
            elif isinstance(one, list):
                inner.extend(one)
        level = inner
        if not level:
            return False
    return True
