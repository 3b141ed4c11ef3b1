"""The control group that holds every pod of the cluster: how what a pod started is found, and ended, without a name.

Works with version 1 (one tree for each controller) and version 2 (one tree). The kubelet makes its groups below ours;
ours exists in every tree, which the kubelet insists on.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from localcluster.processes import Process

GROUP = "distriqueue"
"""The name of the control group, at the root of every tree."""

_ROOT = Path("/sys/fs/cgroup")


def _trees() -> list[Path]:
    if (_ROOT / "cgroup.controllers").exists():
        return [_ROOT]
    # Links (cpu -> cpu,cpuacct) are other names of a tree that is listed anyway.
    return [path for path in _ROOT.iterdir() if path.is_dir() and not path.is_symlink() and _is_tree(path)]


def _is_tree(path: Path) -> bool:
    return (path / "cgroup.procs").exists()


def create() -> None:
    """Make the group in every tree."""
    for tree in _trees():
        group = tree / GROUP
        group.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            # In version 1 a new group may use no processor at all until it is told which.
            if (tree / setting).exists() and (group / setting).exists() and not (group / setting).read_text().strip():
                (group / setting).write_text((tree / setting).read_text())


def processes() -> list[Process]:
    """Return every process in the group or below it: what pods run."""
    pids = {
        int(pid)
        for group in _groups()
        if (group / "cgroup.procs").exists()
        for pid in (group / "cgroup.procs").read_text().split()
    }
    return [process for pid in sorted(pids) if (process := Process.of(pid)) is not None]


def delete() -> None:
    """Delete the group and all below it. No process may be in it any more."""
    for group in _groups():
        group.rmdir()


def _groups() -> Iterator[Path]:
    """Yield our group of every tree and all groups below it, the deepest first."""
    for tree in _trees():
        for directory, _, _ in os.walk(tree / GROUP, topdown=False):
            yield Path(directory)
