"""Questions about jobs: filters, order and pages, read from texts as they stand in a URL or a message.

Guarantees: a question that is not understood is refused with the parameter's name and a sentence that says what to
write. A cursor names a place in the order (creation time and uid), not a number of jobs: with jobs that come and go,
the pages of a walk show every job that was there all along exactly once. Label selectors: see `selectors`.

Fails with `Unprocessable`.
"""

import asyncio
import base64
import contextlib
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple, Self, TypeVar

from distriqueue.api.phases import JobPhase
from distriqueue.gateway.problems import FieldError, Unprocessable
from distriqueue.gateway.rows import Row
from distriqueue.gateway.selectors import SELECTOR_LIMIT, Requirement, UnreadableError, selector
from distriqueue.gateway.views import (
    NAMESPACE_LIMIT,
    NAMESPACE_PATTERN,
    STATUS_OF_PHASE,
    JobStatus,
)

__all__ = [
    "BREATH",
    "CURSOR_LIMIT",
    "DEFAULT_LIMIT",
    "MOST",
    "OFFSET_LIMIT",
    "SELECTOR_LIMIT",
    "JobQuery",
    "Order",
    "Place",
    "Selection",
    "select",
]

DEFAULT_LIMIT: Final = 50
MOST: Final = 500
"""Most jobs of one page."""
OFFSET_LIMIT: Final = 10_000_000
NAME_LIMIT: Final = 253
"""Most characters of a type or pool."""
CURSOR_LIMIT: Final = 300


class Order(StrEnum):
    """In which order jobs are listed."""

    NEWEST = "newest"
    """By creation, the latest first."""
    OLDEST = "oldest"
    """By creation, the earliest first."""


class Place(NamedTuple):
    """Where a job stands in the order of creation."""

    created: int
    """Seconds since 1970."""
    uid: str
    """Orders those of one second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQuery:
    """A question about jobs; `parse` reads one from texts.

    Attributes:
        namespace: Of the jobs; None asks for all namespaces.
        phases: Any of these; None: any.
        type: `spec.type`.
        pool: `spec.poolName`.
        labels: All of these.
        created_after: Created at or after; seconds since 1970.
        created_before: Created before.
        completed_after: Over, and that at or after.
        completed_before: Over, and that before.
        limit: Most jobs of the page.
        offset: How many to skip.
        cursor: The last job of the page before.
        order: In which order.
        window: Seconds up to now, for statistics.
    """

    namespace: str | None = None
    phases: frozenset[str] | None = None
    type: str | None = None
    pool: str | None = None
    labels: tuple[Requirement, ...] = ()
    created_after: float | None = None
    created_before: float | None = None
    completed_after: float | None = None
    completed_before: float | None = None
    limit: int = DEFAULT_LIMIT
    offset: int = 0
    cursor: Place | None = None
    order: Order = Order.NEWEST
    window: int = 300

    @classmethod
    def parse(  # noqa: PLR0913  # one for each parameter of a URL
        cls,
        *,
        namespace: str | None = None,
        status: Sequence[str] = (),
        type: str | None = None,  # noqa: A002  # the parameter's name
        pool: str | None = None,
        labels: str | None = None,
        created_after: str | datetime | None = None,
        created_before: str | datetime | None = None,
        completed_after: str | datetime | None = None,
        completed_before: str | datetime | None = None,
        limit: str | int | None = None,
        offset: str | int | None = None,
        cursor: str | None = None,
        order: str | None = None,
        window: str | int | None = None,
    ) -> Self:
        """Read a question.

        Args:
            namespace: A namespace; nothing asks for all of them.
            status: Statuses or phases, in any case; each may be several with commas.
            type: A job type.
            pool: A pool.
            labels: A label selector.
            created_after: RFC 3339, or seconds since 1970.
            created_before: The same.
            completed_after: The same.
            completed_before: The same.
            limit: 1 to 500; 50 unless given.
            offset: How many jobs to skip; not together with a cursor.
            cursor: `next` of the page before.
            order: newest or oldest.
            window: Seconds that statistics look back, 1 to 86400.

        Raises:
            Unprocessable: Some are not understood; `errors` has all of them.
        """
        reader = _Reader()
        page = reader.read("cursor", cursor, _cursor)
        query = cls(
            namespace=reader.read("namespace", namespace, _namespace),
            phases=reader.read("status", ",".join(status), _phases),
            type=reader.read("type", type, _word),
            pool=reader.read("pool", pool, _word),
            labels=reader.read("labels", labels, selector) or (),
            created_after=reader.read("createdAfter", created_after, _moment),
            created_before=reader.read("createdBefore", created_before, _moment),
            completed_after=reader.read("completedAfter", completed_after, _moment),
            completed_before=reader.read("completedBefore", completed_before, _moment),
            limit=reader.read("limit", limit, _between(1, MOST)) or DEFAULT_LIMIT,
            offset=reader.read("offset", offset, _between(0, OFFSET_LIMIT)) or 0,
            cursor=None if page is None else page[1],
            order=reader.read("order", order, _order) or (Order.NEWEST if page is None else page[0]),
            window=reader.read("window", window, _between(1, 86_400)) or 300,
        )
        if query.cursor is not None and query.offset:
            reader.errors.append(FieldError("query/offset", "a cursor says where to go on: leave the offset out"))
        if page is not None and page[0] is not query.order:
            reader.errors.append(
                FieldError("query/order", f"the cursor is of a walk with order={page[0]}: ask for that")
            )
        reader.finish()
        return query

    def filters(self) -> list[Callable[[Row], bool]]:
        """Return what a row of the namespace must fulfil, all of them."""
        found: list[Callable[[Row], bool]] = []
        if (phases := self.phases) is not None:
            found.append(lambda row: row.phase in phases)
        if (kind := self.type) is not None:
            found.append(lambda row: row.type == kind)
        if (pool := self.pool) is not None:
            found.append(lambda row: row.pool == pool)
        found.extend(_label_filter(requirement) for requirement in self.labels)
        if (after := self.created_after) is not None:
            found.append(lambda row: row.created >= after)
        if (before := self.created_before) is not None:
            found.append(lambda row: row.created < before)
        if (over_after := self.completed_after) is not None:
            found.append(lambda row: row.completed is not None and row.completed >= over_after)
        if (over_before := self.completed_before) is not None:
            found.append(lambda row: row.completed is not None and row.completed < over_before)
        return found

    def matcher(self) -> Callable[[Row], bool]:
        """Return whether a row of the namespace is asked for."""
        matches: Callable[[Row], bool] = _any_row
        for holds in self.filters():
            matches = holds if matches is _any_row else _both(matches, holds)
        return matches

    def cursor_after(self, row: Row) -> str:
        """Return the cursor of the page that begins after a row."""
        text = f"{self.order.value[0]}{row.created}.{row.uid}"
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _any_row(_: Row) -> bool:
    return True


def _both(one: Callable[[Row], bool], other: Callable[[Row], bool]) -> Callable[[Row], bool]:
    return lambda row: one(row) and other(row)


def _label_filter(requirement: Requirement) -> Callable[[Row], bool]:
    return lambda row: requirement.holds(row.labels)


_T = TypeVar("_T")


class _Reader:
    """Reads parameters one by one and gathers what is wrong with them."""

    def __init__(self) -> None:
        self.errors: list[FieldError] = []

    def read(self, name: str, value: object, parse: Callable[[Any], _T]) -> _T | None:
        if value is None or value == "":
            return None
        try:
            return parse(value)
        except UnreadableError as error:
            self.errors.append(FieldError(f"query/{name}", str(error)))
            return None

    def finish(self) -> None:
        if self.errors:
            raise Unprocessable("; ".join(error.message for error in self.errors), errors=self.errors)


_NAMESPACE: Final = re.compile(NAMESPACE_PATTERN)
_NUMBER: Final = re.compile(r"[0-9]{1,10}(\.[0-9]{1,6})?")
_CURSOR: Final = re.compile(r"([no])(0|[1-9][0-9]{0,11})\.([A-Za-z0-9-]{1,64})")


def _namespace(text: str) -> str:
    if len(text) > NAMESPACE_LIMIT or not _NAMESPACE.fullmatch(text):
        raise UnreadableError(
            "a namespace is made of at most 63 lower-case letters, digits and '-', with a '-' neither first nor last"
        )
    return text


def _word(text: str) -> str:
    if len(text) > NAME_LIMIT:
        raise UnreadableError(f"this has more than {NAME_LIMIT} characters: no job has such a type or pool")
    return text


_BY_WORD: Final[dict[str, frozenset[str]]] = {phase.value.lower(): frozenset({phase.value}) for phase in JobPhase} | {
    status.value: frozenset(phase for phase, of in STATUS_OF_PHASE.items() if of is status) for status in JobStatus
}
"""Statuses win where a phase has the same name: ``pending`` is Queued, too."""


def _phases(text: str) -> frozenset[str] | None:
    found: set[str] = set()
    for word in text.split(","):
        phases = _BY_WORD.get(word.strip().lower())
        if phases is None:
            raise UnreadableError(
                f"'{word.strip()[:40]}' is no status: write some of {', '.join(JobStatus)}, or the phases Queued and "
                "Succeeded, with commas between them"
            )
        found |= phases
    return frozenset(map(str, found))


def _moment(value: str | datetime) -> float:
    """Read a time; one without a zone is UTC."""
    if isinstance(value, datetime):
        return (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).timestamp()
    if _NUMBER.fullmatch(value):
        return float(value)
    try:
        # In a URL, a '+' that nobody escaped has become a blank.
        return _moment(datetime.fromisoformat(value.strip().replace(" ", "+") if "T" in value else value))
    except (ValueError, OverflowError):
        raise UnreadableError(
            f"'{value[:40]}' is no time: write RFC 3339 such as 2026-11-23T04:00:00Z, or seconds since 1970"
        ) from None


def _between(least: int, most: int) -> Callable[[str | int], int]:
    def parse(value: str | int) -> int:
        try:
            number = int(value)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise UnreadableError(f"write a whole number from {least} to {most}")
        return number

    return parse


def _order(text: str) -> Order:
    try:
        return Order(text.lower())
    except ValueError:
        raise UnreadableError(f"write one of {', '.join(Order)}") from None


def _cursor(text: str) -> tuple[Order, Place]:
    found: re.Match[str] | None = None
    with contextlib.suppress(ValueError):  # no base64, or no ASCII in it
        if len(text) <= CURSOR_LIMIT:
            found = _CURSOR.fullmatch(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii"))
    if found is None:
        raise UnreadableError(
            "this is no cursor: take `next` of the page before as it is, or leave the cursor out to begin anew"
        )
    order = Order.NEWEST if found[1] == "n" else Order.OLDEST
    return order, Place(int(found[2]), found[3])


BREATH: Final = 2000
"""After so many rows that were looked at, others get their turn: some milliseconds."""


class Selection(NamedTuple):
    """What a question found."""

    rows: list[Row]
    """Those of the page, in the order that was asked for."""
    total: int
    """How many match on all pages."""
    more: bool
    """Whether a page follows."""


async def select(rows: Sequence[Row], query: JobQuery) -> Selection:
    """Answer a question.

    Args:
        rows: All jobs of the namespace that is asked for, in the order of creation; not to be changed meanwhile.
        query: The question.
    """
    if query.filters():
        rows = await _matching(rows, query)
    ordered = rows if query.order is Order.OLDEST else rows[::-1]
    begin = query.offset
    if query.cursor is not None:
        # In both orders, what comes after the cursor is a tail.
        if query.order is Order.OLDEST:
            begin = bisect_right(rows, query.cursor, key=_place)
        else:
            begin = len(rows) - bisect_left(rows, query.cursor, key=_place)
    end = begin + query.limit
    return Selection(list(ordered[begin:end]), len(rows), end < len(rows))


def _place(row: Row) -> Place:
    return Place(row.created, row.uid)


async def _matching(rows: Sequence[Row], query: JobQuery) -> Sequence[Row]:
    filters = query.filters()
    found: list[Row] = []
    for start in range(0, len(rows), BREATH):
        if start:
            await asyncio.sleep(0)
        # One filter after the other: what the first leaves out, the second never sees.
        left: Iterable[Row] = rows[start : start + BREATH]
        for holds in filters:
            left = filter(holds, left)
        found.extend(left)
    return found
