"""The converter: what each construct of a model becomes, and what it will not write."""

from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from distriqueue.api.schemas import SchemaError, structural_schema


class Colour(StrEnum):
    """A colour."""

    RED = "Red"
    BLUE = "Blue"


class Documented(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")


class Inner(Documented):
    """Something inside."""

    size: Annotated[int, Field(gt=0, lt=10)] = 3
    """How large."""


class Spec(Documented):
    """A spec."""

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-validations": [{"rule": "self == oldSelf"}]})

    colour: Colour = Colour.RED
    """Which colour
    it has.

    More of it."""
    name: Annotated[str, Field(max_length=5, pattern="^a", json_schema_extra={"pattern": None})] | None = None
    """A name."""
    fixed: Literal["one"]
    """Always one."""
    inner: Inner = Inner()
    """What is inside."""
    many: Annotated[list[Inner], Field(max_length=3, json_schema_extra={"x-kubernetes-list-type": "atomic"})] = []
    """Several."""
    labels: Annotated[dict[str, Annotated[str, Field(max_length=2)]], Field(max_length=4)] | None = None
    """Some labels."""
    ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    """A ratio."""
    flag: bool = False
    """A flag."""


class Root(Documented):
    """A resource."""

    metadata: dict[str, Any]
    spec: Spec
    """What is wanted."""


def test_each_construct_in_the_form_of_a_structural_schema() -> None:
    schema = structural_schema(Root)
    assert schema["required"] == ["spec"]
    assert schema["properties"]["metadata"] == {"type": "object"}
    spec = schema["properties"]["spec"]
    assert spec["description"] == "What is wanted."
    assert spec["required"] == ["fixed"]
    assert spec["x-kubernetes-validations"] == [{"rule": "self == oldSelf"}]
    assert "additionalProperties" not in spec
    inner = {
        "type": "object",
        "properties": {
            "size": {
                "description": "How large.",
                "type": "integer",
                "default": 3,
                "minimum": 0,
                "exclusiveMinimum": True,
                "maximum": 10,
                "exclusiveMaximum": True,
            }
        },
    }
    assert spec["properties"] == {
        "colour": {
            "description": "Which colour it has.\n\nMore of it.",
            "type": "string",
            "enum": ["Red", "Blue"],
            "default": "Red",
        },
        "name": {"description": "A name.", "type": "string", "maxLength": 5},
        "fixed": {"description": "Always one.", "type": "string", "enum": ["one"]},
        "inner": {"description": "What is inside.", "default": {"size": 3}, **inner},
        "many": {
            "description": "Several.",
            "type": "array",
            "default": [],
            "maxItems": 3,
            "items": {"description": "Something inside.", **inner},
            "x-kubernetes-list-type": "atomic",
        },
        "labels": {
            "description": "Some labels.",
            "type": "object",
            "maxProperties": 4,
            "additionalProperties": {"type": "string", "maxLength": 2},
        },
        "ratio": {"description": "A ratio.", "type": "number", "minimum": 0, "maximum": 1},
        "flag": {"description": "A flag.", "type": "boolean", "default": False},
    }


class Union(Documented):
    """Has a union."""

    spec: Annotated[str, Field(max_length=1)] | int
    """Either."""


class Unbounded(Documented):
    """Has an unbounded string."""

    spec: str
    """Any length."""


class UnboundedList(Documented):
    """Has an unbounded list."""

    spec: Annotated[list[Colour], Field(min_length=1)]
    """Any length."""


class UnboundedItems(Documented):
    """Has a bounded list of unbounded strings."""

    spec: Annotated[list[str], Field(max_length=1)]
    """Any length."""


class UnboundedMap(Documented):
    """Has an unbounded map."""

    spec: dict[str, bool]
    """Any number."""


class UnboundedNumber(Documented):
    """Has an unbounded number."""

    spec: int
    """Any size."""


class Undescribed(Documented):
    """Says nothing about its field."""

    spec: bool


class Untyped(Documented):
    """Takes anything, and does not say so."""

    spec: Any
    """Anything."""


class Tuple(Documented):
    """Has a keyword that a structural schema does not know."""

    spec: tuple[bool, bool]
    """A pair."""


class Deviating(Documented):
    """Has a default that the defaults inside do not add up to."""

    spec: Inner = Inner(size=4)
    """Something."""


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (Union, "unions"),
        (Unbounded, "unbounded.*maxLength"),
        (UnboundedList, "unbounded.*maxItems"),
        (UnboundedItems, r"^\.spec\[\].*unbounded.*maxLength"),
        (UnboundedMap, "unbounded.*maxProperties"),
        (UnboundedNumber, "unbounded.*maximum"),
        (Undescribed, "no description"),
        (Untyped, "no type"),
        (Tuple, "prefixItems"),
        (Deviating, "add up"),
    ],
)
def test_what_it_refuses_to_write(model: type[BaseModel], problem: str) -> None:
    with pytest.raises(SchemaError, match=problem) as caught:
        structural_schema(model)
    assert caught.value.path.startswith(".spec")
