"""The REST interface of a real gateway, on a real API server: every endpoint, every refusal, and who may do what."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from distriqueue.kube.client import KubeClient
from distriqueue.kube.resources import JOBS
from localcluster.ports import free_port
from tests.support.gateways import Gateway, bearer, make_caller, start
from tests.support.jobs import Jobs
from tests.support.stages import Stage, Stages, sample
from tests.support.waiting import until

pytestmark = pytest.mark.integration

NOWHERE = str(uuid.UUID(int=7))


@pytest.fixture(name="stage", scope="module")
def stage_fixture(stages: Stages) -> Iterator[Stage]:
    """Without operator and worker: nobody leads, and nothing runs."""
    with stages.open(AUTH_CACHE_SECONDS="1") as stage:
        yield stage


@pytest.fixture(name="gateway", scope="module")
def gateway_fixture(stage: Stage) -> Gateway:
    return start(stage.programs)


@pytest.fixture(name="token")
async def token_fixture(kube: KubeClient, stage: Stage) -> str:
    return await make_caller(kube, stage.namespace, "ann", workers=True)


@pytest.fixture(name="api")
async def api_fixture(gateway: Gateway, token: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client with all rights in the namespace of the stage."""
    async with httpx.AsyncClient(base_url=gateway.url, headers=bearer(token), timeout=30) as client:
        yield client


def submission(stage: Stage, **fields: Any) -> dict[str, Any]:
    return {"namespace": stage.namespace, "type": "record", **fields}


async def submitted(api: httpx.AsyncClient, stage: Stage, **fields: Any) -> dict[str, Any]:
    """Submit a job and return its view."""
    answer = await api.post("/api/jobs", json=submission(stage, **fields))
    assert answer.status_code == 201, answer.text
    view: dict[str, Any] = answer.json()
    return view


def assert_problem(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    """It is this problem, by status, form and type; returns the document."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["type"] == f"urn:distriqueue:problem:{slug}"
    assert problem["status"] == status
    assert problem["detail"]
    return problem


# --- submitting ------------------------------------------------------------------------------------------------------


async def test_a_submission_is_a_resource_though_nobody_leads(api: httpx.AsyncClient, stage: Stage, jobs: Jobs) -> None:
    payload = {"a": [1, {"b": None}], "c": "ü"}
    answer = await api.post(
        "/api/jobs", json=submission(stage, name="first", payload=payload, labels={"app": "x"}, priority="High")
    )
    assert answer.status_code == 201
    view = answer.json()
    assert answer.headers["location"] == f"/api/jobs/{view['id']}"
    resource = await jobs.get("first")
    assert resource["metadata"]["uid"] == view["id"]
    assert resource["metadata"]["labels"] == {"app": "x"}
    assert resource["spec"]["payload"] == view["payload"] == payload
    assert (view["status"], view["phase"], view["attempt"]) == ("pending", "Pending", 0)
    assert view["submittedBy"] == f"system:serviceaccount:{stage.namespace}:ann"
    again = await api.get(answer.headers["location"])
    assert again.json() == view
    assert (await api.get("/api/leader")).status_code == 503


async def test_the_older_path_does_the_same(api: httpx.AsyncClient, stage: Stage) -> None:
    answer = await api.post("/api/jobs/register", json=submission(stage))
    assert answer.status_code == 201


async def test_an_idempotency_key_makes_one_job(api: httpx.AsyncClient, stage: Stage) -> None:
    key = {"Idempotency-Key": uuid.uuid4().hex}
    body = submission(stage, payload={"order": 1})
    answers = await asyncio.gather(*(api.post("/api/jobs", json=body, headers=key) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] * 9 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    other = await api.post("/api/jobs", json=submission(stage, payload={"order": 2}), headers=key)
    assert_problem(other, 422, "unprocessable")


async def test_a_dry_run_explains_and_makes_nothing(api: httpx.AsyncClient, stage: Stage, kube: KubeClient) -> None:
    answer = await api.post("/api/jobs?dryRun=true", json=submission(stage, name="dry"))
    assert answer.status_code == 200
    assert answer.json()["job"]["name"] == "dry"
    assert answer.json()["explanation"]["sentence"]
    found = await kube.request("GET", JOBS.collection(stage.namespace))
    assert "dry" not in {item["metadata"]["name"] for item in found["items"]}


async def test_a_batch_makes_or_refuses_each_by_itself(api: httpx.AsyncClient, stage: Stage) -> None:
    await submitted(api, stage, name="taken")
    jobs = [{"type": "record", "name": "batch-1"}, {"type": "record", "name": "taken"}, {"type": "record"}]
    answer = await api.post("/api/jobs/batch", json={"namespace": stage.namespace, "jobs": jobs})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["created"], body["refused"]) == (2, 1)
    assert body["items"][0]["job"]["name"] == "batch-1"
    assert body["items"][1]["problem"]["status"] == 409
    assert body["items"][2]["job"]["id"]


async def test_the_api_servers_own_refusals_name_the_field(api: httpx.AsyncClient, stage: Stage) -> None:
    wrong = submission(stage, backoff={"initialSeconds": 100, "maxSeconds": 10})
    problem = assert_problem(await api.post("/api/jobs", json=wrong), 422, "unprocessable")
    assert any("maxSeconds" in error["field"] for error in problem["errors"])
    assert "set maxSeconds to" in json.dumps(problem)


# --- refusals --------------------------------------------------------------------------------------------------------


async def test_who_shows_no_token_or_a_wrong_one_is_not_heard(gateway: Gateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        for headers in ({}, bearer("wrong"), {"Authorization": "Basic YTpi"}):
            for method, path in (("GET", "/api/jobs"), ("POST", "/api/jobs"), ("GET", "/api/health")):
                answer = await client.request(method, path, headers=headers)
                assert_problem(answer, 401, "unauthenticated")
                assert answer.headers["www-authenticate"].startswith("Bearer")
        assert (await client.get("/api/docs")).status_code == 200


async def test_rights_are_the_clusters(
    gateway: Gateway, api: httpx.AsyncClient, stage: Stage, kube: KubeClient
) -> None:
    view = await submitted(api, stage)
    stranger = await make_caller(kube, stage.namespace, "stranger", verbs=("get",), namespaces=["default"])
    async with httpx.AsyncClient(base_url=gateway.url, headers=bearer(stranger)) as client:
        name = f"{view['namespace']}/{view['name']}"
        tries = [("GET", ""), ("GET", "/explain"), ("DELETE", "")]
        tries += [("POST", f"/{word}") for word in ("cancel", "retry", "suspend", "resume")]
        for method, suffix in tries:
            for job in (view["id"], name):
                answer = await client.request(method, f"/api/jobs/{job}{suffix}")
                assert_problem(answer, 403, "forbidden")
                if job == view["id"]:
                    assert stage.namespace not in answer.json()["detail"].replace(f":{stage.namespace}:", "")
        for path in ("", "/statistics", "/stream"):
            assert_problem(await client.get(f"/api/jobs{path}?namespace={stage.namespace}"), 403, "forbidden")
            assert_problem(await client.get(f"/api/jobs{path}"), 403, "forbidden")
        assert_problem(await client.post("/api/jobs", json=submission(stage)), 403, "forbidden")
        assert_problem(await client.get("/api/workers"), 403, "forbidden")
        assert_problem(await client.get(f"/api/jobs/{NOWHERE}"), 404, "not-found")
        assert (await client.get("/api/health")).status_code == 200


async def test_what_cannot_be_read_is_refused(api: httpx.AsyncClient) -> None:
    json_type = {"Content-Type": "application/json"}
    assert_problem(await api.post("/api/jobs", content=b"{", headers=json_type), 400, "invalid-request")
    deep = b'{"type": "a", "payload": {"a": ' + b"[" * 500 + b"]" * 500 + b"}}"
    assert_problem(await api.post("/api/jobs", content=deep, headers=json_type), 400, "invalid-request")
    assert_problem(await api.post("/api/jobs", data={"type": "a"}), 415, "unsupported-media-type")
    assert_problem(await api.post("/api/jobs", json={"typ": "a"}), 422, "unprocessable")
    problem = assert_problem(await api.get("/api/jobs?limt=1&limit=0"), 422, "unprocessable")
    assert {error["field"] for error in problem["errors"]} == {"query/limt", "query/limit"}
    assert_problem(await api.get("/api/jobs?status=done"), 422, "unprocessable")


async def test_a_body_that_is_too_large_is_refused_and_not_kept(api: httpx.AsyncClient, gateway: Gateway) -> None:
    size = 128 * 1024 * 1024

    async def long() -> AsyncIterator[bytes]:
        for _ in range(size // 2**16):
            yield b" " * 2**16

    before = gateway.program.metric("process_resident_memory_bytes")
    answer = await api.post("/api/jobs", content=long(), headers={"Content-Type": "application/json"})
    assert_problem(answer, 413, "too-large")
    assert gateway.program.metric("process_resident_memory_bytes") - before < size / 2
    declared = await api.post("/api/jobs", content=b" " * (9 * 2**20), headers={"Content-Type": "application/json"})
    assert_problem(declared, 413, "too-large")


async def test_a_head_that_is_too_large_is_refused(gateway: Gateway) -> None:
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /api/jobs HTTP/1.1\r\nHost: a\r\n" + b"X-Long: " + b"a" * 100_000 + b"\r\n\r\n")
    async with asyncio.timeout(20):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 400")
    writer.close()


# --- reading and changing --------------------------------------------------------------------------------------------


async def test_a_list_is_filtered_and_walked_by_its_cursor(api: httpx.AsyncClient, stage: Stage) -> None:
    names = [(await submitted(api, stage, labels={"walk": "yes"}, type="walked"))["name"] for _ in range(5)]
    query: dict[str, Any] = {"namespace": stage.namespace, "labels": "walk=yes", "type": "walked", "limit": 2}
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await api.get("/api/jobs", params={**query, **cursor})).json()
        assert page["total"] == 5
        seen.extend(item["name"] for item in page["items"])
        if page.get("next") is None:
            break
        cursor = {"cursor": page["next"]}
    assert sorted(seen) == sorted(names)
    none = (await api.get("/api/jobs", params={**query, "status": "completed,failed"})).json()
    assert none["total"] == 0
    counts = (await api.get("/api/jobs/statistics", params={"namespace": stage.namespace, "type": "walked"})).json()
    assert (counts["total"], counts["byStatus"]["pending"], counts["byType"]) == (5, 5, {"walked": 5})


async def test_an_unchanged_job_is_not_sent_again(api: httpx.AsyncClient, stage: Stage) -> None:
    view = await submitted(api, stage)
    first = await api.get(f"/api/jobs/{view['id']}")
    tag = {"If-None-Match": first.headers["etag"]}
    unchanged = await api.get(f"/api/jobs/{view['id']}", headers=tag)
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert (await api.post(f"/api/jobs/{view['id']}/suspend")).status_code == 200
    assert (await api.get(f"/api/jobs/{view['id']}", headers=tag)).status_code == 200


@pytest.mark.parametrize("by_name", [True, False])
async def test_a_job_is_changed_by_either_name(
    api: httpx.AsyncClient, stage: Stage, jobs: Jobs, *, by_name: bool
) -> None:
    view = await submitted(api, stage)
    path = f"/api/jobs/{view['namespace']}/{view['name']}" if by_name else f"/api/jobs/{view['id']}"
    assert (await api.post(f"{path}/suspend")).json()["suspended"] is True
    assert (await jobs.get(view["name"]))["spec"]["suspend"] is True
    assert (await api.get(f"{path}/explain")).json()["blocker"] == "NoLeader"
    assert (await api.post(f"{path}/resume")).json()["suspended"] is False
    assert (await api.post(f"{path}/cancel")).json()["cancelRequested"] is True
    assert (await api.post(f"{path}/cancel")).status_code == 200
    assert_problem(await api.post(f"{path}/retry"), 409, "conflict")
    assert (await api.delete(path)).status_code == 204
    assert_problem(await api.get(path), 404, "not-found")


async def test_the_cluster_is_told_of_without_rights_on_jobs(api: httpx.AsyncClient) -> None:
    status = (await api.get("/api/cluster/status")).json()
    assert status.get("leader") is None
    assert set(status["jobs"]) >= {"pending", "completed"}
    health = (await api.get("/api/health")).json()
    assert health["status"] == "degraded"
    assert health["checks"]["broker"]["ok"] is True
    assert (await api.get("/api/raft/status")).json()["term"] >= 0
    assert all(isinstance(figure, int | float) for figure in (await api.get("/api/metrics")).json().values())
    assert (await api.get("/api/workers")).json() == {"items": [], "total": 0}
    assert_problem(await api.get("/api/workers/nobody"), 404, "not-found")
    leader = await api.get("/api/leader")
    assert_problem(leader, 503, "unavailable")
    assert int(leader.headers["retry-after"]) >= 1


# --- the program -----------------------------------------------------------------------------------------------------


async def test_requests_are_logged_and_counted(api: httpx.AsyncClient, gateway: Gateway, stage: Stage) -> None:
    view = await submitted(api, stage)
    await api.get(f"/api/jobs/{view['namespace']}/{view['name']}")
    lines = [json.loads(line) for line in gateway.program.log.read_text().splitlines() if line.startswith("{")]
    access = [line for line in lines if line["event"] == "request"]
    last = access[-1]
    assert last["caller"] == f"system:serviceaccount:{stage.namespace}:ann"
    assert (last["method"], last["status"]) == ("GET", 200)
    assert last["route"] == "/api/jobs/{namespace}/{name}"
    assert view["name"] not in json.dumps(last)
    counted = "distriqueue_gateway_request_seconds_count"
    assert sample(gateway.program, counted, route="/api/jobs", method="POST", status="201") >= 1
    assert sample(gateway.program, "distriqueue_gateway_reviews_total", kind="token", outcome="remembered") >= 1
    assert sample(gateway.program, "distriqueue_gateway_jobs_cached") >= 1


async def test_a_caller_who_asks_too_often_waits(stage: Stage, token: str) -> None:
    limited = await asyncio.to_thread(start, stage.programs, "limited", REQUESTS_PER_SECOND="0.5", REQUEST_BURST="3")
    async with httpx.AsyncClient(base_url=limited.url, headers=bearer(token)) as client:
        answers = [await client.get("/api/health") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert_problem(answers[-1], 429, "too-many-requests")
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 2
    await asyncio.to_thread(limited.program.stop)


async def test_jobs_are_taken_while_the_broker_is_away(stage: Stage, token: str, jobs: Jobs) -> None:
    alone = await asyncio.to_thread(
        start, stage.programs, "alone", AMQP_URL=f"amqp://guest:guest@127.0.0.1:{free_port()}/"
    )
    async with httpx.AsyncClient(base_url=alone.url, headers=bearer(token)) as client:
        answer = await client.post("/api/jobs", json=submission(stage, name="without-broker"))
        assert answer.status_code == 201
        assert (await jobs.get("without-broker"))["metadata"]["uid"] == answer.json()["id"]

        async def noticed() -> bool:
            health = (await client.get("/api/health")).json()
            return health["checks"]["broker"].get("ok") is False

        await until(noticed)
    await asyncio.to_thread(alone.program.stop)


async def test_a_stop_is_clean(stage: Stage, token: str) -> None:
    gateway = await asyncio.to_thread(start, stage.programs, "stopped")
    async with httpx.AsyncClient(base_url=gateway.url, headers=bearer(token), timeout=30) as client:
        async with client.stream("GET", "/api/jobs/stream", params={"namespace": stage.namespace}) as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            gateway.program.terminate()
            rest = [line async for line in lines]
        assert rest[-2].startswith(": this replica ends")
    await until(lambda: not gateway.program.process.alive())
    words = gateway.program.log.read_text()
    assert "Traceback" not in words
    assert '"level": "error"' not in words
