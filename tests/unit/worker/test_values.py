"""JSON that leaves a worker."""

from typing import Any

import pytest
from pydantic import BaseModel

from distriqueue_worker.commands import Checkpointed, Progressed, Word
from distriqueue_worker.results import succeeded
from distriqueue_worker.tasks import CHECKPOINT_BYTES, Stopped, TaskContext
from distriqueue_worker.values import LARGEST_INTEGER, SMALLEST_INTEGER, NotJSONError, TooLargeError, compact


class Model(BaseModel):
    page: int


def context(said: list[Word]) -> TaskContext:
    return TaskContext(
        type="t", namespace="n", name="j", uid="u", attempt=1, max_attempts=1, grant="1-1", tell=said.append
    )


def test_a_value_is_copied_and_measured() -> None:
    value: dict[str, Any] = {"a": [1, 2], "ü": None}
    copy, size = compact(value, limit=100)
    assert copy == value
    assert size == len('{"a":[1,2],"ü":null}'.encode())
    value["a"].append(3)
    assert copy == {"a": [1, 2], "ü": None}


def test_integers_have_64_bits() -> None:
    fine = {"numbers": [SMALLEST_INTEGER, LARGEST_INTEGER, 1e300, "9" * 40]}
    assert compact(fine, limit=1000)[0] == fine
    for number in (SMALLEST_INTEGER - 1, LARGEST_INTEGER + 1, 10**30):
        with pytest.raises(NotJSONError, match="write it as a string"):
            compact({"deep": [{"number": number}]}, limit=1000)
        result = succeeded([number])
        assert (result.reason, result.permanent) == ("ResultNotJSON", True)
        assert "64" in result.error


def test_the_limit_counts_bytes() -> None:
    assert compact("ü" * 10, limit=22)[1] == 22
    with pytest.raises(TooLargeError, match="22 bytes of JSON, and 21 is the limit"):
        compact("ü" * 10, limit=21)


def test_a_checkpoint_is_json_and_small() -> None:
    said: list[Word] = []
    one = context(said)
    one.checkpoint(Model(page=3))
    one.checkpoint("x" * (CHECKPOINT_BYTES - 2))
    assert said[0] == Checkpointed({"page": 3}, 10)
    assert len(said) == 2
    with pytest.raises(ValueError, match=r"the checkpoint is too large: .* 16384 is the limit"):
        one.checkpoint("x" * (CHECKPOINT_BYTES - 1))
    for wrong in ({1, 2}, object(), float("nan"), "\ud800", 2**70):
        with pytest.raises(TypeError, match="the checkpoint is not JSON"):
            one.checkpoint(wrong)
    assert len(said) == 2


def test_progress_is_a_percentage_or_none() -> None:
    said: list[Word] = []
    one = context(said)
    one.progress(0)
    one.progress(99.99, "nearly\ud800" + "x" * 300)
    one.progress(None, "who knows")
    assert said[0] == Progressed(0, "")
    assert said[1] == Progressed(99, "nearly?" + "x" * 249)
    assert said[2] == Progressed(None, "who knows")
    for wrong in (-1, 101, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="from 0 to 100"):
            one.progress(wrong)
    for odd in ("50", True, [50]):
        with pytest.raises(TypeError, match="from 0 to 100"):
            one.progress(odd)  # type: ignore[arg-type]  # what authors do
    with pytest.raises(TypeError, match="is a str"):
        one.progress(5, 5)  # type: ignore[arg-type]  # likewise
    assert len(said) == 3


def test_giving_in() -> None:
    one = context([])
    one.raise_if_cancelled()
    one.cancelled.set()
    with pytest.raises(Stopped):
        one.raise_if_cancelled()


def test_a_context_of_a_test_takes_words_too() -> None:
    alone = TaskContext(type="t", namespace="n", name="j", uid="u", attempt=1, max_attempts=1, grant="1-1")
    alone.progress(5)
    alone.checkpoint([])
    assert alone.last_checkpoint is None
