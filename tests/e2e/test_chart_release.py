"""A release with pods: installed under the restricted profile, tested, scraped, upgraded, uninstalled, installed again.

These tests use the one release of the local cluster and leave it installed. They run in the order of the file: the
first needs what is there, the last begins anew.
"""

import json
import secrets
import tempfile
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from localcluster.binaries import KUBERNETES_VERSION
from localcluster.clusters import choose_cluster
from localcluster.installing import CHART, NAMESPACE, RELEASE, helm, install
from localcluster.resources import kubectl
from tests.integration.chart_rendering import Manifest, Rendered, eventually, parse

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

JOBS = "chart-jobs"
LEASE = f"{RELEASE}-shard-0"


class Release:
    """The installed release."""

    def __init__(self) -> None:
        self.cluster = choose_cluster()
        self.cluster.up()
        self.kubectl("create", "namespace", NAMESPACE, ignore="AlreadyExists")
        restricted = "pod-security.kubernetes.io/enforce=restricted"
        self.kubectl("label", "namespace", NAMESPACE, restricted, "--overwrite")
        install(self.cluster)
        self._values = self.helm("get", "values", RELEASE, "--output=json")

    def helm(self, *arguments: str) -> str:
        return helm(self.cluster.kubeconfig(), *arguments, f"--namespace={NAMESPACE}")

    def install(self, *more: str) -> None:
        """Install or upgrade with the values of the first time and more: no image is built anew meanwhile."""
        with tempfile.NamedTemporaryFile("w", suffix=".json") as values:
            values.write(self._values)
            values.flush()
            self.helm(
                *("upgrade", "--install", RELEASE, str(CHART), f"--values={values.name}", "--wait", "--timeout=5m"),
                *more,
            )

    def uninstall(self) -> None:
        self.helm("uninstall", RELEASE, "--wait", "--timeout=3m")

    def kubectl(self, *arguments: str, stdin: str | None = None, ignore: str = "") -> str:
        try:
            return kubectl(self.cluster.kubeconfig(), *arguments, stdin=stdin)
        except Exception as error:
            if ignore and ignore in str(error):
                return ""
            raise

    def get(self, *arguments: str, namespace: str = NAMESPACE) -> Any:
        return json.loads(self.kubectl("get", *arguments, f"--namespace={namespace}", "--output=json"))

    def lease(self) -> Manifest:
        found: Manifest = self.get("lease", LEASE)
        return found

    def pod_ids(self, component: str) -> set[str]:
        items = self.get("pods", f"--selector=app.kubernetes.io/component={component}")["items"]
        return {item["metadata"]["uid"] for item in items if "deletionTimestamp" not in item["metadata"]}

    def submit(self, name: str, *, namespace: str = JOBS, **spec: Any) -> None:
        metadata = {"name": name, "namespace": namespace}
        spec = {"type": "calculate", "payload": {"operation": "add", "operands": [1, 2]}, **spec}
        job = {"apiVersion": "distriqueue.io/v1alpha1", "kind": "DistributedJob", "metadata": metadata, "spec": spec}
        self.kubectl("create", "--filename=-", stdin=json.dumps(job))

    def wait_complete(self, *names: str, namespace: str = JOBS) -> None:
        jobs = [f"djob/{name}" for name in names]
        self.kubectl("wait", "--for=condition=Complete", *jobs, f"--namespace={namespace}", "--timeout=90s")


@pytest.fixture(scope="module")
def release() -> Iterator[Release]:
    made = Release()
    made.kubectl("create", "namespace", JOBS, ignore="AlreadyExists")
    made.kubectl("delete", "djobs", "--all", f"--namespace={JOBS}")
    yield made
    made.kubectl("delete", "namespace", JOBS, "--wait=false")


def test_helm_test_runs_a_job_and_leaves_nothing(release: Release) -> None:
    said = release.helm("test", RELEASE, "--hide-notes")
    assert said.count("Phase:          Succeeded") == 4
    left = release.get("pods,serviceaccounts,roles,rolebindings,djobs")["items"]
    assert not [item for item in left if item["metadata"]["name"].startswith((f"{RELEASE}-test", "smoke-"))]


# Monitors against what really exists


@pytest.fixture(scope="module")
def monitors(release: Release) -> Rendered:
    """What the release would have if its monitors were switched on: the cluster lacks their definitions."""
    switches = ("--set=metrics.serviceMonitor.enabled=true", "--set=metrics.podMonitor.enabled=true")
    text = release.helm("template", RELEASE, str(CHART), f"--kube-version={KUBERNETES_VERSION}", *switches)
    return Rendered(parse(text))


def _selector(monitor: Manifest) -> str:
    labels = monitor["spec"]["selector"]["matchLabels"]
    return "--selector=" + ",".join(f"{key}={value}" for key, value in labels.items())


def _scrape(address: str, port: int, path: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address}:{port}{path}", timeout=10) as answer:
        return str(answer.read().decode())


@pytest.mark.parametrize(
    ("component", "pods", "metric"), [("operator", 2, "distriqueue_"), ("rabbitmq", 1, "rabbitmq_")]
)
def test_a_service_monitor_finds_services_whose_endpoints_answer(
    release: Release, monitors: Rendered, component: str, pods: int, metric: str
) -> None:
    monitor = monitors.one("ServiceMonitor", component)
    (service,) = release.get("services", _selector(monitor))["items"]
    (endpoint,) = monitor["spec"]["endpoints"]
    slices = release.get("endpointslices", f"--selector=kubernetes.io/service-name={service['metadata']['name']}")
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


def test_the_pod_monitor_finds_the_workers_and_they_answer(release: Release, monitors: Rendered) -> None:
    monitor = monitors.one("PodMonitor")
    pods = release.get("pods", _selector(monitor))["items"]
    assert len(pods) == 2
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


def test_an_upgrade_that_changes_no_pod_leaves_the_leader_alone(release: Release) -> None:
    before, pods = release.lease(), release.pod_ids("operator")
    release.install("--set=commonAnnotations.example\\.com/round=two")
    after = release.lease()
    assert after["metadata"]["annotations"]["example.com/round"] == "two"
    assert after["spec"]["holderIdentity"] == before["spec"]["holderIdentity"]
    assert after["spec"]["leaseTransitions"] == before["spec"]["leaseTransitions"]
    assert release.pod_ids("operator") == pods
    release.install()


def test_an_upgrade_that_changes_all_pods_and_passwords_loses_no_job(release: Release) -> None:
    before = {part: release.pod_ids(part) for part in ("operator", "worker", "rabbitmq")}
    names = [f"upgraded-{number}" for number in range(20)]
    for name in names:
        release.submit(name, type="nap", payload={"sleepSeconds": 2})
    new = [f"--set-string=rabbitmq.auth.{user}Password={secrets.token_hex(8)}" for user in ("operator", "worker")]
    release.install("--set-string=commonLabels.round=three", *new)
    after = {part: release.pod_ids(part) for part in before}
    assert all(before[part].isdisjoint(after[part]) for part in before)
    release.wait_complete(*names)
    release.install()


def test_a_list_of_namespaces_bounds_what_is_run(release: Release) -> None:
    other = f"{JOBS}-other"
    release.kubectl("create", "namespace", other, ignore="AlreadyExists")
    try:
        release.install(f"--set=watchNamespaces={{{JOBS}}}")
        release.submit("elsewhere", namespace=other)
        release.submit("watched")
        release.wait_complete("watched")
        assert release.get("djob", "elsewhere", namespace=other)["status"]["phase"] == "Pending"
        assert not release.kubectl("get", "clusterroles", "--selector=app.kubernetes.io/component=operator", "-oname")

        release.install()
        release.wait_complete("elsewhere", namespace=other)
    finally:
        release.kubectl("delete", "namespace", other, "--wait=false")


# The end, and after it


def test_uninstall_leaves_jobs_and_definitions_and_a_later_install_goes_on(release: Release) -> None:
    release.submit("finished")
    release.wait_complete("finished")
    epoch = release.get("djob", "finished", namespace=JOBS)["status"]["epoch"]
    assert release.get("dworkers")["items"]

    release.uninstall()

    namespaced = "all,configmaps,secrets,serviceaccounts,persistentvolumeclaims,leases,roles,rolebindings,dworkers,pdb"
    eventually(lambda: not _ours(release.get(namespaced)), seconds=120)
    wide = "clusterroles,clusterrolebindings,flowschemas,validatingadmissionpolicies,validatingadmissionpolicybindings"
    assert not _ours(release.get(wide))
    finished = release.get("djob", "finished", namespace=JOBS)
    assert finished["status"]["phase"] == "Succeeded"

    # Jobs can be made and deleted while nobody is there, and so can their namespace.
    release.submit("waiting")
    release.submit("unwanted")
    release.kubectl("delete", "djob", "unwanted", f"--namespace={JOBS}", "--timeout=10s")
    release.kubectl("create", "namespace", f"{JOBS}-gone")
    release.submit("anything", namespace=f"{JOBS}-gone")
    release.kubectl("delete", "namespace", f"{JOBS}-gone", "--timeout=60s")

    release.install()
    release.wait_complete("waiting")
    assert release.get("djob", "waiting", namespace=JOBS)["status"]["epoch"] > epoch


def _ours(listed: Manifest) -> set[str]:
    """Return the names of what the release, its workers or Helm made."""
    return {
        item["metadata"]["name"]
        for item in listed["items"]
        if RELEASE in item["metadata"]["name"] or item["kind"] == "DistributedWorker"
    }
