"""What all benches share: percentiles, CPU seconds and memory of processes, and many requests under way at once."""

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
MIB = 1024 * 1024


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def median(values: Iterable[float]) -> float:
    """The median, or nan of nothing."""
    listed = list(values)
    return statistics.median(listed) if listed else float("nan")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of its children that have ended, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(value) for value in fields[11:15]) / TICKS


def memory(pid: int, key: str) -> float:
    """`VmRSS` (now) or `VmHWM` (the highest ever) of a process, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / MIB for line in lines if line.startswith(f"{key}:"))


async def many(count: int, work: Callable[[int], Awaitable[None]], *, at_once: int = 32) -> float:
    """Do `work(0)` to `work(count - 1)`, `at_once` at a time; returns the seconds it took."""
    numbers = iter(range(count))

    async def one() -> None:
        for number in numbers:
            await work(number)

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(at_once)))
    return time.perf_counter() - began
