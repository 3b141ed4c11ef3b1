"""Which deliveries can be acknowledged together: reports are settled out of order, and acknowledged in runs.

Guarantees: `done` names each settled delivery exactly once, and never one that is not settled. A run that begins with
the oldest open delivery takes one frame; stragglers behind a slow one are acknowledged singly once many have
gathered, so a stuck write holds nobody up.
"""

from collections.abc import Iterator
from itertools import takewhile
from typing import Final

GATHER: Final = 128
"""Settled deliveries behind an open one before they are acknowledged singly."""


class AckWindow:
    """The open deliveries of one channel, whose tags count up from 1."""

    def __init__(self) -> None:
        self._open: dict[int, None] = {}  # in order of delivery, which is the order of tags
        self._settled: set[int] = set()

    def delivered(self, tag: int) -> None:
        """A delivery came."""
        self._open[tag] = None

    def done(self, tags: tuple[int, ...]) -> Iterator[tuple[int, bool]]:
        """Settle deliveries.

        Returns:
            The acknowledgements to send: a tag, and whether it stands for all before it as well.
        """
        self._settled.update(tag for tag in tags if tag in self._open)
        run = list(takewhile(self._settled.__contains__, self._open))
        for tag in run:
            del self._open[tag]
            self._settled.discard(tag)
        if run:
            yield run[-1], True
        if len(self._settled) >= GATHER:
            for tag in sorted(self._settled):
                del self._open[tag]
                yield tag, False
            self._settled.clear()
