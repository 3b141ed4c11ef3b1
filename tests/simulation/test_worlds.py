"""Hundreds of made-up worlds, each by its seed; a failing one is printed and replays exactly."""

import pytest

from tests.simulation.climates import PEACE
from tests.simulation.worlds import World

SEEDS = 300
CHUNK = 25


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_custody_is_kept(first: int) -> None:
    for seed in range(first, first + CHUNK):
        try:
            World(seed).run()
        except Exception as error:
            error.add_note(f"replay with: make simulate SEED={seed}")
            raise


def test_in_peace_every_job_runs_once_for_each_attempt() -> None:
    for seed in range(20):
        world = World(seed, PEACE).run()
        for job in world.api.jobs.values():
            assert world.history.starts[job["metadata"]["uid"]] == job["status"].get("attempt", 0)
