"""docs/metrics.md names every metric of operator, gateway and worker with its type and labels, and no other."""

import re

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from distriqueue.telemetry.gateways import GatewayMetrics
from distriqueue.telemetry.metrics import OperatorMetrics
from distriqueue_worker.registries import Registry
from distriqueue_worker.settings import Settings
from distriqueue_worker.worker import Worker
from docs.generating import DIRECTORY

PAGE = (DIRECTORY / "metrics.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(?P<name>\w+)` \| (?P<kind>\w+) \| (?P<labels>[^|]*)\| (?P<text>.+) \|$", re.MULTILINE)

Described = tuple[str, str, frozenset[str]]


def of_code(registry: CollectorRegistry) -> set[Described]:
    found = set()
    for collector in registry._collector_to_names:  # `collect` would leave out the labels of what has no samples yet
        assert isinstance(collector, MetricWrapperBase)
        name, kind = collector._name, str(collector._type)
        shown = f"{name}_total" if kind == "counter" else name
        found.add((shown, kind, frozenset(collector._labelnames)))
    return found


def of_page(section: str) -> set[Described]:
    (text,) = re.findall(rf"^## {section}$(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
    rows = list(ROW.finditer(text))
    assert len(rows) == text.count("\n| `"), "a row has another form than the others"
    return {(row["name"], row["kind"], frozenset(re.findall(r"`(\w+)`", row["labels"]))) for row in rows}


def test_the_operators_metrics_are_on_the_page() -> None:
    registry = CollectorRegistry()
    OperatorMetrics(registry)
    assert of_page("Operator") == of_code(registry)


def test_the_gateways_metrics_are_on_the_page() -> None:
    registry = CollectorRegistry()
    GatewayMetrics(registry)
    assert of_page("Gateway") == of_code(registry)


async def test_the_workers_metrics_are_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTRIQUEUE_AMQP_URL", "amqp://nobody@127.0.0.1/")
    registry = CollectorRegistry()
    Worker(Settings(), Registry.load(), registry)
    assert of_page("Worker") == of_code(registry)


def test_queries_ask_for_metrics_that_exist() -> None:
    (queries,) = re.findall(r"```promql\n(.*?)```", PAGE, re.DOTALL)
    named = {re.sub(r"_bucket$", "", name) for name in re.findall(r"(?:distriqueue|scheduler)_\w+", queries)}
    assert named <= {name for name, _, _ in of_page("Operator") | of_page("Worker")}
