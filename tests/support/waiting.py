"""Waiting for an event that can only be asked for: ask again and again, with a deadline that no healthy run needs."""

import asyncio
import inspect
import time
from collections.abc import Callable

PATIENCE_SECONDS = 90.0
"""After so long something is broken, however busy the machine is."""
POLL_SECONDS = 0.05


async def until(
    ask: Callable[[], object],
    *,
    seconds: float = PATIENCE_SECONDS,
    pause: float = POLL_SECONDS,
    otherwise: Callable[[], object] = lambda: "",
) -> None:
    """Ask until the answer is true.

    Args:
        ask: The question; it may be a coroutine function.
        seconds: Until the test fails.
        pause: Between two questions.
        otherwise: What to say when it fails.
    """
    deadline = time.monotonic() + seconds
    while True:
        answer = ask()
        if await answer if inspect.isawaitable(answer) else answer:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"did not come true within {seconds:.0f} s: {otherwise()}")
        await asyncio.sleep(pause)
