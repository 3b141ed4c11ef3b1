"""Questions about jobs: what is understood, what is refused and how, and pages that hold while jobs come and go."""

import random
from datetime import UTC, datetime
from typing import Any

import pytest

from distriqueue.gateway.problems import Unprocessable
from distriqueue.gateway.queries import JobQuery, Order, select
from distriqueue.gateway.rows import Row
from tests.unit.gateway.job_resources import row

LABELLED = row(1, labels={"app": "shop", "tier": "a"}, status={"phase": "Running"})
BARE = row(2, spec={"type": "calculate", "poolName": "gpu"}, created="2026-11-23T05:00:00Z")
OVER = row(3, status={"phase": "Succeeded", "completionTime": "2026-11-23T04:30:00Z"})
ALL = [LABELLED, BARE, OVER]


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("app=shop", [LABELLED]),
        ("app==shop,tier=a", [LABELLED]),
        ("app = shop , tier in ( a , b )", [LABELLED]),
        ("app=", []),
        ("app!=shop", [BARE, OVER]),
        ("app!=other", ALL),
        ("app notin (shop)", [BARE, OVER]),
        ("app", [LABELLED]),
        ("!app", [BARE, OVER]),
        ("! app", [BARE, OVER]),
        ("example.com/team notin (a,b)", ALL),
        ("app in (shop),tier!=a", []),
    ],
)
def test_selectors_are_those_of_kubernetes(selector: str, found: list[Row]) -> None:
    matches = JobQuery.parse(labels=selector).matcher()
    assert [one for one in ALL if matches(one)] == found


@pytest.mark.parametrize(
    "selector",
    [
        *(
            "=a",
            "a=b=c",
            "a in",
            "a in (",
            "a in b",
            "a in (b",
            "a b",
            "a,",
            ",a",
            "a in (b))",
            "!",
            "a=b c",
            "a=ü",
            "a>1",
        ),
        "ü",
        "a" * 2001,
        ",".join(f"a{number}" for number in range(60)),
    ],
)
def test_what_is_no_selector_is_refused(selector: str) -> None:
    with pytest.raises(Unprocessable) as refused:
        JobQuery.parse(labels=selector)
    assert [error.field for error in refused.value.errors] == ["query/labels"]


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        ({}, ALL),
        ({"status": ["running"]}, [LABELLED]),
        ({"status": ["Pending"]}, [BARE]),
        ({"status": ["completed,running"]}, [LABELLED, OVER]),
        ({"status": ["completed", "pending"]}, [BARE, OVER]),
        ({"status": ["Succeeded"]}, [OVER]),
        ({"status": ["queued"]}, []),
        ({"type": "calculate"}, [BARE]),
        ({"pool": "gpu"}, [BARE]),
        ({"created_after": "2026-11-23T04:00:01Z"}, [BARE]),
        ({"created_after": "2026-11-23T06:00:00 02:00"}, ALL),
        ({"created_before": "2026-11-23T05:00:00Z"}, [LABELLED, OVER]),
        ({"created_before": datetime(2026, 11, 23, 5, tzinfo=UTC)}, [LABELLED, OVER]),
        ({"completed_after": "1795408200"}, [OVER]),
        ({"completed_after": "1795408201"}, []),
        ({"completed_before": "2026-11-24"}, [OVER]),
    ],
)
def test_filters(parameters: dict[str, Any], found: list[Row]) -> None:
    matches = JobQuery.parse(**parameters).matcher()
    assert [one.name for one in ALL if matches(one)] == [one.name for one in found]


def test_pending_is_what_waits_for_its_first_attempt() -> None:
    assert JobQuery.parse(status=["pending"]).phases == frozenset({"Pending", "Queued"})


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("namespace", "namespace", "a/../b"),
        ("namespace", "namespace", "a\n"),
        ("namespace", "namespace", "a" * 64),
        ("status", "status", ["done"]),
        ("type", "type", "a" * 300),
        ("created_after", "createdAfter", "yesterday"),
        ("limit", "limit", "0"),
        ("limit", "limit", "501"),
        ("limit", "limit", "1e3"),
        ("limit", "limit", 0),
        ("offset", "offset", "-1"),
        ("cursor", "cursor", "x"),
        ("cursor", "cursor", "bjEuYQ=="[:5] + "ü"),
        ("cursor", "cursor", "a" * 1000),
        ("order", "order", "best"),
        ("window", "window", "0"),
    ],
)
def test_what_is_not_understood_is_refused_by_its_name(name: str, field: str, value: Any) -> None:
    with pytest.raises(Unprocessable) as refused:
        JobQuery.parse(**{name: value})
    assert [error.field for error in refused.value.errors] == [f"query/{field}"]
    assert refused.value.errors[0].message in refused.value.detail


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(Unprocessable) as refused:
        JobQuery.parse(limit="x", order="y", labels="=")
    assert {error.field for error in refused.value.errors} == {"query/limit", "query/order", "query/labels"}


def test_nothing_asks_for_the_newest_fifty() -> None:
    query = JobQuery.parse(limit="", order="", namespace="")
    assert (query.limit, query.order, query.namespace, query.offset) == (50, Order.NEWEST, None, 0)


def ordered(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda one: (one.created, one.uid))


@pytest.mark.parametrize("order", ["newest", "oldest"])
@pytest.mark.parametrize("filtered", [False, True])
async def test_a_walk_by_cursor_shows_what_stays_once_while_jobs_come_and_go(order: str, *, filtered: bool) -> None:
    rng = random.Random(7)  # noqa: S311 - a made-up day
    # Many jobs share a second.
    moments = [f"2026-11-23T04:00:{rng.randrange(5):02}Z" for _ in range(100)]
    rows = {number: row(number, created=created) for number, created in enumerate(moments)}
    leaving = set(rng.sample(range(100), 30))
    seen: list[str] = []
    cursor: str | None = None
    fresh = 1000
    while True:
        query = JobQuery.parse(limit=7, order=order, cursor=cursor, status=["pending"] if filtered else [])
        page = await select(ordered(list(rows.values())), query)
        assert page.total == len(rows)
        seen.extend(one.name for one in page.rows)
        if not page.more:
            break
        cursor = query.cursor_after(page.rows[-1])
        for _ in range(3):
            if leaving:
                rows.pop(leaving.pop(), None)
            rows[fresh] = row(fresh, created=f"2026-11-23T04:00:{rng.randrange(5):02}Z")
            fresh += 1
    assert len(seen) == len(set(seen))
    stayed = [one for number, one in rows.items() if number < 100]
    assert {one.name for one in stayed} <= set(seen)
    kept = [one.name for one in ordered(stayed)]
    assert [name for name in seen if name in kept] == (kept if order == "oldest" else kept[::-1])


async def test_offsets_skip() -> None:
    rows = ordered([row(number, created=f"2026-11-23T04:00:0{number}Z") for number in range(5)])
    page = await select(rows, JobQuery.parse(limit=2, offset=1))
    assert [one.name for one in page.rows] == ["job-3", "job-2"]
    assert (page.total, page.more) == (5, True)
    last = await select(rows, JobQuery.parse(limit=2, offset=4))
    assert [one.name for one in last.rows] == ["job-0"]
    assert not last.more
    assert not (await select(rows, JobQuery.parse(offset=9))).rows


def test_a_cursor_knows_its_order_and_takes_no_offset() -> None:
    cursor = JobQuery.parse(order="oldest").cursor_after(LABELLED)
    assert JobQuery.parse(cursor=cursor).order is Order.OLDEST
    with pytest.raises(Unprocessable, match="order=oldest"):
        JobQuery.parse(cursor=cursor, order="newest")
    with pytest.raises(Unprocessable, match="leave the offset out"):
        JobQuery.parse(cursor=cursor, offset=1)


async def test_a_walk_ends_where_the_last_page_is_full() -> None:
    rows = ordered([row(number) for number in range(4)])
    query = JobQuery.parse(limit=2)
    first = await select(rows, query)
    second = await select(rows, JobQuery.parse(limit=2, cursor=query.cursor_after(first.rows[-1])))
    assert first.more
    assert not second.more
    assert len({one.uid for one in first.rows + second.rows}) == 4
