"""A real Prometheus that finds its targets through the API server, as the chart's monitors say.

The Prometheus Operator turns a ServiceMonitor or a PodMonitor into a scrape configuration; `scrape_config` does the
same for what the chart's monitors use. Guarantees: nothing but the monitor says what is scraped, so one that selects
nothing scrapes nothing. The process ends when the test run ends. Fails with `NotReadyError`, with the end of the log.
"""

import json
import re
import socket
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

from localcluster.binaries import ensure
from localcluster.processes import Children
from localcluster.waiting import wait_until_ready

SCRAPE_SECONDS: Final = 1
"""A test does not want to wait as long as the monitors say."""


def scrape_config(monitor: dict[str, Any], *, kubeconfig: Path) -> dict[str, Any]:
    """What Prometheus is told for a ServiceMonitor or a PodMonitor.

    Args:
        monitor: As rendered.
        kubeconfig: By what Prometheus reads Services and pods.
    """
    spec = monitor["spec"]
    by_service = monitor["kind"] == "ServiceMonitor"
    role, owner, port = (
        ("endpointslice", "service", "__meta_kubernetes_endpointslice_port_name")
        if by_service
        else ("pod", "pod", "__meta_kubernetes_pod_container_port_name")
    )
    (endpoint,) = spec["endpoints" if by_service else "podMetricsEndpoints"]
    keep = [
        {"source_labels": [f"__meta_kubernetes_{owner}_label_{_label(key)}"], "regex": re.escape(value)}
        for key, value in spec["selector"]["matchLabels"].items()
    ]
    keep.append({"source_labels": [port], "regex": re.escape(endpoint["port"])})
    return {
        "job_name": f"{monitor['kind']}/{monitor['metadata']['name']}",
        "metrics_path": endpoint["path"],
        "scrape_interval": f"{SCRAPE_SECONDS}s",
        "scrape_timeout": f"{SCRAPE_SECONDS}s",
        "kubernetes_sd_configs": [
            {
                "role": role,
                "kubeconfig_file": str(kubeconfig),
                "namespaces": {"names": spec["namespaceSelector"]["matchNames"]},
            }
        ],
        "relabel_configs": [
            *({**rule, "action": "keep"} for rule in keep),
            {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
            {"source_labels": ["__meta_kubernetes_pod_phase"], "regex": "(Failed|Succeeded)", "action": "drop"},
        ],
    }


def _label(key: str) -> str:
    """A Kubernetes label as Prometheus names it."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", key)


class Prometheus:
    """One Prometheus; a context manager.

    Args:
        directory: For its configuration, its data and its log.
        scrape_configs: What it scrapes.
    """

    def __init__(self, directory: Path, scrape_configs: list[dict[str, Any]]) -> None:
        self._directory = directory
        self._children = Children()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        directory.joinpath("prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": scrape_configs}))

    def __enter__(self) -> Self:
        """Start it, and return when it serves."""
        log = self._directory / "prometheus.log"
        process = self._children.start(
            "prometheus",
            [
                str(ensure("prometheus")),
                f"--config.file={self._directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={self._directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
            ],
            log=log,
            env={"NO_PROXY": "*", "no_proxy": "*"},
        )
        wait_until_ready("prometheus", ready=self._ready, alive=process.alive, log=log)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it."""
        self._children.close()

    def query(self, expression: str) -> dict[frozenset[tuple[str, str]], float]:
        """Ask for an expression's present values, by their labels."""
        answer = self._get("/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
        return {frozenset(item["metric"].items()): float(item["value"][1]) for item in answer["data"]["result"]}

    def by_pod(self, expression: str) -> dict[str, float]:
        """Ask for an expression's present values, by the pod that they are from."""
        return {dict(labels)["pod"]: value for labels, value in self.query(f"sum by (pod) ({expression})").items()}

    def targets(self) -> list[dict[str, Any]]:
        """What it scrapes, and how that goes."""
        found: list[dict[str, Any]] = self._get("/api/v1/targets?state=active")["data"]["activeTargets"]
        return found

    def _ready(self) -> bool:
        try:
            self._open("/-/ready")
        except OSError:
            return False
        return True

    def _get(self, path: str) -> Any:
        return json.loads(self._open(path))

    def _open(self, path: str) -> str:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self._port}{path}", timeout=10) as answer:
            return str(answer.read().decode())
