"""What is sent, and what is refused before it is sent."""

from datetime import UTC, datetime
from typing import Any

import orjson
import pydantic
import pytest

from distriqueue.client import Backoff, ClientError, Filter, InvalidRequest, Options, RetryBudget
from distriqueue.client.clients import BATCH, BATCH_BYTES, AsyncClient, _batches, _body, _made_name, _submission
from distriqueue.client.models import parameters
from distriqueue.gateway.queries import JobQuery
from distriqueue.gateway.rest.bodies import parse
from distriqueue.gateway.rest.parameters import Filters
from distriqueue.gateway.views import JobSubmission

MOMENT = datetime(2026, 3, 1, tzinfo=UTC)
OPTIONS: Options = {
    "labels": {"team": "blue"},
    "priority": "High",
    "priority_value": 0,
    "pool_name": "gpu",
    "max_attempts": 1,
    "retry_budget": RetryBudget(timeout=1),
    "backoff": Backoff(initial_seconds=0),
    "timeout_seconds": 5,
    "deadline_seconds": 6,
    "start_after": MOMENT,
    "ttl_seconds_after_finished": 0,
    "dedup_key": "once",
    "suspend": True,
}


class Sum(pydantic.BaseModel):
    a: int
    b: float


def test_every_option_of_a_job_can_be_said() -> None:
    made_elsewhere = {"type", "payload", "namespace", "name"}
    assert set(Options.__annotations__) == set(JobSubmission.model_fields) - made_elsewhere


def test_what_is_sent_is_what_was_said() -> None:
    body = _body(_submission("add", {"a": 9007199254740993, "b": 1.0}, OPTIONS, namespace="shop"))
    read = parse(body, JobSubmission)
    assert read.payload == {"a": 9007199254740993, "b": 1.0}
    assert isinstance(read.payload["b"], float)
    assert read.namespace == "shop"
    assert read.backoff.initial_seconds == 0
    assert read.start_after == MOMENT
    assert read.model_fields_set == {*OPTIONS, "type", "payload", "namespace"}


def test_what_was_not_said_is_left_to_the_gateway() -> None:
    assert orjson.loads(_body(_submission("add", None, {}, namespace="shop"))) == {"type": "add", "namespace": "shop"}


def test_a_payload_may_be_a_model() -> None:
    assert _submission("add", Sum(a=1, b=2), {}, namespace="shop").payload == {"a": 1, "b": 2.0}


@pytest.mark.parametrize(
    ("type_", "options", "field"),
    [("Not A Type", {}, "/type"), ("add", {"max_attempts": 0}, "/maxAttempts"), ("add", {"colour": "red"}, "/colour")],
)
def test_what_is_wrong_is_refused_with_the_field(type_: str, options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        _submission(type_, {}, options, namespace="shop")
    assert [error.field for error in caught.value.errors] == [field]
    assert not caught.value.retryable


@pytest.mark.parametrize("type_", ["email", "image.resize", "a_._b", "x" * 63])
def test_names_that_are_made_are_names_of_resources(type_: str) -> None:
    names = {_made_name(type_) for _ in range(100)}
    assert len(names) == 100
    for name in names:
        JobSubmission(type=type_, name=name)


@pytest.mark.parametrize("size", [100, 20_000, 66_000, BATCH_BYTES + 1])
def test_no_request_for_many_is_larger_than_is_taken(size: int) -> None:
    sizes = [size] * (2 * BATCH + 1)
    batches = list(_batches(sizes))
    assert [number for batch in batches for number in batch] == list(range(len(sizes)))
    for batch in batches:
        assert 0 < len(batch) <= BATCH
        assert len(batch) == 1 or sum(sizes[number] + 1 for number in batch) <= BATCH_BYTES + 1
    fewest = -(-len(sizes) // max(1, min(BATCH, BATCH_BYTES // (size + 1))))
    assert len(batches) == fewest


def test_every_filter_can_be_said_and_is_understood() -> None:
    assert set(Filter.__annotations__) == set(Filters.model_fields) - {"namespace"}
    filter_: Filter = {
        "status": ["failed", "dead"],
        "type": "add",
        "pool": "gpu",
        "labels": "team=blue",
        "created_after": MOMENT,
        "created_before": MOMENT,
        "completed_after": MOMENT,
        "completed_before": MOMENT,
    }
    asked = Filters.model_validate(parameters("shop", filter_)).query()
    assert asked == JobQuery.parse(
        namespace="shop",
        status=["failed", "dead"],
        type="add",
        pool="gpu",
        labels="team=blue",
        created_after=MOMENT,
        created_before=MOMENT,
        completed_after=MOMENT,
        completed_before=MOMENT,
    )


def test_one_token_is_enough(tmp_path: Any) -> None:
    with pytest.raises(ClientError, match="either"):
        AsyncClient("http://127.0.0.1:1", token="a", token_file=tmp_path / "token")  # noqa: S106 - not one
    with pytest.raises(ClientError, match="cannot read"):
        AsyncClient("http://127.0.0.1:1", token_file=tmp_path / "token")
    with pytest.raises(ClientError, match="cannot read"):
        AsyncClient("http://127.0.0.1:1", ca_file=tmp_path / "ca")
