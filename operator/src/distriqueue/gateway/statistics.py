"""Jobs counted: by status, type and pool, and what ended within a window of time, how fast and after how long a wait.

Guarantees: pure, one pass over the jobs that exist; what was deleted is not counted. Percentiles are by nearest rank:
each is a value that occurred. Times of a worker's clock and of the API server's are subtracted as they are, and a
negative difference is 0.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from distriqueue.api.phases import FINAL_JOB_PHASES
from distriqueue.gateway.rows import Row
from distriqueue.gateway.showing import status_of
from distriqueue.gateway.views import JobStatus, Statistics, StatisticsWindow


class Tally:
    """Counts rows that are given piece by piece."""

    def __init__(self, *, window: int, wall: float) -> None:
        """Begin to count.

        Args:
            window: Seconds that it looks back.
            wall: The moment, seconds since 1970.
        """
        self._window = window
        self._since = wall - window
        self._phases: Counter[str] = Counter()
        self._types: Counter[str] = Counter()
        self._pools: Counter[str] = Counter()
        self._ends: Counter[JobStatus] = Counter()
        self._created = 0
        self._waits: list[float] = []
        self._runs: list[float] = []

    def add(self, rows: Iterable[Row]) -> None:
        """Count some more."""
        for row in rows:
            self._phases[row.phase] += 1
            self._types[row.type] += 1
            self._pools[row.pool] += 1
            if row.created >= self._since:
                self._created += 1
            if row.phase in FINAL_JOB_PHASES and row.completed is not None and row.completed >= self._since:
                self._end(row, row.completed)

    def _end(self, row: Row, completed: float) -> None:
        self._ends[status_of(row.phase)] += 1
        if row.started is not None:
            self._waits.append(max(0.0, row.started - row.created))
            self._runs.append(max(0.0, completed - row.started))

    def result(self) -> Statistics:
        """Return what was counted."""
        statuses: Counter[JobStatus] = Counter()
        for phase, count in self._phases.items():
            statuses[status_of(phase)] += count
        finished = self._ends.total()
        waits, runs = sorted(self._waits), sorted(self._runs)
        return Statistics(
            total=self._phases.total(),
            by_status={status: statuses[status] for status in JobStatus},
            by_type=dict(sorted(self._types.items())),
            by_pool=dict(sorted(self._pools.items())),
            window=StatisticsWindow(
                seconds=self._window,
                created=self._created,
                finished=finished,
                succeeded=self._ends[JobStatus.COMPLETED],
                failed=self._ends[JobStatus.FAILED] + self._ends[JobStatus.DEAD],
                cancelled=self._ends[JobStatus.CANCELLED],
                per_second=finished / self._window,
                wait_seconds_p50=percentile(waits, 50),
                wait_seconds_p95=percentile(waits, 95),
                run_seconds_p50=percentile(runs, 50),
                run_seconds_p95=percentile(runs, 95),
            ),
        )


def percentile(ordered: Sequence[float], percent: float) -> float | None:
    """Return the smallest of some ordered values that at least so many percent of them do not exceed; None of none."""
    if not ordered:
        return None
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
