"""What is remembered of the API server's answers, for how long, and who is asked nothing. The rest needs the server."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from distriqueue.gateway import identities
from distriqueue.gateway.identities import ANONYMOUS, Access, Identity, _Answers, refusal
from distriqueue.gateway.problems import Unauthenticated, Unavailable
from tests.support.waiting import until


@dataclass(frozen=True)
class Told:
    """Settings of a gateway."""

    auth: Literal["kubernetes", "none"] = "kubernetes"
    auth_audiences: tuple[str, ...] = ()
    auth_cache_seconds: float = 10.0
    auth_cache_entries: int = 3


class Oracle:
    """Answers, and notes what it was asked; each answer waits until it is let go."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, bool | Exception] = {}
        self.open = asyncio.Event()
        self.open.set()

    async def ask(self, what: str) -> bool:
        self.asked.append(what)
        await self.open.wait()
        answer = self.answers.get(what, True)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Book:
    """A memory of answers with a clock of its own."""

    def __init__(self, *, seconds: float = 10.0, entries: int = 3) -> None:
        self.time = 0.0
        self.counted: list[str] = []
        self.oracle = Oracle()
        self.answers: _Answers[str, bool] = _Answers(
            seconds=seconds,
            entries=entries,
            now=lambda: self.time,
            count=self.counted.append,
        )

    async def get(self, what: str) -> bool:
        return await self.answers.get(what, lambda: self.oracle.ask(what))


async def test_what_lets_pass_is_remembered_for_its_time_and_no_longer() -> None:
    book = Book()
    for moment in (0.0, 9.9, 10.0):
        book.time = moment
        assert await book.get("a")
    assert book.oracle.asked == ["a", "a"]
    assert book.counted == ["allowed", "remembered", "allowed"]


async def test_a_refusal_is_remembered_for_less() -> None:
    book = Book()
    book.oracle.answers["a"] = False
    assert not await book.get("a")
    book.time = identities.REFUSED_SECONDS - 0.1
    assert not await book.get("a")
    book.oracle.answers["a"] = True
    book.time = identities.REFUSED_SECONDS
    assert await book.get("a")
    assert book.oracle.asked == ["a", "a"]


async def test_an_answer_is_as_old_as_its_question() -> None:
    book = Book()
    book.oracle.open.clear()
    asking = asyncio.create_task(book.get("a"))
    await until(lambda: book.oracle.asked)
    book.time = 10.0
    book.oracle.open.set()
    assert await asking
    assert await book.get("a")
    assert book.oracle.asked == ["a", "a"]


async def test_without_a_time_to_remember_everything_is_asked() -> None:
    book = Book(seconds=0.0)
    assert await book.get("a")
    assert await book.get("a")
    assert book.oracle.asked == ["a", "a"]


async def test_no_answer_is_not_remembered() -> None:
    book = Book()
    book.oracle.answers["a"] = Unavailable("away")
    with pytest.raises(Unavailable):
        await book.get("a")
    del book.oracle.answers["a"]
    assert await book.get("a")
    assert book.counted == ["failed", "allowed"]


async def test_an_oracle_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identities, "REVIEW_SECONDS", 0.01)
    book = Book()
    book.oracle.open.clear()
    with pytest.raises(Unavailable) as info:
        await book.get("a")
    assert info.value.retry_after
    assert book.answers._asking == {}


async def test_equal_questions_are_asked_once_and_one_that_goes_harms_nobody() -> None:
    book = Book()
    book.oracle.open.clear()
    first, *others = [asyncio.create_task(book.get("a")) for _ in range(5)]
    await until(lambda: book.oracle.asked)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    book.oracle.open.set()
    assert await asyncio.gather(*others) == [True] * 4
    assert book.oracle.asked == ["a"]
    assert book.answers._asking == {}


async def test_the_oldest_leave_first_and_refusals_push_out_nothing_that_passes() -> None:
    book = Book(entries=3)
    for what in "abc":
        await book.get(what)
    await book.get("a")  # used, so no longer the oldest
    await book.get("d")
    for number in range(10):
        book.oracle.answers[f"wrong {number}"] = False
        assert not await book.get(f"wrong {number}")
    del book.oracle.asked[:]
    for what in "acd":
        await book.get(what)
    assert book.oracle.asked == []
    await book.get("b")
    assert book.oracle.asked == ["b"]


async def test_only_so_many_questions_are_under_way() -> None:
    book = Book()
    book.oracle.open.clear()
    asking = [asyncio.create_task(book.get(f"{number}")) for number in range(identities.REVIEWS + 5)]
    await until(lambda: len(book.oracle.asked) >= identities.REVIEWS)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(book.oracle.asked) == identities.REVIEWS
    book.oracle.open.set()
    assert all(await asyncio.gather(*asking))


async def test_a_flood_of_unknown_tokens_keeps_no_known_caller_waiting_for_its_rights() -> None:
    client: Any = None  # the oracle is asked in its place
    access = Access.create(client, Told())
    flood, oracle = Oracle(), Oracle()
    flood.open.clear()
    asking = [
        asyncio.create_task(access._identities.get(f"{number}".encode(), lambda: _nobody(flood)))
        for number in range(2 * identities.REVIEWS)
    ]
    await until(lambda: len(flood.asked) >= identities.REVIEWS)
    right = identities._Right(ANONYMOUS, "get", "", "", "", None)
    async with asyncio.timeout(3):
        assert await access._rights.get(right, lambda: oracle.ask("right"))
    flood.open.set()
    assert await asyncio.gather(*asking) == [None] * len(asking)


async def _nobody(oracle: Oracle) -> Identity | None:
    await oracle.ask("token")
    return None


@pytest.mark.parametrize("token", [None, "", "two words", "line\nbreak", "ümlaut", "x" * 20_000])
async def test_what_is_no_token_is_refused_without_asking(token: str | None) -> None:
    client: Any = None  # nobody is asked
    access = Access.create(client, Told())
    with pytest.raises(Unauthenticated) as info:
        await access.identify(token)
    assert "token" in info.value.detail
    assert not token or token not in info.value.detail


async def test_without_authentication_everybody_passes_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    client: Any = None  # nobody is asked
    with caplog.at_level(logging.WARNING):
        access = Access.create(client, Told(auth="none"))
    assert "AUTHENTICATION IS OFF" in caplog.text
    warning = access._warning
    assert warning is not None
    assert warning.when() - asyncio.get_running_loop().time() > identities.WARN_SECONDS - 60
    assert await access.identify(None) == ANONYMOUS
    assert await access.permits(ANONYMOUS, "delete", namespace=None)
    await access.require(ANONYMOUS, "run", namespace="shop")
    access.close()
    assert warning.cancelled()


def test_who_differs_in_anything_is_somebody_else() -> None:
    one = Identity(name="a", uid="1", groups=("g",), extra={"k": ("v",)})
    assert one == Identity(name="a", uid="1", groups=("g",), extra={"k": ("v",)})
    assert hash(one) == hash(Identity(name="a", uid="1", groups=("g",)))
    others = {
        Identity(name="b", uid="1", groups=("g",), extra={"k": ("v",)}),
        Identity(name="a", uid="2", groups=("g",), extra={"k": ("v",)}),
        Identity(name="a", uid="1", groups=(), extra={"k": ("v",)}),
        Identity(name="a", uid="1", groups=("g",), extra={"k": ("w",)}),
    }
    assert len(others | {one}) == 5


def test_a_refusal_says_what_to_bind() -> None:
    caller = Identity(name="system:serviceaccount:shop:api")
    here = refusal(caller, "create", what="distributedjobs.distriqueue.io", namespace="shop")
    assert (
        '"system:serviceaccount:shop:api" may not create distributedjobs.distriqueue.io in the namespace "shop"' in here
    )
    assert "RoleBinding there" in here
    assert "ClusterRoleBinding" in refusal(caller, "list", what="jobs.example", namespace=None)
