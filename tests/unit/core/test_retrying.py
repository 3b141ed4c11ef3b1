"""What follows an attempt that ended."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distriqueue.api.conditions import JobReason
from distriqueue.api.phases import AttemptOutcome, JobPhase
from distriqueue.api.raw import RawRetryBudget
from distriqueue.core.jobs import Backoff, read_job
from distriqueue.core.retrying import Verdict, decide, wait_seconds
from tests.unit.core.desk import WALL, raw_job

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


def verdict(
    outcome: AttemptOutcome,
    *,
    before: RawRetryBudget | None = None,
    reason: str = "",
    most: int = 3,
    budget: RawRetryBudget | None = None,
    permanent: bool = False,
) -> Verdict:
    """What follows an attempt of a job that has failed so often before."""
    spec: dict[str, Any] = {
        "maxAttempts": most,
        "backoff": {"jitterPercent": 0},
        **({"retryBudget": budget} if budget else {}),
    }
    job = read_job(raw_job("a", status={"phase": "Retrying", "failures": before or {}}, **spec), wall=WALL)
    return decide(job, outcome=outcome, reason=reason, permanent=permanent, draw=0.5)


SUCCEEDED, FAILED, LOST = AttemptOutcome.SUCCEEDED, AttemptOutcome.FAILED, AttemptOutcome.LOST
DEAD = Verdict(JobPhase.DEAD, JobReason.ATTEMPTS_EXHAUSTED)


@pytest.mark.parametrize(
    ("outcome", "before", "expected"),
    [
        (SUCCEEDED, {}, Verdict(JobPhase.SUCCEEDED, JobReason.SUCCEEDED)),
        (SUCCEEDED, {"application": 2}, Verdict(JobPhase.SUCCEEDED, JobReason.SUCCEEDED)),
        (FAILED, {}, Verdict(JobPhase.RETRYING, wait_seconds=5)),
        (FAILED, {"application": 1}, Verdict(JobPhase.RETRYING, wait_seconds=10)),
        (FAILED, {"application": 1, "workerLost": 1}, DEAD),
        (LOST, {}, Verdict(JobPhase.RETRYING)),
        (LOST, {"timeout": 1, "outOfMemory": 1}, DEAD),
        (AttemptOutcome.STOPPED, {"application": 2}, Verdict(JobPhase.RETRYING)),
    ],
)
def test_classes_without_a_budget_share_the_attempts(
    outcome: AttemptOutcome, before: RawRetryBudget, expected: Verdict
) -> None:
    assert verdict(outcome, before=before) == expected


def test_a_class_with_a_budget_leaves_the_attempts_alone() -> None:
    budget: RawRetryBudget = {"workerLost": 5, "outOfMemory": 0}
    assert verdict(LOST, before={"workerLost": 4, "application": 1}, budget=budget) == Verdict(JobPhase.RETRYING)
    assert verdict(LOST, before={"workerLost": 5}, budget=budget) == DEAD
    assert verdict(FAILED, before={"workerLost": 5}, budget=budget).phase is JobPhase.RETRYING
    assert verdict(FAILED, before={"application": 2}, budget=budget) == DEAD
    assert verdict(FAILED, reason="OutOfMemory", budget=budget) == DEAD
    assert verdict(LOST, reason="OutOfMemory", budget=budget) == DEAD


def test_a_timeout_is_a_class_of_its_own() -> None:
    budget: RawRetryBudget = {"timeout": 1}
    assert verdict(FAILED, reason="Timeout", budget=budget, most=1).phase is JobPhase.RETRYING
    assert verdict(FAILED, reason="Timeout", before={"timeout": 1}, budget=budget, most=1) == DEAD
    assert verdict(FAILED, reason="ValueError", budget=budget, most=1) == DEAD


def test_a_permanent_error_needs_no_second_try() -> None:
    expected = Verdict(JobPhase.FAILED, JobReason.PERMANENT_ERROR)
    assert verdict(FAILED, permanent=True) == expected
    assert verdict(FAILED, before={"application": 2}, permanent=True) == expected


def test_one_attempt_at_most_is_one_start_at_most() -> None:
    assert verdict(LOST, most=1).phase is JobPhase.DEAD
