"""The shelves of jobs: what watches show and what we wrote, found by every key, in order, and never older again."""

import asyncio
import random
import tracemalloc
from typing import Any

import pytest

from distriqueue.gateway.rows import Row
from tests.unit.gateway.job_resources import Watched, job, row, uid_of


def test_a_row_keeps_what_is_read_and_nothing_else() -> None:
    last_applied = "kubectl.kubernetes.io/last-applied-configuration"
    resource = job(
        1,
        7,
        labels={"app": "shop"},
        annotations={last_applied: "{}", "mine": "yes"},
        status={"phase": "Running", "startTime": "2026-11-23T04:00:01.5Z", "checkpoint": {"at": 5}},
    )
    made = Row.of(resource)
    raw: Any = made.raw()
    assert (made.uid, made.namespace, made.name, made.version) == (uid_of(1), "shop", "job-1", 7)
    assert (made.type, made.pool, made.phase) == ("email", "default", "Running")
    assert made.started == made.created + 1.5
    assert raw["metadata"]["annotations"] == {"mine": "yes"}
    assert "managedFields" not in raw["metadata"]
    assert "checkpoint" not in raw["status"]
    assert (raw["kind"], raw["spec"]["payload"]) == ("DistributedJob", {"to": "ann@example.com"})
    bare: Any = made.bare()
    assert "payload" not in bare["spec"]


def test_jobs_are_found_by_uid_and_by_name_and_are_in_order() -> None:
    shelves = Watched()
    rng = random.Random(3)  # noqa: S311 - a made-up list
    numbers = rng.sample(range(200), 200)
    for number in numbers:
        created = f"2026-11-23T04:00:{number // 20:02}Z"
        shelves.show(job(number, 1000 + number, created=created, namespace=f"n{number % 3}"), listing=True)
    shelves.show_synced(1300)
    assert [one.uid for one in shelves.ordered(None)] == [uid_of(number) for number in range(200)]
    assert [one.uid for one in shelves.ordered("n1")] == [uid_of(number) for number in range(1, 200, 3)]
    for number in numbers[:150]:
        shelves.show_deleted(number, 2000 + number)
    left = sorted(numbers[150:])
    assert [one.uid for one in shelves.ordered(None)] == [uid_of(number) for number in left]
    for number in left:
        assert shelves.get(uid_of(number)) is shelves.get((f"n{number % 3}", f"job-{number}"))
    assert shelves.counts == {("default", "Pending"): 50}
    for number in left:
        shelves.show_deleted(number, 3000 + number)
    assert (len(shelves), shelves.counts, shelves.ordered("n1")) == (0, {}, [])


def test_a_later_job_of_the_same_name_is_not_lost_with_the_earlier_one() -> None:
    shelves = Watched()
    shelves.show(job(1, 5, name="a"))
    shelves.show(job(2, 7, name="a"))
    shelves.show_deleted(1, 6)
    found = shelves.get(("shop", "a"))
    assert found is not None
    assert found.uid == uid_of(2)


def test_what_we_wrote_is_there_at_once_and_nothing_older_after_it() -> None:
    shelves = Watched()
    shelves.show_synced(1)
    shelves.put(job(1, 5))
    shelves.put(job(1, 9, spec={"suspend": True}))
    shelves.show(job(1, 5))
    found = shelves.get(uid_of(1))
    assert found is not None
    assert (found.version, shelves.ahead) == (9, 1)
    shelves.show(job(1, 9, spec={"suspend": True}))
    assert shelves.ahead == 0
    assert shelves.put(job(1, 8)).version == 9
    shelves.show(job(1, 12, status={"phase": "Running"}))
    assert shelves.counts == {("default", "Running"): 1}
    shelves.show_deleted(1, 13)
    shelves.put(job(1, 12))  # the answer came after the end
    assert len(shelves) == 0


def test_jobs_of_namespaces_that_nobody_watches_are_not_kept() -> None:
    shelves = Watched("bank")
    assert shelves.put(job(1, 5)).version == 5
    assert len(shelves) == 0
    assert not shelves.covers("shop")
    assert (shelves.scopes(None), shelves.scopes("bank")) == (("bank",), ("bank",))


def test_when_history_went_back_what_is_shown_counts() -> None:
    shelves = Watched()
    shelves.show(job(1, 50))
    shelves.show_synced(50)
    shelves.put(job(2, 60))
    shelves.show(job(1, 40, status={"phase": "Running"}), listing=True)
    shelves.show_synced(45)
    found = shelves.get(uid_of(1))
    assert found is not None
    assert (found.version, found.phase, shelves.watermark("*")) == (40, "Running", 40)
    shelves.show(job(2, 46))
    other = shelves.get(uid_of(2))
    assert other is not None
    assert other.version == 46


@pytest.mark.parametrize("by_name", [False, True])
async def test_a_job_that_is_not_known_is_waited_for(*, by_name: bool) -> None:
    shelves = Watched()
    key: Any = ("shop", "job-1") if by_name else uid_of(1)
    finding = [asyncio.create_task(shelves.find(key, patience=30.0)) for _ in range(3)]
    await asyncio.sleep(0)
    shelves.show(job(2, 4))
    await asyncio.sleep(0)
    assert not any(task.done() for task in finding)
    shelves.show(job(1, 5))
    assert [found.version for found in await asyncio.gather(*finding) if found] == [5, 5, 5]
    assert await shelves.find("nobody", patience=0.01) is None


async def test_the_end_of_a_job_is_waited_for() -> None:
    shelves = Watched()
    shelves.show(job(1, 5))
    waiting = asyncio.create_task(shelves.gone(uid_of(1), patience=30.0))
    await asyncio.sleep(0)
    assert not waiting.done()
    shelves.show_deleted(1, 6)
    await waiting
    await shelves.gone(uid_of(1))


def test_a_row_of_the_gone_is_small() -> None:
    long = "x" * 10_000
    gone = row(1, spec={"payload": {"a": long}}, status={"phase": "Dead", "error": long, "result": long}).slimmed()
    assert len(gone.data) < 1000
    assert (gone.phase, gone.slim) == ("Dead", True)


def test_a_job_takes_the_memory_that_its_json_needs() -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        rows = [row(number) for number in range(500)]
        each = (tracemalloc.get_traced_memory()[0] - before) / len(rows)
    finally:
        tracemalloc.stop()
    assert each < len(rows[0].data) + 1000
