"""What an HTTP worker says of its jobs, checked against the limits that hold for every worker.

Fails with `Unprocessable`, which names the field and says what to do instead.
"""

from typing import Final

from pydantic import JsonValue

from distriqueue.gateway.http_workers.messages import ReportedOutcome, ReportRequest
from distriqueue.gateway.problems import FieldError, Unprocessable
from distriqueue_protocol.messages import Outcome
from distriqueue_worker.commands import Checkpointed, Result
from distriqueue_worker.results import RESULT_BYTES, failure
from distriqueue_worker.tasks import CHECKPOINT_BYTES
from distriqueue_worker.values import NotJSONError, TooLargeError, compact

_FAILED: Final = "Failed"
"""The reason of a failure that gives none."""
_INTERRUPTED: Final = "WorkerStopped"


def checked_result(request: ReportRequest) -> Result:
    """The result that a report carries.

    Raises:
        Unprocessable: It is too large, or no JSON that Kubernetes keeps as it is.
    """
    match request.outcome:
        case ReportedOutcome.SUCCEEDED:
            value = _checked(request.result, limit=RESULT_BYTES, pointer="/result")[0]
            return Result(Outcome.SUCCEEDED, value=value)
        case ReportedOutcome.FAILED:
            reason = request.reason or _FAILED
            return failure(reason, request.error or reason, log_tail=request.log_tail, permanent=request.permanent)
        case ReportedOutcome.INTERRUPTED:
            return Result(
                Outcome.INTERRUPTED, reason=request.reason or _INTERRUPTED, error=request.error or "it was stopped"
            )


def checked_checkpoint(value: JsonValue, pointer: str) -> Checkpointed:
    """What another attempt goes on from.

    Raises:
        Unprocessable: It is too large, or no JSON that Kubernetes keeps as it is.
    """
    return Checkpointed(*_checked(value, limit=CHECKPOINT_BYTES, pointer=pointer))


def _checked(value: JsonValue, *, limit: int, pointer: str) -> tuple[JsonValue, int]:
    try:
        return compact(value, limit=limit)
    except (TooLargeError, NotJSONError) as error:
        why = f"{error}; store it elsewhere and send where it is"
        raise Unprocessable(f"{pointer.rpartition('/')[2]}: {why}", errors=(FieldError(pointer, why),)) from None
