"""Replay worlds: `python -m tests.simulation SEED [SEED...]`, or a range `FIRST-LAST`; one seed alone is traced."""

import sys
import time
import traceback

from tests.simulation.worlds import World


def main(arguments: list[str]) -> int:
    """Run the seeds that were asked for; 1 if one of them fails."""
    failed = 0
    overlaps = 0
    began = time.monotonic()
    seeds = [seed for text in arguments for seed in _seeds(text)]
    for seed in seeds:
        world = World(seed)
        world.scheduler.trace = [] if len(seeds) == 1 else None
        try:
            overlaps += world.run().history.overlaps
        except Exception:  # noqa: BLE001 - whatever it is, it is this seed's, and the next one has its turn
            failed += 1
            sys.stderr.write(f"seed {seed}: {traceback.format_exc(limit=-6)}\n")
        sys.stdout.writelines(f"{line}\n" for line in world.scheduler.trace or [])
    took = time.monotonic() - began
    sys.stdout.write(f"{len(seeds)} worlds in {took:.1f} s, {failed} failed, {overlaps} overlaps of woken workers\n")
    return 1 if failed else 0


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
