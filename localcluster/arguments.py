"""The command lines of etcd and the API server: what both forms of the cluster have in common.

Plain functions from settings to arguments; nothing is run or written here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SERVICE_ACCOUNT_ISSUER = "https://kubernetes.default.svc.cluster.local"
"""The issuer of service account tokens, and the audience that the API server accepts."""


@dataclass(frozen=True)
class Identity:
    """The files that make an API server who it is.

    Attributes:
        authority: The certificate that clients' certificates must be signed by.
        server: Its own certificate and key.
        kubelet_client: What it shows to kubelets.
        signing_key: The private key that signs service account tokens.
        verifying_key: The public key that verifies them.
    """

    authority: Path
    server: tuple[Path, Path]
    kubelet_client: tuple[Path, Path]
    signing_key: Path
    verifying_key: Path


def etcd_arguments(
    program: Path, *, data: Path, client_port: int, peer_port: int, extra: Sequence[str] = ()
) -> list[str]:
    """Return the command line of a single etcd on loopback.

    Args:
        program: The program.
        data: Its data directory.
        client_port: The port for clients.
        peer_port: The port for peers; nobody calls it, and etcd cannot do without.
        extra: Further arguments; they win over ours.
    """
    client, peer = f"http://127.0.0.1:{client_port}", f"http://127.0.0.1:{peer_port}"
    return [
        str(program),
        "--name=local",
        f"--data-dir={data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=local={peer}",
        "--log-level=warn",
        *extra,
    ]


def apiserver_arguments(
    program: Path,
    *,
    address: str,
    port: int,
    etcd_port: int,
    services: str,
    identity: Identity,
    extra: Sequence[str] = (),
) -> list[str]:
    """Return the command line of an API server.

    Args:
        program: The program.
        address: The address to listen at.
        port: The port to listen at.
        etcd_port: etcd's port for clients, on loopback.
        services: The range of Service addresses.
        identity: Keys and certificates.
        extra: Further arguments; they win over ours.
    """
    return [
        str(program),
        f"--bind-address={address}",
        f"--advertise-address={address}",
        f"--secure-port={port}",
        f"--etcd-servers=http://127.0.0.1:{etcd_port}",
        f"--service-cluster-ip-range={services}",
        f"--tls-cert-file={identity.server[0]}",
        f"--tls-private-key-file={identity.server[1]}",
        f"--client-ca-file={identity.authority}",
        f"--kubelet-certificate-authority={identity.authority}",
        f"--kubelet-client-certificate={identity.kubelet_client[0]}",
        f"--kubelet-client-key={identity.kubelet_client[1]}",
        f"--service-account-issuer={SERVICE_ACCOUNT_ISSUER}",
        f"--service-account-key-file={identity.verifying_key}",
        f"--service-account-signing-key-file={identity.signing_key}",
        "--authorization-mode=Node,RBAC",
        "--allow-privileged=true",
        "--profiling=true",
        *extra,
    ]
