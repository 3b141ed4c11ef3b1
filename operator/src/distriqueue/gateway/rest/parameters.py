"""The parameters of paths and queries, and how a job is named in them.

Guarantees: a path that ends in a uid, and one that ends in a namespace and a name, are never taken for each other, nor
for one of the fixed words; what could name nothing matches no route at all.
"""

from typing import Annotated, Any, ClassVar, Final, Literal

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.convertors import Convertor, register_url_convertor

from distriqueue.api.limits import NAME_LIMIT
from distriqueue.gateway.queries import CURSOR_LIMIT, MOST, OFFSET_LIMIT, SELECTOR_LIMIT, JobQuery
from distriqueue.gateway.views import NAME_PATTERN, NAMESPACE_LIMIT, NAMESPACE_PATTERN

POSITION_LIMIT: Final = 32 * 1024
"""Most characters of a position in a stream: half of a request's head, and enough for 800 watched namespaces."""

UID: Final = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"

_NAMESPACE: Final = NAMESPACE_PATTERN.strip("^$")
_NAME: Final = NAME_PATTERN.strip("^$")


class _Text(Convertor[str]):
    """A part of a path that is text of some form."""

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class _Uid(_Text):
    regex: ClassVar[str] = UID


class _Namespace(_Text):
    # A namespace may look like a uid, but then the uid is meant.
    regex: ClassVar[str] = f"(?!{UID}/){_NAMESPACE}"


class _Name(_Text):
    regex: ClassVar[str] = _NAME


class _Worker(_Text):
    regex: ClassVar[str] = f"(?!register$){_NAME}"


for _word, _convertor in {"uid": _Uid(), "namespace": _Namespace(), "name": _Name(), "worker": _Worker()}.items():
    register_url_convertor(_word, _convertor)

Uid = Annotated[
    str,
    Path(
        description="The job's `id`: the uid of its resource.",
        json_schema_extra={"pattern": f"^{UID}$", "format": "uuid"},
        examples=["0b8e9b5e-6f0a-4c53-9a56-5f2b0e2f9c3d"],
    ),
]
NamespacePart = Annotated[
    str,
    Path(
        description="The job's namespace.",
        json_schema_extra={"pattern": NAMESPACE_PATTERN, "minLength": 1, "maxLength": NAMESPACE_LIMIT},
        examples=["default"],
    ),
]
NamePart = Annotated[
    str,
    Path(
        description="The job's name.",
        json_schema_extra={"pattern": NAME_PATTERN, "minLength": 1, "maxLength": NAME_LIMIT},
        examples=["report-1"],
    ),
]
WorkerPart = Annotated[
    str,
    Path(
        description="The worker's name.",
        json_schema_extra={"pattern": NAME_PATTERN, "minLength": 1, "maxLength": NAME_LIMIT},
        examples=["worker-1"],
    ),
]

_MOMENT: Final[dict[str, Any]] = {
    "anyOf": [
        {"type": "string", "format": "date-time"},
        {"type": "string", "pattern": "^[0-9]{1,10}(\\.[0-9]{1,6})?$"},
    ]
}


class Filters(BaseModel):
    """Which jobs: the filters of lists, statistics and streams."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", use_attribute_docstrings=True)

    namespace: Annotated[str, Field(min_length=1, max_length=NAMESPACE_LIMIT, pattern=NAMESPACE_PATTERN)] | None = None
    """Jobs of this namespace. Left out: of all namespaces, which needs the right to read them all."""

    status: list[str] = Field(
        default=[],
        max_length=32,
        json_schema_extra={
            "items": {
                "type": "string",
                "enum": [
                    *("pending", "running", "retrying", "completed", "failed", "dead", "cancelled"),
                    *("queued", "succeeded"),
                ],
            }
        },
    )
    """Jobs with one of these statuses: pending, running, retrying, completed, failed, dead, cancelled; or phases.
    Several by repeating the parameter, or with commas."""

    type: Annotated[str, Field(min_length=1, max_length=NAME_LIMIT)] | None = None
    """Jobs of this type."""

    pool: Annotated[str, Field(min_length=1, max_length=NAME_LIMIT)] | None = None
    """Jobs for this pool."""

    labels: Annotated[str, Field(min_length=1, max_length=SELECTOR_LIMIT)] | None = None
    """Jobs whose labels fulfil a selector as kubectl has them: a=b, a!=b, a in (b, c), a notin (b, c), a, !a; with
    commas between them, all."""

    created_after: Annotated[str, Field(min_length=1, max_length=40), Field(json_schema_extra=_MOMENT)] | None = None
    """Jobs created at this time or later: RFC 3339, or seconds since 1970."""

    created_before: Annotated[str, Field(min_length=1, max_length=40), Field(json_schema_extra=_MOMENT)] | None = None
    """Jobs created before this time."""

    completed_after: Annotated[str, Field(min_length=1, max_length=40), Field(json_schema_extra=_MOMENT)] | None = None
    """Jobs that were over at this time or later."""

    completed_before: Annotated[str, Field(min_length=1, max_length=40), Field(json_schema_extra=_MOMENT)] | None = None
    """Jobs that were over before this time."""

    def query(self) -> JobQuery:
        """Return the question.

        Raises:
            Unprocessable: A filter is not understood.
        """
        return JobQuery.parse(**self.model_dump(exclude_none=True))


class ListParameters(Filters):
    """A page of a list."""

    limit: Annotated[int, Field(ge=1, le=MOST)] = 50
    """Most jobs of the page."""

    offset: Annotated[int, Field(ge=0, le=OFFSET_LIMIT)] = 0
    """How many jobs to skip. A cursor is better where jobs come and go."""

    cursor: Annotated[str, Field(min_length=1, max_length=CURSOR_LIMIT)] | None = None
    """`next` of the page before: goes on where that ended."""

    order: Literal["newest", "oldest"] = "newest"
    """newest or oldest first, by creation."""


class StatisticsParameters(Filters):
    """What statistics count."""

    window: Annotated[int, Field(ge=1, le=86_400)] = 300
    """Seconds up to now of which rates and times are told."""


class StreamParameters(Filters):
    """What a stream follows."""

    last_event_id: Annotated[str, Field(max_length=POSITION_LIMIT)] | None = None
    """The id of the last event that was read, where the header Last-Event-ID cannot be sent; the header wins."""

    def query(self) -> JobQuery:
        """Return the question.

        Raises:
            Unprocessable: A filter is not understood.
        """
        return JobQuery.parse(**self.model_dump(exclude_none=True, exclude={"last_event_id"}))


ListQuery = Annotated[ListParameters, Query()]
StatisticsQuery = Annotated[StatisticsParameters, Query()]
StreamQuery = Annotated[StreamParameters, Query()]
