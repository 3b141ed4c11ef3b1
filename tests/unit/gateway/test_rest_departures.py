"""What nobody waits for any more is cancelled."""

import asyncio

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from distriqueue.gateway.rest.departures import while_there


def request(gone: asyncio.Event) -> Request:
    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)


async def test_who_stays_gets_the_answer() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    assert await while_there(request(asyncio.Event()), work()) == 7


async def test_who_goes_lets_the_work_be_cancelled() -> None:
    gone, begun, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    waiting = asyncio.create_task(while_there(request(gone), work()))
    await begun.wait()
    gone.set()
    with pytest.raises(ClientDisconnect):
        await waiting
    assert ended.is_set()


async def test_what_the_work_fails_with_is_told() -> None:
    async def work() -> None:
        raise LookupError("no such session")

    with pytest.raises(LookupError):
        await while_there(request(asyncio.Event()), work())


async def test_a_request_that_is_cancelled_takes_the_work_along() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    waiting = asyncio.create_task(while_there(request(asyncio.Event()), work()))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended.is_set()
