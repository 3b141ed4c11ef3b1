"""The life of a release with pods: tested, scraped, upgraded, bounded, uninstalled, installed again.

The release is the one of all tests with pods; every test leaves it as it found it. What can be seen without pods is in
tests/integration/test_chart_*.py.
"""

import secrets
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localcluster.binaries import KUBERNETES_VERSION
from localcluster.installing import CHART, NAMESPACE, RELEASE
from tests.e2e.systems import GATEWAYS, LEASE, OPERATORS, WORKERS, System
from tests.integration.chart_rendering import Manifest, Rendered, parse
from tests.support.jobs import manifest, phase

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600, func_only=True)]

QUICK = {"type": "calculate", "payload": {"operation": "add", "operands": [1, 2]}}


class Release:
    """The release, installed and upgraded with the values that it had: no image is built anew meanwhile."""

    def __init__(self, system: System, values: Path) -> None:
        self._system = system
        self._values = values
        values.write_text(system.helm("get", "values", RELEASE, "--output=json"))

    def install(self, *more: str) -> None:
        """Install or upgrade with the values of the beginning, and more."""
        as_it_was = ("upgrade", "--install", RELEASE, str(CHART), f"--values={self._values}")
        self._system.helm(*as_it_was, *more, "--wait", "--timeout=5m")
        self._system.until_whole()

    def uninstall(self) -> None:
        """Uninstall; returns when what the chart made is gone."""
        self._system.helm("uninstall", RELEASE, "--wait", "--timeout=3m")


@pytest.fixture(name="release")
def release_fixture(system: System, tmp_path: Path) -> Iterator[Release]:
    """The release, put back as it was."""
    system.until_whole()
    release = Release(system, tmp_path / "values.json")
    yield release
    release.install()


def _pod_ids(system: System, component: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in system.pods(component)}


def test_helm_test_runs_a_job_and_leaves_nothing(system: System) -> None:
    system.until_whole()
    said = system.helm("test", RELEASE, "--hide-notes")
    assert said.count("Phase:          Succeeded") == 4
    left = system.get("pods,serviceaccounts,roles,rolebindings,djobs")["items"]
    assert not [item for item in left if item["metadata"]["name"].startswith((f"{RELEASE}-test", "smoke-"))]


# Monitors against what really exists


@pytest.fixture(name="monitors", scope="module")
def monitors_fixture(system: System) -> Rendered:
    """What the release would have if its monitors were switched on: the cluster lacks their definitions."""
    system.until_whole()
    switches = ("--set=metrics.serviceMonitor.enabled=true", "--set=metrics.podMonitor.enabled=true")
    return Rendered(
        parse(system.helm("template", RELEASE, str(CHART), f"--kube-version={KUBERNETES_VERSION}", *switches))
    )


def _selector(monitor: Manifest) -> str:
    labels = monitor["spec"]["selector"]["matchLabels"]
    return "--selector=" + ",".join(f"{key}={value}" for key, value in labels.items())


def _scrape(address: str, port: int, path: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address}:{port}{path}", timeout=10) as answer:
        return str(answer.read().decode())


@pytest.mark.parametrize(
    ("component", "pods", "metric"),
    [
        ("operator", OPERATORS, "distriqueue_"),
        ("gateway", GATEWAYS, "distriqueue_gateway_"),
        ("rabbitmq", 1, "rabbitmq_"),
    ],
)
def test_a_service_monitor_finds_services_whose_endpoints_answer(
    system: System, monitors: Rendered, component: str, pods: int, metric: str
) -> None:
    monitor = monitors.one("ServiceMonitor", component)
    assert monitor["spec"]["namespaceSelector"]["matchNames"] == [NAMESPACE]
    (service,) = system.get("services", _selector(monitor))["items"]
    (endpoint,) = monitor["spec"]["endpoints"]
    slices = system.get("endpointslices", f"--selector=kubernetes.io/service-name={service['metadata']['name']}")
    targets = [
        (address, port["port"])
        for part in slices["items"]
        for port in part["ports"]
        for found in part["endpoints"]
        for address in found["addresses"]
        if port["name"] == endpoint["port"] and found["conditions"]["ready"]
    ]
    assert len(targets) == pods
    for address, port in targets:
        assert metric in _scrape(address, port, endpoint["path"])


def test_the_pod_monitor_finds_the_workers_and_they_answer(system: System, monitors: Rendered) -> None:
    monitor = monitors.one("PodMonitor")
    assert monitor["spec"]["namespaceSelector"]["matchNames"] == [NAMESPACE]
    pods = system.get("pods", _selector(monitor))["items"]
    assert len(pods) == WORKERS
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    for pod in pods:
        (port,) = (
            port["containerPort"]
            for container in pod["spec"]["containers"]
            for port in container["ports"]
            if port["name"] == endpoint["port"]
        )
        assert "distriqueue_" in _scrape(pod["status"]["podIP"], port, endpoint["path"])


# Upgrades


def test_an_upgrade_that_changes_no_pod_leaves_the_leader_alone(system: System, release: Release) -> None:
    before, pods = system.get("lease", LEASE), _pod_ids(system, "operator")
    release.install("--set=commonAnnotations.example\\.com/round=two")
    after = system.get("lease", LEASE)
    assert after["metadata"]["annotations"]["example.com/round"] == "two"
    assert after["spec"]["holderIdentity"] == before["spec"]["holderIdentity"]
    assert after["spec"]["leaseTransitions"] == before["spec"]["leaseTransitions"]
    assert _pod_ids(system, "operator") == pods


def test_an_upgrade_that_changes_all_pods_and_passwords_loses_no_job(
    system: System, release: Release, namespace: str
) -> None:
    before = {part: _pod_ids(system, part) for part in ("operator", "gateway", "worker", "rabbitmq")}
    names = [f"upgraded-{number}" for number in range(20)]
    system.apply(*(manifest(namespace, name, type="record.slow", payload={"seconds": 2}) for name in names))
    new = [
        f"--set-string=rabbitmq.auth.{user}Password={secrets.token_hex(8)}"
        for user in ("operator", "gateway", "worker")
    ]

    release.install("--set-string=commonLabels.round=three", *new)

    after = {part: _pod_ids(system, part) for part in before}
    assert all(before[part].isdisjoint(after[part]) for part in before)
    ended = system.until_over(names, namespace=namespace)
    assert {phase(job) for job in ended.values()} == {"Succeeded"}


def test_a_list_of_namespaces_bounds_what_is_run(system: System, release: Release, namespace: str) -> None:
    other = f"{namespace}-other"
    system.kubectl("create", "namespace", other)
    try:
        release.install(f"--set=watchNamespaces={{{namespace}}}")
        system.apply(manifest(other, "elsewhere", **QUICK), manifest(namespace, "watched", **QUICK))
        ended = system.until_over(["watched"], namespace=namespace)
        assert phase(ended["watched"]) == "Succeeded"
        assert phase(system.job("elsewhere", namespace=other)) == "Pending"
        assert not _ours(system.get("clusterroles", "--selector=app.kubernetes.io/component=operator"))

        release.install()
        ended = system.until_over(["elsewhere"], namespace=other)
        assert phase(ended["elsewhere"]) == "Succeeded"
    finally:
        system.kubectl("delete", "namespace", other, "--wait=false")


# The end, and after it


def test_uninstall_leaves_jobs_and_definitions_and_a_later_install_goes_on(
    system: System, release: Release, namespace: str
) -> None:
    system.apply(manifest(namespace, "finished", **QUICK))
    finished = system.until_over(["finished"], namespace=namespace)["finished"]
    assert system.get("dworkers")["items"]

    release.uninstall()

    namespaced = "all,configmaps,secrets,serviceaccounts,persistentvolumeclaims,leases,roles,rolebindings,dworkers,pdb"
    system.until(lambda: not _ours(system.get(namespaced)))
    wide = "clusterroles,clusterrolebindings,flowschemas,validatingadmissionpolicies,validatingadmissionpolicybindings"
    assert not _ours(system.get(wide))
    assert system.job("finished", namespace=namespace)["metadata"] == finished["metadata"]

    # Jobs can be made and deleted while nobody is there.
    system.apply(manifest(namespace, "waiting", **QUICK), manifest(namespace, "unwanted", **QUICK))
    system.kubectl("delete", "djob", "unwanted", f"--namespace={namespace}", "--timeout=10s")

    release.install()

    waiting = system.until_over(["waiting"], namespace=namespace)["waiting"]
    assert phase(waiting) == "Succeeded"
    assert waiting["status"]["epoch"] > finished["status"]["epoch"]


def _ours(listed: Any) -> set[str]:
    """Return the names of what the release, its workers or Helm made."""
    return {
        item["metadata"]["name"]
        for item in listed["items"]
        if RELEASE in item["metadata"]["name"] or item["kind"] == "DistributedWorker"
    }
