"""What the models of all resources share: how they are spelt, timestamps, metadata, conditions.

Fields are snake_case in Python and camelCase in YAML, and either is accepted when a model is built. A field's
docstring is its description in ``kubectl explain``. Models are frozen and know no unknown field, so a misspelt
argument fails where it is written; `Resource.from_raw` reads what a newer API server may have added and leaves it
out.

The models serve the schema, tests and clients. The loops of the operator read dictionaries (`raw`).
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from distriqueue.api.limits import CONDITIONS_LIMIT, ERROR_LIMIT, REASON_LIMIT, TIME_LIMIT

Timestamp = Annotated[AwareDatetime, Field(json_schema_extra={"maxLength": TIME_LIMIT})]
"""RFC 3339 with a zone; fractions of a second are kept as written."""

Int64 = Annotated[int, Field(json_schema_extra={"format": "int64"})]
Int32 = Annotated[int, Field(json_schema_extra={"format": "int32"})]

Reason = Annotated[str, Field(min_length=1, max_length=REASON_LIMIT, pattern=r"^[A-Z][A-Za-z0-9]*$")]
"""One CamelCase word for programs."""

ErrorText = Annotated[str, Field(max_length=ERROR_LIMIT)]


class Model(BaseModel):
    """Base of every part of a resource."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )


class Condition(Model):
    """One observation about the resource, in the form that all of Kubernetes uses."""

    type: Annotated[str, Field(min_length=1, max_length=REASON_LIMIT, pattern=r"^[A-Z][A-Za-z0-9]*$")]
    """What the condition is about, such as Complete. `kubectl wait --for=condition=TYPE` waits for status True."""

    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""

    reason: Reason
    """Why, as one CamelCase word that programs can test for."""

    message: ErrorText = ""
    """Why, for people, and what they can do."""

    last_transition_time: Timestamp
    """When `status` last changed."""

    observed_generation: Annotated[Int64, Field(ge=0)] | None = None
    """The `metadata.generation` that this was said of."""


Conditions = Annotated[
    list[Condition],
    Field(
        max_length=CONDITIONS_LIMIT,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    ),
]

ObservedGeneration = Annotated[Int64, Field(ge=0)]
Epoch = Annotated[Int64, Field(ge=0)]


class Metadata(Model):
    """The part of ObjectMeta that clients of the project use; the API server has the whole."""

    model_config = ConfigDict(extra="ignore")

    name: str | None = None
    generate_name: str | None = None
    namespace: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    generation: int | None = None
    creation_timestamp: AwareDatetime | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class Resource(Model):
    """Base of every resource: read with `from_raw`, written with `to_raw`."""

    api_version: str
    kind: str
    metadata: Metadata

    @classmethod
    def from_raw(cls, raw: dict[str, Any]) -> Self:
        """Read what the API server served; fields that this version does not know are left out.

        Raises:
            pydantic.ValidationError: `raw` is no such resource.
        """
        return cls.model_validate(raw, extra="ignore")

    def to_raw(self) -> dict[str, Any]:
        """Return the manifest: camelCase, JSON values, nothing that is None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
