"""Paths: which one is whose, what none is, and which methods each takes."""

import httpx
import pytest
from starlette.routing import Match

from distriqueue.gateway.changes import write_position
from distriqueue.gateway.rest.app import create_app, openapi

UID = "0b8e9b5e-6f0a-4c53-9a56-5f2b0e2f9c3d"
METHODS = {"GET", "POST", "PUT", "DELETE", "PATCH"}


@pytest.fixture(name="client")
def client_fixture() -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(create_app()), base_url="http://gateway.test")


def operation(method: str, path: str) -> str | None:
    """The operation that a request reaches, as the app looks for it."""
    for route in create_app().routes:
        match, _ = route.matches({"type": "http", "method": method, "path": path, "headers": []})
        if match is Match.FULL:
            return str(getattr(route, "operation_id", None))
    return None


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", f"/api/jobs/{UID}", "getJob"),
        ("GET", "/api/jobs/shop/report-1", "getJobByName"),
        ("GET", "/api/jobs/shop/explain", "getJobByName"),
        ("GET", f"/api/jobs/{UID}/explain", "explainJob"),
        ("GET", "/api/jobs/shop/a.b-1/explain", "explainJobByName"),
        ("GET", f"/api/jobs/shop/{UID}", "getJobByName"),
        ("POST", f"/api/jobs/{UID}/cancel", "cancelJob"),
        ("POST", "/api/jobs/shop/report-1/retry", "retryJobByName"),
        ("PUT", f"/api/jobs/{UID}/status", "putJobStatus"),
        ("PUT", "/api/jobs/shop/report-1/status", "putJobStatusByName"),
        ("DELETE", f"/api/jobs/{UID}", "deleteJob"),
        ("GET", "/api/jobs/stream", "streamJobs"),
        ("GET", "/api/jobs/statistics", "jobStatistics"),
        ("POST", "/api/jobs/batch", "submitJobs"),
        ("POST", "/api/jobs/next", "nextJobsOfSession"),
        ("POST", "/api/workers/register", "registerWorker"),
        ("GET", "/api/workers/register", None),
        ("GET", "/api/workers/registers", "getWorker"),
        ("GET", f"/api/jobs/{UID}/cancel", None),
        ("GET", f"/api/jobs/{UID.upper()}", None),
        ("GET", "/api/jobs/Shop/report", None),
        ("GET", "/api/jobs/report", None),
        ("GET", "/api/jobs/", None),
        ("GET", "/", None),
    ],
)
def test_a_path_leads_to_one_operation(method: str, path: str, expected: str | None) -> None:
    assert operation(method, path) == expected


async def test_what_is_no_path_is_a_problem(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/jbos")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "urn:distriqueue:problem:not-found"
    assert problem["instance"] == "/api/jbos"
    assert "/api/docs" in problem["detail"]


@pytest.mark.parametrize("path", openapi()["paths"])
async def test_a_wrong_method_is_told_the_right_ones(client: httpx.AsyncClient, path: str) -> None:
    filled = path.format(uid=UID, namespace="shop", name="report-1", session="abc")
    allowed = {method.upper() for method in openapi()["paths"][path]}
    for method in METHODS - allowed:
        answer = await client.request(method, filled)
        assert answer.status_code == 405, f"{method} {filled}"
        assert answer.headers["content-type"] == "application/problem+json"
        assert set(answer.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize("where", ["query", "header"])
def test_a_position_of_a_stream_over_many_namespaces_is_not_too_long(where: str) -> None:
    stream = openapi()["paths"]["/api/jobs/stream"]["get"]["parameters"]
    named = [one for one in stream if one["name"].lower().replace("-", "") == "lasteventid"]
    (position,) = [one for one in named if one["in"] == where]
    longest = max(one.get("maxLength", 0) for one in [position["schema"], *position["schema"].get("anyOf", [])])
    positions = {f"team-{number:04}-of-a-large-company": 10**9 + number for number in range(800)}
    assert len(write_position(positions)) <= longest
