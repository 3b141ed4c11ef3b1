"""The OpenAPI document: whole in itself, with the bounds of the resource, and every refusal described."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from distriqueue.gateway.http_workers import messages
from distriqueue.gateway.rest.app import openapi
from docs.generating import DIRECTORY

DOCUMENT = openapi()
OPERATIONS = {
    (path, method): operation for path, methods in DOCUMENT["paths"].items() for method, operation in methods.items()
}
BOUNDS = ("minimum", "maximum", "minLength", "maxLength", "pattern", "enum", "maxProperties", "maxItems")


def parts(value: Any) -> Iterator[dict[str, Any]]:
    """All objects in a document."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from parts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from parts(inner)


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without references and without the alternative null."""
    if "$ref" in schema:
        found: dict[str, Any] = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return resolved({**found, **{key: value for key, value in schema.items() if key != "$ref"}})
    options = [item for item in schema.get("anyOf", ()) if item != {"type": "null"}]
    return resolved({**schema, **options[0], "anyOf": []}) if len(options) == 1 else schema


def test_every_reference_leads_somewhere() -> None:
    references = [part["$ref"] for part in parts(DOCUMENT) if isinstance(part.get("$ref"), str)]
    assert len(references) > 100
    names = {
        f"#/components/{kind}/{name}" for kind in ("schemas", "responses") for name in DOCUMENT["components"][kind]
    }
    assert set(references) == names, "one leads nowhere, or nobody needs what it leads to"


def test_every_problem_is_described() -> None:
    for response in DOCUMENT["components"]["responses"].values():
        assert response["description"]
        assert list(response["content"]) == ["application/problem+json"]


def test_operation_ids_are_unique() -> None:
    ids = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(ids) == len(set(ids)) == len(OPERATIONS)


def test_nothing_is_kubernetes_own() -> None:
    assert not [part for part in parts(DOCUMENT) if any(str(key).startswith("x-kubernetes") for key in part)]


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda operation: operation["operationId"])
def test_every_operation_says_what_it_does_and_how_it_refuses(operation: dict[str, Any]) -> None:
    assert operation["summary"]
    assert operation["description"]
    assert operation["tags"]
    assert {"401", "429", "500", "503"} <= set(operation["responses"])
    for status, response in operation["responses"].items():
        if int(status) >= 400:
            assert response == {"$ref": f"#/components/responses/Problem{status}"}
        else:
            assert response["description"]
    if "requestBody" in operation:
        assert {"400", "413", "415", "422"} <= set(operation["responses"])
    for parameter in operation.get("parameters", ()):
        assert parameter["description"]


def test_every_field_has_a_description() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        if hasattr(messages, name.removeprefix("Session")):
            continue  # the words of HTTP workers are explained where they are not plain
        for field, described in schema.get("properties", {}).items():
            assert resolved(described).get("description"), f"{name}.{field}"


def test_a_submission_has_the_bounds_of_the_resource() -> None:
    crd = yaml.safe_load((DIRECTORY.parent / "crds" / "distributedjobs.yaml").read_text())
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    submission = DOCUMENT["components"]["schemas"]["JobSubmission"]["properties"]
    left_out = {"cancel", "retryGeneration"}
    assert set(submission) == (set(spec["properties"]) - left_out) | {"namespace", "name", "labels"}

    def compare(mine: dict[str, Any], theirs: dict[str, Any], where: str) -> None:
        mine = resolved(mine)
        for bound in BOUNDS:
            if bound in theirs:
                assert mine.get(bound) == theirs[bound], f"{where} {bound}"
        for name, inner in theirs.get("properties", {}).items():
            compare(mine["properties"][name], inner, f"{where}/{name}")

    for name in set(spec["properties"]) - left_out:
        compare(submission[name], spec["properties"][name], name)
