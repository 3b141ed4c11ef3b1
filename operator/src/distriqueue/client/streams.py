"""Server-sent events, read line by line (the event stream format of the HTML standard).

Guarantees: an event is complete or it is not delivered: what a cut left unfinished is dropped, and comes again after
resuming. `last_id` is the id of the last event that was delivered, which is where to resume.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        name: Its kind; ``message`` when it did not say.
        data: Its data, lines joined.
        id: The position after it, as of the stream; empty when none was given so far.
    """

    name: str
    data: str
    id: str


class EventReader:
    """Makes events of lines.

    Attributes:
        last_id: Where to resume: the id of the last event that `feed` returned.
        retry_seconds: How long to wait before connecting again, when the server said so, else None.
    """

    def __init__(self, last_id: str = "") -> None:
        self.last_id = last_id
        self.retry_seconds: float | None = None
        self._id = last_id
        self._name = ""
        self._data: list[str] = []

    def feed(self, line: str) -> Event | None:
        """Take one line without its end; return the event that it completes, if it does."""
        if not line:
            return self._dispatch()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        elif field == "id" and "\0" not in value:
            self._id = value
        elif field == "retry" and value.isascii() and value.isdigit():
            self.retry_seconds = int(value) / 1000
        return None  # a comment (no field name), or a field that the standard does not know

    def abandon(self) -> None:
        """Forget an event that was cut in its middle: the connection is gone."""
        self._id = self.last_id
        self._name = ""
        self._data = []

    def _dispatch(self) -> Event | None:
        # The id counts even when there is no data: the standard sets it with every blank line.
        self.last_id = self._id
        name, data = self._name or "message", self._data
        self._name, self._data = "", []
        return Event(name, "\n".join(data), self._id) if data else None
