"""The pods as they really are: no root, nothing to write to, no token where none is needed."""

import json
from typing import Any

import pytest

from localcluster.errors import CommandError
from localcluster.installing import NAMESPACE, RELEASE
from tests.e2e.systems import System

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300, func_only=True)]

COMPONENTS = ("operator", "gateway", "worker", "rabbitmq")
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - a path
OF_THE_PROFILE = f"--namespace={NAMESPACE}"


def _manifest(name: str, spec: dict[str, Any]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def _shell(system: System, pod: str, script: str) -> str:
    return system.kubectl("exec", pod, f"--namespace={NAMESPACE}", "--", "sh", "-c", script).strip()


@pytest.mark.parametrize("component", COMPONENTS)
def test_the_restricted_profile_admits_the_pods(system: System, component: str) -> None:
    labels = system.get("namespace", NAMESPACE)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    for pod in system.pods(component):
        spec = {key: value for key, value in pod["spec"].items() if key != "nodeName"}
        system.kubectl("create", OF_THE_PROFILE, "--dry-run=server", "--filename=-", stdin=_manifest("again", spec))
        spec["securityContext"] = {}
        with pytest.raises(CommandError, match='violates PodSecurity "restricted'):
            system.kubectl("create", OF_THE_PROFILE, "--dry-run=server", "--filename=-", stdin=_manifest("not", spec))


@pytest.mark.parametrize("component", COMPONENTS)
def test_pods_run_without_root_on_a_file_system_that_cannot_be_written(system: System, component: str) -> None:
    pods = system.pods(component)
    assert pods
    for pod in pods:
        name = pod["metadata"]["name"]
        assert int(_shell(system, name, "id -u")) > 0
        assert "Read-only file system" in _shell(system, name, "touch /probe /etc/probe 2>&1 || true")
        assert not _shell(system, name, "touch /tmp/probe && rm /tmp/probe")
        (container,) = pod["spec"]["containers"]
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert _shell(system, name, "grep CapEff /proc/self/status").split()[1] == "0" * 16
        assert container["resources"]["limits"]["memory"]


def test_only_those_who_talk_to_the_api_server_have_a_token(system: System) -> None:
    for component in COMPONENTS:
        for pod in system.pods(component):
            has = _shell(system, pod["metadata"]["name"], f"test -e {TOKEN} && echo yes || echo no")
            assert has == ("yes" if component in {"operator", "gateway"} else "no")


def test_workers_may_do_nothing_in_the_cluster(system: System) -> None:
    account = f"--as=system:serviceaccount:{NAMESPACE}:{RELEASE}-worker"
    said = system.kubectl("auth", "can-i", "--list", OF_THE_PROFILE, account, "--no-headers")
    resources = {line.split()[0] for line in said.splitlines()}
    # What every account may: ask about itself, and read what the server says about itself.
    assert {name for name in resources if not name.startswith("[/")} == {
        "selfsubjectreviews.authentication.k8s.io",
        "selfsubjectaccessreviews.authorization.k8s.io",
        "selfsubjectrulesreviews.authorization.k8s.io",
    }
