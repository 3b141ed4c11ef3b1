"""What schemathesis is told of the gateway that no OpenAPI document can say; loaded by its command line."""

import uuid
from typing import Any

import schemathesis

FEW = 5
"""Jobs of a batch; one of a thousand takes seconds."""


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Say what is right where the form alone is not enough, and keep batches small: each job of theirs is made."""
    del context, kwargs
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if "Idempotency-Key" in (case.headers or {}):
        case.headers["Idempotency-Key"] = uuid.uuid4().hex
    if "cursor" in (case.query or {}):
        del case.query["cursor"]
    if "labels" in (case.query or {}):
        case.query["labels"] = "app in (a, b), !c"
    if isinstance(case.body, dict) and case.path.endswith("/jobs/batch"):
        case.body = {**case.body, "jobs": [_consistent(job) for job in case.body["jobs"][:FEW]]}
    elif isinstance(case.body, dict) and case.path == "/api/jobs":
        case.body = _consistent(case.body)
    if isinstance(case.body, dict) and case.path.endswith("/workers/register"):
        case.body = {key: value for key, value in case.body.items() if key not in {"jobs", "supersedes"}}


def _consistent(submission: dict[str, Any]) -> dict[str, Any]:
    """Leave out what has to agree with another field: only the API server's own rules (CEL) know that."""
    return {key: value for key, value in submission.items() if key not in {"backoff", "payloadFrom"}}
