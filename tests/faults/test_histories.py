"""The history checker finds what it is there to find."""

from typing import Any

import pytest

from tests.faults.histories import DIED, History, Run, check, live_at_once, overlap, runs, without
from tests.support.records import Record

pytestmark = pytest.mark.quick

NOW = 100.0


def record(event: str, at: float, *, grant: str = "1-1", attempt: int = 1, pid: int = 1, name: str = "a") -> Record:
    return Record(event, "n", name, f"uid-{name}", "t", attempt, grant, f"w{pid}", pid, at, at)


def job(name: str = "a", *, grant: str | None = "1-1", attempts: int = 1) -> dict[str, Any]:
    outcomes = ["Lost"] * (attempts - 1) + ["Succeeded"]
    return {
        "metadata": {"name": name, "uid": f"uid-{name}"},
        "status": {
            "phase": "Succeeded",
            "completionTime": "then",
            "result": {"grant": grant},
            "attempts": [{"number": number, "outcome": outcome} for number, outcome in enumerate(outcomes, 1)],
        },
    }


def found(records: list[Record], **more: Any) -> list[Run]:
    return runs(records, **{"deaths": {}, "frozen": {}, "now": NOW, **more})


def checked(
    jobs: list[dict[str, Any]], ran: list[Run], *, outcomes: dict[str, frozenset[str]] | None = None
) -> History:
    return check(["a"], jobs, outcomes=outcomes or {}, ran=ran)


def test_a_healthy_run_is_healthy() -> None:
    history = checked([job()], found([record("started", 1), record("returned", 2)]))
    assert (history.lost, history.baseless, history.repeats) == ([], [], [])
    assert (history.at_once, history.overlap_seconds, history.most_accepted) == (1, 0, 1)


def test_a_job_that_is_not_over_or_not_there_is_lost() -> None:
    waiting = {"metadata": {"name": "a", "uid": "uid-a"}, "status": {"phase": "Queued"}}
    assert checked([waiting], []).lost == ["a"]
    assert checked([], []).lost == ["a"]


def test_a_result_that_was_replaced_counts_twice() -> None:
    seen = {"uid-a": frozenset({"Succeeded then 0-9"})}
    history = checked([job()], found([record("started", 1), record("returned", 2)]), outcomes=seen)
    assert history.most_accepted == 2


def test_a_result_of_nobody_is_baseless() -> None:
    assert checked([job()], found([record("started", 1), record("stopped", 2)])).baseless == ["a"]


def test_two_at_once_are_seen_and_measured() -> None:
    both = found(
        [
            record("started", 1),
            record("started", 2, grant="1-2", attempt=2, pid=2),
            record("returned", 2.5),
            record("returned", 3, grant="1-2", attempt=2, pid=2),
        ]
    )
    history = checked([job(attempts=2)], both)
    assert (history.at_once, history.overlap_seconds) == (2, 0.5)
    assert not history.unexplained, "the first one is said to be lost"
    assert checked([job()], both).unexplained, "nobody says why there are two"


def test_what_a_worker_could_not_report_is_run_again() -> None:
    both = found(
        [
            record("started", 1),
            record("returned", 5),
            record("started", 30, grant="1-2", attempt=1, pid=2),
            record("returned", 31, grant="1-2", attempt=1, pid=2),
        ]
    )
    assert checked([job()], both).unexplained
    assert not check(["a"], [job()], outcomes={}, ran=both, silences={"w1": [(4, 9)]}).unexplained
    assert check(["a"], [job()], outcomes={}, ran=both, silences={"w1": [(20, 29)], "w2": [(4, 9)]}).unexplained


def test_one_after_the_other_is_one_at_once() -> None:
    one, other = found(
        [
            record("started", 1),
            record("stopped", 2),
            record("started", 2, grant="1-2", attempt=2, pid=2),
            record("returned", 3, grant="1-2", attempt=2, pid=2),
        ]
    )
    assert live_at_once([one, other]) == 1
    assert overlap(one, other) == 0


def test_a_handler_ends_with_its_process() -> None:
    (run,) = found([record("started", 1)], deaths={1: 4.0})
    assert (run.end, run.ending) == (4.0, DIED)


def test_a_handler_that_has_not_ended_lives() -> None:
    (run,) = found([record("started", 1)])
    assert run.end == NOW


def test_what_is_frozen_does_nothing() -> None:
    first, second = found(
        [
            record("started", 1),
            record("started", 20, grant="1-2", attempt=2, pid=2),
            record("stopped", 25.2),
            record("returned", 30, grant="1-2", attempt=2, pid=2),
        ],
        frozen={1: [(2.0, 25.0)]},
    )
    assert first.awake == ((1, 2.0), (25.0, 25.2))
    assert overlap(first, second) == pytest.approx(0.2)


def test_spans_are_cut() -> None:
    assert without((0, 10), [(2, 3), (9, 12)]) == ((0, 2), (3, 9))
    assert without((0, 10), [(-1, 11)]) == ()
