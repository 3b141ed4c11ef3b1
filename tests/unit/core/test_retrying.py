"""What follows an attempt that ended."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distriqueue.api.conditions import JobReason
from distriqueue.api.phases import AttemptOutcome, JobPhase
from distriqueue.core.jobs import Backoff
from distriqueue.core.retrying import Verdict, decide, wait_seconds

PLAIN = Backoff(initial_seconds=5, factor_percent=200, max_seconds=300, jitter_percent=0)


def test_waits_grow_by_the_factor_up_to_the_bound() -> None:
    waits = [wait_seconds(PLAIN, attempt=attempt, draw=0.9) for attempt in range(1, 9)]
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300]


def test_the_factor_may_keep_it_as_it_is() -> None:
    even = Backoff(initial_seconds=7, factor_percent=100, max_seconds=300, jitter_percent=0)
    assert {wait_seconds(even, attempt=attempt, draw=0.5) for attempt in range(1, 100)} == {7}


def test_jitter_goes_both_ways() -> None:
    backoff = Backoff(initial_seconds=100, factor_percent=200, max_seconds=300, jitter_percent=10)
    assert wait_seconds(backoff, attempt=1, draw=0.0) == pytest.approx(90)
    assert wait_seconds(backoff, attempt=1, draw=0.5) == pytest.approx(100)
    assert wait_seconds(backoff, attempt=1, draw=0.999_999) == pytest.approx(110, abs=0.01)


@given(
    st.integers(0, 3600),
    st.integers(100, 1000),
    st.integers(1, 86400),
    st.integers(0, 100),
    st.integers(1, 100),
    st.floats(0, 1, exclude_max=True),
)
def test_every_setting_that_the_schema_allows_gives_a_bounded_wait(
    initial: int, factor: int, most: int, jitter: int, attempt: int, draw: float
) -> None:
    backoff = Backoff(initial, factor, max(most, initial), jitter)
    wait = wait_seconds(backoff, attempt=attempt, draw=draw)
    assert 0 <= wait <= backoff.max_seconds * (1 + jitter / 100)
    without = Backoff(initial, factor, max(most, initial), 0)
    this, following = (wait_seconds(without, attempt=number, draw=draw) for number in (attempt, attempt + 1))
    assert this <= following


def verdict(outcome: AttemptOutcome, *, attempt: int = 1, most: int = 3, permanent: bool = False) -> Verdict:
    return decide(outcome=outcome, permanent=permanent, attempt=attempt, max_attempts=most, backoff=PLAIN, draw=0.5)


@pytest.mark.parametrize(
    ("outcome", "attempt", "expected"),
    [
        (AttemptOutcome.SUCCEEDED, 1, Verdict(JobPhase.SUCCEEDED, JobReason.SUCCEEDED)),
        (AttemptOutcome.SUCCEEDED, 3, Verdict(JobPhase.SUCCEEDED, JobReason.SUCCEEDED)),
        (AttemptOutcome.FAILED, 1, Verdict(JobPhase.RETRYING, wait_seconds=5)),
        (AttemptOutcome.FAILED, 2, Verdict(JobPhase.RETRYING, wait_seconds=10)),
        (AttemptOutcome.FAILED, 3, Verdict(JobPhase.DEAD, JobReason.ATTEMPTS_EXHAUSTED)),
        (AttemptOutcome.LOST, 1, Verdict(JobPhase.RETRYING)),
        (AttemptOutcome.LOST, 3, Verdict(JobPhase.DEAD, JobReason.ATTEMPTS_EXHAUSTED)),
    ],
)
def test_what_follows(outcome: AttemptOutcome, attempt: int, expected: Verdict) -> None:
    assert verdict(outcome, attempt=attempt) == expected


def test_a_permanent_error_needs_no_second_try() -> None:
    expected = Verdict(JobPhase.FAILED, JobReason.PERMANENT_ERROR)
    assert verdict(AttemptOutcome.FAILED, permanent=True) == expected
    assert verdict(AttemptOutcome.FAILED, attempt=3, permanent=True) == expected


def test_one_attempt_at_most_is_one_start_at_most() -> None:
    assert verdict(AttemptOutcome.LOST, most=1).phase is JobPhase.DEAD
