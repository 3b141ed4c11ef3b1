"""Explanations by a replica: the pace that `measure` tells, one look for many who ask, and little memory."""

import asyncio
import random
import tracemalloc
from dataclasses import dataclass
from typing import Any, cast

from distriqueue.core import times
from distriqueue.core.explaining import measure
from distriqueue.gateway import explanations
from distriqueue.gateway.caches import ClusterCache
from distriqueue.gateway.clustercaches import LeaseView
from distriqueue.gateway.explanations import Explainer
from tests.unit.gateway.job_resources import Watched, job

WALL = 1_780_000_000.0


@dataclass
class Cluster:
    """What an explanation asks the cluster for."""

    def lease(self) -> LeaseView:
        return LeaseView(known=True, leader="operator-1", record=None, epoch=1)

    def broker(self) -> bool | None:
        return True

    def workers(self) -> list[Any]:
        status = {"phase": "Online", "poolName": "default", "concurrency": 4, "running": 1, "types": ["email"]}
        other = {**status, "poolName": "secret"}
        return [
            {"metadata": {"name": "worker-x"}, "status": {**status, "types": ["report"]}},
            {"metadata": {"name": "worker-y"}, "status": other},
        ]


def explainer(shelves: Watched) -> Explainer:
    return Explainer(shelves, cast("ClusterCache", Cluster()))


def at(seconds: float) -> str:
    return times.whole_seconds(WALL + seconds)


def any_job(number: int, rng: random.Random) -> dict[str, Any]:
    """A job of some phase, with some attempts of late or long ago."""
    attempts = []
    for _ in range(rng.randrange(3)):
        start = -rng.randrange(1, 700)
        attempts.append({"number": 1, "startTime": at(start), "completionTime": at(start + rng.randrange(400))})
    phase = rng.choice(["Pending", "Running", "Succeeded", "Retrying", "Queued"])
    status: dict[str, Any] = {"phase": phase, "attempts": attempts}
    if phase == "Succeeded":
        status["completionTime"] = at(-rng.randrange(600))
    if phase == "Retrying":
        status["nextAttemptTime"] = at(rng.randrange(-100, 50))
    spec: dict[str, Any] = {"suspend": True} if rng.random() < 0.2 else {}
    if rng.random() < 0.3:
        spec["poolName"] = "other"
    return job(number, 100 + number, created=at(-rng.randrange(400)), spec=spec, status=status)


async def test_the_pace_is_the_one_that_all_jobs_together_have() -> None:
    for seed in range(60):
        rng = random.Random(seed)  # noqa: S311 - made-up jobs
        shelves = Watched()
        for number in range(rng.randrange(12)):
            shelves.show(any_job(number, rng))
        rows = [row for row in shelves.ordered(None) if row.completed is None or row.completed >= WALL - 300]
        expected = measure([row.raw() for row in rows], pool="default", wall=WALL)
        found = await explainer(shelves).snapshot("default", wall=WALL)
        assert found.recent == expected, seed


async def test_many_who_ask_at_once_share_one_look_for_a_while() -> None:
    shelves = Watched()
    for number in range(300):
        shelves.show(job(number, 100 + number))
    asked = explainer(shelves)
    found = await asyncio.gather(*(asked.snapshot("default", wall=WALL) for _ in range(20)))
    assert all(one is found[0] for one in found)
    shelves.now += explanations.SNAPSHOT_SECONDS
    assert await asked.snapshot("default", wall=WALL) is not found[0]


async def test_a_backlog_is_explained_without_holding_its_resources() -> None:
    shelves = Watched()
    for number in range(3000):
        shelves.show(job(number, 100 + number, spec={"payload": {"text": "x" * 500}}))
    asked = explainer(shelves)
    tracemalloc.start()
    try:
        found = await asked.snapshot("default", wall=WALL)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.waiting) == 3000
    assert peak < 3000 * 1000


async def test_workers_and_pools_are_named_to_those_alone_who_may_see_workers() -> None:
    shelves = Watched()
    asked = explainer(shelves)
    wanted = cast("Any", job(1, 5, spec={"poolName": "empty"}))
    assert "secret" in (await asked.explain(wanted, wall=WALL, workers_known=True)).sentence
    here = cast("Any", job(2, 6))
    assert "worker-x" in (await asked.explain(here, wall=WALL, workers_known=True)).sentence
    for one in (wanted, here):
        found = await asked.explain(one, wall=WALL, workers_known=False)
        assert not [word for word in ("secret", "worker-x") if word in found.sentence]
        assert "may not see the workers" in found.sentence
