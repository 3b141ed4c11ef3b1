"""DistributedWorker resources on a real API server, with the real definition."""

from pathlib import Path
from typing import Any

import pytest

from distriqueue.kube.client import KubeClient
from distriqueue.kube.election import Elector
from distriqueue.kube.errors import Conflict, NotFound, NotLeading, Refused
from distriqueue.kube.resources import LEASES, WORKERS
from distriqueue.kube.workers import WorkerResources
from localcluster.control_plane import ControlPlane
from tests.integration.kube_plane import apply_crd, client_fixture, namespace_fixture, plane_fixture

__all__ = ["client_fixture", "namespace_fixture", "plane_fixture"]

pytestmark = pytest.mark.integration

CRD = (Path(__file__).parents[2] / "crds" / "distributedworkers.yaml").read_text()


@pytest.fixture
async def workers(client: KubeClient, namespace: str) -> WorkerResources:
    await apply_crd(client, CRD)
    return WorkerResources(client, namespace=namespace, lease_name="operator")


def online(*, epoch: int = 1, **more: Any) -> dict[str, Any]:
    return {"phase": "Online", "epoch": epoch, "incarnation": "i1", **more}


async def read(client: KubeClient, namespace: str, name: str) -> dict[str, Any]:
    return await client.request("GET", WORKERS.path(namespace, name))


async def test_putting_creates_and_then_replaces(workers: WorkerResources, client: KubeClient, namespace: str) -> None:
    await workers.put("a", online(running=1), check=lambda: True)
    first = await read(client, namespace, "a")
    assert first["status"] == online(running=1)
    await workers.put("a", online(epoch=2), check=lambda: True)
    await workers.put("a", online(epoch=2), check=lambda: True)
    second = await read(client, namespace, "a")
    assert second["status"] == online(epoch=2)
    assert second["metadata"]["uid"] == first["metadata"]["uid"]


async def test_it_comes_back_when_somebody_deleted_it(
    workers: WorkerResources, client: KubeClient, namespace: str
) -> None:
    await workers.put("a", online(), check=lambda: True)
    await workers.delete("a", check=lambda: True)
    await workers.delete("a", check=lambda: True)
    with pytest.raises(NotFound):
        await read(client, namespace, "a")
    await workers.put("a", online(), check=lambda: True)
    assert (await read(client, namespace, "a"))["status"]["phase"] == "Online"


async def test_the_lease_owns_it(workers: WorkerResources, client: KubeClient, namespace: str) -> None:
    await workers.put("without", online(), check=lambda: True)
    assert "ownerReferences" not in (await read(client, namespace, "without"))["metadata"]
    async with await Elector(client, namespace, "operator", "me").acquire():
        await workers.put("with", online(), check=lambda: True)
    (owner,) = (await read(client, namespace, "with"))["metadata"]["ownerReferences"]
    lease = await client.request("GET", LEASES.path(namespace, "operator"))
    assert (owner["kind"], owner["uid"]) == ("Lease", lease["metadata"]["uid"])


async def test_nothing_is_written_without_leading(workers: WorkerResources, client: KubeClient, namespace: str) -> None:
    with pytest.raises(NotLeading):
        await workers.put("a", online(), check=lambda: False)
    assert await workers.list() == []
    await workers.put("a", online(), check=lambda: True)
    with pytest.raises(NotLeading):
        await workers.put("a", online(running=7), check=lambda: False)
    with pytest.raises(NotLeading):
        await workers.delete("a", check=lambda: False)
    assert (await read(client, namespace, "a"))["status"] == online()


async def test_an_older_epoch_is_refused(workers: WorkerResources) -> None:
    await workers.put("a", online(epoch=5), check=lambda: True)
    with pytest.raises(Refused, match="fence/epoch"):
        await workers.put("a", online(epoch=4), check=lambda: True)


async def test_listing_goes_over_all_pages(workers: WorkerResources, client: KubeClient, namespace: str) -> None:
    body = {"apiVersion": WORKERS.api_version, "kind": WORKERS.kind}
    for number in range(501):
        await client.request("POST", WORKERS.collection(namespace), body={**body, "metadata": {"name": f"n{number}"}})
    assert len(await workers.list()) == 501


async def test_a_creator_that_is_faster_is_no_failure(
    workers: WorkerResources, client: KubeClient, namespace: str, plane: ControlPlane
) -> None:
    other = WorkerResources(client, namespace=namespace, lease_name="operator")

    async def race(name: str) -> None:
        import asyncio  # noqa: PLC0415  # only here

        results = await asyncio.gather(
            *(writer.put(name, online(), check=lambda: True) for writer in (workers, other)), return_exceptions=True
        )
        # Two that write the same may wear each other out; what must not come is anything but a conflict.
        assert all(result is None or isinstance(result, Conflict) for result in results)
        assert None in results

    for number in range(10):
        await race(f"n{number}")
    assert plane.process("kube-apiserver") is not None
