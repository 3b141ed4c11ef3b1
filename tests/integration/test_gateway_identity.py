"""Two users with rights in different namespaces, at every door of a gateway: neither learns of the other's jobs.

The API server is real, with RBAC, and so are the tokens. What each door can do at all is in its own tests.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final

import aiohttp
import grpc
import pytest

from distriqueue.gateway.rpc.stubs import jobs_pb2
from distriqueue.kube.client import KubeClient
from localcluster.resources import make_namespace
from tests.support.gateways import JOB_VERBS, Gateway, bearer, make_caller, start
from tests.support.jobs import Jobs
from tests.support.stages import Stage, Stages
from tests.support.waiting import until

pytestmark = pytest.mark.integration

AWAY: Final = {"type": "calculate", "payload": {"word": "of-the-other"}, "suspend": True}
"""A job that stays as it is; its payload is what nobody else may read."""
WRONG_TOKENS: Final = ("nonsense", "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl")

REFUSED: Final = {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}


class Plot:
    """The stage, its gateway, and two namespaces: `ours` with a caller of its own, and `theirs`.

    Attributes:
        gateway: Serves both.
        ours: A namespace, in which `token` has all rights.
        theirs: Another one, in which it has none, and `their_token` has all.
        idle: A token without any right.
        viewer: A token that may get, list and watch in `ours`.
        job: The name of a job, the same in both namespaces.
    """

    gateway: Gateway
    job = "same-name"

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.ours, self.theirs = stage.namespace, f"{stage.namespace}-theirs"
        self.token = self.their_token = self.idle = self.viewer = ""
        self.uids: dict[str, str] = {}

    async def make(self, kube: KubeClient) -> None:
        await asyncio.to_thread(make_namespace, self.stage.plane.kubeconfig, self.theirs)
        self.token = await make_caller(kube, self.ours, "us")
        self.their_token = await make_caller(kube, self.theirs, "them")
        self.idle = await make_caller(kube, self.ours, "idle", verbs=("deletecollection",))
        self.viewer = await make_caller(kube, self.ours, "viewer", verbs=("get", "list", "watch"))
        for namespace in (self.ours, self.theirs):
            job = await Jobs(kube, namespace).create(self.job, **AWAY)
            self.uids[namespace] = job["metadata"]["uid"]

    def tells_of_them(self, text: str) -> bool:
        """Whether an answer has something of the other namespace in it."""
        return any(word in text for word in (self.theirs, self.uids[self.theirs]))


@pytest.fixture(name="plot", scope="module")
def plot_fixture(stages: Stages) -> Iterator[Plot]:
    with stages.open() as stage:
        plot = Plot(stage)

        async def prepare() -> None:
            async with await stage.client() as kube:
                await plot.make(kube)

        asyncio.run(prepare())
        namespaces = f"{plot.ours},{plot.theirs}"
        stage.operators.append(stage.operator("operator", NAMESPACES=namespaces))
        plot.gateway = start(stage.programs, NAMESPACES=namespaces, AUTH_CACHE_SECONDS="1")
        yield plot


@pytest.fixture(name="rest")
async def rest_fixture(plot: Plot) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(plot.gateway.url) as session:
        yield session


async def ask(
    rest: aiohttp.ClientSession, method: str, path: str, *, token: str | None, body: Any = None
) -> tuple[int, str]:
    headers = {} if token is None else bearer(token)
    async with rest.request(method, path, json=body, headers=headers) as answer:
        return answer.status, await answer.text()


# Who is nobody


def requests(plot: Plot) -> list[tuple[str, str, Any]]:
    """A request of every kind, about the caller's own namespace."""
    job = f"/api/jobs/{plot.ours}/{plot.job}"
    submission = {"namespace": plot.ours, "type": "calculate"}
    return [
        ("GET", f"/api/jobs?namespace={plot.ours}", None),
        ("GET", f"/api/jobs/statistics?namespace={plot.ours}", None),
        ("GET", f"/api/jobs/stream?namespace={plot.ours}", None),
        ("GET", f"/api/jobs/{plot.uids[plot.ours]}", None),
        ("GET", job, None),
        ("GET", f"{job}/explain", None),
        ("POST", "/api/jobs", submission),
        ("POST", "/api/jobs?dryRun=true", submission),
        ("POST", "/api/jobs/batch", {"namespace": plot.ours, "jobs": [{"type": "calculate"}]}),
        ("POST", f"{job}/cancel", None),
        ("POST", f"{job}/retry", None),
        ("POST", f"{job}/suspend", None),
        ("POST", f"{job}/resume", None),
        ("DELETE", job, None),
        ("POST", "/api/workers/register", {"name": "w", "namespaces": [plot.ours]}),
    ]


KNOWN_TO_ALL: Final = ("/api/workers", "/api/raft/status", "/api/leader", "/api/cluster/status", "/api/health")


async def test_without_a_token_or_with_a_wrong_one_nobody_gets_anywhere(
    plot: Plot, rest: aiohttp.ClientSession
) -> None:
    for token in (None, *WRONG_TOKENS):
        asked = [*requests(plot), *(("GET", path, None) for path in (*KNOWN_TO_ALL, "/api/metrics"))]
        for method, path, body in asked:
            headers = {} if token is None else bearer(token)
            async with rest.request(method, path, json=body, headers=headers) as answer:
                text = await answer.text()
                assert answer.status == HTTPStatus.UNAUTHORIZED, (method, path, text)
                assert answer.headers["WWW-Authenticate"].startswith("Bearer")
                assert answer.content_type == "application/problem+json"
                assert token is None or token not in text


async def test_who_may_do_nothing_is_refused_and_told_what_is_missing(plot: Plot, rest: aiohttp.ClientSession) -> None:
    for method, path, body in requests(plot):
        status, text = await ask(rest, method, path, token=plot.idle, body=body)
        assert status == HTTPStatus.FORBIDDEN or path.endswith("/batch"), (method, path, text)
        assert "urn:distriqueue:problem:forbidden" in text, (method, path, text)


async def test_each_verb_is_a_right_of_its_own(plot: Plot, rest: aiohttp.ClientSession) -> None:
    for method, path, body in requests(plot):
        if "stream" in path:
            continue  # it would not end
        status, text = await ask(rest, method, path, token=plot.viewer, body=body)
        if method == "GET":
            assert status == HTTPStatus.OK, (path, text)
        else:
            assert "urn:distriqueue:problem:forbidden" in text, (method, path, text)


# Others' jobs by REST


async def test_others_jobs_cannot_be_read_changed_or_explained_by_rest(
    plot: Plot, rest: aiohttp.ClientSession, kube: KubeClient
) -> None:
    theirs = Jobs(kube, plot.theirs)
    before = await theirs.get(plot.job)
    uid, by_name = plot.uids[plot.theirs], f"{plot.theirs}/{plot.job}"
    assert (await ask(rest, "GET", f"/api/jobs/{uid}", token=plot.their_token))[0] == HTTPStatus.OK
    steps = [("GET", ""), ("GET", "/explain"), ("DELETE", "")]
    steps += [("POST", f"/{act}") for act in ("cancel", "retry", "suspend", "resume")]
    for method, suffix in steps:
        status, text = await ask(rest, method, f"/api/jobs/{by_name}{suffix}", token=plot.token)
        assert status == HTTPStatus.FORBIDDEN, (method, suffix, text)
        assert "of-the-other" not in text
        status, text = await ask(rest, method, f"/api/jobs/{uid}{suffix}", token=plot.token)
        assert status in REFUSED, (method, suffix, text)
        assert plot.theirs not in text, "the namespace of a job that one may not see is told"
        assert plot.job not in text
    assert await theirs.get(plot.job) == before


async def test_whether_anothers_job_exists_is_not_told(plot: Plot, rest: aiohttp.ClientSession) -> None:
    there = await ask(rest, "GET", f"/api/jobs/{plot.theirs}/{plot.job}", token=plot.token)
    absent = await ask(rest, "GET", f"/api/jobs/{plot.theirs}/absent", token=plot.token)
    assert there[0] == absent[0] == HTTPStatus.FORBIDDEN
    assert json.loads(there[1])["detail"] == json.loads(absent[1])["detail"]
    assert (await ask(rest, "GET", f"/api/jobs/{uuid.uuid4()}", token=plot.token))[0] == HTTPStatus.NOT_FOUND


async def test_lists_and_figures_have_nothing_of_others(plot: Plot, rest: aiohttp.ClientSession) -> None:
    for path in ("/api/jobs", "/api/jobs/statistics", "/api/jobs?type=calculate&limit=500"):
        status, text = await ask(rest, "GET", path, token=plot.token)
        assert status in {HTTPStatus.OK, HTTPStatus.FORBIDDEN}, text
        assert not plot.tells_of_them(text), path
        status, text = await ask(
            rest, "GET", f"{path}{'&' if '?' in path else '?'}namespace={plot.theirs}", token=plot.token
        )
        assert status == HTTPStatus.FORBIDDEN
        assert "of-the-other" not in text
    status, text = await ask(rest, "GET", f"/api/jobs?namespace={plot.ours}", token=plot.token)
    assert status == HTTPStatus.OK
    assert plot.uids[plot.ours] in {item["id"] for item in json.loads(text)["items"]}
    assert not plot.tells_of_them(text)


async def test_a_job_is_not_submitted_where_one_may_not(
    plot: Plot, rest: aiohttp.ClientSession, kube: KubeClient
) -> None:
    body = {"namespace": plot.theirs, "name": "smuggled", "type": "calculate"}
    for path in ("/api/jobs", "/api/jobs/register", "/api/jobs?dryRun=true"):
        status, text = await ask(rest, "POST", path, token=plot.token, body=body)
        assert status == HTTPStatus.FORBIDDEN, text
    batch = {"namespace": plot.theirs, "jobs": [{"name": "smuggled", "type": "calculate"}]}
    _, text = await ask(rest, "POST", "/api/jobs/batch", token=plot.token, body=batch)
    assert "forbidden" in text
    found = await kube.request("GET", f"/apis/distriqueue.io/v1alpha1/namespaces/{plot.theirs}/distributedjobs")
    assert [item["metadata"]["name"] for item in found["items"]] == [plot.job]


async def test_workers_are_shown_to_those_who_may_list_them(
    plot: Plot, rest: aiohttp.ClientSession, kube: KubeClient
) -> None:
    assert (await ask(rest, "GET", "/api/workers", token=plot.token))[0] == HTTPStatus.FORBIDDEN
    reader = await make_caller(kube, plot.ours, "reader", verbs=("get",), workers=True)
    assert (await ask(rest, "GET", "/api/workers", token=reader))[0] == HTTPStatus.OK
    for path in KNOWN_TO_ALL[1:]:
        status, text = await ask(rest, "GET", path, token=plot.idle)
        assert status != HTTPStatus.FORBIDDEN, (path, text)


# Streams


@asynccontextmanager
async def stream(rest: aiohttp.ClientSession, query: str, *, token: str) -> AsyncIterator[list[str]]:
    """Open a stream of changes; what came so far is in the list."""
    seen: list[str] = []
    async with rest.get(f"/api/jobs/stream{query}", headers=bearer(token)) as answer:
        assert answer.status == HTTPStatus.OK, await answer.text()

        async def read() -> None:
            while line := await answer.content.readline():
                seen.append(line.decode())

        reading = asyncio.create_task(read())
        try:
            yield seen
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def test_a_stream_has_nothing_of_others(plot: Plot, rest: aiohttp.ClientSession, kube: KubeClient) -> None:
    status, text = await ask(rest, "GET", f"/api/jobs/stream?namespace={plot.theirs}", token=plot.token)
    assert status == HTTPStatus.FORBIDDEN, text
    status, _ = await ask(rest, "GET", "/api/jobs/stream", token=plot.idle)
    assert status == HTTPStatus.FORBIDDEN
    async with stream(rest, f"?namespace={plot.ours}", token=plot.token) as seen:
        await Jobs(kube, plot.theirs).create("streamed-theirs", **AWAY)
        await Jobs(kube, plot.ours).create("streamed-ours", **AWAY)
        await until(lambda: "streamed-ours" in "".join(seen))
    assert not plot.tells_of_them("".join(seen))
    await Jobs(kube, plot.theirs).delete("streamed-theirs")


async def test_a_stream_ends_or_falls_silent_when_the_right_is_taken_away(
    plot: Plot, rest: aiohttp.ClientSession, kube: KubeClient
) -> None:
    token = await make_caller(kube, plot.ours, "leaver", verbs=("get", "list", "watch"))
    status, _ = await ask(rest, "GET", f"/api/jobs?namespace={plot.ours}", token=token)
    assert status == HTTPStatus.OK
    binding = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{plot.ours}/rolebindings/{plot.ours}-leaver"
    await kube.request("DELETE", binding)

    async def refused() -> bool:
        return (await ask(rest, "GET", f"/api/jobs?namespace={plot.ours}", token=token))[0] == HTTPStatus.FORBIDDEN

    await until(refused)


# gRPC


Call = Callable[[str, Any, type[Any]], Awaitable[Any]]


def caller(channel: grpc.aio.Channel, token: str | None) -> Call:
    """Calls a method of the service with a token."""
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)

    async def call(method: str, request: Any, answer: type[Any]) -> Any:
        stub: Any = channel.unary_unary(
            f"/distriqueue.v1alpha1.JobService/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        return await stub(request, metadata=metadata, timeout=30)

    return call


def rpc_requests(namespace: str, job: str) -> list[tuple[str, Any, type[Any]]]:
    """A request of every unary method.

    Args:
        namespace: Where.
        job: A job there, by its uid or by namespace and name.
    """
    filter_ = jobs_pb2.JobFilter(namespace=namespace)
    submission = jobs_pb2.JobSubmission(type="calculate", name="smuggled")
    made: list[tuple[str, Any, type[Any]]] = [
        ("Submit", jobs_pb2.SubmitRequest(namespace=namespace, job=submission), jobs_pb2.SubmitResponse),
        ("List", jobs_pb2.ListRequest(filter=filter_), jobs_pb2.ListResponse),
    ]
    for method in ("Get", "Cancel", "Retry", "Explain", "Suspend", "Resume"):
        request = getattr(jobs_pb2, f"{method}Request")(id=job)
        made.append((method, request, getattr(jobs_pb2, f"{method}Response")))
    return made


async def code_of(calling: Awaitable[Any]) -> tuple[grpc.StatusCode, str]:
    """How a call ended, and what it said."""
    try:
        answer = await calling
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    return grpc.StatusCode.OK, str(answer)


@pytest.fixture(name="channel")
async def channel_fixture(plot: Plot) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(plot.gateway.target) as channel:
        yield channel


async def test_by_grpc_nobody_gets_anywhere_without_a_good_token(plot: Plot, channel: grpc.aio.Channel) -> None:
    for token in (None, *WRONG_TOKENS):
        call = caller(channel, token)
        for method, request, answer in rpc_requests(plot.ours, plot.uids[plot.ours]):
            code, said = await code_of(call(method, request, answer))
            assert code is grpc.StatusCode.UNAUTHENTICATED, (method, said)
            assert token is None or token not in said


async def test_others_jobs_cannot_be_read_changed_or_explained_by_grpc(
    plot: Plot, channel: grpc.aio.Channel, kube: KubeClient
) -> None:
    theirs = Jobs(kube, plot.theirs)
    before = await theirs.get(plot.job)
    call = caller(channel, plot.token)
    for method, request, answer in rpc_requests(plot.theirs, f"{plot.theirs}/{plot.job}"):
        code, said = await code_of(call(method, request, answer))
        assert code is grpc.StatusCode.PERMISSION_DENIED, (method, said)
        assert "of-the-other" not in said
    for method, request, answer in rpc_requests(plot.ours, plot.uids[plot.theirs])[2:]:
        code, said = await code_of(call(method, request, answer))
        assert code in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND}, (method, said)
        assert plot.theirs not in said
    assert await theirs.get(plot.job) == before
    code, said = await code_of(call("Get", jobs_pb2.GetRequest(id=plot.uids[plot.ours]), jobs_pb2.GetResponse))
    assert code is grpc.StatusCode.OK, said


async def test_lists_and_watches_by_grpc_have_nothing_of_others(
    plot: Plot, channel: grpc.aio.Channel, kube: KubeClient
) -> None:
    call = caller(channel, plot.token)
    code, said = await code_of(call("List", jobs_pb2.ListRequest(), jobs_pb2.ListResponse))
    assert code in {grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED}
    assert not plot.tells_of_them(said)
    watching: Any = channel.unary_stream(
        "/distriqueue.v1alpha1.JobService/Watch",
        request_serializer=jobs_pb2.WatchRequest.SerializeToString,
        response_deserializer=jobs_pb2.WatchResponse.FromString,
    )
    metadata = (("authorization", f"Bearer {plot.token}"),)
    refused = watching(jobs_pb2.WatchRequest(filter={"namespace": plot.theirs}), metadata=metadata, timeout=30)
    code, said = await code_of(refused.read())
    assert code is grpc.StatusCode.PERMISSION_DENIED, said
    allowed = watching(jobs_pb2.WatchRequest(filter={"namespace": plot.ours}), metadata=metadata, timeout=60)
    await Jobs(kube, plot.theirs).create("watched-theirs", **AWAY)
    await Jobs(kube, plot.ours).create("watched-ours", **AWAY)
    seen = ""
    async for change in allowed:
        seen += str(change)
        if change.job.name == "watched-ours":
            break
    allowed.cancel()
    assert not plot.tells_of_them(seen)
    await Jobs(kube, plot.theirs).delete("watched-theirs")


# HTTP workers


async def register(rest: aiohttp.ClientSession, *, token: str, **words: Any) -> tuple[int, dict[str, Any]]:
    body = {"name": "http-worker", "types": ["unheard-of"], **words}
    status, text = await ask(rest, "POST", "/api/workers/register", token=token, body=body)
    return status, json.loads(text)


async def test_who_works_by_http_needs_the_right_to_run_jobs_there(
    plot: Plot, rest: aiohttp.ClientSession, kube: KubeClient
) -> None:
    runner = await make_caller(kube, plot.ours, "runner", verbs=("run",))
    everything_but = await make_caller(
        kube, plot.ours, "everything-but", verbs=[verb for verb in JOB_VERBS if verb != "run"]
    )
    ours, theirs = plot.ours, plot.theirs
    for token, namespaces in (
        (everything_but, [ours]),
        (runner, [theirs]),
        (runner, [ours, theirs]),
        (runner, []),  # of all namespaces
    ):
        status, said = await register(rest, token=token, namespaces=namespaces)
        assert status == HTTPStatus.FORBIDDEN, (namespaces, said)
    status, said = await register(rest, token=runner, namespaces=[ours])
    assert status == HTTPStatus.OK, said

    # A session is its caller's own, and knowing it helps nobody else.
    session = said["session"]
    steps: list[tuple[str, Any]] = [
        ("heartbeat", {"received": 0, "jobs": []}),
        ("jobs/next?wait=0", {"received": 0, "max": 1}),
        ("jobs/report", {"grant": "1-1", "outcome": "succeeded"}),
        ("leave", {}),
    ]
    for step, body in steps:
        path = f"/api/workers/{session}/{step}"
        assert (await ask(rest, "POST", path, token=None, body=body))[0] == HTTPStatus.UNAUTHORIZED
        status, text = await ask(rest, "POST", path, token=plot.their_token, body=body)
        assert status in REFUSED, (step, text)
    status, text = await ask(
        rest, "POST", f"/api/workers/{session}/heartbeat", token=runner, body={"received": 0, "jobs": []}
    )
    assert status == HTTPStatus.OK, text
    await ask(rest, "POST", f"/api/workers/{session}/leave", token=runner, body={"received": 0, "jobs": []})


async def test_a_worker_by_http_gets_no_job_of_a_namespace_that_it_may_not_run(
    plot: Plot, rest: aiohttp.ClientSession, kube: KubeClient
) -> None:
    runner = await make_caller(kube, plot.ours, "taker", verbs=("run",))
    status, said = await register(rest, token=runner, name="taker", namespaces=[plot.ours], types=["*"], pool="by-http")
    assert status == HTTPStatus.OK, said
    await Jobs(kube, plot.theirs).create("for-them", type="echo", poolName="by-http")
    await Jobs(kube, plot.ours).create("for-us", type="echo", poolName="by-http")
    names: list[str] = []

    async def taken() -> bool:
        session = f"/api/workers/{said['session']}"
        await ask(rest, "POST", f"{session}/heartbeat", token=runner, body={"received": 0, "jobs": []})
        status, text = await ask(
            rest, "POST", f"{session}/jobs/next?wait=2", token=runner, body={"received": 0, "max": 4}
        )
        assert status == HTTPStatus.OK, text
        names.extend(word for word in ("for-us", "for-them") if word in text)
        return "for-us" in names

    await until(taken)
    assert "for-them" not in names
    assert not (await Jobs(kube, plot.theirs).get("for-them")).get("status", {}).get("attempts")
    await Jobs(kube, plot.theirs).delete("for-them")


# The API server


async def test_when_nobody_can_say_who_calls_nobody_passes(
    plot: Plot,
) -> None:
    """Another gateway, whose account may not ask who a token belongs to."""
    plane = plot.stage.plane
    powerless = plane.kubeconfig_for("powerless", groups=["readers"])
    kubectl = plot.stage.kubectl
    kubectl("create", "clusterrole", "readers", "--verb=get,list,watch", "--resource=distributedjobs.distriqueue.io")
    kubectl("create", "clusterrolebinding", "readers", "--clusterrole=readers", "--group=readers")
    kubectl("create", "role", "readers", "--verb=get,list,watch", "--resource=distributedworkers,leases")
    kubectl("create", "rolebinding", "readers", "--role=readers", "--group=readers")
    gateway = await asyncio.to_thread(start, plot.stage.programs, "powerless", KUBECONFIG=str(powerless))
    async with aiohttp.ClientSession(gateway.url) as session:
        for token in (plot.token, "nonsense"):
            async with session.get(f"/api/jobs?namespace={plot.ours}", headers=bearer(token)) as answer:
                text = await answer.text()
                assert answer.status == HTTPStatus.SERVICE_UNAVAILABLE, text
                assert int(answer.headers["Retry-After"]) >= 1
                assert "tokenreviews" not in text
    gateway.program.stop()


async def test_a_token_for_another_audience_is_refused(plot: Plot, kube: KubeClient) -> None:
    gateway = await asyncio.to_thread(
        start, plot.stage.programs, "audience", AUTH_AUDIENCES="jobs.example.com,other.example.com"
    )
    path = f"/api/v1/namespaces/{plot.ours}/serviceaccounts/us/token"

    async def token(*audiences: str) -> str:
        spec = {"audiences": [*audiences], "expirationSeconds": 3600}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        return str((await kube.request("POST", path, body=body))["status"]["token"])

    wanted = {
        plot.token: HTTPStatus.UNAUTHORIZED,  # good for the API server, and not for us
        await token("elsewhere.example.com"): HTTPStatus.UNAUTHORIZED,
        await token("other.example.com"): HTTPStatus.OK,
        await token("elsewhere.example.com", "jobs.example.com"): HTTPStatus.OK,
    }
    async with aiohttp.ClientSession(gateway.url) as session:
        for shown, expected in wanted.items():
            async with session.get(f"/api/jobs?namespace={plot.ours}", headers=bearer(shown)) as answer:
                assert answer.status == expected, await answer.text()
    gateway.program.stop()


async def test_without_authentication_everything_is_open_and_the_log_shouts(plot: Plot) -> None:
    gateway = await asyncio.to_thread(start, plot.stage.programs, "open", AUTH="none", NAMESPACES=plot.theirs)
    async with (
        aiohttp.ClientSession(gateway.url) as session,
        session.get(f"/api/jobs/{plot.theirs}/{plot.job}") as answer,
    ):
        assert answer.status == HTTPStatus.OK, await answer.text()
    assert "AUTHENTICATION IS OFF" in gateway.program.log.read_text()
    gateway.program.stop()
