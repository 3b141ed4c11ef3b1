"""The history checker: what handlers wrote down, held against what the resources say.

It believes the records alone about what ran, and when: they are written outside of our system. A handler without a last
line ended when its process did. What the resources said is taken from a watch of the test's own, so a result that was
accepted and replaced counts twice. Pure functions: no clock, no I/O.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import Any

from tests.support.records import Record

Span = tuple[float, float]
"""From and to, in seconds of the machine's monotonic clock."""

REPORT_SECONDS = 3.0
"""How long before a silence a handler may have returned without that its report was confirmed, on a busy machine."""

OPEN = "open"
"""Of a run whose handler has not ended."""
DIED = "died"
"""Of a run that ended with its process."""


@dataclass(frozen=True, slots=True)
class Run:
    """One handler that ran, from its first line to its last.

    Attributes:
        ending: `returned`, `raised`, `stopped`, `died` or `open`.
        awake: When it could do something: from start to end, without the time in which its process was frozen.
    """

    uid: str
    name: str
    grant: str
    attempt: int
    worker: str
    pid: int
    start: float
    end: float
    ending: str
    awake: tuple[Span, ...]


def without(span: Span, holes: Iterable[Span]) -> tuple[Span, ...]:
    """What is left of a span without some others."""
    left = [span]
    for hole_start, hole_end in holes:
        left = [
            piece
            for start, end in left
            for piece in ((start, min(end, hole_start)), (max(start, hole_end), end))
            if piece[0] < piece[1]
        ]
    return tuple(left)


def runs(
    records: Sequence[Record],
    *,
    deaths: Mapping[int, float],
    frozen: Mapping[int, Sequence[Span]],
    now: float,
) -> list[Run]:
    """Make runs of records.

    Args:
        records: In the order in which they were written.
        deaths: When processes ended, by process id.
        frozen: When processes were frozen, by process id.
        now: The end of what has not ended.
    """
    ends = {(record.uid, record.grant, record.pid): record for record in records if record.event != "started"}
    found = []
    for record in records:
        if record.event != "started":
            continue
        last = ends.get((record.uid, record.grant, record.pid))
        if last is not None:
            end, ending = last.mono, last.event
        elif record.pid in deaths:
            end, ending = deaths[record.pid], DIED
        else:
            end, ending = now, OPEN
        end = max(end, record.mono)
        awake = without((record.mono, end), frozen.get(record.pid, ()))
        found.append(
            Run(
                uid=record.uid,
                name=record.name,
                grant=record.grant,
                attempt=record.attempt,
                worker=record.worker,
                pid=record.pid,
                start=record.mono,
                end=end,
                ending=ending,
                awake=awake,
            )
        )
    return found


def overlap(one: Run, other: Run) -> float:
    """For how many seconds both could do something."""
    return sum(
        max(0.0, min(end, other_end) - max(start, other_start))
        for start, end in one.awake
        for other_start, other_end in other.awake
    )


def live_at_once(of_one_job: Sequence[Run]) -> int:
    """The most runs of one job that could do something at the same time."""
    edges = sorted(edge for run in of_one_job for start, end in run.awake for edge in ((start, 1, 1), (end, 0, -1)))
    live = most = 0
    for _, _, step in edges:
        live += step
        most = max(most, live)
    return most


def outcome_of(job: Mapping[str, Any]) -> str:
    """What a final status says for good: two that differ are two accepted results."""
    status = job["status"]
    result = status.get("result")
    told = result.get("grant", result) if isinstance(result, dict) else result
    return f"{status['phase']} {status.get('completionTime')} {told!s:.200}"


@dataclass(frozen=True, slots=True)
class Repeat:
    """A run that was not the first of its job.

    Attributes:
        explained: The run before it is in `status.attempts` as Lost or Failed, or it ended without returning, or its
            worker could not report what it returned.
    """

    run: Run
    before: Run
    explained: bool


@dataclass(frozen=True, slots=True)
class History:
    """What came of it all.

    Attributes:
        jobs: How many there were.
        lost: Names of those that are not over, or not there.
        accepted: Final outcomes by uid, as the watch and the last list saw them.
        baseless: Names of jobs whose result is of no handler that returned.
        at_once: The most attempts of one job that could do something at the same time.
        overlap_seconds: The longest time of that.
        repeats: All runs that were not the first of their job.
        runs: All runs of these jobs.
    """

    jobs: int
    lost: list[str]
    accepted: Mapping[str, frozenset[str]]
    baseless: list[str]
    at_once: int
    overlap_seconds: float
    repeats: list[Repeat]
    runs: list[Run] = field(repr=False)

    @property
    def unexplained(self) -> list[Repeat]:
        """Repeats that nothing explains."""
        return [repeat for repeat in self.repeats if not repeat.explained]

    @property
    def most_accepted(self) -> int:
        """The most outcomes of one job."""
        return max(map(len, self.accepted.values()), default=0)

    @property
    def least_accepted(self) -> int:
        """The fewest outcomes of one job."""
        return min(map(len, self.accepted.values()), default=0)

    def first_start_after(self, mono: float) -> float | None:
        """Seconds from a moment to the first start of a handler after it."""
        return min((run.start - mono for run in self.runs if run.start > mono), default=None)


def check(
    names: Sequence[str],
    jobs: Sequence[Mapping[str, Any]],
    *,
    outcomes: Mapping[str, frozenset[str]],
    ran: Sequence[Run],
    silences: Mapping[str, Sequence[Span]] | None = None,
) -> History:
    """Hold runs against resources.

    Args:
        names: Of the jobs that somebody was promised.
        jobs: As they are now.
        outcomes: What the watch saw, by uid.
        ran: All runs of those jobs.
        silences: When a worker could not speak (frozen, dead, cut off), by its name.
    """
    there = {job["metadata"]["name"]: job for job in jobs}
    final = {name: job for name, job in there.items() if job["status"].get("completionTime")}
    by_uid: dict[str, list[Run]] = defaultdict(list)
    for run in ran:
        by_uid[run.uid].append(run)
    accepted: dict[str, frozenset[str]] = {}
    baseless: list[str] = []
    repeats: list[Repeat] = []
    at_once, longest = 0, 0.0
    for name, job in final.items():
        uid = job["metadata"]["uid"]
        accepted[uid] = outcomes.get(uid, frozenset()) | {outcome_of(job)}
        result = job["status"].get("result")
        if isinstance(result, dict) and "grant" in result:
            returned = {run.grant for run in by_uid[uid] if run.ending == "returned"}
            if result["grant"] not in returned:
                baseless.append(name)
    told = {job["metadata"]["uid"]: job["status"].get("attempts", []) for job in there.values()}
    for uid, several in by_uid.items():
        several.sort(key=lambda run: run.start)
        at_once = max(at_once, live_at_once(several))
        longest = max([longest, *(overlap(one, other) for one, other in combinations(several, 2))])
        repeats.extend(_repeats(several, told.get(uid, []), silences or {}))
    return History(
        jobs=len(names),
        lost=sorted(set(names) - set(final)),
        accepted=accepted,
        baseless=baseless,
        at_once=at_once,
        overlap_seconds=longest,
        repeats=repeats,
        runs=list(ran),
    )


def _repeats(
    several: Sequence[Run], attempts: Sequence[Mapping[str, Any]], silences: Mapping[str, Sequence[Span]]
) -> Iterable[Repeat]:
    over = {entry["number"] for entry in attempts if entry.get("outcome") not in (None, "Succeeded")}
    for before, run in pairwise(several):
        unheard = any(
            start - REPORT_SECONDS <= before.end <= end and run.start > start
            for start, end in silences.get(before.worker, ())
        )
        ended_itself = before.ending not in ("returned", OPEN)
        yield Repeat(run, before, explained=before.attempt in over or ended_itself or unheard)
