"""Jobs that are nested deeper than anybody reads, on a real API server: they end as failed, and hold up nobody."""

import asyncio
from collections.abc import Iterator

import pytest

from distriqueue.gateway.caches import JobCache
from distriqueue.kube.client import KubeClient
from distriqueue.kube.resources import JOBS
from tests.support.jobs import Jobs, condition, phase
from tests.support.stages import CALM, Stage, Stages
from tests.support.waiting import until

pytestmark = pytest.mark.integration

LEVELS = (300, 900, 2000, 9000)
"""What orjson reads and does not write; twice what it does not even read; and near the API server's own end."""


@pytest.fixture(name="stage", scope="module")
def stage_fixture(stages: Stages) -> Iterator[Stage]:
    with stages.open(**CALM) as stage:
        stage.start(operators=1, workers=1)
        yield stage


async def create(kube: KubeClient, namespace: str, name: str, *, levels: int) -> None:
    payload = b'{"a":' * levels + b"1" + b"}" * levels
    metadata = b'{"name":"%s","namespace":"%s"}' % (name.encode(), namespace.encode())
    body = b'{"apiVersion":"%s","kind":"%s","metadata":%s,"spec":{"type":"record","payload":%s}}' % (
        JOBS.api_version.encode(),
        JOBS.kind.encode(),
        metadata,
        payload,
    )
    await kube.request_raw("POST", JOBS.collection(namespace), body=body)


async def test_they_fail_and_all_others_go_on(jobs: Jobs, kube: KubeClient) -> None:
    namespace = jobs.namespace
    cache = JobCache(kube, (namespace,))
    running = asyncio.create_task(cache.run())
    try:
        await until(lambda: cache.synced)
        deep = [f"deep-{levels}" for levels in LEVELS]
        for name, levels in zip(deep, LEVELS, strict=True):
            await create(kube, namespace, name, levels=levels)
        for name in deep:
            job = await jobs.ended(name)
            assert (phase(job), condition(job, "Failed")["reason"]) == ("Failed", "InvalidPayload"), name
        await jobs.create("after-them", payload={"a": 1})
        assert phase(await jobs.ended("after-them")) == "Succeeded"

        def shown(name: str) -> str:
            row = cache.get((namespace, name))
            return row.phase if row is not None else ""

        await until(lambda: [shown(name) for name in (*deep, "after-them")] == ["Failed"] * len(deep) + ["Succeeded"])
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    async with asyncio.timeout(60):  # one that starts now, and finds them in its list
        late = JobCache(kube, (namespace,))
        running = asyncio.create_task(late.run())
        try:
            await until(lambda: late.synced)
            assert len(late) == len(deep) + 1
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
