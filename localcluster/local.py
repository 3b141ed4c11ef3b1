"""The full cluster of this machine: up, down and status.

Guarantees: ``up`` is idempotent. It leaves alone what runs, starts what does not, and first cleans what a crash or a
reboot left. It returns when the node is ready and DNS answers. ``down`` ends everything, pods first, in the reverse
order of starting, and leaves no process, mount, control group, interface or route; loaded images stay unless purged.
Two calls at the same time wait for each other.

A reboot or a crash loses no API data: etcd's lies on disk until ``down``. Fails with
:class:`localcluster.errors.LocalClusterError`; what has started then keeps running, for a look at its logs.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from localcluster import cgroups, mounts, networks, provisions
from localcluster.apis import ApiError
from localcluster.clusters import PartStatus
from localcluster.commands import say
from localcluster.errors import LocalClusterError
from localcluster.packages import ensure_packages
from localcluster.parts import NODE, Files, Part, parts_of
from localcluster.paths import state_directory
from localcluster.processes import Process, read_pid_file, start_daemon
from localcluster.waiting import wait_until_ready

PACKAGES = (
    "ca-certificates",
    "containerd",
    "containernetworking-plugins",
    "iproute2",
    "iptables",
    "mount",
    "openssl",
    "runc",
    "util-linux",
)
"""The Debian packages that the cluster needs. What its builds need is installed when something is built."""

_STOP_SECONDS = 15.0
_RUN = Path("/run/distriqueue")
_OWNER = _RUN / "owner"


class LocalCluster:
    """The cluster of this machine. There is one for each state directory, and one network: so one at a time."""

    def __init__(self, state: Path | None = None) -> None:
        """Name the state directory (``$DISTRIQUEUE_STATE`` by default); nothing is made yet."""
        self._state = state or state_directory()
        self._files = Files(directory=self._state / "cluster", store=self._state / "images")
        self._parts = parts_of(self._files)

    def up(self) -> None:
        """Have the cluster run and be ready."""
        started = time.monotonic()
        with self._locked():
            ensure_packages(*PACKAGES)
            if not self.is_running():
                self._clean()
            networks.create()
            cgroups.create()
            self._files.write_kubeconfig()
            for part in self._parts:
                if part.name == "coredns":  # it may list nothing before this, and would try again only much later
                    self._wait_for("kube-apiserver", "kube-controller-manager")
                    provisions.apply(self._files.api(), volumes=self._files.volumes)
                self._start(part)
                if part.name == "containerd":  # the kubelet gives up at once when it is not there
                    self._wait_for("containerd")
                    self._files.containerd().ensure_pause_image()
            self._wait_for(*(part.name for part in self._parts))
            self._wait_for("kubelet", ready=self._node_is_ready)
        say(f"the cluster is ready ({time.monotonic() - started:.0f} s)")

    def down(self, *, purge: bool) -> None:
        """Have the cluster gone, with all its API data and volumes.

        Args:
            purge: Delete the loaded images, too.
        """
        with self._locked():
            # Who would start a pod again ends before the pods, and containerd after them.
            for part in reversed(self._parts):
                if part.name == "containerd":
                    self._files.containerd().remove_containers()
                self._stop(part)
            self._clean()
            shutil.rmtree(self._files.directory, ignore_errors=True)
            _OWNER.unlink()
            if purge:
                shutil.rmtree(self._files.store, ignore_errors=True)
        say("the cluster is gone")

    def status(self) -> list[PartStatus]:
        """Return how every part is, and the node."""
        found = []
        for part in self._parts:
            process = self._process(part)
            healthy = process is not None and part.healthy()
            found.append(PartStatus(part.name, process.pid if process else None, healthy, str(self._log(part))))
        ready = any(part.name == "kube-apiserver" and part.healthy for part in found) and self._node_is_ready()
        return [*found, PartStatus("node", None, ready, NODE)]

    def load_image(self, archive: Path, name: str) -> None:
        """Load an image from a docker archive into the cluster's containerd."""
        containerd = self._files.containerd()
        if not containerd.is_ready():
            raise LocalClusterError("containerd does not run; start the cluster first: python3 -m localcluster up")
        containerd.load_image(archive, name)

    def kubeconfig(self) -> Path:
        """Return the path of the administrator's kubeconfig."""
        if not self._files.kubeconfig.exists():
            raise LocalClusterError("there is no cluster; start it first: python3 -m localcluster up")
        return self._files.kubeconfig

    def _process(self, part: Part) -> Process | None:
        return read_pid_file(self._files.pid_file(part.name))

    def _log(self, part: Part) -> Path:
        return self._files.log(part.name)

    def is_running(self) -> bool:
        """Return whether any part runs."""
        return any(self._process(part) for part in self._parts)

    def _start(self, part: Part) -> None:
        if self._process(part) is not None:
            return
        say(f"starting {part.name}")
        start_daemon(
            networks.inside(part.arguments()),
            pid_file=self._files.pid_file(part.name),
            log=self._log(part),
            # The cluster's own traffic goes through no proxy that the machine may have set.
            env={"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "NO_PROXY": "*", "no_proxy": "*"},
        )

    def _wait_for(self, *names: str, ready: Callable[[], bool] | None = None) -> None:
        for part in self._parts:
            if part.name in names:
                wait_until_ready(
                    part.name,
                    ready=ready or part.healthy,
                    alive=partial(self._is_alive, part),
                    log=self._log(part),
                )

    def _is_alive(self, part: Part) -> bool:
        return self._process(part) is not None

    def _stop(self, part: Part) -> None:
        process = self._process(part)
        if process is not None:
            say(f"stopping {part.name}")
            process.stop(grace=_STOP_SECONDS)
        self._files.pid_file(part.name).unlink(missing_ok=True)

    def _clean(self) -> None:
        """Clean what is left when no part runs: pods' processes, mounts, network, control groups."""
        containerd = self._files.containerd()
        containerd.remove_containers()
        mounts.unmount_below(self._files.directory)
        networks.delete()
        cgroups.delete()
        containerd.delete_leftovers()

    def _node_is_ready(self) -> bool:
        try:
            conditions = self._files.api().get(f"/api/v1/nodes/{NODE}")["status"].get("conditions", [])
        except ApiError:
            return False
        return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep every other ``up`` and ``down`` of this machine away.

        Raises:
            LocalClusterError: We are not root, or a cluster with another state directory runs: it has the network.
        """
        if os.geteuid() != 0:
            raise LocalClusterError("network namespaces and containers need root: run this as root")
        _RUN.mkdir(exist_ok=True)
        with (_RUN / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("another up or down is at work; waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            owner = _OWNER.read_text() if _OWNER.exists() else str(self._state)
            if owner != str(self._state) and LocalCluster(Path(owner)).is_running():
                raise LocalClusterError(
                    f"a cluster with another state directory runs on this machine, and there can be one. Stop it with\n"
                    f"  DISTRIQUEUE_STATE={owner} python3 -m localcluster down"
                )
            _OWNER.write_text(str(self._state))
            yield
