"""Between messages and what the services speak: submissions, questions, jobs, explanations.

Guarantees: JSON passes as text, in both directions, and is parsed as REST parses it. A submission is read by the very
function that reads the body of a REST request, so the same submission is refused with the same words. A value of an
enum that this version does not know is refused, by name. Fails with `InvalidRequest` and `Unprocessable`.
"""

from datetime import UTC, datetime
from typing import Any, Final

import orjson
from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from distriqueue.api.phases import AttemptOutcome, JobPhase, Priority
from distriqueue.gateway.problems import FieldError, Unprocessable
from distriqueue.gateway.queries import JobQuery, Order
from distriqueue.gateway.rest.bodies import DEPTH_LIMIT, depth, parse, too_deep
from distriqueue.gateway.rpc.methods import snake_case
from distriqueue.gateway.rpc.stubs import jobs_pb2
from distriqueue.gateway.views import ExplanationView, JobAttempt, JobPage, JobStatus, JobSubmission, JobView

_NAMES: Final[dict[str, type[Priority] | type[JobPhase] | type[JobStatus] | type[AttemptOutcome] | type[Order]]] = {
    "Priority": Priority,
    "JobPhase": JobPhase,
    "JobStatus": JobStatus,
    "AttemptOutcome": AttemptOutcome,
    "ListOrder": Order,
}
"""Enums of the proto, and the words that they stand for."""

_VALUES: Final = {
    name: {
        word.value: jobs_pb2.DESCRIPTOR.enum_types_by_name[name].values_by_name[
            f"{snake_case(name).upper()}_{word.name}"
        ]
        for word in words
    }
    for name, words in _NAMES.items()
}
"""The value of each word; made at import, so an enum that lacks a word is found at once."""
_ENUM_NAMES: Final = {name: {word: value.name for word, value in values.items()} for name, values in _VALUES.items()}
_WORDS: Final = {name: {value.number: word for word, value in values.items()} for name, values in _VALUES.items()}


def submission(message: jobs_pb2.JobSubmission) -> JobSubmission:
    """Read a submission.

    Raises:
        Unprocessable: Fields are wrong; `errors` names them as REST does.
        InvalidRequest: The payload is nested too deeply.
    """
    fields = _fields(message)
    text = fields.pop("payloadJson", None)
    if text is not None:
        try:
            fields["payload"] = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            wrong = FieldError("/payload", f"payload_json is not JSON: {error}")
            raise Unprocessable("1 field is not as it has to be: see errors", errors=(wrong,)) from None
        if depth(fields["payload"]) >= DEPTH_LIMIT:  # it is one level of the body that `parse` judges
            raise too_deep()
    return parse(orjson.dumps(fields), JobSubmission)


def query(
    message: jobs_pb2.JobFilter, *, limit: int | None = None, cursor: str | None = None, order: int = 0
) -> JobQuery:
    """Read a question.

    Args:
        message: The filter.
        limit: Most jobs of a page; None for the default.
        cursor: The token of the page.
        order: A `ListOrder`.

    Raises:
        Unprocessable: Some of it is not understood; `errors` has all of that.
    """
    statuses = [_word("JobStatus", number) for number in message.statuses]
    phases = [_word("JobPhase", number) for number in message.phases]
    return JobQuery.parse(
        namespace=message.namespace or None,
        status=[*statuses, *phases],
        type=message.type or None,
        pool=message.pool_name or None,
        labels=message.label_selector or None,
        created_after=_moment(message, "created_after"),
        created_before=_moment(message, "created_before"),
        completed_after=_moment(message, "completed_after"),
        completed_before=_moment(message, "completed_before"),
        limit=limit,
        cursor=cursor or None,
        order=_word("ListOrder", order) if order else None,
    )


def job(view: JobView) -> jobs_pb2.Job:
    """Return a job as a message."""
    progress = view.progress
    return jobs_pb2.Job(
        id=view.id,
        namespace=view.namespace,
        name=view.name,
        labels=view.labels,
        submitted_by=view.submitted_by,
        type=view.type,
        status=_ENUM_NAMES["JobStatus"][view.status],
        phase=_ENUM_NAMES["JobPhase"].get(view.phase),
        reason=view.reason,
        message=view.message,
        priority=_ENUM_NAMES["Priority"].get(view.priority),
        priority_value=view.priority_value,
        pool_name=view.pool_name,
        payload_json=_json(view.payload),
        payload_from=_message(jobs_pb2.PayloadSource, view.payload_from),
        attempt=view.attempt,
        max_attempts=view.max_attempts,
        retry_budget=_message(jobs_pb2.RetryBudget, view.retry_budget),
        backoff=_message(jobs_pb2.Backoff, view.backoff),
        timeout_seconds=view.timeout_seconds,
        deadline_seconds=view.deadline_seconds,
        ttl_seconds_after_finished=view.ttl_seconds_after_finished,
        dedup_key=view.dedup_key,
        suspended=view.suspended,
        cancel_requested=view.cancel_requested,
        retry_generation=view.retry_generation,
        worker=view.worker,
        progress=None if progress is None else _message(jobs_pb2.Progress, progress),
        result_json=None if view.result is None else _json(view.result),
        error=view.error,
        created_time=view.created_time,
        start_after=view.start_after,
        queued_time=view.queued_time,
        start_time=view.start_time,
        completion_time=view.completion_time,
        next_attempt_time=view.next_attempt_time,
        attempts=[_attempt(attempt) for attempt in view.attempts],
        resource_version=view.resource_version,
    )


def page(view: JobPage) -> jobs_pb2.ListResponse:
    """Return a page as a message."""
    return jobs_pb2.ListResponse(
        jobs=[job(item) for item in view.items], next_page_token=view.next or "", total=view.total
    )


def explanation(view: ExplanationView) -> jobs_pb2.Explanation:
    """Return an explanation as a message."""
    return jobs_pb2.Explanation(**view.model_dump(by_alias=False))


def _attempt(view: JobAttempt) -> jobs_pb2.Attempt:
    fields = view.model_dump(by_alias=False)
    fields["outcome"] = _ENUM_NAMES["AttemptOutcome"].get(fields["outcome"])
    return jobs_pb2.Attempt(**fields)


def _message(kind: Any, view: Any) -> Any:
    """Return a view as the message with the same fields; None for None."""
    return None if view is None else kind(**view.model_dump(by_alias=False))


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _fields(message: Message) -> dict[str, Any]:
    """Return the fields that are set, as a REST body has them: camelCase, words for enums, texts for moments."""
    return {descriptor.json_name: _value(descriptor, value) for descriptor, value in message.ListFields()}


def _value(descriptor: Any, value: Any) -> Any:
    if isinstance(value, Timestamp):
        return _utc(value).isoformat()
    if isinstance(value, Message):
        return _fields(value)
    if descriptor.enum_type is not None:
        return _word(_name(descriptor.enum_type), value)
    if descriptor.message_type is not None:
        return dict(value)  # a map: there is no repeated message in a submission
    return value


def _name(descriptor: EnumDescriptor) -> str:
    return str(descriptor.name)


def _word(enum: str, number: int) -> str:
    word = _WORDS[enum].get(number)
    if word is None:
        known = ", ".join(_ENUM_NAMES[enum].values())
        wrong = FieldError(f"/{enum[0].lower()}{enum[1:]}", f"{number} is no {enum}: use one of {known}")
        raise Unprocessable("1 field is not as it has to be: see errors", errors=(wrong,))
    return word


def _moment(message: jobs_pb2.JobFilter, field: str) -> datetime | None:
    return _utc(getattr(message, field)) if message.HasField(field) else None


def _utc(moment: Timestamp) -> datetime:
    try:
        return moment.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise Unprocessable(f"a moment lies outside of the years 1 to 9999: {error}") from None
