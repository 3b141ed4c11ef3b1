"""The project's images: their names, what they are made of, and how to have them as docker archives.

An archive's file name carries a hash of everything that the image is made from (Dockerfile, locks, sources, base), so
an image that is up to date costs a second and a change of one source file rebuilds the last, small layer.

Names are those that Kubernetes manifests use (``distriqueue/operator:dev``); inside the archives they are written out
(``docker.io/distriqueue/operator:dev``), as containerd knows them.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from localcluster.archives import wrap_rootfs
from localcluster.caching import digest, sole_builder
from localcluster.commands import say
from localcluster.errors import LocalClusterError
from localcluster.images import broker
from localcluster.images.building import Store
from localcluster.images.roots import BROKER, PYTHON, root_tar
from localcluster.paths import cache_directory

CHECKOUT = Path(__file__).resolve().parents[2]
"""The repository's root: the build context."""

BASE_IMAGE = f"docker.io/distriqueue/base:{PYTHON.label}"
"""The Python base where the public one cannot be had."""

BROKER_NAME = "distriqueue/rabbitmq:4.0-local"

KEPT_ARCHIVES = 3
"""How many versions of an image's archive stay in the cache."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image that can be built.

    Attributes:
        short: What people call it on the command line.
        name: What manifests call it.
        paths: The files and directories of the checkout that it is made from.
        settings: What else it is made from; whatever changes the image and is in no file.
        write: Builds it from a directory that holds ``paths``, and writes it to a file.
    """

    short: str
    name: str
    paths: tuple[str, ...] = ()
    settings: str
    write: Callable[[Path, Path], None]

    def archive(self, sources: Path = CHECKOUT) -> Path:
        """Where its archive lies, or will lie, for the sources as they are now."""
        return cache_directory() / "images" / f"{self.short}-{digest(self._inputs(sources))}.tar"

    def _inputs(self, sources: Path) -> Iterator[str | bytes]:
        yield self.settings
        for file in sorted(file for path in self.paths for file in _files(sources / path)):
            yield str(file.relative_to(sources))
            yield file.read_bytes()


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for file in path.rglob("*"):
        if file.is_file() and file.suffix != ".pyc":
            yield file


def ensure_images(shorts: Iterable[str] = ("operator", "worker", "rabbitmq")) -> dict[str, Path]:
    """Build what is not up to date, and return all by name.

    Args:
        shorts: Which ones: ``operator``, ``worker``, ``rabbitmq``, ``base``.

    Returns:
        The docker archive of each image, by the name that manifests use.

    Raises:
        LocalClusterError: An image is unknown, or could not be built.
    """
    archives = {}
    for short in shorts:
        if short not in IMAGES:
            raise LocalClusterError(f"there is no image {short!r}, only {', '.join(IMAGES)}")
        image = IMAGES[short]
        archive = image.archive()
        if not archive.exists():
            with sole_builder("images"):
                archive = _built(image)
        say(f"{image.name} is up to date")
        archives[image.name] = archive
    return archives


def build_image(context: Path, *, name: str, dockerfile: Path | None = None) -> Path:
    """Build an image of somebody's own, say a worker with tasks: ``FROM distriqueue/worker:dev``.

    Args:
        context: The directory that COPY takes from.
        name: Repository and tag as manifests use them: ``example/worker:1``.
        dockerfile: What to build; the context's own ``Dockerfile`` by default.

    Returns:
        The docker archive; one for each name, written anew.

    Raises:
        LocalClusterError: It could not be built.
    """
    (worker,) = ensure_images(["worker"]).values()
    full_name = f"docker.io/{name}" if name.count("/") == 1 else name
    archive = cache_directory() / "images" / f"own-{digest([full_name])}.tar"
    with sole_builder("images"):
        store = Store()
        # The store may hold what another checkout built under this name.
        store.load(worker, name="docker.io/distriqueue/worker:dev", again=True)
        store.build(dockerfile or context / "Dockerfile", context=context, name=full_name, arguments={})
        store.save(full_name, archive)
    return archive


def _built(image: Image) -> Path:
    # From a copy: somebody may be editing the sources, and what is built must be what its hash says.
    with tempfile.TemporaryDirectory(prefix="distriqueue-sources-") as scratch:
        sources = Path(scratch)
        for file in [file for path in image.paths for file in _files(CHECKOUT / path)]:
            target = sources / file.relative_to(CHECKOUT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, target)
        archive = image.archive(sources)
        if not archive.exists():
            image.write(sources, archive)
            _forget_old(archive, image.short)
    return archive


def _forget_old(newest: Path, short: str) -> None:
    archives = sorted(newest.parent.glob(f"{short}-*.tar"), key=lambda file: file.stat().st_mtime, reverse=True)
    for archive in archives[KEPT_ARCHIVES:]:
        archive.unlink()


def _python_image(short: str, *, dockerfile: str) -> Image:
    name = f"distriqueue/{short}:dev"
    own = (dockerfile, f"requirements/{short}.lock")
    shared = ("requirements/build.lock", "pyproject.toml", ".dockerignore", "operator/src", "worker-image/python/src")

    def write(sources: Path, archive: Path) -> None:
        store = Store()
        store.load(_built(_BASE), name=BASE_IMAGE)
        full_name = f"docker.io/{name}"
        store.build(sources / dockerfile, context=sources, name=full_name, arguments={"BASE_IMAGE": BASE_IMAGE})
        store.save(full_name, archive)

    return Image(short=short, name=name, paths=(*own, *shared), settings=PYTHON.label, write=write)


def _write_base(_sources: Path, archive: Path) -> None:
    config = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"]}
    wrap_rootfs(root_tar(PYTHON), name=BASE_IMAGE, archive=archive, config={**config, "Cmd": ["python3"]})


def _write_broker(_sources: Path, archive: Path) -> None:
    broker.broker_archive(archive, name=f"docker.io/{BROKER_NAME}")


_BASE = Image(short="base", name=BASE_IMAGE.removeprefix("docker.io/"), settings=PYTHON.label, write=_write_base)
_BROKER_SETTINGS = json.dumps([BROKER.label, broker.FILES, broker.CONFIG], sort_keys=True)

IMAGES = {
    image.short: image
    for image in (
        _python_image("operator", dockerfile="operator/Dockerfile"),
        _python_image("worker", dockerfile="worker-image/Dockerfile"),
        Image(short="rabbitmq", name=BROKER_NAME, settings=_BROKER_SETTINGS, write=_write_broker),
        _BASE,
    )
}
"""All images, by what people call them."""
