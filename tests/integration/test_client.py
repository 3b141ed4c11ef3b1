"""The Python client at a running gateway, with a real API server, broker, operator and worker; cut and refused, too."""

import asyncio
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from distriqueue.client import (
    AsyncClient,
    BatchRefused,
    ChangeKind,
    Client,
    Conflict,
    ConnectionFailed,
    Forbidden,
    InvalidRequest,
    JobCancelled,
    JobDead,
    JobDeleted,
    JobFailed,
    JobStatus,
    NotFound,
    ResultMismatch,
    TooLarge,
    Unauthenticated,
    WaitTimeout,
    as_completed,
    gather,
)
from distriqueue.kube.client import KubeClient
from docs.generating import DIRECTORY
from tests.integration.tcp_relay import Relay
from tests.support.gateways import Gateway, make_caller, restart, start
from tests.support.stages import CALM, Stage, Stages
from tests.support.waiting import PATIENCE_SECONDS, until

pytestmark = pytest.mark.integration

PAGE: Final = (DIRECTORY / "client.md").read_text(encoding="utf-8")
BLOCKS: Final = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
MANY: Final = 300


@pytest.fixture(name="stage", scope="module")
def stage_fixture(stages: Stages) -> Iterator[Stage]:
    with stages.open(**CALM) as stage:
        stage.start(operators=1, workers=1, concurrency=8)
        yield stage


@pytest.fixture(name="gateway", scope="module")
def gateway_fixture(stage: Stage) -> Gateway:
    return start(stage.programs)


@pytest.fixture(name="token", scope="module")
def token_fixture(stage: Stage) -> str:
    async def make() -> str:
        async with await stage.client() as kube:
            return await make_caller(kube, stage.namespace, "submitter")

    return asyncio.run(make())


@pytest.fixture(name="client")
async def client_fixture(gateway: Gateway, stage: Stage, token: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(gateway.url, token=token, namespace=stage.namespace) as client:
        yield client


@pytest.fixture(name="relay")
async def relay_fixture(gateway: Gateway) -> AsyncIterator[Relay]:
    async with Relay.to(gateway.url) as relay:
        yield relay


@pytest.fixture(name="cut_off")
async def cut_off_fixture(relay: Relay, stage: Stage, token: str) -> AsyncIterator[AsyncClient]:
    """A client behind the relay."""
    async with AsyncClient(f"http://127.0.0.1:{relay.port}", token=token, namespace=stage.namespace) as client:
        yield client


@dataclass
class Recorded:
    payload: dict[str, Any]
    attempt: int


async def test_a_result_is_of_the_type_that_was_asked_for(client: AsyncClient) -> None:
    job = await client.submit("record", {"n": 9007199254740993}, result_type=Recorded)
    assert await job.result(PATIENCE_SECONDS) == Recorded({"n": 9007199254740993}, 1)
    plain = await client.handle(job.id)
    assert (await plain.result())["attempt"] == 1
    other = await client.handle(f"{job.namespace}/{job.name}", result_type=list[int])
    with pytest.raises(ResultMismatch) as caught:
        await other.result()
    assert caught.value.job.id == job.id


async def test_what_did_not_succeed_is_raised_with_its_job(client: AsyncClient) -> None:
    failed = await client.submit("refusing")
    dead = await client.submit("flaky", {"failures": 9}, max_attempts=1)
    cancelled = await client.submit("record", suspend=True)
    await cancelled.cancel()
    with pytest.raises(JobFailed, match="no attempt can help") as caught:
        await failed.result(PATIENCE_SECONDS)
    assert caught.value.job.attempts[0].outcome == "Failed"
    with pytest.raises(JobDead, match="attempt 1 fails as told"):
        await dead.result(PATIENCE_SECONDS)
    with pytest.raises(JobCancelled):
        await cancelled.result(PATIENCE_SECONDS)
    found = await gather([failed, dead, cancelled], return_exceptions=True)
    assert [type(error) for error in found] == [JobFailed, JobDead, JobCancelled]


async def test_a_wait_ends_in_time_and_the_job_goes_on(client: AsyncClient, stage: Stage) -> None:
    job = await client.submit("hold", {"until": "waited"})
    with pytest.raises(WaitTimeout) as caught:
        await job.wait(0.3)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.job.id == job.id
    stage.records.release("waited")
    assert await job.result(PATIENCE_SECONDS) == "released"


async def test_a_job_that_is_deleted_is_not_waited_for(client: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distriqueue.client.waiting.LOOK_SECONDS", 0.2)
    job = await client.submit("record", suspend=True)
    waiting = asyncio.create_task(job.wait(PATIENCE_SECONDS))
    await client.delete(job.id)
    with pytest.raises(JobDeleted):
        await waiting


async def test_after_a_retry_the_new_end_is_waited_for(client: AsyncClient) -> None:
    job = await client.submit("record")
    first = await job.wait(PATIENCE_SECONDS)
    await job.retry()
    second = await job.wait(PATIENCE_SECONDS)
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.completion_time != second.completion_time


async def test_many_jobs_are_submitted_gathered_and_taken_as_they_end(client: AsyncClient, gateway: Gateway) -> None:
    jobs = await client.submit_many("record", ({"n": n} for n in range(MANY)), result_type=Recorded)
    ended: list[str] = []
    before = asked(gateway, "/api/jobs/{uid}")
    async for job in as_completed(jobs, timeout=PATIENCE_SECONDS):
        assert job.job.status is JobStatus.COMPLETED
        ended.append(job.id)
    assert asked(gateway, "/api/jobs/{uid}") - before < MANY / 10, "one stream serves all"
    assert sorted(ended) == sorted(job.id for job in jobs)
    assert [result.payload["n"] for result in await gather(jobs)] == list(range(MANY))


def asked(gateway: Gateway, route: str) -> float:
    """How often a route was asked."""
    lines = gateway.program.get("/metrics").splitlines()
    name = "distriqueue_gateway_request_seconds_count"
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name) and f'"{route}"' in line)


async def test_of_many_that_are_refused_the_others_are_made(client: AsyncClient) -> None:
    with pytest.raises(BatchRefused) as caught:
        await client.submit_many("record", [{"n": 1}, {"text": "x" * 70_000}, {"n": 3}])
    assert set(caught.value.made) == {0, 2}
    assert set(caught.value.refused) == {1}
    assert not caught.value.refused[1].retryable


async def test_many_with_large_payloads_fit_into_requests(client: AsyncClient) -> None:
    payloads = [{"text": "x" * 50_000, "n": n} for n in range(180)]  # more than a request may have
    jobs = await client.submit_many("record", payloads, suspend=True)
    assert [job.job.payload["n"] for job in jobs if job.job.payload] == list(range(180))


async def test_what_was_made_before_the_gateway_refused_is_not_lost(client: AsyncClient) -> None:
    with pytest.raises(BatchRefused) as caught:
        await client.submit_many("record", [{"n": 0}, {"text": "x" * 9_000_000}, {"n": 2}], suspend=True)
    refusal = caught.value
    assert set(refusal.made) == {0}
    assert {type(error) for error in refusal.refused.values()} == {TooLarge}
    assert set(refusal.refused) == set(refusal.names) == {1, 2}
    assert isinstance(refusal.__cause__, TooLarge)
    assert (await client.get(refusal.made[0].id)).payload == {"n": 0}
    with pytest.raises(TooLarge):  # nothing was made
        await client.submit_many("record", [{"text": "x" * 9_000_000}])


async def test_a_conflict_that_is_no_name_stays_one(client: AsyncClient, stage: Stage) -> None:
    name = f"named-{uuid.uuid4().hex}"
    job = await client.submit("record", {"n": 1}, name=name, suspend=True)
    with pytest.raises(Conflict) as caught:
        await client.submit("record", {"n": 2}, name=name)
    found = client._found
    assert await found(f"{stage.namespace}/no-such-job", caught.value) is caught.value
    assert await found("kube-system/not-ours", caught.value) is caught.value
    assert getattr(await found(f"{stage.namespace}/{name}", caught.value), "id", None) == job.id


async def test_jobs_are_listed_page_by_page(client: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distriqueue.client.clients.PAGE", 7)
    label = uuid.uuid4().hex
    jobs = await client.submit_many("record", [{}] * 30, labels={"list": label}, suspend=True)
    oldest = [job.id async for job in client.list(labels=f"list={label}", status=["pending"], oldest_first=True)]
    newest = [job.id async for job in client.list(labels=f"list={label}")]
    assert sorted(oldest) == sorted(job.id for job in jobs)
    assert oldest == newest[::-1]
    assert [job async for job in client.list(labels=f"list={label}", status="completed")] == []


async def test_the_same_key_is_the_same_job_and_another_request_is_refused(client: AsyncClient) -> None:
    key = uuid.uuid4().hex
    first = await client.submit("record", {"n": 1}, idempotency_key=key)
    again = await client.submit("record", {"n": 1}, idempotency_key=key)
    assert first.id == again.id
    with pytest.raises(InvalidRequest):
        await client.submit("record", {"n": 2}, idempotency_key=key)
    named = await client.submit("record", name=f"named-{key}")
    assert named.name == f"named-{key}"
    with pytest.raises(Conflict):
        await client.submit("record", {"other": True}, name=f"named-{key}")


async def test_changes_are_watched(client: AsyncClient) -> None:
    label = uuid.uuid4().hex
    job = await client.submit("record", labels={"watch": label}, suspend=True)
    kinds = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for change in client.watch(labels=f"watch={label}"):
            kinds.append(change.kind)
            if change.kind is ChangeKind.SYNCED:
                await client.resume(job.id)
            elif change.job is not None and change.job.finished:
                break
    assert kinds.count(ChangeKind.SYNCED) == 1
    assert change.job is not None
    assert change.job.id == job.id


async def test_a_submission_whose_answer_is_lost_is_made_once(cut_off: AsyncClient, relay: Relay) -> None:
    label = uuid.uuid4().hex
    await cut_off.submit("record", labels={"lost": label})  # so that there is a connection
    relay.swallow_answers()
    submitting = asyncio.create_task(cut_off.submit("record", {"lost": True}, labels={"lost": label}))
    await relay.swallowed()
    relay.answer_again()
    relay.cut()
    job = await submitting
    assert await job.result(PATIENCE_SECONDS) == {"payload": {"lost": True}, "attempt": 1}
    assert len([found async for found in cut_off.list(labels=f"lost={label}")]) == 2


async def test_a_batch_whose_answer_is_lost_is_made_once(cut_off: AsyncClient, relay: Relay) -> None:
    label = uuid.uuid4().hex
    await cut_off.submit("record")
    relay.swallow_answers()
    submitting = asyncio.create_task(cut_off.submit_many("record", [{"n": n} for n in range(50)], labels={"b": label}))
    await relay.swallowed()
    relay.answer_again()
    relay.cut()
    jobs = await submitting
    assert [result["payload"]["n"] for result in await gather(jobs, timeout=PATIENCE_SECONDS)] == list(range(50))
    assert len([found async for found in cut_off.list(labels=f"b={label}")]) == 50


async def test_a_retry_by_hand_whose_answer_is_lost_is_not_repeated(cut_off: AsyncClient, relay: Relay) -> None:
    job = await cut_off.submit("record", suspend=True)
    relay.swallow_answers()
    retrying = asyncio.create_task(job.retry())
    await relay.swallowed()
    relay.answer_again()
    relay.cut()
    with pytest.raises(ConnectionFailed):
        await retrying
    assert (await job.refresh()).retry_generation == 1


async def test_waits_outlast_twenty_cuts(cut_off: AsyncClient, relay: Relay) -> None:
    jobs = await cut_off.submit_many("record.slow", [{"seconds": 0.05}] * 200)
    ended: list[str] = []

    async def follow() -> None:
        async for job in as_completed(jobs, timeout=PATIENCE_SECONDS):
            ended.append(job.id)  # noqa: PERF401 - looked at while it grows

    following = asyncio.create_task(follow())
    for cut in range(20):
        await until(lambda cut=cut: len(ended) > cut * 5 or following.done())  # type: ignore[misc]
        relay.cut()
    await following
    assert sorted(ended) == sorted(job.id for job in jobs)


async def test_waits_outlast_a_gateway(client: AsyncClient, stage: Stage, token: str) -> None:
    """Killed while a job is waited for, and back only after the job's end."""
    leaving = await asyncio.to_thread(start, stage.programs, "leaving")
    async with AsyncClient(leaving.url, token=token, namespace=stage.namespace, patience_seconds=60) as other:
        jobs = await other.submit_many("hold", [{"until": "gateway-gone"}] * 3)
        waiting = asyncio.create_task(gather(jobs, timeout=PATIENCE_SECONDS))
        await until(lambda: leaving.program.metric("distriqueue_gateway_streams") == 1)
        await asyncio.to_thread(leaving.program.kill)
        stage.records.release("gateway-gone")
        for job in jobs:
            await (await client.handle(job.id)).wait(PATIENCE_SECONDS)
        again = await asyncio.to_thread(restart, stage.programs, leaving)
        assert await waiting == ["released"] * 3
    await asyncio.to_thread(again.program.stop)


async def test_where_streams_are_refused_lists_are_asked(stage: Stage, gateway: Gateway, kube: KubeClient) -> None:
    verbs = ("get", "list", "create")
    token = await make_caller(kube, stage.namespace, "cannot-watch", verbs=verbs)
    async with AsyncClient(gateway.url, token=token, namespace=stage.namespace) as client:
        job = await client.submit("record")
        assert (await job.wait(PATIENCE_SECONDS)).status is JobStatus.COMPLETED


async def test_a_token_that_was_renewed_is_read_again(
    stage: Stage, gateway: Gateway, token: str, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("not a token any more\n")
    async with AsyncClient(gateway.url, token_file=file, namespace=stage.namespace) as client:
        with pytest.raises(Unauthenticated):
            await client.submit("record")
        file.write_text(f"{token}\n")
        job = await client.submit("record")
        assert await job.result(PATIENCE_SECONDS)
    async with AsyncClient(gateway.url, namespace=stage.namespace) as nobody:
        with pytest.raises(Unauthenticated):
            await nobody.submit("record")


async def test_refusals_are_raised_as_what_they_are(client: AsyncClient, stage: Stage) -> None:
    with pytest.raises(Forbidden) as caught:
        await client.submit("record", namespace="kube-system")
    assert caught.value.status == 403
    assert caught.value.slug == "forbidden"
    with pytest.raises(NotFound):
        await client.get(f"{stage.namespace}/no-such-job")
    with pytest.raises(ConnectionFailed) as failed:
        async with AsyncClient("http://127.0.0.1:9", patience_seconds=0.1) as nowhere:
            await nowhere.get("x")
    assert failed.value.retryable


def test_the_face_without_asyncio(gateway: Gateway, stage: Stage, token: str) -> None:
    with Client(gateway.url, token=token, namespace=stage.namespace) as client:
        label = uuid.uuid4().hex
        jobs = client.submit_many("record", [{"n": n} for n in range(20)], labels={"sync": label}, result_type=Recorded)
        assert {job.id for job in client.as_completed(jobs, timeout=PATIENCE_SECONDS)} == {job.id for job in jobs}
        assert [result.payload["n"] for result in client.gather(jobs)] == list(range(20))
        assert len(list(client.list(labels=f"sync={label}"))) == 20
        held = client.submit("record", suspend=True)
        assert held.explain().blocker == "Suspended"
        held.resume()
        assert held.result(PATIENCE_SECONDS)["attempt"] == 1
        with pytest.raises(WaitTimeout):
            client.submit("record", suspend=True).wait(0.1)
        begun = time.monotonic()
    assert time.monotonic() - begun < PATIENCE_SECONDS


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_page_runs_as_written(gateway: Gateway, stage: Stage, token: str, tmp_path: Path, number: int) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(token)
    variables = {
        **os.environ,
        "DISTRIQUEUE_URL": gateway.url,
        "DISTRIQUEUE_TOKEN_FILE": str(token_file),
        "DISTRIQUEUE_NAMESPACE": stage.namespace,
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCKS[number]],
        env=variables,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
