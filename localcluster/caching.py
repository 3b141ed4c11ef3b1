"""Names of built things, and how several builders stay out of each other's way.

Everything built lies in the cache (localcluster.paths) under a name with a hash of what it was built from. So a name
that exists is complete and never changes, a clean clone rebuilds nothing, and old versions do no harm. Whoever builds
writes beside the final name and renames.

Fails with OSError when the cache directory cannot be written.
"""

import contextlib
import fcntl
import hashlib
import time
from collections.abc import Iterable, Iterator

from localcluster.commands import PROGRESS_SECONDS, say
from localcluster.paths import cache_directory

POLL_SECONDS = 0.5


def digest(parts: Iterable[str | bytes]) -> str:
    """Return 16 hexadecimal digits that stand for these parts, in this order, each with its boundaries."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()[:16]


@contextlib.contextmanager
def sole_builder(name: str) -> Iterator[None]:
    """Hold the right to build ``name``; wait, and say so, while another process has it.

    Whoever gets in looks first whether the other one has built it meanwhile. The right ends with the process.
    """
    locks = cache_directory() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / name).open("w") as lock:
        began = time.monotonic()
        said = -PROGRESS_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waited = time.monotonic() - began
                if waited - said >= PROGRESS_SECONDS:
                    say(f"{name}: another process builds it, waiting ({waited:.0f} s)")
                    said = waited
                time.sleep(POLL_SECONDS)
        yield
