"""Who waits for what in a session: heartbeats and reports for the broker's word, one request for jobs.

Guarantees: whoever waits gets an answer when what it waits for is there, or `Gone` when the session is over. Not safe
for threads: the event loop drives it.
"""

import asyncio
from dataclasses import dataclass, field

from distriqueue.gateway.problems import Gone
from distriqueue_protocol.messages import GrantId


@dataclass(slots=True, eq=False)
class Poll:
    """A request for jobs that waits.

    Attributes:
        most: How many it takes.
        done: Set when it should look what there is.
        gather_until: Since the first job is here: until when it waits for more (monotonic).
    """

    most: int
    done: asyncio.Future[None]
    gather_until: float | None = None

    def finish(self) -> None:
        """Let it look what there is."""
        _set(self.done)


@dataclass(slots=True)
class Waiting:
    """All that wait."""

    beats: list[tuple[float, asyncio.Future[None]]] = field(default_factory=list)
    reports: dict[GrantId, list[asyncio.Future[None]]] = field(default_factory=dict)
    goodbyes: list[asyncio.Future[None]] = field(default_factory=list)
    poll: Poll | None = None

    def for_beat(self, asked_at: float) -> asyncio.Future[None]:
        """Wait until a heartbeat that is not older than this is confirmed."""
        future = _future()
        self.beats.append((asked_at, future))
        return future

    def for_report(self, grant: GrantId) -> asyncio.Future[None]:
        """Wait until the broker has a report."""
        future = _future()
        self.reports.setdefault(grant, []).append(future)
        return future

    def for_goodbye(self) -> asyncio.Future[None]:
        """Wait until the session is over as it should be."""
        future = _future()
        self.goodbyes.append(future)
        return future

    def for_jobs(self, most: int) -> Poll:
        """Wait for jobs; whoever did so before waits no longer, and gets none."""
        if self.poll is not None:
            self.poll.finish()
        self.poll = Poll(most, _future())
        return self.poll

    def newest_beat(self) -> float | None:
        """Since when the youngest heartbeat waits; None if none does."""
        self.beats = [one for one in self.beats if not one[1].done()]
        return max((asked_at for asked_at, _ in self.beats), default=None)

    def confirm_beats(self, lease_from: float) -> None:
        """A heartbeat of that time is confirmed."""
        for asked_at, future in self.beats:
            if asked_at <= lease_from:
                _set(future)
        self.beats = [one for one in self.beats if not one[1].done()]

    def confirm_report(self, grant: GrantId) -> None:
        """The broker has a report."""
        for future in self.reports.pop(grant, ()):
            _set(future)

    def refuse_all(self, why: str, *, reports: bool) -> None:
        """Nobody need wait any more; those who wait for reports only if it says so."""
        futures = [future for _, future in self.beats]
        self.beats = []
        if self.poll is not None:
            futures.append(self.poll.done)
            self.poll = None
        if reports:
            futures += [future for several in self.reports.values() for future in several]
            self.reports.clear()
        for future in futures:
            if not future.done():
                future.set_exception(Gone(why))

    def say_goodbye(self) -> None:
        """The session is over as it should be."""
        for future in self.goodbyes:
            _set(future)
        self.goodbyes.clear()


def _future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
