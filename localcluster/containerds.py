"""containerd, which runs the pods' containers: its configuration, its images, and ending what it started.

Everything of it lies below one directory, image store included; the machine's own containerd, if one runs, is neither
used nor disturbed. It runs inside the cluster's network namespace, so that the pods' network is made there.
"""

import io
import json
import signal
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from localcluster import cgroups
from localcluster.archives import wrap_rootfs
from localcluster.binaries import ensure
from localcluster.commands import run, succeeds
from localcluster.errors import LocalClusterError
from localcluster.networks import PODS
from localcluster.processes import Process, stop_all, wait_gone

PAUSE_IMAGE = "distriqueue.local/pause:1"
"""The image that holds every pod's namespaces."""

CNI_PLUGINS = Path("/usr/lib/cni")
"""Where Debian puts the network plugins."""

_CNI_NETWORK = "distriqueue"
_CNI_RESULTS = Path("/var/lib/cni/results")
_KUBERNETES = "k8s.io"
_STOP_SECONDS = 5.0


class Containerd:
    """The files and commands of one containerd.

    Attributes:
        directory: Everything but the image store; it can be deleted when nothing runs.
        store: Images and their unpacked layers.
        socket: Where it listens.
    """

    def __init__(self, directory: Path, *, store: Path) -> None:
        """Name the directories; nothing is made yet."""
        self.directory = directory
        self.store = store
        self.socket = directory / "containerd.sock"
        self._config = directory / "config.toml"

    def arguments(self) -> list[str]:
        """Return its command line."""
        return ["containerd", "--config", str(self._config)]

    def configure(self) -> None:
        """Write the configuration of containerd and of the pods' network."""
        networks = self.directory / "networks"
        networks.mkdir(parents=True, exist_ok=True)
        self.store.mkdir(parents=True, exist_ok=True)
        # A veth pair for each pod, routed (ptp): with a bridge, replies of a Service's pod to another pod of the same
        # bridge would bypass the address translation wherever the kernel lacks br_netfilter.
        leases = {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]}
        leases["dataDir"] = str(self.directory / "leases")
        plugins = [{"type": "ptp", "ipam": leases}, {"type": "portmap", "capabilities": {"portMappings": True}}]
        network = {"cniVersion": "0.4.0", "name": _CNI_NETWORK, "plugins": plugins}
        (networks / "10-pods.conflist").write_text(json.dumps(network, indent=2))
        settings = _CONFIG.format(
            directory=self.directory, store=self.store, networks=networks, plugins=CNI_PLUGINS, pause=PAUSE_IMAGE
        )
        self._config.write_text(settings)

    def is_ready(self) -> bool:
        """Return whether it answers."""
        return self.socket.exists() and succeeds(self._ctr("version"), timeout=10)

    def load_image(self, archive: Path, name: str) -> None:
        """Load an image from a docker archive, so that pods can use it by a name.

        Args:
            archive: What ``docker save`` or ``buildah push docker-archive:`` wrote.
            name: The image's name in pods' manifests. The archive may know it by another one.

        Raises:
            LocalClusterError: The archive has not exactly one image, or is none.
        """
        loaded = _names_in(archive)
        wanted = full_name(name)
        if len(loaded) > 1 and wanted not in loaded:
            raise LocalClusterError(f"{archive} has several images, none of them {wanted}: {', '.join(loaded)}")
        importing = self._ctr("images", "import", str(archive))
        # Where an image is replaced, containerd may collect a layer of the old one while the new one is built upon it.
        if not succeeds(importing, timeout=600):
            run(importing, timeout=600)
        if wanted not in loaded:
            run(self._ctr("images", "tag", "--force", loaded[0], wanted))

    def ensure_pause_image(self) -> None:
        """Make the pause image and load it, unless it is there."""
        if PAUSE_IMAGE in run(self._ctr("images", "list", "--quiet")).split():
            return
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch) / "root.tar"
            with tarfile.open(root, "w") as tar:
                tar.add(ensure("pause"), "pause")
            config = {"Entrypoint": ["/pause"], "User": "65535:65535"}
            archive = wrap_rootfs(root, name=PAUSE_IMAGE, archive=Path(scratch) / "pause.tar", config=config)
            self.load_image(archive, PAUSE_IMAGE)

    def remove_containers(self) -> None:
        """End every container and forget it. The kubelet must have ended, or it would start them again."""
        _end_pods()
        if self.is_ready():
            for kind in ("tasks", "containers"):
                if left := run(self._ctr(kind, "list", "--quiet")).split():
                    force = ["--force"] if kind == "tasks" else []
                    # One that ends by itself meanwhile makes this fail for it alone; the shims are ended next anyway.
                    succeeds(self._ctr(kind, "remove", *force, *left), timeout=120)
        stop_all(list(self._shims()), grace=_STOP_SECONDS)

    def delete_leftovers(self) -> None:
        """Delete what lies outside our directory: results of the pods' network plugins."""
        for result in list(_CNI_RESULTS.glob(f"{_CNI_NETWORK}-*")):
            result.unlink(missing_ok=True)
            pod = result.name.removeprefix(f"{_CNI_NETWORK}-").rpartition("-")[0]
            (_CNI_RESULTS / f"cni-loopback-{pod}-lo").unlink(missing_ok=True)

    def _shims(self) -> Iterator[Process]:
        """Yield the processes between containerd and each pod: those that were told our socket's address."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                argv = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            ours = "-address" in argv and argv[argv.index("-address") + 1] == str(self.socket)
            if ours and Path(argv[0]).name.startswith("containerd-shim"):
                process = Process.of(int(entry.name))
                if process is not None:
                    yield process

    def _ctr(self, *arguments: str) -> list[str]:
        return ["ctr", "--address", str(self.socket), "--namespace", _KUBERNETES, *arguments]


def _end_pods() -> None:
    """End what runs in pods, the gentle way first; process 1 of a pod may ignore that, and is killed then."""
    for number, seconds in ((signal.SIGTERM, _STOP_SECONDS), (signal.SIGKILL, 20.0)):
        left = cgroups.processes()
        for process in left:
            process.signal(number)
        wait_gone(left, timeout=seconds)
    if cgroups.processes():
        raise LocalClusterError("processes of pods do not end though they were killed")


def full_name(name: str) -> str:
    """Return an image name as containerd stores it: with registry, folder and tag written out."""
    if "@" not in name and ":" not in name.rpartition("/")[2]:
        name += ":latest"
    first, slash, _ = name.partition("/")
    if not slash:
        return f"docker.io/library/{name}"
    if "." in first or ":" in first or first == "localhost":
        return name
    return f"docker.io/{name}"


def _names_in(archive: Path) -> list[str]:
    """Return the full names of the images in a docker archive."""
    try:
        with tarfile.open(archive) as tar:
            # A folder of that name has no content; an empty one is no JSON either.
            manifest = tar.extractfile("manifest.json") or io.BytesIO()
            images = json.load(manifest)
    except (OSError, tarfile.TarError, KeyError, ValueError) as error:
        raise LocalClusterError(f"{archive} is no docker archive: {error}") from error
    names = [full_name(name) for image in images for name in image.get("RepoTags") or []]
    if not names:
        raise LocalClusterError(f"{archive} names no image; write it with a name (docker-archive:FILE:NAME)")
    return names


# restrict_oom_score_adj: without CAP_SYS_RESOURCE nobody may lower that score, and every pod would fail.
_CONFIG = """\
version = 2
root = "{store}"
state = "{directory}/state"
oom_score = 0
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = "{directory}/containerd.sock"

[ttrpc]
address = "{directory}/containerd.sock.ttrpc"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{networks}"

[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "runc"
snapshotter = "overlayfs"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"""
