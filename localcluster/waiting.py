"""Waiting for a part of a cluster to become ready, and telling people what it is that we wait for."""

import time
from collections.abc import Callable
from pathlib import Path

from localcluster.commands import PROGRESS_SECONDS, say
from localcluster.errors import NotReadyError

READY_SECONDS = 120.0
"""How long a part may take to become ready; on a busy machine it may well take 30 s."""


def wait_until_ready(
    name: str,
    *,
    ready: Callable[[], bool],
    alive: Callable[[], bool],
    log: Path,
    timeout: float = READY_SECONDS,
) -> None:
    """Wait until a part says that it is ready.

    Args:
        name: The part, for people.
        ready: Whether it is ready.
        alive: Whether its process runs.
        log: Its log; the end of it goes into the error.
        timeout: Seconds it may take.

    Raises:
        NotReadyError: It ended, or took too long.
    """
    started = time.monotonic()
    next_word = PROGRESS_SECONDS
    while not ready():
        waited = time.monotonic() - started
        if not alive():
            raise NotReadyError(f"{name} ended; the end of {log}:\n{tail(log)}")
        if waited > timeout:
            raise NotReadyError(f"{name} was not ready within {timeout:.0f} s; the end of {log}:\n{tail(log)}")
        if waited > next_word:
            say(f"waiting for {name}: {waited:.0f} s")
            next_word += PROGRESS_SECONDS
        time.sleep(0.1)


def tail(log: Path, *, characters: int = 2000) -> str:
    """Return the end of a log, or nothing when there is none."""
    try:
        return log.read_text(errors="replace")[-characters:]
    except FileNotFoundError:
        return ""
