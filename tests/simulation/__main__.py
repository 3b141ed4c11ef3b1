"""Run worlds: `make simulate SEEDS=n` or `SEED=n`, that is `python -m tests.simulation [--jobs N] SEED|FIRST-LAST...`.

One seed alone is traced: all that happens in its world is printed, ending with what failed. Of several, each that
fails is named with how to replay it; the same seed gives the same world, to the last message. The exit code is 1 if any
failed.
"""

import argparse
import multiprocessing
import sys
import time
import traceback
from collections.abc import Iterator
from typing import NamedTuple

from tests.simulation.worlds import World

PROGRESS_SECONDS = 5.0
CHUNK = 10


class Outcome(NamedTuple):
    """What became of a world.

    Attributes:
        error: Why it failed; empty if it did not.
        overlaps: Seconds for which a worker that woke past its lease ran a job that another one had by then.
    """

    seed: int
    error: str
    overlaps: list[float]
    attempts: int


def run(seed: int, *, traced: bool = False) -> Outcome:
    """Run one world to its end."""
    world = World(seed)
    world.scheduler.trace = [] if traced else None
    error = ""
    try:
        world.run()
    except Exception as failure:  # noqa: BLE001 - whatever it is, it is this seed's, and the next one has its turn
        last = traceback.extract_tb(failure.__traceback__)[-1]
        where = "" if isinstance(failure, AssertionError) else f" ({last.filename}:{last.lineno})"
        error = f"{type(failure).__name__}: {failure}{where}"
        if traced:
            error = traceback.format_exc(limit=-8)
    sys.stdout.writelines(f"{line}\n" for line in world.scheduler.trace or [])
    return Outcome(seed, error, world.history.overlaps, sum(world.history.starts.values()))


def run_all(seeds: list[int], *, jobs: int) -> Iterator[Outcome]:
    """Run worlds, several at a time."""
    if jobs > 1:
        with multiprocessing.Pool(jobs) as pool:
            yield from pool.imap_unordered(run, seeds, chunksize=CHUNK)
    else:
        yield from map(run, seeds)


def main(arguments: list[str]) -> int:
    """Run the seeds that were asked for; 1 if one of them fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--jobs", type=int, default=1, help="worlds at a time, each on a core of its own")
    parser.add_argument("seeds", nargs="+", type=_seeds, metavar="SEED|FIRST-LAST")
    options = parser.parse_args(arguments)
    seeds = [seed for some in options.seeds for seed in some]
    if len(seeds) == 1:
        outcome = run(seeds[0], traced=True)
        sys.stdout.write(outcome.error or "done\n")
        return 1 if outcome.error else 0
    began = shown = time.monotonic()
    failed: list[int] = []
    overlaps: list[float] = []
    attempts = 0
    for done, outcome in enumerate(run_all(seeds, jobs=options.jobs), start=1):
        overlaps += outcome.overlaps
        attempts += outcome.attempts
        if outcome.error:
            failed.append(outcome.seed)
            _say(f"seed {outcome.seed} FAILED: {outcome.error}\n  replay: make simulate SEED={outcome.seed}")
        now = time.monotonic()
        if now - shown >= PROGRESS_SECONDS:
            shown = now
            _say(f"{done} of {len(seeds)} worlds, {done / (now - began):.1f} per second, {len(failed)} failed")
    took = time.monotonic() - began
    _say(f"{len(seeds)} worlds with {attempts} attempts in {took:.1f} s, {len(failed)} failed")
    if overlaps:
        longest = 1000 * max(overlaps)
        _say(f"{len(overlaps)} overlaps by workers that woke past their lease, the longest {longest:.0f} ms")
    if failed:
        _say(f"failed: {' '.join(map(str, sorted(failed)))}")
    return 1 if failed else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
