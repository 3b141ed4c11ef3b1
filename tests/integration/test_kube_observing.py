"""kopf in its thread, on a real API server: what it sees arrives in the main loop, and it writes nothing.

There is no kubelet here: what it would say about a pod is written to the pod's status.
"""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from distriqueue.kube.client import MERGE_PATCH, KubeClient
from distriqueue.kube.resources import WORKERS, Resource
from distriqueue.kube.workers import WorkerResources
from distriqueue.operator.observing import WORKER_PODS, Observer, PodSeen, WorkerSeen
from localcluster.control_plane import ControlPlane
from tests.integration.kube_plane import apply_crd, client_fixture, namespace_fixture, plane_fixture, until

__all__ = ["client_fixture", "namespace_fixture", "plane_fixture"]

pytestmark = pytest.mark.integration

CRD = (Path(__file__).parents[2] / "crds" / "distributedworkers.yaml").read_text()
PODS = Resource("", "v1", "pods", "Pod")


@asynccontextmanager
async def observing(client: KubeClient, namespace: str) -> AsyncIterator[list[PodSeen | WorkerSeen]]:
    seen: list[PodSeen | WorkerSeen] = []
    main = threading.current_thread()

    def deliver(what: PodSeen | WorkerSeen) -> None:
        assert threading.current_thread() is main
        seen.append(what)

    observer = Observer(client.credentials, identity="test", namespace=namespace, deliver=deliver)
    observer.start()
    try:
        await until(lambda: observer.ready)
        yield seen
    finally:
        await observer.stop()
    assert not observer._thread.is_alive()


async def make_pod(client: KubeClient, namespace: str, name: str, labels: dict[str, str]) -> str:
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [{"name": "worker", "image": "none"}], "nodeName": "nowhere"},
    }
    uid: str = (await client.request("POST", PODS.collection(namespace), body=body))["metadata"]["uid"]
    return uid


async def kubelet_says(client: KubeClient, namespace: str, name: str, phase: str, state: dict[str, Any]) -> None:
    container = {"name": "worker", "image": "none", "imageID": "", "ready": False, "restartCount": 0, "state": state}
    await client.request(
        "PATCH",
        PODS.path(namespace, name, "status"),
        body={"status": {"phase": phase, "containerStatuses": [container]}},
        content_type=MERGE_PATCH,
    )


RUNNING: dict[str, Any] = {"running": {"startedAt": "2026-11-01T00:00:00Z"}}
TERMINATED: dict[str, Any] = {"running": None, "terminated": {"exitCode": 137}}


async def test_the_end_of_a_workers_containers_is_told(client: KubeClient, namespace: str) -> None:
    await apply_crd(client, CRD)
    uid = await make_pod(client, namespace, "before", WORKER_PODS)
    await kubelet_says(client, namespace, "before", "Running", RUNNING)
    async with observing(client, namespace) as seen:
        await until(lambda: PodSeen(uid, "before", ended=False) in seen)
        other = await make_pod(client, namespace, "other", {"app.kubernetes.io/component": "operator"})
        await kubelet_says(client, namespace, "before", "Failed", TERMINATED)
        await until(lambda: PodSeen(uid, "before", ended=True) in seen)
        forced = await make_pod(client, namespace, "forced", WORKER_PODS)
        await kubelet_says(client, namespace, "forced", "Running", RUNNING)
        await client.request("DELETE", PODS.path(namespace, "forced"), body={"gracePeriodSeconds": 0})
        last = await make_pod(client, namespace, "last", WORKER_PODS)
        await until(lambda: PodSeen(last, "last", ended=False) in seen)
        assert not any(isinstance(what, PodSeen) and what.uid == other for what in seen)
        assert not any(isinstance(what, PodSeen) and what.uid == forced and what.ended for what in seen)


async def test_workers_are_told_and_nothing_is_written(client: KubeClient, namespace: str) -> None:
    await apply_crd(client, CRD)
    resources = WorkerResources(client, namespace=namespace, lease_name="operator")
    async with observing(client, namespace) as seen:
        await resources.put("a", {"phase": "Online", "epoch": 1}, check=lambda: True)
        await until(lambda: WorkerSeen("a", deleted=False) in seen)
        metadata = (await client.request("GET", WORKERS.path(namespace, "a")))["metadata"]
        assert "finalizers" not in metadata
        assert "annotations" not in metadata
        assert {entry["manager"] for entry in metadata.get("managedFields", [])} <= {"distriqueue-tests"}
        await resources.delete("a", check=lambda: True)
        await until(lambda: WorkerSeen("a", deleted=True) in seen)
    assert (await client.request("GET", f"/api/v1/namespaces/{namespace}/events"))["items"] == []


async def test_it_outlives_the_api_server(plane: ControlPlane, client: KubeClient, namespace: str) -> None:
    await apply_crd(client, CRD)
    async with observing(client, namespace) as seen:
        uid = await make_pod(client, namespace, "a", WORKER_PODS)
        await until(lambda: PodSeen(uid, "a", ended=False) in seen)
        await asyncio.to_thread(plane.kill_apiserver)
        await asyncio.to_thread(plane.start_apiserver)
        await kubelet_says(client, namespace, "a", "Failed", TERMINATED)
        await until(lambda: PodSeen(uid, "a", ended=True) in seen, seconds=120)
