"""Every guard of custody is broken, one at a time, and the simulator finds that something is wrong.

This is the proof that the worlds are bad enough and the sentences sharp enough. Each guard is broken in a climate that
leans on it, so that a few worlds are enough; and in the same worlds nothing is found while the guards are whole.
"""

from typing import NamedTuple

import pytest

from tests.simulation.climates import Climate
from tests.simulation.guards import GUARDS
from tests.simulation.statuses import ViolationError
from tests.simulation.worlds import World

SEEDS = 300
"""So many worlds at most; most guards are missed in one of the first ten."""
WHOLE_SEEDS = 3
TWO_AT_ONCE = frozenset(
    {"one live attempt", "written while it runs", "one result", "grants grow", "the result's grant"}
)


class Break(NamedTuple):
    """A guard, a climate that leans on it, and the sentences that turn out not to be true without it."""

    guard: str
    climate: Climate
    sentences: frozenset[str]


BREAKS = [
    Break(
        "claims_are_not_checked",
        Climate(("cut connection", "cut off worker"), between=2, doubled=0.3, slow=0.1),
        TWO_AT_ONCE | {"confirmed success"},
    ),
    Break("a_cancel_frees_the_slot", Climate(("kill leader",), between=20, busy=0.6, long=0.8), TWO_AT_ONCE),
    Break("old_heartbeats_count", Climate(("cut connection",), between=4, doubled=0.3, long=0.8), TWO_AT_ONCE),
    Break("losses_need_no_proof", Climate(("stall leader", "kill worker"), between=6, long=0.8), TWO_AT_ONCE),
    Break("reports_are_acked_at_once", Climate(("kill leader",), between=5), frozenset({"ack after write"})),
    Break(
        "nobody_calls_the_roll",
        Climate(("kill leader", "stop leader", "freeze worker", "cut off worker"), between=4, long=0.8),
        TWO_AT_ONCE,
    ),
    Break("workers_do_not_fence_themselves", Climate(("cut off worker",), between=15, long=0.9), TWO_AT_ONCE),
    Break("workers_stop_too_late", Climate(("cut off worker",), between=10, long=0.9), TWO_AT_ONCE),
    Break(
        "stale_reports_are_accepted",
        Climate(("cut connection", "kill leader"), between=4, doubled=0.3),
        frozenset({"attempts end once", "lastGrant", "numbers grow", "one result"}),
    ),
    Break(
        "writes_land_as_they_come",
        Climate(("kill leader", "freeze leader", "silence API server"), between=4, requests=0.2, busy=0.6),
        frozenset({"lastGrant", "final is final", "numbers grow", "attempts end once"}),
    ),
    Break(
        "a_created_lease_proves_nothing",
        Climate(("delete Lease", "install again", "cut off worker", "freeze worker"), between=5, long=0.8),
        TWO_AT_ONCE,
    ),
    Break(
        "suspended_jobs_start",
        Climate(("kill leader",), between=20, busy=0.6),
        frozenset({"must not start"}),
    ),
    Break(
        "the_first_judgement_counts",
        Climate(("kill leader",), seconds=20, between=20, busy=0.9, referred=1.0, jobs=12),
        frozenset({"must not start", "held by someone", "the books agree"}),
    ),
]


@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: broken.guard)
def test_a_broken_guard_is_found(broken: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(WHOLE_SEEDS):
        World(seed, broken.climate).run()
    GUARDS[broken.guard](monkeypatch)
    found: set[str] = set()
    for seed in range(SEEDS):
        try:
            World(seed, broken.climate).run()
        except ViolationError as violation:
            found.add(violation.sentence)
            if violation.sentence in broken.sentences:
                return
    pytest.fail(f"no world showed it; what was not true: {found or 'nothing'}")


def test_every_guard_is_broken() -> None:
    assert {broken.guard for broken in BREAKS} == GUARDS.keys()
