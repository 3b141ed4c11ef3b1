"""Debian roots, made from the machine's own package mirror: what our base image and the broker run on.

A recipe (suite, packages, finishing touches) becomes a tar once, by mmdebstrap in about a minute, and that tar becomes
the layer of an image or a directory to run a program from. Both are cached under a hash of the recipe.

Guarantees: no secret and no identity is baked in (the Erlang cookie that the package makes is removed), documentation
and translations are left out. Fails with LocalClusterError when the machine names no Debian mirror, and CommandError
when the mirror does not serve; a second try starts anew.
"""

import dataclasses
import re
import shutil
from pathlib import Path

from localcluster.caching import digest, sole_builder
from localcluster.commands import run_with_progress
from localcluster.errors import LocalClusterError
from localcluster.packages import ensure_packages
from localcluster.paths import cache_directory

SUITE = "trixie"
"""Debian 13: Python 3.13 and RabbitMQ 4.0. The machine itself may be older, its mirror has all suites."""

_LEAN = (
    "--aptopt=APT::Install-Recommends false",
    "--aptopt=Acquire::Languages none",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """What goes into a root. ``$1`` in a hook is the root's directory."""

    name: str
    packages: tuple[str, ...]
    hooks: tuple[str, ...] = ()
    suite: str = SUITE

    @property
    def label(self) -> str:
        """The name that everything made from this recipe carries: readable, and with a hash of all of it."""
        return f"{self.name}-{digest([self.name, self.suite, *_LEAN, *self.packages, 'hooks', *self.hooks])}"


PYTHON = Recipe(name="python", packages=("python3", "python3-venv", "ca-certificates"))
"""Stands in for the public ``python:3.13-slim`` where there is no registry."""

BROKER = Recipe(
    name="rabbitmq",
    packages=("rabbitmq-server", "ca-certificates"),
    hooks=(
        # The user id and the places of the official image, so that one chart fits both.
        'chroot "$1" groupmod -g 999 rabbitmq && chroot "$1" usermod -u 999 rabbitmq',
        'rm -rf "$1/var/lib/rabbitmq" "$1/var/log/rabbitmq" "$1/etc/rabbitmq"',
        'chroot "$1" install -d -o rabbitmq -g rabbitmq -m 0770 /var/lib/rabbitmq /var/log/rabbitmq',
        'chroot "$1" install -d -o rabbitmq -g rabbitmq /etc/rabbitmq /etc/rabbitmq/conf.d',
        'chroot "$1" sh -c "ln -s /usr/lib/rabbitmq/lib/rabbitmq_server-* /opt/rabbitmq"',
        # Where a broker that runs as a plain process finds its own directory.
        'mkdir "$1/instance"',
        'printf "127.0.0.1 localhost\\n::1 localhost\\n" > "$1/etc/hosts"',
    ),
)
"""RabbitMQ 4: run as a process by localcluster.rabbitmq, and wrapped as the image of the local cluster."""


def debian_mirror() -> str:
    """Return the address of the machine's own Debian mirror, from its apt sources.

    Raises:
        LocalClusterError: No source is a Debian archive (a security archive does not count: it lacks the base).
    """
    folder = Path("/etc/apt")
    files = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    for file in filter(Path.is_file, files):
        for line in file.read_text(errors="replace").splitlines():
            match = re.match(r"URIs:\s*(\S+)|deb\s+(?:\[[^]]*\]\s+)?(\S+)", line)
            address = (match[1] or match[2]).rstrip("/") if match else ""
            if address.endswith("/debian"):
                return address
    raise LocalClusterError("no Debian mirror among the machine's apt sources (a `URIs:` line that ends with /debian)")


def root_tar(recipe: Recipe) -> Path:
    """Return the recipe's root as a tar file, made now if need be.

    Raises:
        LocalClusterError: There is no mirror, or mmdebstrap failed.
    """
    target = cache_directory() / "roots" / f"{recipe.label}.tar"
    if target.exists():
        return target
    with sole_builder(target.name):
        if not target.exists():
            ensure_packages("mmdebstrap")
            target.parent.mkdir(parents=True, exist_ok=True)
            unfinished = target.with_suffix(".unfinished.tar")
            unfinished.unlink(missing_ok=True)
            hooks = [f"--customize-hook={hook}" for hook in recipe.hooks]
            include = f"--include={','.join(recipe.packages)}"
            options = ["--variant=minbase", *_LEAN, include, *hooks]
            run_with_progress(
                ["nice", "mmdebstrap", *options, recipe.suite, str(unfinished), debian_mirror()],
                title=f"Debian {recipe.suite} root '{recipe.name}' (once, about a minute)",
                log=_log(recipe),
            )
            unfinished.rename(target)
    return target


def unpacked_root(recipe: Recipe) -> Path:
    """Return the recipe's root as a directory; whoever runs programs in it writes nothing there.

    Raises:
        LocalClusterError: As root_tar does, or the tar cannot be unpacked.
    """
    target = cache_directory() / "roots" / recipe.label
    if target.exists():
        return target
    tar = root_tar(recipe)
    with sole_builder(target.name):
        if not target.exists():
            unfinished = target.with_name(target.name + ".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            # Device nodes cannot be made everywhere, and the machine's own /dev is mounted there anyway.
            unpack = ["tar", "--extract", "--numeric-owner", "--exclude=./dev/*"]
            run_with_progress(
                [*unpack, "-C", str(unfinished), "-f", str(tar)],
                title=f"unpacking the root '{recipe.name}'",
                log=_log(recipe),
            )
            unfinished.rename(target)
    return target


def _log(recipe: Recipe) -> Path:
    return cache_directory() / "logs" / f"root-{recipe.name}.log"
