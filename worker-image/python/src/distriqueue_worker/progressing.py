"""The book of what handlers said: how far they have come, and what their next attempts would go on from.

Guarantees: the last word of each handler is what counts, and it is told until the broker has confirmed a message with
it; a leader of a new epoch is told all of them. Not more than one message a second is sent for it, and none grows much
beyond `MESSAGE_BYTES`. A word holds the checkpoint that an earlier attempt left until the handler leaves another. Pure:
part of `custody.py`, driven by it.
"""

from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

from distriqueue_protocol.messages import GrantId, Progress
from distriqueue_worker.commands import Checkpointed, Progressed, Word

PROGRESS_SECONDS: Final = 1.0
"""The least distance of messages that are sent for progress alone."""
MESSAGE_BYTES: Final = 512 * 1024
"""What a message carries of it; the rest waits for the next one."""
_WORD_BYTES: Final = 400
"""What a word without a checkpoint has at most, about."""


@dataclass(slots=True)
class _Entry:
    percent: int | None = None
    message: str = ""
    checkpoint: JsonValue = None
    size: int = 0
    spoke: bool = False


class ProgressBook:
    """The last words of the handlers that run."""

    def __init__(self) -> None:
        self._entries: dict[GrantId, _Entry] = {}
        self._untold: dict[GrantId, None] = {}
        self._in_flight: dict[int, tuple[GrantId, ...]] = {}
        self._told_at = float("-inf")

    def open(self, grant: GrantId, checkpoint: JsonValue, size: int) -> None:
        """A handler starts with what an earlier attempt left, of at most so many bytes."""
        self._entries[grant] = _Entry(checkpoint=checkpoint, size=0 if checkpoint is None else size)

    def hear(self, grant: GrantId, word: Word) -> None:
        """A handler said something."""
        entry = self._entries.get(grant)
        if entry is None:
            return
        match word:
            case Progressed(percent, message):
                entry.percent, entry.message = percent, message
            case Checkpointed(data, size):
                entry.checkpoint, entry.size = data, size
        entry.spoke = True
        self._untold[grant] = None

    def close(self, grant: GrantId) -> JsonValue:
        """The handler is dead: forget it, and return the checkpoint."""
        self._untold.pop(grant, None)
        entry = self._entries.pop(grant, None)
        return None if entry is None else entry.checkpoint

    def due(self, now: float) -> bool:
        """Whether a message should go out for what was not told yet."""
        return bool(self._untold) and now - self._told_at >= PROGRESS_SECONDS

    def take(self, now: float) -> tuple[Progress, ...]:
        """What was not told yet, as far as one message holds it; `sent` has to follow."""
        words: list[Progress] = []
        room = MESSAGE_BYTES
        for grant in self._untold:
            entry = self._entries[grant]
            room -= entry.size + _WORD_BYTES
            if words and room < 0:
                break
            words.append(
                Progress(grant=grant, percent=entry.percent, message=entry.message, checkpoint=entry.checkpoint)
            )
        for word in words:
            del self._untold[word.grant]
        if words:
            self._told_at = now
        return tuple(words)

    def sent(self, sequence: int, words: tuple[Progress, ...]) -> None:
        """What was taken went out with this message."""
        if words:
            self._in_flight[sequence] = tuple(word.grant for word in words)

    def confirm(self, sequence: int) -> None:
        """The broker has confirmed a message."""
        self._in_flight.pop(sequence, None)

    def disconnect(self) -> None:
        """No confirmation will come any more: what was under way is told again."""
        for grants in self._in_flight.values():
            self._untold.update(dict.fromkeys(grant for grant in grants if grant in self._entries))
        self._in_flight.clear()

    def repeat(self) -> None:
        """Another leader leads, and knows nothing of it."""
        self._untold.update(dict.fromkeys(grant for grant, entry in self._entries.items() if entry.spoke))
