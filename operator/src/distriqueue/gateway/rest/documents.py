"""The OpenAPI document: made of the routes and of the models that they read and write, with the same bounds as the CRD.

Guarantees: it depends on the code alone; each reference in it leads somewhere; nothing in it is Kubernetes' own.
"""

from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from distriqueue.gateway import views
from distriqueue.gateway.http_workers import messages
from distriqueue.gateway.rest.failures import PROBLEMS, ProblemDocument

API_VERSION: Final = "v1alpha1"
JSON: Final = "application/json"
_SCHEMAS: Final = "#/components/schemas/"

DESCRIPTION: Final = """\
Distributed jobs on Kubernetes: submit them, follow them, change them, and work on them. A job is a DistributedJob
resource, and this door does nothing that `kubectl` could not: callers are known by their tokens of the cluster, and may
do what its RBAC lets them do. What goes wrong is told by a problem document (RFC 9457) whose `detail` says what to do.
"""

TAGS: Final = (
    {"name": "jobs", "description": "Submitting, reading, following and changing jobs."},
    {"name": "workers", "description": "The workers, and the protocol of workers that speak HTTP alone."},
    {"name": "cluster", "description": "Who leads, and how the system is."},
)


def reference(model: type[BaseModel]) -> dict[str, str]:
    """Return the reference to a model's schema."""
    return {"$ref": f"{_SCHEMAS}{model.__name__}"}


def answer(model: type[BaseModel], description: str, *, headers: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the description of an answer that is a model.

    Args:
        model: What it is.
        description: When it comes.
        headers: Its headers.
    """
    found: dict[str, Any] = {"description": description, "content": {JSON: {"schema": reference(model)}}}
    if headers:
        found["headers"] = headers
    return found


def header(description: str, *, required: bool = True) -> dict[str, Any]:
    """Return the description of a header of an answer."""
    return {"description": description, "required": required, "schema": {"type": "string"}}


def takes(model: type[BaseModel], **examples: dict[str, Any]) -> dict[str, Any]:
    """Return what an operation says of its body, for `openapi_extra`.

    Args:
        model: What the body is.
        examples: By name: what to show.
    """
    content: dict[str, Any] = {"schema": reference(model)}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {"requestBody": {"required": True, "content": {JSON: content}}}


def document(
    app: FastAPI, *, read: tuple[type[BaseModel], ...], written: tuple[type[BaseModel], ...]
) -> dict[str, Any]:
    """Return the document of an app.

    Args:
        app: With all routes.
        read: The models of bodies.
        written: The models of answers.
    """
    made = app.openapi()
    _, schemas = models_json_schema(
        [*((model, "validation") for model in read), *((model, "serialization") for model in written)],
        ref_template=_SCHEMAS + "{model}",
    )
    found: dict[str, Any] = {
        "openapi": made["openapi"],
        "info": made["info"],
        "servers": [{"url": "/", "description": "This gateway."}],
        "security": [{"token": []}],
        "tags": [dict(tag) for tag in TAGS],
        "paths": _paths(made["paths"]),
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of the cluster, such as `kubectl create token SERVICEACCOUNT` prints.",
                }
            },
            "responses": {f"Problem{status}": described for status, described in PROBLEMS.items()},
            "schemas": {name: _untitled(schema) for name, schema in sorted(schemas["$defs"].items())},
        },
    }
    plain = views.without_kubernetes(found)
    if not isinstance(plain, dict):
        raise TypeError(type(plain).__name__)
    return plain


def _paths(paths: dict[str, Any]) -> dict[str, Any]:
    """Leave out what the framework adds: its own form of a wrong parameter, and titles made of names."""
    for operations in paths.values():
        for operation in operations.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
            for status, described in operation["responses"].items():
                if described == PROBLEMS.get(int(status)):
                    operation["responses"][status] = {"$ref": f"#/components/responses/Problem{status}"}
            for parameter in operation.get("parameters", ()):
                parameter["schema"] = _plain(_untitled(parameter["schema"]))
    return paths


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """Leave out of a parameter's schema what it says already, and null: a parameter that is not there is just that."""
    found = {key: value for key, value in schema.items() if key != "description"}
    alternatives = [item for item in found.pop("anyOf", ()) if item != {"type": "null"}]
    if len(alternatives) == 1:
        found |= alternatives[0]
    elif alternatives:
        found["anyOf"] = alternatives
    return found


def _untitled(schema: Any) -> Any:
    """Leave out titles, which say what names say already."""
    if isinstance(schema, list):
        return [_untitled(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _untitled(value) for key, value in schema.items() if not (key == "title" and isinstance(value, str))}
    if "patternProperties" in found:
        found["additionalProperties"] = False  # a key of another form is refused, and pydantic does not say so
    return found


READ: Final[tuple[type[BaseModel], ...]] = (
    views.JobSubmission,
    messages.RegisterRequest,
    messages.HeartbeatRequest,
    messages.NextRequest,
    messages.ReportRequest,
    messages.JobReportRequest,
)
"""Bodies that other modules of this package have no models of their own for."""

WRITTEN: Final[tuple[type[BaseModel], ...]] = (
    views.JobView,
    views.JobPage,
    views.Statistics,
    views.ExplanationView,
    views.WorkerView,
    views.WorkerList,
    views.Election,
    views.Leader,
    views.ClusterStatus,
    views.Health,
    messages.Registered,
    messages.HeartbeatAnswer,
    messages.NextAnswer,
    messages.ReportAnswer,
    ProblemDocument,
)
"""Answers likewise."""
