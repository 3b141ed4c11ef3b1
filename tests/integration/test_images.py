"""The images: what is in them, under which user it works, and that nothing of this machine got in."""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from localcluster.archives import wrap_rootfs
from localcluster.images import catalogue
from localcluster.images.catalogue import ensure_images
from localcluster.images.pip_settings import pip_mounts, pip_settings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

NOBODY = "65532:65532"


@dataclass(frozen=True)
class Unpacked:
    """An image as it would be on a node."""

    root: Path
    names: list[str]
    settings: dict[str, Any]

    def run(self, *command: str) -> str:
        """Run a command in the image, as the image's user, without any of our own environment."""
        user, env = self.settings["config"]["User"], self.settings["config"]["Env"]
        box = ["chroot", f"--userspec={user}", "--groups=", str(self.root), "env", "-i", *env, *command]
        done = subprocess.run(box, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()


def unpack(archive: Path, target: Path) -> Unpacked:
    with tarfile.open(archive) as outer:
        outer.extractall(target / "archive", filter="tar")
    (manifest,) = json.loads((target / "archive" / "manifest.json").read_text())
    settings = json.loads((target / "archive" / manifest["Config"]).read_text())
    root = target / "root"
    root.mkdir()
    layers = [target / "archive" / layer for layer in manifest["Layers"]]
    for layer, expected in zip(layers, settings["rootfs"]["diff_ids"], strict=True):
        with layer.open("rb") as content:
            assert expected == f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"
        subprocess.run(["tar", "-xf", layer, "-C", root, "--exclude=./dev/*", "--numeric-owner"], check=True)
    shutil.rmtree(target / "archive")
    return Unpacked(root=root, names=manifest["RepoTags"], settings=settings)


def unpacked(short: str, factory: pytest.TempPathFactory) -> Iterator[Unpacked]:
    (archive,) = ensure_images([short]).values()
    target = factory.mktemp(short)
    yield unpack(archive, target)
    shutil.rmtree(target)  # pytest keeps the last three otherwise, and these are large


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unpacked]:
    yield from unpacked("operator", tmp_path_factory)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unpacked]:
    yield from unpacked("worker", tmp_path_factory)


@pytest.fixture(scope="module")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unpacked]:
    yield from unpacked("rabbitmq", tmp_path_factory)


@pytest.fixture(params=["operator", "worker", "rabbitmq"])
def image(request: pytest.FixtureRequest) -> Unpacked:
    chosen: Unpacked = request.getfixturevalue(request.param)
    return chosen


def test_images_run_without_rights_and_carry_the_names_that_containerd_uses(image: Unpacked) -> None:
    config = image.settings["config"]
    assert [name.startswith("docker.io/distriqueue/") for name in image.names] == [True]
    assert config["User"].split(":")[0] in {"65532", "999"}
    assert config["Entrypoint"]
    assert config["Labels"]["org.opencontainers.image.title"].startswith("distriqueue-")


def test_nothing_of_the_machine_that_built_it_is_inside(image: Unpacked) -> None:
    pip = image.root / "etc/pip.conf"
    assert not pip.exists()
    assert not (image.root / "src").exists()
    assert not list((image.root / "var/lib/rabbitmq").glob(".erlang.cookie"))
    said = json.dumps(image.settings)
    values = [value for name, value in os.environ.items() if name.startswith("PIP_") and "/" in value]
    assert [value for value in values if value in said] == []


def test_the_operator_imports_what_it_runs_with_and_has_no_pip(operator: Unpacked) -> None:
    assert operator.settings["config"]["Entrypoint"][1:] == ["-m", "distriqueue.operator"]
    code = "import distriqueue, distriqueue_protocol, kopf, kubernetes.aio, aio_pika; print(distriqueue.__file__)"
    assert operator.run("python", "-c", code) == "/opt/distriqueue/distriqueue/__init__.py"
    assert operator.run("python", "-c", "import importlib.util as u; print(u.find_spec('pip'))") == "None"


def test_the_worker_has_pip_and_the_protocol_and_nothing_of_the_control_plane(worker: Unpacked) -> None:
    assert worker.settings["config"]["Entrypoint"][1:] == ["-m", "distriqueue_worker"]
    assert worker.settings["config"]["WorkingDir"] == "/app"
    assert (worker.root / "app").is_dir()
    code = "import distriqueue_worker, distriqueue_protocol, importlib.util as u; print(u.find_spec('distriqueue'))"
    assert worker.run("python", "-c", code) == "None"
    assert "distriqueue" in worker.run("pip", "list")


def test_all_modules_are_compiled_since_the_root_is_read_only(worker: Unpacked) -> None:
    code = """if True:
        import pathlib, sys, aio_pika, pydantic, distriqueue_worker
        modules = [m for m in list(sys.modules.values()) if getattr(m, "__cached__", None) and "/opt/" in m.__file__]
        assert len(modules) > 20, modules
        print([m.__name__ for m in modules if not pathlib.Path(m.__cached__).exists()])
    """
    assert worker.run("python", "-c", code) == "[]"


def test_what_is_up_to_date_is_not_built_and_a_changed_source_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = catalogue.IMAGES["worker"]
    for path in image.paths:
        source, target = catalogue.CHECKOUT / path, tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    monkeypatch.setattr(catalogue, "CHECKOUT", tmp_path)
    before = image.archive(tmp_path)
    compiled = tmp_path / "operator/src/__pycache__/x.pyc"
    compiled.parent.mkdir()
    compiled.touch()
    assert image.archive(tmp_path) == before, "compiled files are no input"
    (tmp_path / "worker-image/python/src/distriqueue_worker/extra.py").write_text('"""New."""\n')
    assert image.archive(tmp_path) != before


def test_a_wrapped_root_is_the_same_every_time(tmp_path: Path) -> None:
    root = tmp_path / "root.tar"
    with tarfile.open(root, "w") as tar:
        tar.add(__file__, "file")
    one = wrap_rootfs(root, name="docker.io/distriqueue/x:1", archive=tmp_path / "one.tar", config={"User": NOBODY})
    two = wrap_rootfs(root, name="docker.io/distriqueue/x:1", archive=tmp_path / "two.tar", config={"User": NOBODY})
    assert one.read_bytes() == two.read_bytes()
    unpacked = unpack(one, tmp_path)
    assert (unpacked.names, (unpacked.root / "file").is_file()) == (["docker.io/distriqueue/x:1"], True)


def test_pip_in_a_build_is_told_what_pip_on_the_machine_is_told(tmp_path: Path) -> None:
    config = tmp_path / "pip.conf"
    config.write_text("[global]\nindex-url = from-file\ntimeout = 7\n[install]\nextra-index-url =\n  one\n  two\n")
    settings = pip_settings(
        environment={"PIP_INDEX_URL": "from-environment", "PIP_CACHE_DIR": "/somewhere", "HOME": "/root"},
        files=[str(config), str(tmp_path / "absent")],
    )
    assert settings == {"index-url": "from-environment", "timeout": "7", "extra-index-url": "\none\ntwo"}


def test_the_settings_for_a_build_are_readable_by_us_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "one\ntwo")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    mounts = pip_mounts(tmp_path)
    written = tmp_path / "pip.conf"
    assert written.stat().st_mode & 0o077 == 0
    assert "extra-index-url = one\n  two\n" in written.read_text()
    assert {f"{written}:/etc/pip.conf:ro", f"{tmp_path}:{tmp_path}:ro"} <= set(mounts)
