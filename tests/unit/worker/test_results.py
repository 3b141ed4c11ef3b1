"""What a handler returned or raised, as a report carries it."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, Field, TypeAdapter

from distriqueue_protocol.messages import GrantId, Outcome, Report
from distriqueue_worker.commands import Result
from distriqueue_worker.results import (
    RESULT_BYTES,
    InvalidPayloadError,
    failure,
    raised,
    read_payload,
    succeeded,
)
from distriqueue_worker.tasks import PermanentError


class Model(BaseModel):
    when: datetime
    size: int = Field(default=3, ge=1, serialization_alias="theSize")


def reported(result: Result) -> Report:
    """It must fit into a report, whatever it is."""
    return Report(
        namespace="n",
        name="n",
        uid="u",
        attempt=1,
        grant=GrantId(1, 1),
        worker="w",
        incarnation="incarnation-1",
        outcome=result.outcome,
        result=result.value,
        reason=result.reason,
        error=result.error,
        log_tail=result.log_tail,
        start_time="",
        completion_time="",
    )


def test_models_and_plain_values_become_json() -> None:
    model = Model(when=datetime(2026, 11, 22, tzinfo=UTC))
    assert succeeded(model).value == {"when": "2026-11-22T00:00:00Z", "theSize": 3}
    assert succeeded({"a": (1, None, "ü")}).value == {"a": [1, None, "ü"]}
    assert succeeded(None) == Result(Outcome.SUCCEEDED)


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


class Rude(BaseModel):
    def model_dump(self, **_options: Any) -> dict[str, Any]:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "make",
    [
        object,
        lambda: {1, 2},
        lambda: b"x",
        lambda: math.nan,
        lambda: math.inf,
        lambda: "\ud800",
        endless,
        lambda: deep(5000),
        Rude,
        lambda: {("a",): 1},
    ],
    ids=["object", "set", "bytes", "nan", "infinity", "surrogate", "endless", "deep", "rude", "key"],
)
def test_what_is_not_json_fails_for_good(make: Callable[[], object]) -> None:
    result = succeeded(make())
    assert (result.outcome, result.reason, result.permanent) == (Outcome.FAILED, "ResultNotJSON", True)
    reported(result)


@pytest.mark.parametrize("levels", [100, 200, 300, 500])
def test_deep_values_fit_into_a_report_or_fail(levels: int) -> None:
    report = reported(succeeded(deep(levels)))
    assert Report.decode(report.encode()).outcome == report.outcome


def test_the_limit_is_of_the_json_and_named() -> None:
    assert succeeded("x" * (RESULT_BYTES - 2)).outcome is Outcome.SUCCEEDED
    for large in ("x" * (RESULT_BYTES - 1), "ü" * (RESULT_BYTES // 2)):
        result = succeeded(large)
        assert (result.outcome, result.reason, result.permanent) == (Outcome.FAILED, "ResultTooLarge", True)
        assert "65536" in result.error


def test_an_exception_gives_its_class_and_text() -> None:
    result = raised(KeyError("name"), "last words")
    assert (result.reason, result.error, result.log_tail, result.permanent) == (
        "KeyError",
        "'name'",
        "last words",
        False,
    )
    assert raised(PermanentError("never")).permanent
    assert raised(ValueError()).error == "ValueError"


class _Odd___Name(Exception):  # noqa: N801, N818 - the point of it
    def __str__(self) -> str:
        raise RuntimeError("not even that")


def test_reasons_are_one_word_and_texts_are_cut() -> None:
    assert raised(_Odd___Name()).reason == "OddName"
    assert failure("ü", "x").reason == "Error"
    assert len(failure("R" * 100, "x").reason) == 64
    cut = failure("R", "e" * 5000, log_tail="a" * 5000 + "z")
    assert len(cut.error) == 4096
    assert cut.log_tail.endswith("az")
    assert len(cut.log_tail) == 4096
    umlauts = failure("R", "ü" * 4096, log_tail="\ud800" + "ü" * 4096)
    assert len(umlauts.error.encode()) <= 4096
    assert len(umlauts.log_tail.encode()) <= 4096
    reported(umlauts)


def test_an_invalid_payload_says_what_is_wrong_without_the_values() -> None:
    with pytest.raises(InvalidPayloadError) as info:
        read_payload(TypeAdapter(Model), {"when": "secret-value", "size": 0})
    assert str(info.value).startswith("when: Input should be a valid datetime")
    assert "size: Input should be greater than or equal to 1" in str(info.value)
    assert "secret" not in str(info.value)
    result = raised(info.value)
    assert (result.reason, result.permanent) == ("InvalidPayload", True)
