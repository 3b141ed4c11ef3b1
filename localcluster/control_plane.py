"""The light form: etcd and the API server as child processes on loopback, for integration tests and benches.

A real Kubernetes API (CRDs, CEL, RBAC, watches, server-side apply) without nodes: pods are stored and never run. It
answers a few seconds after the start. Ports are free ones, all files lie in one directory, and data is on disk with
fsync unless asked otherwise, so figures and faults mean something.

Guarantees: when :meth:`ControlPlane.start` returns, the API server is ready and the ``default`` namespace exists. The
processes end with :meth:`ControlPlane.stop`, and also when this process ends in any way, kill -9 included. Started
again on the same directory, it goes on with the same data, keys and, when they are still free, ports.

Without controllers nothing deletes the content of a deleted namespace, owner references are not followed, and the roles
``view``, ``edit`` and ``admin`` are empty (they are aggregated); name the controllers to run where a test needs that
(``namespace-controller``, ``garbage-collector-controller``, ``clusterrole-aggregation-controller``). Pods need no
service account here: that admission plugin is off, as nothing makes the accounts.

All methods block; from asyncio call them in a thread (``asyncio.to_thread``). Fails with
:class:`localcluster.errors.NotReadyError`, with the end of the log of the part that did not come up.
"""

import fcntl
import json
import shutil
import signal
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from localcluster.apis import ApiClient, ApiError
from localcluster.arguments import Identity, apiserver_arguments, etcd_arguments
from localcluster.binaries import ensure
from localcluster.certificates import Authority, make_key_pair
from localcluster.errors import LocalClusterError, NotReadyError
from localcluster.kubeconfigs import write_kubeconfig
from localcluster.packages import ensure_packages
from localcluster.ports import free_ports, is_free
from localcluster.processes import Children, Process
from localcluster.waiting import tail, wait_until_ready

STOP_SECONDS = 10.0
"""How long a part may take to stop before it is killed."""

START_TRIES = 3
"""How often a start is tried with other ports, when a port was taken between our look and the program's."""

SERVICES = "10.0.0.0/16"
"""The range of Service addresses. Nothing routes them: without kube-proxy a Service is only a resource."""


@dataclass(frozen=True)
class Tuning:
    """What may be changed about a light control plane.

    Attributes:
        fsync: False lets etcd skip fsync: faster on slow disks, and no measure of anything.
        etcd_arguments: Further arguments for etcd.
        apiserver_arguments: Further arguments for the API server, such as ``--audit-log-path=...``.
        apiserver_environment: Environment variables for the API server, such as ``GOGC``.
        controllers: Controllers to run, such as ``namespace-controller`` and ``garbage-collector-controller``.
    """

    fsync: bool = True
    etcd_arguments: Sequence[str] = ()
    apiserver_arguments: Sequence[str] = ()
    apiserver_environment: Mapping[str, str] | None = None
    controllers: Sequence[str] = ()


@dataclass(frozen=True)
class _Ports:
    etcd: int
    etcd_peer: int
    apiserver: int


class ControlPlane:
    """etcd and an API server in one directory.

    Use it as a context manager, which starts on entry and stops on exit, or call :meth:`start` and :meth:`stop`.

    Attributes:
        directory: Holds data, keys, logs and kubeconfigs. It stays when the control plane is stopped.
        kubeconfig: The kubeconfig of an administrator.
        server: The URL of the API server; it keeps its port over restarts of the API server.
    """

    def __init__(self, directory: Path, *, tuning: Tuning | None = None) -> None:
        """Name the directory; nothing is started yet."""
        self.directory = directory.resolve()
        self.kubeconfig = self.directory / "admin.kubeconfig"
        self.server = ""
        self._tuning = tuning or Tuning()
        self._running = ExitStack()
        self._children: Children | None = None
        self._ports: _Ports | None = None
        self._authority: Authority | None = None
        self._admin: ApiClient | None = None

    @classmethod
    def start(cls, directory: Path, *, tuning: Tuning | None = None) -> Self:
        """Start a control plane in a directory and return it when it is ready.

        Args:
            directory: Made if it is missing. With data of an earlier one in it, that is carried on.
            tuning: What to change about it.

        Raises:
            NotReadyError: A part did not become ready.
            LocalClusterError: Another control plane runs in this directory.
        """
        plane = cls(directory, tuning=tuning)
        plane._start()
        return plane

    def __enter__(self) -> Self:
        """Start, and return when ready."""
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def stop(self) -> None:
        """Stop all parts, the API server first; return when no process is left. Stopping twice is fine."""
        if self._children is not None:
            for name in ("kube-controller-manager", "kube-apiserver", "etcd"):
                self._children.stop(name, grace=STOP_SECONDS)
        self._running.close()
        self._children = None

    def log(self, name: str) -> Path:
        """Return the log file of a part: ``etcd``, ``kube-apiserver`` or ``kube-controller-manager``."""
        return self.directory / "logs" / f"{name}.log"

    def process(self, name: str) -> Process | None:
        """Return the process of a part if it runs, to signal it (SIGSTOP, SIGCONT) in a test of faults."""
        return self._parent().get(name)

    def kubeconfig_for(self, user: str, *, groups: Sequence[str] = ()) -> Path:
        """Return a kubeconfig of another user, who may do what RBAC grants and nothing else.

        Args:
            user: The user name, such as ``alice`` or ``system:serviceaccount:default:worker``.
            groups: The user's groups; ``system:authenticated`` is always one.
        """
        authority = self._known_authority()
        name = "user-" + urllib.parse.quote("+".join([user, *groups]), safe="+:@.-")
        return write_kubeconfig(
            self.directory / "kubeconfigs" / f"{name}.kubeconfig",
            server=self.server,
            authority=authority.certificate,
            client=authority.client(name, user=user, groups=groups),
        )

    def kill_apiserver(self) -> None:
        """Kill the API server (SIGKILL)."""
        self._parent().stop("kube-apiserver", grace=0)

    def stop_apiserver(self) -> None:
        """Stop the API server the gentle way."""
        self._parent().stop("kube-apiserver", grace=STOP_SECONDS)

    def start_apiserver(self, *, wait: bool = True) -> None:
        """Start the API server again at the same port, and wait until it is ready unless told not to."""
        self._launch_apiserver()
        if wait:
            self.wait_ready()

    def kill_etcd(self) -> None:
        """Kill etcd (SIGKILL)."""
        self._parent().stop("etcd", grace=0)

    def start_etcd(self, *, wait: bool = True) -> None:
        """Start etcd again on the same data, and wait until it is ready unless told not to."""
        self._launch_etcd()
        if wait:
            self._wait("etcd", self._etcd_is_ready)

    def copy_etcd(self, to: Path) -> None:
        """Copy etcd's data as a disk snapshot would: all of one moment, while it runs (it is frozen meanwhile)."""
        process = self._parent().get("etcd")
        if process is None:
            raise LocalClusterError("etcd does not run")
        process.signal(signal.SIGSTOP)
        try:
            shutil.copytree(self.directory / "etcd", to)
        finally:
            process.signal(signal.SIGCONT)

    def put_back_etcd(self, copy: Path) -> None:
        """Put etcd back to a copy: everything written since is forgotten. The API server is restarted with it."""
        self.kill_apiserver()
        self.kill_etcd()
        shutil.rmtree(self.directory / "etcd")
        shutil.copytree(copy, self.directory / "etcd")
        self.start_etcd()
        self.start_apiserver()

    def ask_etcd(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Ask etcd itself, by its JSON gateway: ``/v3/kv/compaction`` or ``/v3/maintenance/alarm``, for example.

        Raises:
            OSError: It refuses, or does not answer.
        """
        url = f"http://127.0.0.1:{self._chosen_ports().etcd}{path}"
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def wait_ready(self) -> None:
        """Wait until the API server is ready and has made the ``default`` namespace.

        Raises:
            NotReadyError: It died, or took longer than :data:`localcluster.waiting.READY_SECONDS`.
        """
        self._wait("kube-apiserver", self._apiserver_is_ready)

    def _start(self) -> None:
        if self._children is not None:
            raise LocalClusterError("the control plane runs already")
        ensure_packages("openssl", "util-linux")
        ensure("kube-apiserver")
        (self.directory / "logs").mkdir(parents=True, exist_ok=True)
        try:
            lock = self._running.enter_context((self.directory / "lock").open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise LocalClusterError(f"another control plane runs in {self.directory}") from error
            self._children = Children()
            self._running.callback(self._children.close)
            for tries_left in reversed(range(START_TRIES)):
                self._choose_ports()
                try:
                    self._launch()
                    break
                except NotReadyError:
                    if tries_left == 0 or not self._a_port_was_taken():
                        raise
                    for name in ("kube-apiserver", "etcd"):
                        self._children.stop(name, grace=0)
                    (self.directory / "ports.json").unlink()
        except BaseException:
            self.stop()
            raise

    def _launch(self) -> None:
        """Start all parts and wait for them; keys and kubeconfigs come first."""
        authority = self._authority = Authority(self.directory / "pki")
        make_key_pair(*self._service_account_keys())
        masters = authority.client("admin", user="admin", groups=["system:masters"])
        write_kubeconfig(self.kubeconfig, server=self.server, authority=authority.certificate, client=masters)
        self._admin = ApiClient(self.server, authority=authority.certificate, client=masters)
        self._launch_etcd()
        self._launch_apiserver()
        self._wait("etcd", self._etcd_is_ready)
        self.wait_ready()
        if self._tuning.controllers:
            self._launch_controllers()

    def _launch_etcd(self) -> None:
        ports = self._chosen_ports()
        argv = etcd_arguments(
            ensure("etcd"),
            data=self.directory / "etcd",
            client_port=ports.etcd,
            peer_port=ports.etcd_peer,
            extra=[*([] if self._tuning.fsync else ["--unsafe-no-fsync"]), *self._tuning.etcd_arguments],
        )
        self._parent().start("etcd", argv, log=self.log("etcd"))

    def _launch_apiserver(self) -> None:
        authority = self._known_authority()
        ports = self._chosen_ports()
        signing_key, verifying_key = self._service_account_keys()
        identity = Identity(
            authority=authority.certificate,
            server=authority.server("kube-apiserver", hosts=["127.0.0.1", "localhost"]),
            kubelet_client=authority.client("kubelet-client", user="kube-apiserver", groups=["system:masters"]),
            signing_key=signing_key,
            verifying_key=verifying_key,
        )
        argv = apiserver_arguments(
            ensure("kube-apiserver"),
            address="127.0.0.1",
            port=ports.apiserver,
            etcd_port=ports.etcd,
            services=SERVICES,
            identity=identity,
            extra=[
                "--endpoint-reconciler-type=none",  # loopback is no address for Endpoints
                "--disable-admission-plugins=ServiceAccount",
                *self._tuning.apiserver_arguments,
            ],
        )
        self._parent().start(
            "kube-apiserver", argv, log=self.log("kube-apiserver"), env=self._tuning.apiserver_environment
        )

    def _launch_controllers(self) -> None:
        # The role of that name lets it make a service account for each controller and no more; here one user does all.
        kubeconfig = self.kubeconfig_for("system:kube-controller-manager", groups=["system:masters"])
        argv = [
            str(ensure("kube-controller-manager")),
            f"--kubeconfig={kubeconfig}",
            f"--controllers={','.join(self._tuning.controllers)}",
            "--leader-elect=false",
            "--secure-port=0",
        ]
        self._parent().start("kube-controller-manager", argv, log=self.log("kube-controller-manager"))

    def _service_account_keys(self) -> tuple[Path, Path]:
        return self.directory / "pki" / "service-accounts.key", self.directory / "pki" / "service-accounts.pub"

    def _choose_ports(self) -> None:
        """Take the ports of an earlier start in this directory when they are free, or other free ones."""
        file = self.directory / "ports.json"
        try:
            ports = _Ports(**json.loads(file.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            ports = None
        if ports is None or not all(is_free(port) for port in (ports.etcd, ports.etcd_peer, ports.apiserver)):
            ports = _Ports(*free_ports(3))
            file.write_text(
                json.dumps({"etcd": ports.etcd, "etcd_peer": ports.etcd_peer, "apiserver": ports.apiserver})
            )
        self._ports = ports
        self.server = f"https://127.0.0.1:{ports.apiserver}"

    def _a_port_was_taken(self) -> bool:
        logs = (self.log(name) for name in ("etcd", "kube-apiserver"))
        return any("address already in use" in tail(log) for log in logs)

    def _chosen_ports(self) -> _Ports:
        if self._ports is None:
            raise LocalClusterError("the control plane was not started")
        return self._ports

    def _known_authority(self) -> Authority:
        if self._authority is None:
            raise LocalClusterError("the control plane was not started")
        return self._authority

    def _parent(self) -> Children:
        if self._children is None:
            raise LocalClusterError("the control plane is not running")
        return self._children

    def _etcd_is_ready(self) -> bool:
        url = f"http://127.0.0.1:{self._chosen_ports().etcd}/readyz"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(url, timeout=5):
                return True
        except OSError:  # urllib's errors are OSErrors, a refusal (503) too
            return False

    def _apiserver_is_ready(self) -> bool:
        if self._admin is None or not self._admin.is_ready():
            return False
        try:
            self._admin.get("/api/v1/namespaces/default")
        except ApiError:
            return False
        return True

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        wait_until_ready(name, ready=ready, alive=lambda: self._parent().get(name) is not None, log=self.log(name))
