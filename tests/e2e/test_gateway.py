"""The gateway with pods: reached through a tunnel with a token as people make them; no rights beyond its work."""

import json
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import pytest

from localcluster.binaries import ensure
from localcluster.installing import NAMESPACE, RELEASE
from localcluster.ports import free_port
from tests.e2e.systems import GATEWAYS, LABELS, System

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300, func_only=True)]

SERVICE = f"{RELEASE}-gateway"


@contextmanager
def tunnel(system: System, target: str, port: int) -> Iterator[int]:
    """`kubectl port-forward`; the local port."""
    local = free_port()
    command = [str(ensure("kubectl")), f"--kubeconfig={system.kubeconfig}", f"--namespace={NAMESPACE}"]
    process = subprocess.Popen([*command, "port-forward", target, f"{local}:{port}"], stdout=subprocess.DEVNULL)

    def listens() -> bool:
        assert process.poll() is None, "kubectl port-forward has ended"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", local)) == 0

    try:
        system.until(listens)
        yield local
    finally:
        process.terminate()
        process.wait(timeout=10)


def ask(port: int, method: str, path: str, *, token: str | None, body: Any = None) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", **({} if token is None else {"Authorization": f"Bearer {token}"})},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.fixture(name="token")
def token_fixture(system: System, namespace: str) -> str:
    """As a person makes one, with Kubernetes' own role `edit` in a namespace."""
    metadata = {"name": "caller", "namespace": namespace, "labels": LABELS}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "ServiceAccount", "name": "caller", "namespace": namespace}],
    }
    system.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}, binding)
    return system.kubectl("create", "token", "caller", f"--namespace={namespace}").strip()


def test_every_replica_is_ready_and_serves(system: System, token: str, namespace: str) -> None:
    system.until_whole()
    pods = [pod["metadata"]["name"] for pod in system.pods("gateway")]
    assert len(pods) == GATEWAYS
    for pod in pods:
        with tunnel(system, f"pod/{pod}", 8000) as port:
            assert ask(port, "GET", f"/api/jobs?namespace={namespace}", token=token)[0] == HTTPStatus.OK
            assert ask(port, "GET", f"/api/jobs?namespace={namespace}", token=None)[0] == HTTPStatus.UNAUTHORIZED
            assert ask(port, "GET", "/api/jobs?namespace=kube-system", token=token)[0] == HTTPStatus.FORBIDDEN


def test_a_job_is_submitted_by_the_service_and_its_result_read(system: System, token: str, namespace: str) -> None:
    system.until_whole()
    with tunnel(system, f"service/{SERVICE}", 80) as port:
        submission = {"namespace": namespace, "type": "calculate", "payload": {"operation": "add", "operands": [2, 3]}}
        status, job = ask(port, "POST", "/api/jobs", token=token, body=submission)
        assert status == HTTPStatus.CREATED, job
        done = system.until(
            lambda: ask(port, "GET", f"/api/jobs/{job['id']}", token=token)[1], lambda seen: seen.get("completionTime")
        )
    assert done["status"] == "completed", done
    resource = system.job(job["name"], namespace=namespace)
    assert resource["metadata"]["annotations"]["distriqueue.io/submitted-by"] == (
        f"system:serviceaccount:{namespace}:caller"
    )


def test_the_gateways_account_reads_nothing_else(system: System) -> None:
    account = f"--as=system:serviceaccount:{NAMESPACE}:{SERVICE}"
    said = system.kubectl("auth", "can-i", "--list", f"--namespace={NAMESPACE}", account, "--no-headers")
    resources = {line.split()[0] for line in said.splitlines()}
    assert {name for name in resources if not name.startswith("[/") and ".k8s.io" not in name} == {
        "distributedjobs.distriqueue.io",
        "distributedworkers.distriqueue.io",
    }
