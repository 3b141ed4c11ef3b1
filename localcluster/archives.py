"""Docker archives made from a root file system, without any container tool.

What comes out is the format of ``docker save``: containerd, buildah and docker import it. The same input gives the same
bytes (no times, no random ids), so the image's id is the hash of its content.

Guarantees: the archive appears under its name in one step. Fails with OSError when a file cannot be read or written.
"""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

EPOCH = "1970-01-01T00:00:00Z"
"""When an image was made, by its own account: the real time would make every build a different image."""

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_BLOCK = 1 << 20


def wrap_rootfs(
    rootfs: Path, *, name: str, archive: Path, config: Mapping[str, object] | None = None, more: Sequence[Path] = ()
) -> Path:
    """Wrap a root file system as an image, with one layer unless there are more.

    Args:
        rootfs: The file system, as an uncompressed tar.
        name: Repository and tag, written out as containerd knows it: ``docker.io/distriqueue/rabbitmq:4.0-local``.
        archive: The file to write.
        config: The run-time part of the OCI image config: ``User``, ``Env``, ``Entrypoint``, ``Cmd``, ...
        more: Further layers on top of it, uncompressed tars too.

    Returns:
        The archive.
    """
    layers = {_sha256(layer): layer for layer in (rootfs, *more)}
    settings = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "created": EPOCH,
        "config": dict(config or {}),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in layers]},
        "history": [{"created": EPOCH, "created_by": "localcluster"} for _ in layers],
    }
    settings_json = json.dumps(settings, sort_keys=True).encode()
    settings_name = f"{hashlib.sha256(settings_json).hexdigest()}.json"
    manifest = [{"Config": settings_name, "RepoTags": [name], "Layers": [f"{digest}/layer.tar" for digest in layers]}]
    archive.parent.mkdir(parents=True, exist_ok=True)
    unfinished = archive.with_name(archive.name + ".unfinished")
    with tarfile.open(unfinished, "w", format=tarfile.USTAR_FORMAT) as out:
        for digest, layer in layers.items():
            member = tarfile.TarInfo(f"{digest}/layer.tar")
            member.size = layer.stat().st_size
            with layer.open("rb") as content:
                out.addfile(member, content)
        for part, data in ((settings_name, settings_json), ("manifest.json", json.dumps(manifest).encode())):
            member = tarfile.TarInfo(part)
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
    unfinished.rename(archive)
    return archive


def _sha256(file: Path) -> str:
    total = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(_BLOCK):
            total.update(block)
    return total.hexdigest()
