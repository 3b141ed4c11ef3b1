"""How bad it gets in a world. Most are drawn by the seed; a test may ask for one."""

from dataclasses import dataclass
from random import Random

FAULTS = (
    "kill leader",
    "freeze leader",
    "block leader",
    "stop leader",
    "cut off leader",
    "stall leader",
    "choke leader",
    "kill worker",
    "freeze worker",
    "freeze both",
    "block worker",
    "cut off worker",
    "drain worker",
    "cut connection",
    "stall channel",
    "raise alarm",
    "silence API server",
    "break watches",
    "reset broker",
    "delete job",
    "delete ConfigMap",
    "forbid ConfigMaps",
    "delete worker",
    "delete Lease",
    "install again",
)
"""All kinds of faults; `faults` makes them."""


@dataclass(frozen=True)
class Climate:
    """How bad it gets.

    Attributes:
        faults: The kinds of faults that there are.
        seconds: How long there are faults.
        between: Mean seconds between two faults; 0 for none.
        requests: Share of requests to the API server that are lost, and of answers, and of late ones.
        crashes: Chance of a crash before a command of the leader.
        slow: Share of messages that take up to 3 s.
        doubled: Share of messages that come a second time.
        busy: How often in a second people do something to a job, and the share of jobs that are unusual.
        long: Share of the jobs that run for 10 s and more.
        referred: Share of the jobs whose payload stands elsewhere.
        jobs: At most so many, at least 4.
        skew: By how many seconds the wall clocks of the leaders may be wrong.
    """

    faults: tuple[str, ...] = FAULTS
    seconds: float = 60.0
    between: float = 4.0
    requests: float = 0.0
    crashes: float = 0.0
    slow: float = 0.0
    doubled: float = 0.0
    busy: float = 0.0
    long: float = 0.2
    referred: float = 0.3
    jobs: int = 25
    skew: float = 0.0

    @classmethod
    def draw(cls, rng: Random) -> "Climate":
        """Make one up. Where everything goes wrong, nothing takes its course: many know a few kinds of faults only."""
        return cls(
            faults=tuple(rng.sample(FAULTS, rng.choice([1, 2, 4, 8, len(FAULTS)]))),
            seconds=rng.choice([20.0, 50.0, 90.0]),
            between=rng.choice([1.0, 3.0, 8.0, 15.0]),
            requests=rng.choice([0.0, 0.02, 0.1]),
            crashes=rng.choice([0.0, 0.001, 0.01]),
            slow=rng.choice([0.0, 0.01, 0.1]),
            doubled=rng.choice([0.0, 0.05, 0.3]),
            busy=rng.choice([0.0, 0.2, 0.6]),
            long=rng.choice([0.0, 0.2, 0.8]),
            skew=rng.choice([0.0, 30.0]),
        )


PEACE = Climate(seconds=1.0, between=0.0)
"""Nothing goes wrong, and nobody interferes."""
