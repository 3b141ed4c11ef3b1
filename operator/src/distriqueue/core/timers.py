"""One timer for each of many things, most of which are called off before they are due.

Guarantees: a thing has at most one time, the last one set. Setting and calling off cost O(log n); what was called off
is dropped in time, so the memory is that of the timers that are set.
"""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush

_SLACK = 64


class Timers:
    """Times (monotonic) by key."""

    def __init__(self) -> None:
        self._times: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        """How many are set."""
        return len(self._times)

    def set(self, key: str, mono: float) -> None:
        """Let a thing be due at a moment, and not at the one that was set before."""
        if self._times.get(key) == mono:
            return
        self._times[key] = mono
        heappush(self._heap, (mono, key))
        if len(self._heap) > 2 * len(self._times) + _SLACK:
            self._heap = [(time, name) for name, time in self._times.items()]
            heapify(self._heap)

    def clear(self, key: str) -> None:
        """Call a thing off."""
        self._times.pop(key, None)

    def due(self, mono: float, *, most: int | None = None) -> Iterator[str]:
        """Yield what is due, each thing once; it is set no longer.

        Args:
            mono: The moment.
            most: Yield no more than so many; the others stay due.
        """
        left = most
        while self._heap and self._heap[0][0] <= mono and left != 0:
            time, key = heappop(self._heap)
            if self._times.get(key) == time:
                del self._times[key]
                left = None if left is None else left - 1
                yield key
