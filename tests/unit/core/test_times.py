"""Wall times as text and back."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distriqueue.core.times import microtime, seconds, whole_seconds


@given(st.integers(0, 4_000_000_000), st.integers(0, 999_999))
def test_microtime_is_read_back_as_it_was(second: int, micro: int) -> None:
    text = microtime(second + micro / 1_000_000)
    assert text == datetime.fromtimestamp(second, UTC).replace(microsecond=micro).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert seconds(text) == pytest.approx(second + micro / 1_000_000, abs=1e-6)


def test_a_time_that_rounds_up_is_the_next_second() -> None:
    assert microtime(0.999_999_9) == "1970-01-01T00:00:01.000000Z"
    assert whole_seconds(0.999_999_9) == "1970-01-01T00:00:00Z"


@pytest.mark.parametrize("text", [None, "", "yesterday", "2026-13-01T00:00:00Z"])
def test_what_is_no_time_is_none(text: str | None) -> None:
    assert seconds(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01T00:00:00+99:99",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
    ],
)
def test_a_moment_that_nobody_could_write_again_is_none(text: str) -> None:
    assert seconds(text) is None


def test_small_letters_are_read() -> None:
    assert seconds("2026-01-01t00:00:00z") == seconds("2026-01-01T00:00:00Z") == 1_767_225_600
