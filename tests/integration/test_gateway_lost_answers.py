"""What the gateway has not heard: an answer that is lost makes no second job, a name means the job that has it now."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from distriqueue.gateway import requests
from distriqueue.gateway.caches import ClusterCache, JobCache
from distriqueue.gateway.identities import ANONYMOUS, Access
from distriqueue.gateway.problems import NotFound, Unsettled
from distriqueue.gateway.requests import JobRequests
from distriqueue.gateway.services import JobRef, JobService
from distriqueue.gateway.settings import GatewaySettings
from distriqueue.gateway.submissions import job_json, spec_json
from distriqueue.gateway.views import JobSubmission
from distriqueue.kube.client import KubeClient
from distriqueue.kube.errors import AlreadyExists, Unanswered
from distriqueue.kube.resources import JOBS
from localcluster.control_plane import ControlPlane
from tests.integration.kube_plane import new_namespace
from tests.integration.tcp_relay import Relay
from tests.support.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture(name="namespace")
async def namespace_fixture(kube: KubeClient) -> str:
    return await new_namespace(kube)


@pytest.fixture(name="relay")
async def relay_fixture(plane: ControlPlane) -> AsyncIterator[Relay]:
    async with Relay.to(plane.server) as relay:
        yield relay


@pytest.fixture(name="cut_off")
async def cut_off_fixture(
    plane: ControlPlane, relay: Relay, kube: KubeClient, namespace: str
) -> AsyncIterator[JobRequests]:
    """The gateway's requests, through the relay, on a connection that is there."""
    await JobRequests(kube).create(namespace, body("a"), dry_run=True)  # it waits for definitions that are new
    async with await KubeClient.connect(relay.kubeconfig(plane.kubeconfig)) as client:
        await client.request("GET", f"/api/v1/namespaces/{namespace}")
        yield JobRequests(client)


def body(name: str, *, asked: str | None = None, **fields: Any) -> bytes:
    submission = JobSubmission.model_validate({"type": "email", "payload": {"n": [1, None, 2.5]}, **fields})
    return job_json(submission, spec_json(submission), name=name, caller="somebody", asked=asked)


async def lose_one(relay: Relay) -> None:
    """Drop one answer, and break the connection that it was for."""
    relay.swallow_answers()
    await relay.swallowed()
    relay.answer_again()
    relay.cut()


async def lose_all(relay: Relay, writing: "asyncio.Task[Any]") -> None:
    """Drop every answer, until whoever waits for it gives up."""
    relay.swallow_answers()
    while not writing.done():
        await relay.swallowed()
        relay.cut()
        await asyncio.sleep(0.01)


async def names(kube: KubeClient, namespace: str) -> list[str]:
    return [job["metadata"]["name"] for job in (await kube.request("GET", JOBS.collection(namespace)))["items"]]


async def test_a_job_whose_answer_is_lost_is_found_and_not_made_again(
    cut_off: JobRequests, relay: Relay, kube: KubeClient, namespace: str
) -> None:
    made, _ = await asyncio.gather(cut_off.create(namespace, body("a", labels={"team": "blue"})), lose_one(relay))
    assert made["metadata"]["uid"] == (await kube.request("GET", JOBS.path(namespace, "a")))["metadata"]["uid"]
    assert await names(kube, namespace) == ["a"]


async def test_the_job_of_another_is_not_taken_for_ours(
    cut_off: JobRequests, relay: Relay, kube: KubeClient, namespace: str
) -> None:
    await kube.request("POST", JOBS.collection(namespace), body=body("a", type="other"))
    with pytest.raises(AlreadyExists):
        await asyncio.gather(cut_off.create(namespace, body("a")), lose_one(relay))


async def test_where_no_answer_comes_the_caller_is_told_how_to_find_out(
    cut_off: JobRequests, relay: Relay, kube: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "REPEATS_SECONDS", (0.01, 0.01))
    creating = asyncio.create_task(cut_off.create(namespace, body("a")))
    await lose_all(relay, creating)
    with pytest.raises(Unsettled, match=f"/api/jobs/{namespace}/a") as caught:
        await creating
    assert caught.value.retry_after is None
    assert await names(kube, namespace) == ["a"]

    keyed = asyncio.create_task(cut_off.create(namespace, body("keyed", asked="hash")))
    await lose_all(relay, keyed)
    with pytest.raises(Unanswered):  # it may be repeated
        await keyed


async def test_a_retry_whose_answer_is_lost_is_one(
    cut_off: JobRequests, relay: Relay, kube: KubeClient, namespace: str
) -> None:
    job = await kube.request("POST", JOBS.collection(namespace), body=body("a"))
    version = {key: job["metadata"][key] for key in ("uid", "resourceVersion")}
    patch = orjson.dumps({"metadata": version, "spec": {"retryGeneration": 1}})
    changed, _ = await asyncio.gather(cut_off.patch(namespace, "a", patch), lose_one(relay))
    assert changed["spec"]["retryGeneration"] == 1
    again = await kube.request("GET", JOBS.path(namespace, "a"))
    assert again["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"]


async def test_a_name_means_the_job_that_has_it_now(plane: ControlPlane, kube: KubeClient, namespace: str) -> None:
    settings = GatewaySettings.model_validate({"auth": "none"})
    async with Relay.to(plane.server) as relay, await KubeClient.connect(relay.kubeconfig(plane.kubeconfig)) as late:
        cache, cluster = JobCache(late, ()), ClusterCache(kube, namespace=namespace, lease_name="none")
        jobs = JobService(kube, jobs=cache, cluster=cluster, access=Access.create(kube, settings))
        running = asyncio.create_task(cache.run())
        try:
            await until(lambda: cache.synced)
            old = [(await jobs.submit(ANONYMOUS, namespace, wanted(name))).job for name in ("a", "b")]
            relay.hold_answers()
            for job in old:
                await kube.request("DELETE", JOBS.path(namespace, job.name))
                await kube.request("POST", JOBS.collection(namespace), body=body(job.name))
            await jobs.delete(ANONYMOUS, JobRef(namespace=namespace, name="a"))
            assert await names(kube, namespace) == ["b"]
            with pytest.raises(NotFound):
                await jobs.delete(ANONYMOUS, JobRef(uid=old[1].id))
            assert await names(kube, namespace) == ["b"]
        finally:
            running.cancel()
            await asyncio.wait([running])


def wanted(name: str) -> JobSubmission:
    return JobSubmission.model_validate({"type": "email", "name": name})
