"""The parts of the full cluster: what each one runs, with which settings, and how to tell that it is healthy.

Asking a part for its command line writes its configuration and starts nothing. The order of :func:`parts_of` is the
order of starting; they stop in the reverse order. Health endpoints listen at the node's address, so the machine asks
them without entering the cluster's network.
"""

import http.client
import json
import ssl
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster import cgroups, networks
from localcluster.apis import ApiClient
from localcluster.arguments import Identity, apiserver_arguments, etcd_arguments
from localcluster.binaries import ensure
from localcluster.certificates import Authority, make_key_pair
from localcluster.containerds import Containerd
from localcluster.kubeconfigs import write_kubeconfig
from localcluster.networks import NODE_ADDRESS

NODE = "local"
"""The name of the only node."""

SERVER = f"https://{NODE_ADDRESS}:6443"
"""The URL of the API server."""

DOMAIN = "cluster.local"
"""The DNS domain of the cluster."""


@dataclass(frozen=True)
class Part:
    """A process of the cluster.

    Attributes:
        name: What it is called in ``status``, and what its pid file and its log are named after.
        arguments: Writes its configuration and returns its command line; builds the program when it is missing.
        healthy: Asks it whether it is healthy; False also when there is no answer.
    """

    name: str
    arguments: Callable[[], list[str]]
    healthy: Callable[[], bool]


@dataclass(frozen=True)
class Files:
    """Where the cluster's files lie.

    Attributes:
        directory: All that ``down`` deletes.
        store: What it keeps: containerd's images.
    """

    directory: Path
    store: Path

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.directory / "admin.kubeconfig"

    @property
    def volumes(self) -> Path:
        """The directory of the volumes' directories."""
        return self.directory / "volumes"

    def pid_file(self, part: str) -> Path:
        """Return the pid file of a part."""
        return self.directory / "pids" / f"{part}.pid"

    def log(self, part: str) -> Path:
        """Return the log of a part."""
        return self.directory / "logs" / f"{part}.log"

    def containerd(self) -> Containerd:
        """Return the cluster's containerd."""
        return Containerd(self.directory / "containerd", store=self.store)

    def authority(self) -> Authority:
        """Return the cluster's certificate authority; made when it is missing."""
        return Authority(self.directory / "pki")

    def api(self) -> ApiClient:
        """Return a client of the API server that may do everything."""
        authority = self.authority()
        return ApiClient(SERVER, authority=authority.certificate, client=_admin(authority))

    def write_kubeconfig(self) -> None:
        """Write the administrator's kubeconfig."""
        authority = self.authority()
        write_kubeconfig(self.kubeconfig, server=SERVER, authority=authority.certificate, client=_admin(authority))


def _admin(authority: Authority) -> tuple[Path, Path]:
    return authority.client("admin", user="admin", groups=["system:masters"])


def parts_of(files: Files) -> list[Part]:
    """Return the parts in the order of starting."""
    authority = files.directory / "pki" / "ca.crt"

    def part(name: str, arguments: Callable[[Files], list[str]], url: str, *, certificate: Path | None = None) -> Part:
        return Part(name, lambda: arguments(files), lambda: _answers(url, certificate))

    node = f"http://{NODE_ADDRESS}"
    secure = f"https://{NODE_ADDRESS}"
    return [
        part("etcd", _etcd, f"{node}:2381/readyz"),
        Part("kube-apiserver", lambda: _apiserver(files), lambda: files.api().is_ready()),
        part("kube-controller-manager", _controller_manager, f"{secure}:10257/healthz", certificate=authority),
        part("kube-scheduler", _scheduler, f"{secure}:10259/healthz", certificate=authority),
        Part("containerd", lambda: _containerd(files), files.containerd().is_ready),
        part("kubelet", _kubelet, f"{node}:10248/healthz"),
        part("kube-proxy", _proxy, f"{node}:10256/livez"),
        part("coredns", _dns, f"{node}:8181/ready"),
    ]


def _etcd(files: Files) -> list[str]:
    return etcd_arguments(
        ensure("etcd"),
        data=files.directory / "etcd",
        client_port=2379,
        peer_port=2380,
        extra=[f"--listen-metrics-urls=http://{NODE_ADDRESS}:2381"],
    )


def _apiserver(files: Files) -> list[str]:
    authority = files.authority()
    signing_key, verifying_key = files.directory / "pki" / "accounts.key", files.directory / "pki" / "accounts.pub"
    make_key_pair(signing_key, verifying_key)
    hosts = [NODE_ADDRESS, networks.KUBERNETES_SERVICE, "kubernetes", "kubernetes.default"]
    hosts += ["kubernetes.default.svc", f"kubernetes.default.svc.{DOMAIN}", NODE]
    return apiserver_arguments(
        ensure("kube-apiserver"),
        address=NODE_ADDRESS,
        port=6443,
        etcd_port=2379,
        services=networks.SERVICES,
        identity=Identity(
            authority=authority.certificate,
            server=authority.server("kube-apiserver", hosts=hosts),
            kubelet_client=authority.client("kubelet-client", user="kube-apiserver", groups=["system:masters"]),
            signing_key=signing_key,
            verifying_key=verifying_key,
        ),
        extra=[
            "--enable-admission-plugins=NodeRestriction",
            "--kubelet-preferred-address-types=InternalIP",  # nothing resolves the node's name
        ],
    )


def _containerd(files: Files) -> list[str]:
    files.containerd().configure()
    return files.containerd().arguments()


def _controller_manager(files: Files) -> list[str]:
    authority = files.authority()
    name = "kube-controller-manager"
    certificate, key = authority.server(name, hosts=[NODE_ADDRESS])
    return [
        str(ensure(name)),
        f"--kubeconfig={_kubeconfig(files, authority, name, user=f'system:{name}')}",
        f"--bind-address={NODE_ADDRESS}",
        f"--tls-cert-file={certificate}",
        f"--tls-private-key-file={key}",
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={files.directory / 'pki' / 'accounts.key'}",
        f"--root-ca-file={authority.certificate}",
        "--allocate-node-cidrs=false",
    ]


def _scheduler(files: Files) -> list[str]:
    authority = files.authority()
    name = "kube-scheduler"
    certificate, key = authority.server(name, hosts=[NODE_ADDRESS])
    return [
        str(ensure(name)),
        f"--kubeconfig={_kubeconfig(files, authority, name, user=f'system:{name}')}",
        f"--bind-address={NODE_ADDRESS}",
        f"--tls-cert-file={certificate}",
        f"--tls-private-key-file={key}",
        "--leader-elect=false",
    ]


def _kubelet(files: Files) -> list[str]:
    authority = files.authority()
    certificate, key = authority.server(
        "kubelet", hosts=[NODE_ADDRESS, NODE], user=f"system:node:{NODE}", groups=["system:nodes"]
    )
    kubeconfig = files.directory / "kubelet.kubeconfig"
    write_kubeconfig(kubeconfig, server=SERVER, authority=authority.certificate, client=(certificate, key))
    resolver = files.directory / "resolv.conf"
    resolver.write_text(f"nameserver {NODE_ADDRESS}\n")
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "healthzBindAddress": NODE_ADDRESS,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority.certificate)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(certificate),
        "tlsPrivateKeyFile": str(key),
        "containerRuntimeEndpoint": f"unix://{files.containerd().socket}",
        "clusterDNS": [NODE_ADDRESS],
        "clusterDomain": DOMAIN,
        "resolvConf": str(resolver),
        "podLogsDir": str(files.directory / "pod-logs"),
        "volumePluginDir": str(files.directory / "volume-plugins"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroups.GROUP}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": False,
        "oomScoreAdj": 0,
        # The machine is shared with whatever else people do on it: its fullness is not the pods' fault.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        # Images are loaded by hand, not pulled: one that was collected as garbage would not come back.
        "imageGCHighThresholdPercent": 100,
    }
    return [
        str(ensure("kubelet")),
        f"--config={_write_json(files.directory / 'kubelet.json', config)}",
        f"--kubeconfig={kubeconfig}",
        f"--root-dir={files.directory / 'kubelet'}",
        f"--hostname-override={NODE}",
        f"--node-ip={NODE_ADDRESS}",
    ]


def _proxy(files: Files) -> list[str]:
    authority = files.authority()
    name = "kube-proxy"
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": networks.PODS,
        "hostnameOverride": NODE,
        "healthzBindAddress": f"{NODE_ADDRESS}:10256",
        "metricsBindAddress": f"{NODE_ADDRESS}:10249",
        "oomScoreAdj": 0,
        "clientConnection": {"kubeconfig": str(_kubeconfig(files, authority, name, user=f"system:{name}"))},
        # The machine's table of connections is not ours to resize.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    return [str(ensure(name)), f"--config={_write_json(files.directory / 'kube-proxy.json', config)}"]


def _dns(files: Files) -> list[str]:
    authority = files.authority()
    corefile = files.directory / "Corefile"
    kubeconfig = _kubeconfig(files, authority, "coredns", user="system:coredns")
    corefile.write_text(_COREFILE.format(address=NODE_ADDRESS, domain=DOMAIN, kubeconfig=kubeconfig))
    return [str(ensure("coredns")), "-conf", str(corefile)]


# Names of the outside do not exist: no answer at all, or a refusal, would look to programs like a fault to retry.
_COREFILE = """\
{domain} in-addr.arpa {{
    bind {address}
    errors
    ready {address}:8181
    cache 5
    kubernetes {domain} in-addr.arpa {{
        kubeconfig {kubeconfig}
        pods verified
        ttl 5
    }}
}}
. {{
    bind {address}
    errors
    template ANY ANY . {{
        rcode NXDOMAIN
    }}
}}
"""


def _kubeconfig(files: Files, authority: Authority, name: str, *, user: str) -> Path:
    client = authority.client(f"{name}-client", user=user)
    path = files.directory / f"{name}.kubeconfig"
    return write_kubeconfig(path, server=SERVER, authority=authority.certificate, client=client)


def _write_json(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def _answers(url: str, authority: Path | None) -> bool:
    """Ask a health endpoint."""
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    try:
        if authority is not None:
            handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(authority))))
        with urllib.request.build_opener(*handlers).open(url, timeout=5):
            return True
    except (OSError, http.client.HTTPException):  # urllib's errors are OSErrors, a refusal too
        return False
