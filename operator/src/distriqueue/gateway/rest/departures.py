"""Callers who go before they have their answer.

Guarantees: `while_there` cancels what nobody waits for any more. Fails with `starlette.requests.ClientDisconnect` then,
and with whatever the work fails with.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

ResultT = TypeVar("ResultT")


async def until_gone(receive: Receive) -> None:
    """Return when the caller has closed the connection; its body was read before."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def while_there(request: Request, work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Return what the work returns; cancel it when the caller goes first.

    Args:
        request: Whose body was read.
        work: What the caller waits for.

    Raises:
        ClientDisconnect: The caller has gone.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(until_gone(request.receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)
