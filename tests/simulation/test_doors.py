"""Worlds that are hard on HTTP workers and gateways; and two rules of theirs that the simulator has to miss."""

from collections.abc import Iterator

import pytest

from distriqueue_protocol.messages import Registration
from tests.simulation import remote_workers
from tests.simulation.climates import Climate
from tests.simulation.gateways import Gateway, Held, Reply
from tests.simulation.statuses import ViolationError
from tests.simulation.worlds import World

HARSH = Climate(faults=("kill worker", "stop leader"), seconds=90.0, between=6.0, long=0.9, jobs=30)
SEEDS = 60


def harsh_worlds(seeds: int) -> Iterator[World]:
    """Those that have gateways."""
    for seed in range(seeds):
        world = World(seed, HARSH)
        if world.doors.open:
            yield world


def run_all(seeds: int) -> None:
    for world in harsh_worlds(seeds):
        world.run()


def test_custody_is_kept_for_http_workers() -> None:
    starts = 0
    for world in harsh_worlds(SEEDS):
        starts += sum(world.run().history.starts.values())
    assert starts


def test_http_workers_that_do_not_stop_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_workers, "WORKER_FENCE_SECONDS", 30.0)
    with pytest.raises(ViolationError):
        run_all(SEEDS)


def test_sessions_that_forget_what_their_workers_hold_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    really = Gateway.register

    def register(self: Gateway, registration: Registration, incarnation: str, _jobs: list[Held], reply: Reply) -> None:
        really(self, registration, incarnation, [], reply)

    monkeypatch.setattr(Gateway, "register", register)
    with pytest.raises(ViolationError):
        run_all(SEEDS)
