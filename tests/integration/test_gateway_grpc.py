"""gRPC at a running gateway: every call, beside REST, with a real API server, broker, operator and worker."""

import asyncio
import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import grpc
import httpx
import pytest
from google.protobuf.json_format import MessageToDict
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from distriqueue.gateway.rpc.methods import SERVICE_NAME, call
from distriqueue.gateway.rpc.refusals import problem_in
from distriqueue.gateway.rpc.stubs import jobs_pb2
from docs.generating import DIRECTORY
from tests.support.gateways import Gateway, restart, start
from tests.support.stages import CALM, Stage, Stages
from tests.support.waiting import PATIENCE_SECONDS, until

pytestmark = pytest.mark.integration

PAGE: Final = (DIRECTORY / "grpc.md").read_text(encoding="utf-8")
FINAL: Final = {
    jobs_pb2.JOB_STATUS_COMPLETED,
    jobs_pb2.JOB_STATUS_FAILED,
    jobs_pb2.JOB_STATUS_DEAD,
    jobs_pb2.JOB_STATUS_CANCELLED,
}

Call = Callable[..., Awaitable[Any]]


class Door:
    """The gRPC door of a gateway."""

    def __init__(self, channel: grpc.aio.Channel, namespace: str) -> None:
        self.channel = channel
        self.namespace = namespace

    def __getattr__(self, name: str) -> Call:
        return call(self.channel, "".join(part.capitalize() for part in name.split("_")))  # type: ignore[no-any-return]

    async def made(self, type_: str = "record", payload: Any = None, **fields: Any) -> jobs_pb2.Job:
        """Submit a job."""
        wanted = jobs_pb2.JobSubmission(type=type_, payload_json=json.dumps(payload or {}), **fields)
        answer = await self.submit(jobs_pb2.SubmitRequest(namespace=self.namespace, job=wanted))
        assert answer.created
        return answer.job  # type: ignore[no-any-return]

    async def ended(self, job_id: str) -> jobs_pb2.Job:
        """Wait by a watch until a job is over, and return it."""
        those = jobs_pb2.JobFilter(namespace=self.namespace)
        stream: Any = self.watch(jobs_pb2.WatchRequest(filter=those), timeout=PATIENCE_SECONDS)
        async for change in stream:
            if change.job.id == job_id and change.job.status in FINAL:
                stream.cancel()
                return change.job  # type: ignore[no-any-return]
        raise AssertionError("the stream ended")


@pytest.fixture(name="stage", scope="module")
def stage_fixture(stages: Stages) -> Iterator[Stage]:
    with stages.open(**CALM) as stage:
        stage.start(operators=1, workers=1)
        yield stage


@pytest.fixture(name="gateway", scope="module")
def gateway_fixture(stage: Stage) -> Gateway:
    return start(stage.programs, AUTH="none", REQUEST_LIMIT_BYTES="1000000")


@pytest.fixture(name="door")
async def door_fixture(gateway: Gateway, stage: Stage) -> AsyncIterator[Door]:
    async with grpc.aio.insecure_channel(gateway.target) as channel:
        yield Door(channel, stage.namespace)


@pytest.fixture(name="rest")
async def rest_fixture(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as rest:
        yield rest


async def refusal(calling: Awaitable[Any]) -> tuple[grpc.StatusCode, str, jobs_pb2.Problem]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await calling
    problem = problem_in(caught.value.trailing_metadata())
    assert problem is not None
    return caught.value.code(), caught.value.details() or "", problem


def as_rest_says(job: jobs_pb2.Job) -> dict[str, Any]:
    """A job's message in the words of REST, made without the code of the gateway."""
    shown: dict[str, Any] = MessageToDict(job)
    for field in ("payload", "result"):
        if (text := shown.pop(f"{field}Json", None)) is not None:
            shown[field] = json.loads(text)
    shown["status"] = shown["status"].removeprefix("JOB_STATUS_").lower()
    shown["phase"] = shown["phase"].removeprefix("JOB_PHASE_").capitalize()
    shown["priority"] = shown["priority"].removeprefix("PRIORITY_").capitalize()
    for attempt in shown.get("attempts", ()):
        if "outcome" in attempt:
            attempt["outcome"] = attempt["outcome"].removeprefix("ATTEMPT_OUTCOME_").capitalize()
    return comparable(shown)


def comparable(shown: dict[str, Any]) -> dict[str, Any]:
    """A document without what is at its default, which one of the two leaves out, and with moments as moments."""
    found: dict[str, Any] = {}
    for key, value in shown.items():
        if value in (None, False, 0, "", [], {}) and key not in {"payload", "result"}:
            continue
        if key == "retryGeneration":
            found[key] = int(value)  # JSON of messages has 64 bit numbers in quotes
        elif isinstance(value, dict) and key not in {"payload", "result", "labels"}:
            found[key] = comparable(value)
        elif isinstance(value, list) and key == "attempts":
            found[key] = [comparable(attempt) for attempt in value]
        elif isinstance(value, str) and (key.endswith("Time") or key in {"startAfter", "time"}):
            found[key] = datetime.fromisoformat(value).astimezone(UTC)
        else:
            found[key] = value
    return found


async def test_the_same_job_by_both_doors(door: Door, rest: httpx.AsyncClient) -> None:
    """Submitted by one and by the other, read and listed by both."""
    name = f"both-{uuid.uuid4().hex[:8]}"
    payload = {"big": 9007199254740993, "real": 1.5, "deep": [None, {"ü": True}]}
    ours = await door.made(
        "record",
        payload,
        name=f"{name}-g",
        labels={"test": name},
        priority=jobs_pb2.PRIORITY_HIGH,
        priority_value=7,
        max_attempts=2,
        deadline_seconds=600,
        backoff=jobs_pb2.Backoff(initial_seconds=1),
        retry_budget=jobs_pb2.RetryBudget(timeout=1),
    )
    same = {
        "name": f"{name}-r",
        "namespace": door.namespace,
        "labels": {"test": name},
        "type": "record",
        "payload": payload,
        "priority": "High",
        "priorityValue": 7,
        "maxAttempts": 2,
        "deadlineSeconds": 600,
        "backoff": {"initialSeconds": 1},
        "retryBudget": {"timeout": 1},
    }
    theirs = (await rest.post("/api/jobs", json=same)).raise_for_status().json()
    ended = [await door.ended(ours.id), await door.ended(theirs["id"])]
    of_one_kind = [
        {key: value for key, value in as_rest_says(job).items() if not key.endswith(("Time", "Version"))}
        for job in ended
    ]
    for document in of_one_kind:
        assert document.pop("id")
        assert document.pop("name").startswith(name)
        for attempt in document["attempts"]:
            del attempt["startTime"], attempt["completionTime"]
    assert of_one_kind[0] == of_one_kind[1]
    assert of_one_kind[0]["result"]["payload"] == payload

    for job_id in (ours.id, theirs["id"]):
        by_rest = (await rest.get(f"/api/jobs/{job_id}")).raise_for_status().json()
        by_grpc = (await door.get(jobs_pb2.GetRequest(id=job_id))).job
        assert as_rest_says(by_grpc) == comparable(by_rest)
        assert isinstance(by_rest["result"]["payload"]["big"], int)

    filter_ = jobs_pb2.JobFilter(namespace=door.namespace, label_selector=f"test={name}")
    listed = await door.list(jobs_pb2.ListRequest(filter=filter_))
    query = {"namespace": door.namespace, "labels": f"test={name}"}
    page = (await rest.get("/api/jobs", params=query)).raise_for_status().json()
    assert [as_rest_says(job) for job in listed.jobs] == [comparable(item) for item in page["items"]]
    assert listed.total == page["total"] == 2


async def test_both_doors_refuse_with_the_same_words(door: Door, rest: httpx.AsyncClient) -> None:
    wrong = {"namespace": door.namespace, "type": "Not A Type", "maxAttempts": 0}
    answer = await rest.post("/api/jobs", json=wrong)
    submission = jobs_pb2.JobSubmission(type="Not A Type", max_attempts=0)
    code, said, problem = await refusal(door.submit(jobs_pb2.SubmitRequest(namespace=door.namespace, job=submission)))
    document = answer.json()
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert said == problem.detail == document["detail"]
    assert (problem.status, problem.type, problem.title) == (document["status"], document["type"], document["title"])
    found = [{"field": error.field, "message": error.message} for error in problem.errors]
    assert found == document["errors"]
    assert {error["field"] for error in found} == {"/type", "/maxAttempts"}


@pytest.mark.parametrize(
    ("name", "request_", "path"),
    [
        ("get", jobs_pb2.GetRequest(id="nowhere/nothing"), None),
        ("get", jobs_pb2.GetRequest(id=str(uuid.UUID(int=7))), f"/api/jobs/{uuid.UUID(int=7)}"),
        ("cancel", jobs_pb2.CancelRequest(id=str(uuid.UUID(int=7))), None),
        ("explain", jobs_pb2.ExplainRequest(id="!"), None),
    ],
)
async def test_what_is_not_there_is_not_found(
    door: Door, rest: httpx.AsyncClient, name: str, request_: Any, path: str | None
) -> None:
    code, _, problem = await refusal(getattr(door, name)(request_))
    assert code is grpc.StatusCode.NOT_FOUND
    assert problem.status == 404
    if path is not None:
        assert (await rest.get(path)).json()["detail"] == problem.detail


async def test_a_repeated_submission_is_the_same_job(door: Door, rest: httpx.AsyncClient) -> None:
    key = uuid.uuid4().hex
    job = jobs_pb2.JobSubmission(type="record", payload_json='{"a":1}')
    asked = jobs_pb2.SubmitRequest(namespace=door.namespace, job=job, idempotency_key=key)
    first, second = [await door.submit(asked) for _ in range(2)]
    assert (first.created, second.created) == (True, False)
    body = {"namespace": door.namespace, "type": "record", "payload": {"a": 1}}
    third = await rest.post("/api/jobs", json=body, headers={"Idempotency-Key": key})
    assert third.status_code == 200
    assert first.job.id == second.job.id == third.json()["id"]
    asked.job.payload_json = '{"a":2}'
    code, _, problem = await refusal(door.submit(asked))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert problem.status == 422


async def test_a_dry_run_makes_nothing(door: Door) -> None:
    job = jobs_pb2.JobSubmission(type="record", pool_name="nobody", name=f"dry-{uuid.uuid4().hex[:8]}")
    answer = await door.submit(jobs_pb2.SubmitRequest(namespace=door.namespace, job=job, dry_run=True))
    assert not answer.created
    assert answer.explanation.blocker == "NoWorker"
    assert answer.explanation.sentence
    code, *_ = await refusal(door.get(jobs_pb2.GetRequest(id=f"{door.namespace}/{job.name}")))
    assert code is grpc.StatusCode.NOT_FOUND


async def test_of_many_each_has_its_own_outcome(door: Door) -> None:
    taken = await door.made(name=f"taken-{uuid.uuid4().hex[:8]}")
    jobs = [
        jobs_pb2.JobSubmission(type="record"),
        jobs_pb2.JobSubmission(type="record", payload_json="{"),
        jobs_pb2.JobSubmission(type="record", name=taken.name),
        jobs_pb2.JobSubmission(type="record", payload_json='{"n":3}'),
    ]
    answer = await door.submit_many(jobs_pb2.SubmitManyRequest(namespace=door.namespace, jobs=jobs))
    kinds = [outcome.WhichOneof("outcome") for outcome in answer.outcomes]
    assert kinds == ["job", "problem", "problem", "job"]
    assert [answer.outcomes[place].problem.status for place in (1, 2)] == [422, 409]
    assert answer.outcomes[3].job.payload_json == '{"n":3}'
    too_many = [jobs_pb2.JobSubmission(type="record")] * 1001
    code, *_ = await refusal(door.submit_many(jobs_pb2.SubmitManyRequest(namespace=door.namespace, jobs=too_many)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT


async def test_pages_show_every_job_once(door: Door) -> None:
    name = f"pages-{uuid.uuid4().hex[:8]}"
    jobs = [jobs_pb2.JobSubmission(type="record", labels={"test": name})] * 23
    answer = await door.submit_many(jobs_pb2.SubmitManyRequest(namespace=door.namespace, jobs=jobs))
    made = {outcome.job.id for outcome in answer.outcomes}
    request = jobs_pb2.ListRequest(
        filter=jobs_pb2.JobFilter(namespace=door.namespace, label_selector=f"test={name}"),
        page_size=5,
        order=jobs_pb2.LIST_ORDER_OLDEST,
    )
    seen: list[str] = []
    pages = 0
    while not pages or request.page_token:
        page = await door.list(request)
        seen += [job.id for job in page.jobs]
        request.page_token = page.next_page_token
        pages += 1
    assert pages == 5
    assert len(seen) == len(set(seen)) == 23
    assert set(seen) == made


async def test_jobs_are_suspended_explained_resumed_cancelled_and_retried(door: Door) -> None:
    job = await door.made("record", suspend=True)
    explained = (await door.explain(jobs_pb2.ExplainRequest(id=job.id))).explanation
    assert explained.blocker == "Suspended"
    resumed = (await door.resume(jobs_pb2.ResumeRequest(id=job.id))).job
    assert not resumed.suspended
    ended = await door.ended(job.id)
    assert ended.status == jobs_pb2.JOB_STATUS_COMPLETED
    assert ended.attempt == 1
    again = (await door.retry(jobs_pb2.RetryRequest(id=f"{job.namespace}/{job.name}"))).job
    assert again.retry_generation == 1

    async def ran_again() -> bool:
        now = (await door.get(jobs_pb2.GetRequest(id=job.id))).job
        return bool(now.attempt == 2 and now.status == jobs_pb2.JOB_STATUS_COMPLETED)

    await until(ran_again)
    held = await door.made("record", start_after=datetime(2100, 1, 1, tzinfo=UTC))
    suspended = (await door.suspend(jobs_pb2.SuspendRequest(id=held.id))).job
    assert suspended.suspended
    assert (await door.cancel(jobs_pb2.CancelRequest(id=held.id))).job.cancel_requested
    assert (await door.ended(held.id)).status == jobs_pb2.JOB_STATUS_CANCELLED
    code, _, problem = await refusal(door.retry(jobs_pb2.RetryRequest(id=held.id)))
    assert problem.status in {409, 422}
    assert code in {grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT}


async def test_a_watch_goes_on_where_it_was_cut(door: Door) -> None:
    name = f"watch-{uuid.uuid4().hex[:8]}"
    those = jobs_pb2.JobFilter(
        namespace=door.namespace, label_selector=f"test={name}", statuses=[jobs_pb2.JOB_STATUS_COMPLETED]
    )
    finals: list[str] = []
    position = ""
    made: set[str] = set()
    for _round in range(8):
        stream: Any = door.watch(jobs_pb2.WatchRequest(filter=those, position=position), timeout=PATIENCE_SECONDS)
        answer = await door.submit_many(
            jobs_pb2.SubmitManyRequest(
                namespace=door.namespace, jobs=[jobs_pb2.JobSubmission(type="record", labels={"test": name})] * 5
            )
        )
        made |= {outcome.job.id for outcome in answer.outcomes}
        wanted = len(finals) + 3
        async for change in stream:
            assert change.kind != jobs_pb2.CHANGE_KIND_RESET
            position = change.position
            if change.kind == jobs_pb2.CHANGE_KIND_JOB:
                finals.append(change.job.id)
            if len(finals) >= wanted:
                break
        stream.cancel()
    stream = door.watch(jobs_pb2.WatchRequest(filter=those, position=position), timeout=PATIENCE_SECONDS)
    while len(finals) < len(made):
        change = await stream.read()
        if change.kind == jobs_pb2.CHANGE_KIND_JOB:
            finals.append(change.job.id)
    stream.cancel()
    assert sorted(finals) == sorted(made), "every final state once"


async def test_a_position_that_nobody_knows_begins_anew(door: Door) -> None:
    job = await door.made("record", labels={"reset": "yes"})
    those = jobs_pb2.JobFilter(namespace=door.namespace, label_selector="reset=yes")
    stream: Any = door.watch(jobs_pb2.WatchRequest(filter=those, position="nonsense"), timeout=PATIENCE_SECONDS)
    assert (await stream.read()).kind == jobs_pb2.CHANGE_KIND_RESET
    while (change := await stream.read()).job.id != job.id:  # the job may be so new that it comes after `synced`
        assert change.kind == jobs_pb2.CHANGE_KIND_SYNCED
    stream.cancel()


async def test_a_message_above_the_limit_is_refused(door: Door) -> None:
    huge = jobs_pb2.JobSubmission(type="record", payload_json=json.dumps({"text": "x" * 1_100_000}))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await door.submit(jobs_pb2.SubmitRequest(namespace=door.namespace, job=huge))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_calls_are_counted_and_logged(gateway: Gateway, door: Door) -> None:
    name = "distriqueue_gateway_rpc_seconds_count"
    labels = 'call="Explain",code="NOT_FOUND"'

    def count() -> float:
        lines = gateway.program.get("/metrics").splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name) and labels in line)

    before = await asyncio.to_thread(count)
    await refusal(door.explain(jobs_pb2.ExplainRequest(id="no/job")))
    assert await asyncio.to_thread(count) == before + 1
    lines = [json.loads(line) for line in gateway.program.log.read_text().splitlines() if line.startswith("{")]
    logged = [line for line in lines if line["event"] == "call" and line["call"] == "Explain"]
    assert (logged[-1]["code"], logged[-1]["caller"]) == ("NOT_FOUND", "anonymous")


async def test_health_says_serving_and_reflection_lists_the_services(door: Door) -> None:
    health = health_pb2_grpc.HealthStub(door.channel)
    for service in ("", SERVICE_NAME):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(door.channel)
    questions = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE_NAME),
    ]
    answers = [answer async for answer in reflection.ServerReflectionInfo(iter(questions))]
    services = {service.name for service in answers[0].list_services_response.service}
    assert services == {SERVICE_NAME, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    assert b"distriqueue/v1alpha1/jobs.proto" in answers[1].file_descriptor_response.file_descriptor_proto[0]


async def test_a_stop_ends_streams_and_lets_them_go_on_elsewhere(stage: Stage, door: Door) -> None:
    """Also while a stream is open, a stop takes no longer than its grace; the position holds at the next replica."""
    leaving = await asyncio.to_thread(start, stage.programs, "leaving", AUTH="none", SHUTDOWN_DELAY_SECONDS="2")
    those = jobs_pb2.JobFilter(namespace=door.namespace, label_selector="stop=yes")
    async with grpc.aio.insecure_channel(leaving.target) as channel:
        stream: Any = call(channel, "Watch")(jobs_pb2.WatchRequest(filter=those), timeout=PATIENCE_SECONDS)
        synced = await stream.read()
        assert synced.kind == jobs_pb2.CHANGE_KIND_SYNCED
        health: Any = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service=SERVICE_NAME), timeout=PATIENCE_SECONDS
        )
        while (await health.read()).status != health_pb2.HealthCheckResponse.SERVING:
            pass  # it is told twice a second
        leaving.program.terminate()
        assert (await health.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        health.cancel()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    await asyncio.to_thread(leaving.program.stop)
    job = await door.made("record", labels={"stop": "yes"})
    again = await asyncio.to_thread(restart, stage.programs, leaving, AUTH="none")
    async with grpc.aio.insecure_channel(again.target) as channel:
        request = jobs_pb2.WatchRequest(filter=those, position=synced.position)
        stream = call(channel, "Watch")(request, timeout=PATIENCE_SECONDS)
        while (change := await stream.read()).job.id != job.id:
            assert change.kind == jobs_pb2.CHANGE_KIND_SYNCED
        stream.cancel()
    await asyncio.to_thread(again.program.stop)


def test_the_page_runs_as_written(gateway: Gateway, stage: Stage, tmp_path: Path) -> None:
    """With stubs that grpcio-tools generates, in a directory that knows nothing of our packages."""
    (tmp_path / "proto").symlink_to(DIRECTORY.parent / "operator/src/distriqueue/gateway/rpc/proto")
    commands = re.findall(r"^python (-m grpc_tools\.protoc .*)$", PAGE, re.MULTILINE)
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    variables |= {"TARGET": gateway.target, "TOKEN": "any", "NAMESPACE": stage.namespace, "PYTHONPATH": str(tmp_path)}
    said = ""
    for arguments in (*(command.split() for command in commands), ["-c", program]):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said = done.stdout
    assert json.loads(said) == {"result": 3.0}
