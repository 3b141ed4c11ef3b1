"""Building images from Dockerfiles by buildah, without a container engine and without a registry.

Guarantees: nothing of the machine (package mirror, certificates, pip settings) gets into an image; containers and
layers lie in the cache, where unchanged layers are found again. Fails with CommandError, which carries the end of the
build's output.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from localcluster.commands import run, run_with_progress, succeeds
from localcluster.images.pip_settings import pip_mounts
from localcluster.packages import ensure_packages
from localcluster.paths import cache_directory


class Store:
    """A buildah storage of our own. Used by one process at a time (localcluster.caching.sole_builder)."""

    def __init__(self) -> None:
        ensure_packages("buildah")
        self._directory = cache_directory() / "buildah"
        self._directory.mkdir(parents=True, exist_ok=True)
        # An overlay on an overlay is refused by the kernel, so inside a container each layer is a full copy.
        below = run(["findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(self._directory)]).strip()
        driver = "vfs" if below == "overlay" else "overlay"
        root, state = self._directory / driver, self._directory / f"{driver}-state"
        self._buildah = ["buildah", "--root", str(root), "--runroot", str(state), "--storage-driver", driver]

    def load(self, archive: Path, *, name: str, again: bool = False) -> None:
        """Have an image in the store, from a docker archive that carries this name.

        Args:
            archive: The docker archive.
            name: The name that it carries.
            again: Load it though the store has an image of this name, which may be another one.
        """
        if again or not succeeds([*self._buildah, "inspect", "--type", "image", name]):
            self._run("pull", f"docker-archive:{archive}", title=f"loading {name}")

    def build(self, dockerfile: Path, *, context: Path, name: str, arguments: Mapping[str, str]) -> None:
        """Build an image and keep it in the store under a name.

        Args:
            dockerfile: What to build.
            context: The directory that COPY takes from.
            name: Repository and tag.
            arguments: The values of the Dockerfile's ARGs.
        """
        with tempfile.TemporaryDirectory(prefix="distriqueue-build-") as scratch:
            mounts = [word for mount in pip_mounts(Path(scratch)) for word in ("--volume", mount)]
            values = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
            # chroot: works without the rights that a real container needs; host: pip reaches the machine's index.
            isolation = ["--isolation", "chroot", "--network", "host", "--pull-never", "--layers"]
            what = ["--format", "docker", "--file", str(dockerfile), "--tag", name, str(context)]
            self._run("bud", *isolation, *mounts, *values, *what, title=f"building {name}")

    def save(self, name: str, archive: Path) -> None:
        """Write an image as a docker archive that carries its name."""
        archive.parent.mkdir(parents=True, exist_ok=True)
        unfinished = archive.with_name(archive.name + ".unfinished")
        unfinished.unlink(missing_ok=True)
        self._run("push", name, f"docker-archive:{unfinished}:{name}", title=f"writing {name}")
        unfinished.rename(archive)

    def _run(self, command: str, *arguments: str, title: str) -> None:
        log = cache_directory() / "logs" / f"buildah-{command}.log"
        # Without these the machine's own proxies and certificates would be looked for inside the build.
        env = {"TMPDIR": os.environ.get("TMPDIR", "/var/tmp")}  # noqa: S108 - large files, not secret ones
        run_with_progress(["nice", *self._buildah, command, *arguments], title=title, log=log, env=env)
