"""What a handler returned or raised, as the result that a report carries.

Guarantees: whatever a handler does, the result fits into a report: its value is JSON within the limit, its texts are
within theirs, its reason is one word. Nothing here raises.
"""

import re
from typing import Any, Final

from pydantic import JsonValue, TypeAdapter, ValidationError

from distriqueue_protocol.messages import Outcome
from distriqueue_protocol.payloads import PayloadTextError
from distriqueue_worker.commands import Result
from distriqueue_worker.logs import cut_back, cut_front
from distriqueue_worker.mounted_secrets import SecretNotMountedError
from distriqueue_worker.tasks import PermanentError
from distriqueue_worker.values import NotJSONError, TooLargeError, compact

RESULT_BYTES: Final = 64 * 1024
"""A result is part of the resource's status; larger ones belong into a store, and their address into the result."""
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
OUT_OF_MEMORY: Final = "OutOfMemory"
"""There was no memory left for the handler: it got a MemoryError, or the kernel killed its process."""


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


def unreadable_payload(error: SecretNotMountedError | PayloadTextError) -> Result:
    """The result of an attempt whose payload could not be read; another worker may have what is not mounted here."""
    return failure(error.reason, str(error), permanent=isinstance(error, PayloadTextError))


def succeeded(value: object) -> Result:
    """The result of a handler that returned; a failure when what it returned cannot be reported."""
    if value is None:
        return Result(Outcome.SUCCEEDED)
    try:
        return Result(Outcome.SUCCEEDED, value=compact(value, limit=RESULT_BYTES)[0])
    except TooLargeError as error:
        return failure(
            RESULT_TOO_LARGE, f"the result is too large: {error}; store it elsewhere and return where", permanent=True
        )
    except NotJSONError as error:
        return failure(RESULT_NOT_JSON, f"what the handler returned is not JSON: {error}", permanent=True)


def raised(error: BaseException, log_tail: str = "") -> Result:
    """The result of a handler that raised."""
    if isinstance(error, InvalidPayloadError):
        return failure(INVALID_PAYLOAD, str(error), log_tail=log_tail, permanent=True)
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - the author's class may fail even there
        text = ""
    if isinstance(error, MemoryError):
        return failure(OUT_OF_MEMORY, f"there was no memory left: {text}".rstrip(": "), log_tail=log_tail)
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
