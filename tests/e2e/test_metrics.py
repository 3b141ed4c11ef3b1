"""A real Prometheus finds operator and workers through the API server, and likes what they serve.

Which pods and ports the monitors select is held against the cluster in test_chart_release.py.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from localcluster.binaries import KUBERNETES_VERSION, ensure
from localcluster.commands import run
from localcluster.installing import CHART, NAMESPACE, RELEASE
from tests.e2e.prometheuses import Prometheus, scrape_config
from tests.e2e.systems import GATEWAYS, OPERATORS, WORKERS, System
from tests.support.jobs import manifest, phase

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300, func_only=True)]

MONITORS = {
    "ServiceMonitor/distriqueue-gateway",
    "ServiceMonitor/distriqueue-operator",
    "ServiceMonitor/distriqueue-rabbitmq",
    "PodMonitor/distriqueue-worker",
}


@pytest.fixture(name="prometheus", scope="module")
def prometheus_fixture(system: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus with the scrape configurations that the chart's monitors make."""
    if os.environ.get("CLUSTER", "local") != "local":
        pytest.skip("pods of this cluster are not reached from here")
    system.until_whole()
    rendered = system.helm(
        *("template", RELEASE, str(CHART), f"--kube-version={KUBERNETES_VERSION}"),
        *("--set=metrics.serviceMonitor.enabled=true", "--set=metrics.podMonitor.enabled=true"),
    )
    documents = [document for document in yaml.safe_load_all(rendered) if document]
    configs = [
        scrape_config(document, kubeconfig=system.kubeconfig)
        for document in documents
        if document["kind"] in {"ServiceMonitor", "PodMonitor"}
    ]
    assert {config["job_name"] for config in configs} == MONITORS
    with Prometheus(tmp_path_factory.mktemp("prometheus"), configs) as prometheus:
        yield prometheus


def test_every_pod_is_scraped(system: System, prometheus: Prometheus) -> None:
    parts = ("operator", "gateway", "worker", "rabbitmq")
    pods = {pod["metadata"]["name"] for part in parts for pod in system.pods(part)}
    assert len(pods) == OPERATORS + GATEWAYS + WORKERS + 1
    system.until(lambda: prometheus.by_pod("up"), lambda up: up == dict.fromkeys(pods, 1.0))
    targets = prometheus.targets()
    assert {target["scrapePool"] for target in targets} == MONITORS
    assert [target["lastError"] for target in targets] == [""] * len(pods)


def test_finished_jobs_are_counted_by_the_leader_and_by_workers(
    system: System, prometheus: Prometheus, namespace: str
) -> None:
    finished = 'distriqueue_jobs_finished_total{phase="Succeeded",pool="default",priority="High"}'
    worked = 'distriqueue_worker_jobs_total{type="record",outcome="Succeeded"}'
    names = [f"counted-{number}" for number in range(5)]
    leader = system.leader()
    system.until(lambda: prometheus.by_pod("distriqueue_leader"), lambda leads: leads.get(leader) == 1)

    def counts() -> list[float]:
        return [sum(prometheus.by_pod(expression).values()) for expression in (finished, worked)]

    before = counts()
    system.apply(*(manifest(namespace, name, priority="High") for name in names))
    ended = system.until_over(names, namespace=namespace)
    assert {phase(job) for job in ended.values()} == {"Succeeded"}

    system.until(counts, lambda after: after == [count + len(names) for count in before])
    assert leader in prometheus.by_pod(finished)
    operators = {pod["metadata"]["name"] for pod in system.pods("operator")}
    leads = prometheus.by_pod("distriqueue_leader")
    assert leads == {name: float(name == leader) for name in operators}


@pytest.mark.parametrize("component", ["operator", "gateway", "worker"])
def test_promtool_has_nothing_to_say(system: System, component: str, tmp_path: Path) -> None:
    for pod in system.pods(component):
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}:8080/proxy/metrics"
        metrics = system.kubectl("get", "--raw", path)
        assert "distriqueue_" in metrics
        tmp_path.joinpath(f"{pod['metadata']['name']}.prom").write_text(metrics)
        assert run([str(ensure("promtool")), "check", "metrics"], stdin=metrics) == ""
