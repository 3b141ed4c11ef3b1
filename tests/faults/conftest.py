"""Faults are injected into the same real parts that the integration tests use; every trial has a stage of its own."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.faults.drills import Inject, Row, Trial, drill
from tests.integration.conftest import broker_fixture, kube_fixture, plane_fixture, stages_fixture
from tests.support.stages import Stages

__all__ = ["broker_fixture", "kube_fixture", "plane_fixture", "stages_fixture"]

TIMEOUT_SECONDS = 600

Run = Callable[..., Awaitable[Row]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A fault takes its time: leases and outages are waited for."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.faults)
            item.add_marker(pytest.mark.timeout(TIMEOUT_SECONDS))


@pytest.fixture(name="run")
def run_fixture(stages: Stages) -> Run:
    """Runs a trial; see `drills.drill`."""

    async def run(trial: Trial, inject: Inject, *, check_more: Inject | None = None) -> Row:
        return await drill(stages, trial, inject, check_more=check_more)

    return run
