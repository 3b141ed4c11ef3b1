"""Debian packages that the machine must have: checks, and installs what is missing with apt-get.

Nothing is asked of apt when every package is there already, so a warm machine needs no network. Fails with
:class:`LocalClusterError` where there is no apt-get, or without root.
"""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterable

from localcluster.commands import run_with_progress
from localcluster.errors import LocalClusterError
from localcluster.paths import cache_directory


def missing_packages(packages: Iterable[str]) -> list[str]:
    """Return those of the packages that are not installed, in the given order."""
    wanted = list(packages)
    done = subprocess.run(
        ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *wanted],
        capture_output=True,
        text=True,
        check=False,  # it fails when one is unknown, and still lists the others
    )
    installed = {line.split()[0] for line in done.stdout.splitlines() if line.endswith(" installed")}
    return [package for package in wanted if package not in installed]


def ensure_packages(*packages: str) -> None:
    """Install the packages that are missing.

    On a machine with systemd a package may start its own service (containerd does); it uses other directories and
    sockets than this project's and disturbs nothing.

    Raises:
        LocalClusterError: The machine has no apt-get, or we are not root.
        CommandError: apt-get failed.
    """
    if shutil.which("dpkg-query") is None:
        raise LocalClusterError(f"this needs a Debian machine (no dpkg here), with the packages: {' '.join(packages)}")
    if not missing_packages(packages):
        return
    if os.geteuid() != 0:
        raise LocalClusterError(f"missing packages, install them as root: apt-get install {' '.join(packages)}")
    logs = cache_directory() / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with (cache_directory() / "apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = missing_packages(packages)
        if not missing:
            return
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        wait = ["-o", "DPkg::Lock::Timeout=300"]
        run_with_progress(["apt-get", *wait, "update"], title="apt-get update", log=logs / "apt-update.log", env=quiet)
        run_with_progress(
            ["apt-get", *wait, "install", "--yes", "--no-install-recommends", *missing],
            title=f"apt-get install {' '.join(missing)}",
            log=logs / "apt-install.log",
            env=quiet,
        )
