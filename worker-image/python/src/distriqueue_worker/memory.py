"""Whether the kernel killed for want of memory: the counter of the control group that the worker lives in.

Guarantees: nothing here raises; where the counter cannot be read nothing was killed, as far as anybody can tell.
Handlers in processes of their own are in the worker's group, so its counter is theirs. Reads the files of version 2
and, where that has no say over memory, of version 1.
"""

from pathlib import Path
from typing import Final

ROOT: Final = Path("/sys/fs/cgroup")
OWN: Final = Path("/proc/self/cgroup")
_FIELD: Final = "oom_kill"


def oom_kills() -> int:
    """How many processes of this group the kernel has killed so far because the group was out of memory."""
    for file in _files():
        try:
            fields = dict(line.split() for line in file.read_text().splitlines())
            return int(fields[_FIELD])
        except (OSError, ValueError, KeyError):
            continue
    return 0


def _files() -> list[Path]:
    """Where the counter may be, likeliest first."""
    try:
        lines = OWN.read_text().splitlines()
    except OSError:
        lines = []
    files = []
    for line in lines:
        controllers, _, path = line.partition(":")[2].partition(":")
        if "memory" in controllers.split(","):
            files.append(ROOT / "memory" / path.lstrip("/") / "memory.oom_control")
        elif not controllers:
            files.append(ROOT / path.lstrip("/") / "memory.events")
    # In a container the path may be the one outside of it, and its own group is what is mounted.
    return [*files, ROOT / "memory.events", ROOT / "memory" / "memory.oom_control"]
