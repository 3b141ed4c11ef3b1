"""Jobs counted, and what a window of time says of them."""

import pytest

from distriqueue.gateway.statistics import Tally, percentile
from distriqueue.gateway.views import JobStatus
from tests.unit.gateway.job_resources import row

WALL = 1_795_406_460.0
"""2026-11-23T04:01:00Z: a minute after the jobs' creation."""


def at(second: float) -> str:
    return f"2026-11-23T04:00:{second:09.6f}Z"


def test_jobs_are_counted_by_what_they_are() -> None:
    tally = Tally(window=60, wall=WALL)
    tally.add([row(1), row(2, status={"phase": "Queued"}), row(3, spec={"type": "calculate", "poolName": "gpu"})])
    tally.add([row(4, status={"phase": "Running", "startTime": at(1)})])
    counted = tally.result()
    assert counted.total == 4
    assert set(counted.by_status) == set(JobStatus)
    assert (counted.by_status[JobStatus.PENDING], counted.by_status[JobStatus.RUNNING]) == (3, 1)
    assert counted.by_type == {"calculate": 1, "email": 3}
    assert counted.by_pool == {"default": 3, "gpu": 1}
    assert (counted.window.created, counted.window.finished, counted.window.wait_seconds_p50) == (4, 0, None)


def test_a_window_tells_of_what_ended_in_it() -> None:
    tally = Tally(window=20, wall=WALL)
    ends = [("Succeeded", 39.0), ("Succeeded", 41.0), ("Dead", 45.0), ("Failed", 50.0), ("Succeeded", 59.5)]
    tally.add(
        row(number, status={"phase": phase, "startTime": at(number), "completionTime": at(end)})
        for number, (phase, end) in enumerate(ends)
    )
    tally.add([row(9, status={"phase": "Cancelled", "completionTime": at(55)})])
    window = tally.result().window
    assert (window.finished, window.succeeded, window.failed, window.cancelled) == (5, 2, 2, 1)
    assert window.per_second == 5 / 20
    assert window.created == 0
    # They started 1, 2, 3 and 4 s after their creation; the cancelled one never did.
    assert (window.wait_seconds_p50, window.wait_seconds_p95) == (2.0, 4.0)
    assert (window.run_seconds_p50, window.run_seconds_p95) == (43.0, 55.5)


def test_clocks_that_differ_make_no_negative_times() -> None:
    tally = Tally(window=86_400, wall=WALL)
    start, end = "2026-11-23T03:59:59Z", "2026-11-23T03:59:58Z"
    tally.add([row(1, status={"phase": "Succeeded", "startTime": start, "completionTime": end})])
    assert (tally.result().window.wait_seconds_p50, tally.result().window.run_seconds_p50) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([], 50, None),
        ([3.0], 95, 3.0),
        ([1.0, 2.0], 50, 1.0),
        ([1.0, 2.0], 51, 2.0),
        ([*map(float, range(1, 101))], 95, 95.0),
    ],
)
def test_percentiles_are_values_that_occurred(values: list[float], percent: float, expected: float | None) -> None:
    assert percentile(values, percent) == expected
