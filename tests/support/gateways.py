"""A gateway as a process, and callers with tokens and rights of their own: for every test of a door.

Guarantees: `start` returns when the gateway is ready; it ends with the `Programs` that started it. Tokens are those of
service accounts, made by the API server as `kubectl create token` does.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from distriqueue.api.names import GROUP
from distriqueue.kube.client import KubeClient
from distriqueue.kube.errors import AlreadyExists
from localcluster.ports import free_ports
from localcluster.programs import Program, Programs

JOB_VERBS: Final = ("get", "list", "watch", "create", "patch", "delete", "run")
"""Everything that one may do with jobs."""
TOKEN_SECONDS: Final = 3600

_RBAC: Final = "/apis/rbac.authorization.k8s.io/v1"


@dataclass(frozen=True)
class Gateway:
    """A gateway that runs.

    Attributes:
        program: The process; `program.port` has /metrics, /healthz and /readyz.
        url: Of REST, without a slash at its end.
        target: Of gRPC: host and port.
    """

    program: Program
    url: str
    target: str


def start(programs: Programs, name: str = "gateway", **environment: str) -> Gateway:
    """Start a gateway on loopback and return it when it is ready; from asyncio, in a thread.

    Args:
        programs: Know the API server and the broker.
        name: Of the process and of the replica.
        environment: Further variables, without the prefix ``DISTRIQUEUE_``. REST_PORT and GRPC_PORT start it where
            another one was.
    """
    rest, grpc = free_ports(2)
    variables = {
        "REST_HOST": "127.0.0.1",
        "REST_PORT": str(rest),
        "GRPC_HOST": "127.0.0.1",
        "GRPC_PORT": str(grpc),
        **environment,
    }
    program = programs.gateway(name, **variables)
    scheme = "https" if "TLS_CERT_FILE" in environment else "http"
    return Gateway(
        program=program,
        url=f"{scheme}://127.0.0.1:{variables['REST_PORT']}",
        target=f"127.0.0.1:{variables['GRPC_PORT']}",
    )


def restart(programs: Programs, gateway: Gateway, **environment: str) -> Gateway:
    """Start a gateway again, at the same ports, after it was stopped or killed."""
    ports = {"REST_PORT": gateway.url.rpartition(":")[2], "GRPC_PORT": gateway.target.rpartition(":")[2]}
    return start(programs, gateway.program.name, **{**ports, **environment})


def bearer(token: str) -> dict[str, str]:
    """The header that shows a token."""
    return {"Authorization": f"Bearer {token}"}


async def make_caller(
    kube: KubeClient,
    namespace: str,
    name: str,
    *,
    verbs: Iterable[str] = JOB_VERBS,
    namespaces: Iterable[str] | None = None,
    workers: bool = False,
    everywhere: bool = False,
) -> str:
    """Make a service account with rights on jobs, and return a token of it.

    Args:
        kube: An administrator's client.
        namespace: Of the account.
        name: Of the account; made once, and its rights are those of the first time.
        verbs: What it may do with jobs.
        namespaces: Where it may do so; by default in its own namespace.
        workers: Whether it may also read DistributedWorkers there.
        everywhere: Whether it may do all that in every namespace.
    """
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    await _make(kube, accounts, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})
    rules: list[Mapping[str, Any]] = [{"apiGroups": [GROUP], "resources": ["distributedjobs"], "verbs": [*verbs]}]
    if workers:
        rules.append({"apiGroups": [GROUP], "resources": ["distributedworkers"], "verbs": ["get", "list"]})
    places: Iterable[str | None] = [namespace] if namespaces is None else namespaces
    for place in [None] if everywhere else places:
        metadata = {"name": f"{namespace}-{name}"}
        where, kind = (_RBAC, "ClusterRole") if place is None else (f"{_RBAC}/namespaces/{place}", "Role")
        api = {"apiVersion": "rbac.authorization.k8s.io/v1"}
        await _make(kube, f"{where}/{kind.lower()}s", {**api, "kind": kind, "metadata": metadata, "rules": rules})
        binding = {
            "kind": f"{kind}Binding",
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, **metadata},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        }
        await _make(kube, f"{where}/{kind.lower()}bindings", {**api, **binding})
    return await make_token(kube, namespace, name)


async def make_token(kube: KubeClient, namespace: str, name: str) -> str:
    """Return a new token of a service account."""
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": TOKEN_SECONDS},
    }
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
    answer = await kube.request("POST", path, body=body)
    return str(answer["status"]["token"])


async def _make(kube: KubeClient, collection: str, body: Mapping[str, Any]) -> None:
    with suppress(AlreadyExists):
        await kube.request("POST", collection, body=dict(body))
