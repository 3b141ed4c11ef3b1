"""From a pydantic model to the structural OpenAPI schema that a CustomResourceDefinition wants.

Pydantic speaks JSON Schema 2020-12; the API server takes a subset of OpenAPI 3.0 without references, unions or null
types, and forgets without a word what it does not know. So this converter knows every keyword that it lets through
and raises `SchemaError` for any other. It also guarantees what the project promises of its API: every field is
described, and every string, list, map and number is bounded.

`x-kubernetes-*` keywords come from a field's or model's `json_schema_extra` and are passed on as they are; a keyword
set to None there is left out.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

Schema = dict[str, Any]

_DROPPED: Final = frozenset({"title", "examples", "$defs"})
_PASSED: Final = (
    "description",
    "type",
    "format",
    "nullable",
    "enum",
    "default",
    "minimum",
    "exclusiveMinimum",
    "maximum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "required",
    "properties",
    "items",
    "additionalProperties",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
)
"""What a structural schema may carry, in the order in which it is written."""

_INSIDE: Final = {"items": "[]", "additionalProperties": "{}"}
"""How a path goes on inside a list or a map."""

_EVERY_OBJECT: Final[Schema] = {
    "apiVersion": {"description": "Group and version of the resource.", "type": "string"},
    "kind": {"description": "Kind of the resource.", "type": "string"},
    "metadata": {"type": "object"},
}
"""What the API server sees to by itself, in the only form that it takes."""


class SchemaError(ValueError):
    """The model says something that a structural schema cannot, or leaves a field unbounded or undescribed."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path or '(root)'}: {problem}")
        self.path = path


def structural_schema(model: type[BaseModel]) -> Schema:
    """Return the structural schema of a resource's model, ready for `openAPIV3Schema`.

    Raises:
        SchemaError: The model cannot be said in a structural schema, or a field is unbounded or undescribed.
    """
    source = model.model_json_schema(by_alias=True, mode="validation")
    own = {name: schema for name, schema in source["properties"].items() if name not in _EVERY_OBJECT}
    required = [name for name in source.get("required", []) if name in own]
    root = _convert({**source, "properties": own, "required": required or None}, source.get("$defs", {}), "")
    for name, schema in root["properties"].items():
        _check(schema, f".{name}")
    root["properties"] = {**_EVERY_OBJECT, **root["properties"]}
    return root


def _convert(node: Mapping[str, Any], definitions: Mapping[str, Schema], path: str) -> Schema:
    """Return `node` in the form of a structural schema: references inlined, OpenAPI 3.0 keywords."""
    result: Schema = {}
    for keyword, value in _flatten(node, definitions, path).items():
        if value is not None and keyword not in _DROPPED:
            result |= _keyword(keyword, value, definitions, path)
    if isinstance(result.get("default"), dict):
        result["default"] = _object_default(result, path)
    return {keyword: result[keyword] for keyword in _PASSED if keyword in result}


def _keyword(keyword: str, value: Any, definitions: Mapping[str, Schema], path: str) -> Schema:
    """Return what one keyword of JSON Schema becomes in a structural schema.

    Raises:
        SchemaError: A structural schema cannot say it.
    """
    match keyword:
        case "exclusiveMinimum" | "exclusiveMaximum":
            return {keyword.replace("exclusiveM", "m"): value, keyword: True}
        case "description":
            return {keyword: _one_line(value)}
        case "properties":
            return {keyword: {name: _convert(child, definitions, f"{path}.{name}") for name, child in value.items()}}
        case "items" | "additionalProperties" if isinstance(value, Mapping):
            return {keyword: _convert(value, definitions, f"{path}{_INSIDE[keyword]}")}
        case "additionalProperties":  # true or false: the API server prunes what is unknown in any case
            return {}
        case _ if keyword in _PASSED:
            return {keyword: value}
    raise SchemaError(path, f"a structural schema has no {keyword!r}")


def _flatten(node: Mapping[str, Any], definitions: Mapping[str, Schema], path: str) -> Schema:
    """Return `node` with its reference inlined and its 'or null' removed; what stands beside a reference wins.

    An optional field is one that may be absent, so null needs no place in the schema. A constant is an enum of one.
    """
    merged = dict(node)
    while "$ref" in merged or "anyOf" in merged:
        if "$ref" in merged:
            inner = definitions[merged.pop("$ref").rsplit("/", 1)[-1]]
        else:
            choices = [choice for choice in merged.pop("anyOf") if choice.get("type") != "null"]
            if len(choices) != 1:
                raise SchemaError(path, "a structural schema has no unions other than 'X or None'")
            inner = choices[0]
        merged = {**inner, **merged}
    if "const" in merged:
        merged["enum"] = [merged.pop("const")]
    return merged


def _object_default(schema: Schema, path: str) -> Schema:
    """Return an object's default, once it is sure that the defaults inside it say the same.

    It is written out in full, though the API server would fill it in: it tries the rules on a default as it stands.
    """
    given = {name: value for name, value in schema["default"].items() if value is not None}
    inside = {
        name: child["default"]
        for name, child in schema.get("properties", {}).items()
        if child.get("default") is not None
    }
    if given != inside:
        raise SchemaError(path, f"the default {given} is not what the defaults inside add up to, {inside}")
    return given


def _one_line(text: str) -> str:
    """Return `text` with one line for each paragraph; whoever shows it breaks the lines."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text.strip()))


def _check(schema: Schema, path: str) -> None:
    """Raise if `schema` or anything inside it is unbounded or, being a field, undescribed."""
    if not path.endswith(("[]", "{}")) and not schema.get("description"):
        raise SchemaError(path, "has no description")
    bound = {
        "string": {"maxLength", "enum"},
        "array": {"maxItems"},
        "object": {"properties", "maxProperties"},
        "integer": {"maximum", "format"},
        "number": {"maximum", "format"},
        "boolean": {"type"},
    }.get(schema.get("type", ""))
    if bound is None and not schema.get("x-kubernetes-preserve-unknown-fields"):
        raise SchemaError(path, "has no type")
    if bound is not None and not bound & schema.keys():
        raise SchemaError(path, f"is unbounded: needs one of {sorted(bound)}")
    for name, child in schema.get("properties", {}).items():
        _check(child, f"{path}.{name}")
    if "items" in schema:
        _check(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        _check(schema["additionalProperties"], f"{path}{{}}")
