"""Streams: what a reader hears, where it goes on after a cut, and that readers leave each other alone."""

import asyncio
import tracemalloc
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any

import orjson
import pytest

from distriqueue.gateway import changes
from distriqueue.gateway.changes import Audience, Change, ChangeKind, read_position, write_position
from distriqueue.gateway.problems import Forbidden, TooManyRequests, TooSlow
from distriqueue.gateway.queries import JobQuery
from distriqueue.gateway.rows import Row
from tests.unit.gateway.job_resources import Watched, job

FINAL = {"phase": "Succeeded"}


async def allowed() -> None:
    """Everybody may read."""


def stream(
    shelves: Watched,
    since: str | None = None,
    *,
    namespace: str | None = None,
    matches: Callable[[Row], bool] | None = None,
    look_again: Callable[[], Any] = allowed,
    caller: str | None = None,
) -> AsyncGenerator[Change, None]:
    audience = Audience(namespace, shelves.scopes(namespace), matches or JobQuery().matcher(), look_again, caller)
    return shelves.changes.follow(audience, since)


async def hear(told: AsyncGenerator[Change, None], count: int) -> list[Change]:
    async with asyncio.timeout(5):
        return [await anext(told) for _ in range(count)]


def words(heard: list[Change]) -> list[str]:
    """Kind, name and version of each."""
    return [f"{one.kind} {view.name}@{view.resource_version}" if (view := one.job) else str(one.kind) for one in heard]


def filled(*versions: int, **settings: Any) -> Watched:
    """Shelves with a job for each version, listed."""
    shelves = Watched(**settings)
    for number, version in enumerate(versions):
        shelves.show(job(number, version), listing=True)
    shelves.show_synced(max(versions, default=1))
    return shelves


async def test_a_stream_says_what_is_there_in_the_order_of_versions_and_then_what_happens() -> None:
    shelves = filled(7, 5, 6)
    async with aclosing(stream(shelves)) as told:
        first = await hear(told, 4)
        assert words(first) == ["job job-1@5", "job job-2@6", "job job-0@7", "synced"]
        assert [one.id for one in first] == ["*-5", "*-6", "*-7", "*-7"]
        shelves.show(job(1, 8, status=FINAL))
        shelves.show_deleted(1, 9)
        then = await hear(told, 2)
    assert words(then) == ["job job-1@8", "deleted job-1@8"]
    assert [one.id for one in then] == ["*-8", "*-9"]
    assert orjson.loads(then[0].data)["status"] == "completed"
    assert "payload" not in orjson.loads(then[1].data)
    assert shelves.changes.open == 0


async def test_whoever_resumes_hears_each_later_state_once() -> None:
    shelves = filled(5, 6, 7)
    for version in range(8, 20):
        shelves.show(job(version % 3, version))
    shelves.show_deleted(2, 20)
    async with aclosing(stream(shelves, "*-6")) as told:
        assert words(await hear(told, 4)) == ["job job-0@18", "job job-1@19", "deleted job-2@17", "synced"]
    async with aclosing(stream(shelves, "*-18")) as told:
        assert words(await hear(told, 3)) == ["job job-1@19", "deleted job-2@17", "synced"]
    async with aclosing(stream(shelves, "*-20")) as told:
        assert words(await hear(told, 1)) == ["synced"]


@pytest.mark.parametrize(
    "since", ["", "x", "5", "*-", "*--5", "*-5_", "shop-5", "*-5x", "*-99999999999999999999", "*-" + "1" * 70_000]
)
async def test_what_is_no_position_begins_everything_anew(since: str) -> None:
    shelves = filled(5)
    async with aclosing(stream(shelves, since)) as told:
        heard = await hear(told, 3)
    assert words(heard) == ["reset", "job job-0@5", "synced"]
    assert heard[0].id == "*-0"


async def test_a_position_that_another_replica_gave_is_good_here_though_this_one_is_behind() -> None:
    shelves = filled(5)
    async with aclosing(stream(shelves, "*-8")) as told:
        heard = await hear(told, 1)
        assert words(heard) == ["synced"]
        assert heard[0].id == "*-8"
        shelves.show(job(0, 7))  # it was heard there
        shelves.show(job(0, 9))
        heard = await hear(told, 1)
    assert words(heard) == ["job job-0@9"]
    assert heard[0].id == "*-9"


async def test_a_position_that_etcd_has_not_reached_begins_everything_anew() -> None:
    shelves = filled(5)
    shelves.etcd = 7
    async with aclosing(stream(shelves, "*-8")) as told:
        assert words(await hear(told, 3)) == ["reset", "job job-0@5", "synced"]


async def test_what_happens_while_the_first_jobs_are_read_is_said_after_them_and_once() -> None:
    shelves = filled(5, 6)
    async with aclosing(stream(shelves)) as told:
        assert words(await hear(told, 1)) == ["job job-0@5"]
        shelves.show(job(0, 7))
        shelves.show(job(3, 8))
        heard = await hear(told, 4)
        assert words(heard) == ["job job-1@6", "synced", "job job-0@7", "job job-3@8"]
        assert heard[1].id == "*-6"  # whoever is cut here has not heard of 7


async def test_what_happens_before_the_first_jobs_are_read_is_said_once() -> None:
    shelves = filled(5)
    async with aclosing(stream(shelves, "nonsense")) as told:
        assert words(await hear(told, 1)) == ["reset"]
        shelves.show(job(0, 6))
        assert words(await hear(told, 2)) == ["job job-0@6", "synced"]
        shelves.show(job(0, 7))
        assert words(await hear(told, 1)) == ["job job-0@7"]


async def test_a_stream_that_is_cut_anywhere_hears_every_last_state_exactly_once() -> None:
    """The reader is cut after every single change, and goes on with the id of it."""
    shelves = filled()
    finals: list[str] = []
    since: str | None = None
    version = 10
    for number in range(60):
        shelves.show(job(number, version := version + 1))
        shelves.show(job(number, version := version + 1, status={"phase": "Running"}))
        if number % 2:
            shelves.show(job(number - 1, version := version + 1, status=FINAL))
            shelves.show(job(number, version := version + 1, status=FINAL))
        async with aclosing(stream(shelves, since)) as told:
            for _ in range(2):
                change = (await hear(told, 1))[0]
                since = change.id
                view = change.job
                if view is not None and view.phase == "Succeeded":
                    finals.append(view.name)
                if change.kind is ChangeKind.SYNCED:
                    break
    async with aclosing(stream(shelves, since)) as told:
        async for change in told:
            assert change.kind is not ChangeKind.RESET
            if change.kind is ChangeKind.SYNCED:
                break
            view = change.job
            assert view is not None
            if view.phase == "Succeeded":
                finals.append(view.name)
    assert sorted(finals) == sorted(f"job-{number}" for number in range(60))


async def test_while_a_list_is_under_way_positions_stay_where_they_were() -> None:
    shelves = filled(5, 6)
    async with aclosing(stream(shelves)) as told:
        await hear(told, 3)
        shelves.show(job(0, 30), listing=True)
        shelves.show(job(1, 20), listing=True)
        heard = await hear(told, 2)
        assert words(heard) == ["job job-0@30", "job job-1@20"]
        assert [one.id for one in heard] == ["*-6", "*-6"]
        async with aclosing(stream(shelves, "*-6")) as late:  # what the list has yet to bring may be of a lower version
            heard = await hear(late, 3)
        assert words(heard) == ["job job-1@20", "job job-0@30", "synced"]
        assert [one.id for one in heard] == ["*-6", "*-6", "*-6"]
        shelves.show_synced(31)
        shelves.show(job(1, 32))
        assert (await hear(told, 1))[0].id == "*-32"
    # A cut in that moment loses nothing.
    async with aclosing(stream(shelves, "*-6")) as told:
        assert words(await hear(told, 3)) == ["job job-0@30", "job job-1@32", "synced"]


async def test_a_deletion_that_a_list_found_is_said() -> None:
    shelves = filled(5, 6)
    async with aclosing(stream(shelves)) as told:
        await hear(told, 3)
        shelves.show_deleted(0, 31, listing=True)
        shelves.show_synced(31)
        assert words(await hear(told, 1)) == ["deleted job-0@5"]
    async with aclosing(stream(shelves, "*-6")) as told:
        assert words(await hear(told, 2)) == ["deleted job-0@5", "synced"]
    async with aclosing(stream(shelves, "*-31")) as told:
        assert words(await hear(told, 1)) == ["synced"]


async def test_who_comes_from_before_the_deletions_that_are_remembered_begins_anew() -> None:
    shelves = filled(*range(1, 9), graves=3)
    for number in range(5):
        shelves.show_deleted(number, 10 + number)
    async with aclosing(stream(shelves, "*-11")) as told:  # the one at 11 was forgotten, and it has heard of it
        assert words(await hear(told, 4)) == [f"deleted job-{n}@{n + 1}" for n in (2, 3, 4)] + ["synced"]
    async with aclosing(stream(shelves, "*-10")) as told:
        assert words(await hear(told, 1)) == ["reset"]
    async with aclosing(stream(shelves)) as told:  # who knows nothing needs no deletion
        assert words(await hear(told, 4)) == ["job job-5@6", "job job-6@7", "job job-7@8", "synced"]


async def test_when_history_goes_back_everybody_hears_everything_anew() -> None:
    shelves = filled(50, 60)
    async with aclosing(stream(shelves)) as told:
        await hear(told, 3)
        shelves.show(job(0, 40), listing=True)
        shelves.show_deleted(1, 45, listing=True)
        shelves.show_synced(45)
        heard = await hear(told, 3)
        assert words(heard) == ["reset", "job job-0@40", "synced"]
        assert [one.id for one in heard] == ["*-0", "*-40", "*-40"]
        shelves.show(job(2, 46))
        assert words(await hear(told, 1)) == ["job job-2@46"]


async def test_a_reader_that_falls_behind_is_cut_and_the_others_are_not() -> None:
    shelves = filled(queue=5)
    async with aclosing(stream(shelves)) as slow, aclosing(stream(shelves)) as quick:
        await hear(slow, 1)
        await hear(quick, 1)
        for version in range(10, 20):
            shelves.show(job(0, version))
            assert words(await hear(quick, 1)) == [f"job job-0@{version}"]
        with pytest.raises(TooSlow):
            await hear(slow, 1)
        assert (shelves.changes.open, shelves.changes.cuts) == (1, 1)


async def test_a_stream_says_only_what_is_asked_for() -> None:
    shelves = filled()
    query = JobQuery.parse(namespace="shop", status=["completed"])
    async with aclosing(stream(shelves, namespace="shop", matches=query.matcher())) as told:
        await hear(told, 1)
        shelves.show(job(0, 10))
        shelves.show(job(1, 11, namespace="bank", status=FINAL))
        shelves.show(job(0, 12, status=FINAL))
        shelves.show_deleted(1, 13)
        shelves.show_deleted(0, 14)
        heard = await hear(told, 2)
    assert words(heard) == ["job job-0@12", "deleted job-0@12"]
    async with aclosing(stream(shelves, "*-10", namespace="bank")) as told:
        assert words(await hear(told, 2)) == ["deleted job-1@11", "synced"]


async def test_each_namespace_has_an_order_of_its_own() -> None:
    shelves = Watched("bank", "shop")
    shelves.show(job(0, 50, namespace="shop"), scope="shop", listing=True)
    shelves.show_synced(50, scope="shop")
    assert not shelves.synced
    shelves.show_synced(51, scope="bank")
    async with aclosing(stream(shelves)) as told:
        assert (await hear(told, 2))[1].id == "bank-0_shop-50"
        shelves.show(job(1, 60, namespace="bank"), scope="bank")
        shelves.show(job(0, 55, namespace="shop"), scope="shop")  # this watch is slower
        heard = await hear(told, 2)
    assert [one.id for one in heard] == ["bank-60_shop-50", "bank-60_shop-55"]
    async with aclosing(stream(shelves, "bank-60_shop-50")) as told:
        assert words(await hear(told, 2)) == ["job job-0@55", "synced"]
    async with aclosing(stream(shelves, "bank-60_shop-50", namespace="bank")) as told:
        assert words(await hear(told, 1)) == ["synced"]
    async with aclosing(stream(shelves, "bank-60")) as told:
        assert words(await hear(told, 1)) == ["reset"]


async def test_a_right_that_is_gone_ends_a_stream_that_is_silent_and_one_that_is_not() -> None:
    shelves = filled()

    async def refuse() -> None:
        raise Forbidden("no more")

    async with aclosing(stream(shelves, look_again=refuse)) as busy:
        await hear(busy, 1)
        shelves.show(job(0, 10))
        shelves.now = changes.LOOK_AGAIN_SECONDS
        with pytest.raises(Forbidden):
            await hear(busy, 1)
    assert shelves.changes.open == 0


async def test_there_are_only_so_many_streams() -> None:
    shelves = filled(readers=1)
    async with aclosing(stream(shelves)) as told:
        await hear(told, 1)
        with pytest.raises(TooManyRequests):
            await hear(stream(shelves), 1)
    async with aclosing(stream(shelves)) as told:
        await hear(told, 1)


async def test_what_we_wrote_is_said_when_the_watch_shows_it() -> None:
    shelves = filled(5)
    shelves.put(job(0, 9, spec={"suspend": True}))
    shelves.put(job(1, 8))
    async with aclosing(stream(shelves)) as told:
        assert words(await hear(told, 1)) == ["synced"]
        shelves.show(job(0, 7))  # older than what we wrote
        shelves.show(job(1, 8))
        shelves.show(job(0, 9, spec={"suspend": True}))
        heard = await hear(told, 2)
    assert words(heard) == ["job job-1@8", "job job-0@9"]
    assert [one.id for one in heard] == ["*-8", "*-9"]


async def test_a_job_is_turned_into_json_once_for_all() -> None:
    shelves = filled(5)
    async with aclosing(stream(shelves)) as one, aclosing(stream(shelves)) as other:
        assert (await hear(one, 1))[0].data is (await hear(other, 1))[0].data


def test_positions_are_texts_that_are_read_again() -> None:
    position = {"a-1": 5, "b": 0}
    assert read_position(write_position(position), ["b", "a-1"]) == position
    assert read_position(write_position(position), ["b"]) == {"b": 0}
    assert read_position(write_position(position), ["c"]) is None


async def test_one_caller_has_its_share_of_streams_and_leaves_the_others_theirs() -> None:
    shelves = filled(5, of_one=1)
    async with aclosing(stream(shelves, caller="ann")) as told:
        await hear(told, 2)
        with pytest.raises(TooManyRequests, match="one caller"):
            await hear(stream(shelves, caller="ann"), 1)
        for other in ("bob", None, None):
            await hear(stream(shelves, caller=other), 1)
    async with aclosing(stream(shelves, caller="ann")) as told:
        assert words(await hear(told, 1)) == ["job job-0@5"]


async def test_a_reader_for_whom_nothing_happens_is_told_how_far_it_is() -> None:
    shelves = filled(5, graves=2)
    async with aclosing(stream(shelves, matches=lambda row: row.name == "job-0")) as told:
        assert words(await hear(told, 2)) == ["job job-0@5", "synced"]
        for number in range(1, 9):
            shelves.show(job(number, 10 + number))
            shelves.show_deleted(number, 20 + number)
        waiting = asyncio.create_task(hear(told, 1))
        await asyncio.sleep(0)
        shelves.now += changes.POSITION_SECONDS
        for reader in shelves.changes._readers[None]:
            reader.awake.set()
        (quiet,) = await waiting
        assert (quiet.kind, quiet.id, quiet.job) == (ChangeKind.POSITION, "*-28", None)
        shelves.show(job(0, 30))
        assert words(await hear(told, 1)) == ["job job-0@30"]
    async with aclosing(stream(shelves, quiet.id, matches=lambda row: row.name == "job-0")) as told:
        assert words(await hear(told, 2)) == ["job job-0@30", "synced"]


async def test_what_a_fresh_reader_has_not_heard_yet_is_little() -> None:
    shelves = filled(*range(5, 3005))
    tracemalloc.start()
    try:
        async with AsyncExitStack() as stack:
            for _ in range(5):
                told = await stack.enter_async_context(aclosing(stream(shelves)))
                await hear(told, 1)
            size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 5 * 3000 * 20
