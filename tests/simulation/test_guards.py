"""Every guard of custody is broken, one at a time, and the simulator finds that something is wrong.

This is the proof that the worlds are bad enough and the sentences sharp enough. Each row names where to look (so that
the test is quick; the first seed that fails is among them) and which sentences may turn out not to be true.
"""

from typing import NamedTuple

import pytest

from tests.simulation.guards import GUARDS
from tests.simulation.statuses import ViolationError
from tests.simulation.worlds import World


class Break(NamedTuple):
    """Where a broken guard shows, and how."""

    guard: str
    seeds: range
    sentences: frozenset[str]


TWO_AT_ONCE = frozenset({"one live attempt", "written while it runs", "one result", "grants grow"})

BREAKS = [
    Break("claims_are_not_checked", range(9, 16), TWO_AT_ONCE | {"confirmed success"}),
]


@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: broken.guard)
def test_a_broken_guard_is_found(broken: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    GUARDS[broken.guard](monkeypatch)
    found: set[str] = set()
    for seed in broken.seeds:
        try:
            World(seed).run()
        except ViolationError as violation:
            found.add(violation.sentence)
            if violation.sentence in broken.sentences:
                return
    pytest.fail(f"no world showed it; what was not true: {found or 'nothing'}")


def test_every_guard_is_broken() -> None:
    assert {broken.guard for broken in BREAKS} == GUARDS.keys()
