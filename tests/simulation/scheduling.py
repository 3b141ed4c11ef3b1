"""Made-up time: one heap of things to come, and processes that can be frozen and killed.

Guarantees: the same seed gives the same order of everything; what falls on the same moment happens in the order in
which it was asked for. What reaches a frozen process waits until it wakes; what reaches a dead one is gone. Each
process has a clock of its own, which drifts, and timers of its own, which come late.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from random import Random

Action = Callable[[], None]


CALM_TICKS = 4.0
"""Loops turn so much slower when nothing goes wrong any more: nobody has to be quick, and worlds end sooner."""


class Scheduler:
    """The clock of a world, in seconds from 0.

    Attributes:
        calm: Nothing goes wrong any more.
        trace: What happened, when somebody wants to read it.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.calm = False
        self._heap: list[tuple[float, int, Action]] = []
        self._order = count()
        self.trace: list[str] | None = None

    def say(self, *words: object) -> None:
        """Note what happens, when somebody wants to read it."""
        if self.trace is not None:
            self.trace.append(f"{self.now:9.3f} " + " ".join(str(word) for word in words))

    def at(self, moment: float, action: Action) -> None:
        """Do something at a moment; one that is over is now."""
        heappush(self._heap, (max(moment, self.now), next(self._order), action))

    def after(self, delay: float, action: Action) -> None:
        """Do something after a while."""
        self.at(self.now + delay, action)

    def step(self) -> bool:
        """Do the next thing; False when there is none."""
        if not self._heap:
            return False
        self.now, _, action = heappop(self._heap)
        action()
        return True


@dataclass(frozen=True)
class Pace:
    """How time goes in a process.

    Attributes:
        rng: Of the world.
        drift: Seconds of its monotonic clock for each second that really passes.
        offset: What its monotonic clock shows at the beginning.
        lag: Up to so many seconds too late comes a timer: its loop is busy.
    """

    rng: Random
    drift: float = 1.0
    offset: float = 0.0
    lag: float = 0.0

    @classmethod
    def draw(cls, rng: Random) -> "Pace":
        """Make one up."""
        lag = rng.choice([0.0, 0.01, 0.1, 0.4])
        return cls(rng, drift=rng.uniform(0.998, 1.002), offset=rng.uniform(0, 1e6), lag=lag)


class Process:
    """Something that runs: a replica of the operator, or a worker.

    Attributes:
        frozen: It was stopped (SIGSTOP), with all its threads and handlers.
        blocked: Its loop stands still, and all else in it goes on.
        cut_off_until: Its host reaches nobody before this moment.
    """

    def __init__(self, scheduler: Scheduler, name: str, pace: Pace) -> None:
        self.scheduler = scheduler
        self.name = name
        self.alive = True
        self.frozen = False
        self.blocked = False
        self.cut_off_until = 0.0
        self._pace = pace
        self._waiting: deque[Action] = deque()

    def mono(self) -> float:
        """Its monotonic clock: it starts anywhere, and drifts."""
        return self.scheduler.now * self._pace.drift + self._pace.offset

    def post(self, action: Action) -> None:
        """Let the process do something now, or when it wakes."""
        if not self.alive:
            return
        if self.frozen or self.blocked:
            self._waiting.append(action)
        else:
            action()

    def after(self, delay: float, action: Action) -> None:
        """Let the process do something after a while, by its own clock and as late as its loop is."""
        pace = self._pace
        late = pace.rng.uniform(0, pace.lag) if pace.lag else 0.0
        self.scheduler.after(delay / pace.drift + late, lambda: self.post(action))

    def turn_seconds(self, seconds: float) -> float:
        """How long a loop waits that looks at its clock every so often."""
        return seconds * CALM_TICKS if self.scheduler.calm else seconds

    def freeze(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT later."""
        if self.alive and not self.frozen:
            self.frozen = True
            self.scheduler.say(self.name, "frozen for", seconds)
            self.scheduler.after(seconds, self._wake)

    def block(self, seconds: float) -> None:
        """Let its loop stand still for a while."""
        if self.alive and not self.blocked:
            self.blocked = True
            self.scheduler.say(self.name, "blocked for", seconds)
            self.scheduler.after(seconds, self._unblock)

    def _wake(self) -> None:
        self.frozen = False
        if self.alive:
            self.scheduler.say(self.name, "woken")
            self.woken()
        self._catch_up()

    def _unblock(self) -> None:
        self.blocked = False
        self._catch_up()

    def _catch_up(self) -> None:
        while self._waiting and self.alive and not (self.frozen or self.blocked):
            self._waiting.popleft()()

    def woken(self) -> None:
        """Called when it wakes, before anything that waited."""

    def kill(self) -> None:
        """SIGKILL."""
        self.alive = False
        self.scheduler.say(self.name, "killed")
        self._waiting.clear()


class Pipe:
    """One direction of a connection: keeps order, and has a latency."""

    def __init__(self, scheduler: Scheduler, latency: Callable[[], float]) -> None:
        self._scheduler = scheduler
        self._latency = latency
        self._last = 0.0

    def stall(self, seconds: float) -> None:
        """Let nothing more arrive for a while."""
        self._last = max(self._last, self._scheduler.now + seconds)

    def send(self, action: Action) -> None:
        """Let something arrive at the other end."""
        self._last = max(self._scheduler.now + self._latency(), self._last)
        self._scheduler.at(self._last, action)
