"""What schemathesis is told of the gateway that no OpenAPI document can say; loaded by its command line."""

import uuid
from typing import Any

import schemathesis


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Values that are right in form and refer to something that there is not: a key to another request, a page."""
    del context, kwargs
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if "Idempotency-Key" in (case.headers or {}):
        case.headers["Idempotency-Key"] = uuid.uuid4().hex
    if "cursor" in (case.query or {}):
        del case.query["cursor"]
    if isinstance(case.body, dict) and case.path.endswith("/workers/register"):
        case.body = {key: value for key, value in case.body.items() if key not in {"jobs", "supersedes"}}
