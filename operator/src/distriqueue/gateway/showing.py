"""How resources become views: what is shown of a job, a worker and an explanation.

Guarantees: nothing that the API server may serve makes it fail, fields of a later version included; what is absent is
left out, and so is a moment that cannot be read, and in a `JobView` whatever else does not fit. `job_document` is the
JSON of a `JobView`, made without pydantic: streams send thousands of them a second.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import ValidationError

from distriqueue.api import limits
from distriqueue.api.conditions import JobCondition
from distriqueue.api.phases import JobPhase, WorkerPhase
from distriqueue.api.raw import RawCondition, RawJob, RawWorker
from distriqueue.core import times
from distriqueue.core.explaining import Explanation
from distriqueue.gateway.views import (
    STATUS_OF_PHASE,
    SUBMITTED_BY,
    ExplanationView,
    JobStatus,
    JobView,
    WorkerView,
)

_FROM_SPEC: Final = (
    "type",
    "priority",
    "priorityValue",
    "poolName",
    "payload",
    "payloadFrom",
    "maxAttempts",
    "retryBudget",
    "backoff",
    "timeoutSeconds",
    "deadlineSeconds",
    "ttlSecondsAfterFinished",
    "dedupKey",
    "startAfter",
    "retryGeneration",
)
_FROM_STATUS: Final = (
    "attempt",
    "worker",
    "progress",
    "result",
    "error",
    "queuedTime",
    "startTime",
    "completionTime",
    "nextAttemptTime",
    "attempts",
)
_MOMENTS: Final = ("startAfter", "queuedTime", "startTime", "completionTime", "nextAttemptTime")
_NESTED_MOMENTS: Final = frozenset({"time", "startTime", "completionTime"})
_DEFAULTS: Final[Mapping[str, Any]] = {
    "priority": limits.DEFAULT_PRIORITY,
    "priorityValue": limits.DEFAULT_PRIORITY_VALUE,
    "poolName": limits.DEFAULT_POOL_NAME,
    "maxAttempts": limits.DEFAULT_MAX_ATTEMPTS,
    "timeoutSeconds": limits.DEFAULT_TIMEOUT_SECONDS,
}
"""What the API server fills in; a resource that was stored before a default existed may lack it."""


def status_of(phase: str) -> JobStatus:
    """Return the status of a phase."""
    return STATUS_OF_PHASE.get(phase, JobStatus.PENDING)


def job_document(job: RawJob) -> dict[str, Any]:
    """Return the JSON document of a `JobView`, without what is absent: what streams send."""
    metadata = job["metadata"]
    spec: Mapping[str, Any] = job.get("spec") or {}
    status: Mapping[str, Any] = job.get("status") or {}
    phase = status.get("phase", JobPhase.PENDING)
    document: dict[str, Any] = {
        "id": metadata["uid"],
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "status": status_of(phase),
        "phase": phase,
        "createdTime": metadata["creationTimestamp"],
        "resourceVersion": metadata.get("resourceVersion", ""),  # of a dry run there is none
        **_DEFAULTS,
    }
    document.update((key, spec[key]) for key in _FROM_SPEC if spec.get(key) is not None)
    document.update((key, status[key]) for key in _FROM_STATUS if status.get(key) is not None)
    for key in _MOMENTS:
        if key in document and not _is_moment(document[key]):
            del document[key]
    if "progress" in document:
        document["progress"] = _readable(document["progress"])
    if "attempts" in document:
        document["attempts"] = [_readable(attempt) for attempt in document["attempts"]]
    if labels := metadata.get("labels"):
        document["labels"] = labels
    if submitter := (metadata.get("annotations") or {}).get(SUBMITTED_BY):
        document["submittedBy"] = submitter
    if spec.get("suspend"):
        document["suspended"] = True
    if spec.get("cancel"):
        document["cancelRequested"] = True
    for condition in _telling(status.get("conditions") or ()):
        document["reason"], document["message"] = condition.get("reason"), condition.get("message")
        break
    return document


def _is_moment(text: str) -> bool:
    """Say whether everybody who reads the view can read a moment; the API server takes some that nobody can."""
    return times.checked(text.upper()) is not None and times.seconds(text) is not None


def _readable(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an attempt, or the progress, without the moments that cannot be read."""
    if all(_is_moment(part[key]) for key in part.keys() & _NESTED_MOMENTS):
        return part
    return {key: value for key, value in part.items() if key not in _NESTED_MOMENTS or _is_moment(value)}


def _telling(conditions: Sequence[RawCondition]) -> Iterator[RawCondition]:
    """The conditions that say why a job is not as one would wish, the weightiest first."""
    by_type = {condition.get("type"): condition for condition in conditions}
    for kind, wanted in _TELLING:
        condition = by_type.get(kind)
        if condition is not None and condition.get("status") == wanted:
            yield condition


_TELLING: Final = (
    (JobCondition.FAILED, "True"),
    (JobCondition.ACCEPTED, "False"),
    (JobCondition.PAYLOAD_READY, "False"),
    (JobCondition.SUSPENDED, "True"),
)


def job_view(job: RawJob) -> JobView:
    """Return the view of a resource."""
    document = job_document(job)
    try:
        return JobView.model_validate(document, extra="ignore")
    except ValidationError as error:
        # Stored under other bounds than today's, or too deep: the page that it stands on is not to fail for it.
        unfit = {str(item["loc"][0]) for item in error.errors(include_url=False, include_input=False)}
    fit = {key: value for key, value in document.items() if key not in unfit}
    return JobView.model_validate({**_DEFAULTS, **fit}, extra="ignore")


def worker_view(worker: RawWorker) -> WorkerView:
    """Return the view of a worker."""
    status: Mapping[str, Any] = worker.get("status") or {}
    shown = {key: value for key, value in status.items() if value is not None}
    return WorkerView.model_validate(
        {
            "phase": WorkerPhase.OFFLINE,
            "poolName": limits.DEFAULT_POOL_NAME,
            **shown,
            "name": worker["metadata"]["name"],
        }
    )


def explanation_view(explanation: Explanation) -> ExplanationView:
    """Return the view of an explanation."""
    until = explanation.until
    return ExplanationView(
        blocker=explanation.blocker.value,
        sentence=explanation.sentence,
        position=explanation.position,
        ahead=explanation.ahead,
        running=explanation.running,
        slots=explanation.slots,
        earliest_start_seconds=explanation.earliest,
        latest_start_seconds=explanation.latest,
        until=None if until is None else datetime.fromtimestamp(until, UTC),
    )
