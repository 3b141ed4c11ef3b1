"""The edge of the app: what nobody expected is an answer without a secret, and every request is counted once."""

import json
from typing import Any

import httpx
import pytest
import structlog
from prometheus_client import CollectorRegistry
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from distriqueue.gateway.rest.edges import Edge, access_log
from distriqueue.gateway.settings import GatewaySettings
from distriqueue.telemetry.gateways import GatewayMetrics


class Wrapped:
    """An app behind an edge, with a registry of its own."""

    def __init__(self, app: Any) -> None:
        self.registry = CollectorRegistry()
        edge = Edge(app, metrics=GatewayMetrics(self.registry), log=structlog.get_logger())
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(edge), base_url="http://gateway.test")

    def count(self, **labels: str) -> float | None:
        """Requests with these labels."""
        return self.registry.get_sample_value("distriqueue_gateway_request_seconds_count", labels)


async def _fine(scope: Scope, receive: Receive, send: Send) -> None:
    del receive
    scope["distriqueue.caller"] = "ann"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"no-cache")]})
    await send({"type": "http.response.body", "body": b"fine"})


async def _broken(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive, send
    raise RuntimeError("the password is swordfish")


async def _broken_midway(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise RuntimeError("the password is swordfish")


async def test_a_request_is_a_line_and_an_observation() -> None:
    wrapped = Wrapped(_fine)
    with capture_logs() as lines:
        answer = await wrapped.client.get("/anything")
    assert answer.text == "fine"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-cache"
    assert wrapped.count(route="unmatched", method="GET", status="200") == 1
    (line,) = lines
    assert {key: line[key] for key in ("event", "caller", "method", "route", "status")} == {
        "event": "request",
        "caller": "ann",
        "method": "GET",
        "route": "unmatched",
        "status": 200,
    }
    assert line["seconds"] >= 0


async def test_what_nobody_expected_is_a_problem_without_its_text() -> None:
    wrapped = Wrapped(_broken)
    with capture_logs() as lines:
        answer = await wrapped.client.get("/anything")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert "swordfish" not in answer.text
    assert answer.json()["type"] == "urn:distriqueue:problem:internal"
    assert wrapped.count(route="unmatched", method="GET", status="500") == 1
    assert [line["log_level"] for line in lines] == ["error", "info"]


async def test_half_an_answer_is_cut_and_not_completed() -> None:
    aborted: list[bool] = []

    class Transport:
        def abort(self) -> None:
            aborted.append(True)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"] = {"distriqueue.cut": {"transport": Transport()}}
        await _broken_midway(scope, receive, send)

    with pytest.raises(AssertionError):  # httpx sees that the answer has no end
        await Wrapped(app).client.get("/anything")
    assert aborted == [True]


async def test_methods_that_nobody_knows_are_one_label() -> None:
    wrapped = Wrapped(_fine)
    for method in ("BREW", "STEEP"):
        await wrapped.client.request(method, "/tea")
    assert wrapped.count(route="unmatched", method="OTHER", status="200") == 2


@pytest.mark.parametrize(
    ("settings", "lines"),
    [({}, 1), ({"access_log": False}, 0), ({"log_level": "warning"}, 0), ({"log_level": "debug"}, 1)],
)
def test_lines_are_json_on_standard_error(
    settings: dict[str, Any], lines: int, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    log = access_log(GatewaySettings(**settings))
    if log is not None:
        log.info("request", method="GET", status=200)
    said = capfdbinary.readouterr().err.splitlines()
    assert len(said) == lines
    for line in said:
        found = json.loads(line)
        assert found.pop("timestamp").endswith("Z")
        assert found == {
            "event": "request",
            "level": "info",
            "logger": "distriqueue.gateway.access",
            "method": "GET",
            "status": 200,
        }
