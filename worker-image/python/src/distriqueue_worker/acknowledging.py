"""Which frames acknowledge a set of deliveries with as few of them as possible.

Guarantees: exactly the deliveries asked for are answered, each once. Pure.
"""

from collections.abc import Collection, Iterator


class Deliveries:
    """The deliveries of one channel that the broker waits for."""

    def __init__(self) -> None:
        self._open: set[int] = set()

    def add(self, tag: int) -> None:
        """A delivery has come."""
        self._open.add(tag)

    def settle(self, tags: Collection[int]) -> Iterator[tuple[int, bool]]:
        """Answer deliveries, unknown ones left out: pairs of a tag and whether it stands for all open ones up to it.

        Read to the end before the next call: what is open changes at once.
        """
        answered = self._open.intersection(tags)
        self._open -= answered
        lowest = min(self._open, default=None)
        together = [tag for tag in answered if lowest is None or tag < lowest]
        if together:
            yield max(together), len(together) > 1
        for tag in sorted(answered.difference(together)):
            yield tag, False
