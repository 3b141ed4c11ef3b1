"""Made-up time: one heap of things to come, and processes that can be frozen and killed.

Guarantees: the same seed gives the same order of everything; what falls on the same moment happens in the order in
which it was asked for. What reaches a frozen process waits until it wakes; what reaches a dead one is gone.
"""

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

Action = Callable[[], None]


class Scheduler:
    """The clock of a world, in seconds from 0."""

    def __init__(self) -> None:
        self.now = 0.0
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


class Process:
    """Something that runs: a replica of the operator, or a worker."""

    def __init__(self, scheduler: Scheduler, name: str) -> None:
        self.scheduler = scheduler
        self.name = name
        self.alive = True
        self.frozen = False
        self._waiting: deque[Action] = deque()

    def post(self, action: Action) -> None:
        """Let the process do something now, or when it wakes."""
        if not self.alive:
            return
        if self.frozen:
            self._waiting.append(action)
        else:
            action()

    def after(self, delay: float, action: Action) -> None:
        """Let the process do something after a while."""
        self.scheduler.after(delay, lambda: self.post(action))

    def freeze(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT later."""
        if self.alive and not self.frozen:
            self.frozen = True
            self.scheduler.say(self.name, "frozen for", seconds)
            self.scheduler.after(seconds, self._wake)

    def _wake(self) -> None:
        self.frozen = False
        if self.alive:
            self.scheduler.say(self.name, "woken")
            self.woken()
        while self._waiting and self.alive and not self.frozen:
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
