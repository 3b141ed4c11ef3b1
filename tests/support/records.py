"""What the handlers of `recording_tasks` wrote down."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Record:
    """One line: something a handler did.

    Attributes:
        event: `started`, `returned`, `raised` or `stopped`.
        grant: `epoch-counter`.
        mono: Seconds of the machine's monotonic clock.
    """

    event: str
    namespace: str
    name: str
    uid: str
    type: str
    attempt: int
    grant: str
    worker: str
    pid: int
    mono: float
    wall: float

    @property
    def epoch(self) -> int:
        """The epoch of the leader that granted it."""
        return int(self.grant.partition("-")[0])


class Records:
    """The file of one stage.

    Args:
        path: The file; made by the first handler that runs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def at(cls, directory: Path) -> Self:
        """The records in a directory, which is made."""
        directory.mkdir(parents=True, exist_ok=True)
        return cls(directory / "records.jsonl")

    def all(self, *, prefix: str = "") -> list[Record]:
        """All records of the jobs whose name begins so, in the order in which they were written."""
        try:
            lines = self.path.read_text().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        found = [Record(**json.loads(line)) for line in lines if line.endswith("\n")]
        return [record for record in found if record.name.startswith(prefix)]

    def since(self, offset: int) -> tuple[list[Record], int]:
        """The records from a place in the file on, and the place where they end."""
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                whole, _, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return [], offset
        lines = whole.splitlines()
        return [Record(**json.loads(line)) for line in lines], offset + (len(whole) + 1 if whole else 0)

    def events(self, event: str, *, prefix: str = "") -> list[Record]:
        """The records of one event."""
        return [record for record in self.all(prefix=prefix) if record.event == event]

    def started(self, *, prefix: str = "") -> list[Record]:
        """The starts of handlers."""
        return self.events("started", prefix=prefix)

    def starts_by_job(self, *, prefix: str = "") -> dict[str, int]:
        """How often each job's handler was started."""
        counts: dict[str, int] = {}
        for record in self.started(prefix=prefix):
            counts[record.name] = counts.get(record.name, 0) + 1
        return counts

    def release(self, gate: str) -> None:
        """Let the `hold` handlers that wait for this gate return."""
        self.path.with_name(gate).touch()
