"""What a handler returned or raised, as the result that a report carries.

Guarantees: whatever a handler does, the result fits into a report: its value is JSON within the limit, its texts are
within theirs, its reason is one word. Nothing here raises.
"""

import json
import re
from typing import Any, Final

from pydantic import BaseModel, JsonValue, TypeAdapter, ValidationError

from distriqueue_protocol.messages import Outcome
from distriqueue_worker.commands import Result
from distriqueue_worker.logs import cut_back, cut_front
from distriqueue_worker.tasks import PermanentError

RESULT_BYTES: Final = 64 * 1024
"""A result is part of the resource's status; larger ones belong into a store, and their address into the result."""
ROOM_LEVELS: Final = 8
ERROR_BYTES: Final = 4096
REASON_CHARACTERS: Final = 64

INVALID_PAYLOAD: Final = "InvalidPayload"
"""The payload does not fit the model that the handler wants."""
RESULT_NOT_JSON: Final = "ResultNotJSON"
RESULT_TOO_LARGE: Final = "ResultTooLarge"
TIMEOUT: Final = "Timeout"
"""The attempt took longer than `timeoutSeconds`."""
UNKNOWN_TYPE: Final = "UnknownType"
"""This worker has no handler for the type, and no `*`."""
CANCELLED: Final = "CancelledByHandler"
"""An async handler was cancelled by something in it, not by the worker."""
PROCESS_DIED: Final = "ProcessDied"
"""The process of a handler ended without a result."""

_JSON: Final[TypeAdapter[JsonValue]] = TypeAdapter(JsonValue)


class InvalidPayloadError(PermanentError):
    """The payload does not fit; carries what is wrong without the values, which may be secret."""


def read_payload(reader: TypeAdapter[Any] | None, payload: dict[str, JsonValue]) -> Any:
    """The payload as the handler wants it.

    Raises:
        InvalidPayloadError: It does not fit.
    """
    if reader is None:
        return payload
    try:
        return reader.validate_python(payload)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in problem['loc']) or 'payload'}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        raise InvalidPayloadError("; ".join(problems)) from None


def succeeded(value: object) -> Result:
    """The result of a handler that returned; a failure when what it returned cannot be reported."""
    if value is None:
        return Result(Outcome.SUCCEEDED)
    try:
        plain = value.model_dump(mode="json", by_alias=True) if isinstance(value, BaseModel) else value
        text = json.dumps(plain, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) > RESULT_BYTES:
            return failure(
                RESULT_TOO_LARGE,
                f"the result has {len(text)} bytes of JSON, and {RESULT_BYTES} is the limit: store it elsewhere and "
                "return where it is",
                permanent=True,
            )
        return Result(Outcome.SUCCEEDED, value=_read(text))
    except Exception as error:  # noqa: BLE001 - a value of the author's, whose methods may raise anything
        return failure(RESULT_NOT_JSON, f"what the handler returned is not JSON: {error}", permanent=True)


def _read(text: bytes) -> JsonValue:
    # Readers refuse what is nested deeper than 200 levels; some of them are taken by the messages around it.
    value = _JSON.validate_json(b"[" * ROOM_LEVELS + text + b"]" * ROOM_LEVELS)
    for _ in range(ROOM_LEVELS):
        assert isinstance(value, list)  # noqa: S101 - the brackets from above
        value = value[0]
    return value


def raised(error: BaseException, log_tail: str = "") -> Result:
    """The result of a handler that raised."""
    if isinstance(error, InvalidPayloadError):
        return failure(INVALID_PAYLOAD, str(error), log_tail=log_tail, permanent=True)
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - the author's class may fail even there
        text = ""
    permanent = isinstance(error, PermanentError)
    return failure(type(error).__name__, text or type(error).__name__, log_tail=log_tail, permanent=permanent)


def failure(reason: str, error: str, *, log_tail: str = "", permanent: bool = False) -> Result:
    """A failed attempt, with texts cut to what a report takes."""
    word = re.sub(r"[^A-Za-z0-9]", "", reason)[:REASON_CHARACTERS].lstrip("0123456789") or "Error"
    return Result(
        Outcome.FAILED,
        reason=word,
        error=cut_back(error, ERROR_BYTES),
        log_tail=cut_front(log_tail, ERROR_BYTES),
        permanent=permanent,
    )
