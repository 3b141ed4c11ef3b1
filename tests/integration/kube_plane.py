"""A real API server for the tests of the Kubernetes side: one for all of them, a fresh namespace for each."""

import asyncio
import contextlib
import functools
import json
import uuid
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import aiohttp
import pytest
import yaml

from distriqueue.kube.client import KubeClient
from distriqueue.kube.errors import AlreadyExists, NotFound, Throttled
from distriqueue.kube.resources import Resource
from localcluster.control_plane import ControlPlane
from tests.support.planes import shared_plane
from tests.support.waiting import until

__all__ = [
    "TRIES",
    "apply_crd",
    "client_fixture",
    "compact",
    "make_try",
    "namespace_fixture",
    "new_namespace",
    "plane_fixture",
    "until",
]

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
TRIES = Resource("try.distriqueue.io", "v1", "tries", "Try")

_TRY_CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: tries.try.distriqueue.io}
spec:
  group: try.distriqueue.io
  scope: Namespaced
  names: {kind: Try, plural: tries, singular: try}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        x-kubernetes-validations:
        - rule: "!has(oldSelf.status) || !has(oldSelf.status.epoch) ||
            (has(self.status) && has(self.status.epoch) && self.status.epoch >= oldSelf.status.epoch)"
          message: "fence/epoch: never falls"
        - rule: "self.spec.type == oldSelf.spec.type"
          message: "spec.type is immutable"
        - rule: "!has(self.status) || !has(self.status.type) || self.status.type == self.spec.type"
          message: "status.type is spec.type"
        properties:
          spec:
            type: object
            required: [type]
            properties:
              type: {type: string, minLength: 1}
              order: {type: string, default: Medium}
              payload: {type: object, x-kubernetes-preserve-unknown-fields: true, x-kubernetes-map-type: atomic}
          status:
            type: object
            default: {phase: Pending}
            properties:
              phase: {type: string, default: Pending}
              epoch: {type: integer}
              type: {type: string}
              note: {type: string}
"""


@functools.cache
def _shared_plane() -> ControlPlane:
    plane = shared_plane()
    asyncio.run(_prepare(plane))
    return plane


async def _prepare(plane: ControlPlane) -> None:
    async with await KubeClient.connect(plane.kubeconfig) as client:
        await apply_crd(client, _TRY_CRD)


async def _served(client: KubeClient, crd: dict[str, Any]) -> bool:
    found = await client.request("GET", f"{CRDS}/{crd['metadata']['name']}")
    conditions = found.get("status", {}).get("conditions") or []
    if not any(item["type"] == "Established" and item["status"] == "True" for item in conditions):
        return False
    spec = crd["spec"]
    return await _answers(client, Resource(spec["group"], spec["versions"][0]["name"], spec["names"]["plural"]))


async def _answers(client: KubeClient, resource: Resource) -> bool:
    """For a moment after it is established, and after a start of the API server, a kind is not served yet."""
    try:
        await client.request("GET", resource.collection())
    except (NotFound, Throttled):
        return False
    return True


@pytest.fixture(scope="session", name="plane")
def plane_fixture() -> ControlPlane:
    """The API server, started once for the whole run; its `kubeconfig` is an administrator's."""
    return _shared_plane()


@pytest.fixture(name="client")
async def client_fixture(plane: ControlPlane) -> AsyncIterator[KubeClient]:
    """A client of an administrator."""
    async with await KubeClient.connect(plane.kubeconfig, user_agent="distriqueue-tests") as client:
        yield client


@pytest.fixture(name="namespace")
async def namespace_fixture(client: KubeClient) -> str:
    """A fresh namespace, on an API server that has got over what an earlier test did to it."""
    await until(lambda: _answers(client, TRIES))
    return await new_namespace(client)


async def new_namespace(client: KubeClient) -> str:
    """Make a namespace and return its name."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    await client.request("POST", "/api/v1/namespaces", body=body)
    return name


async def apply_crd(client: KubeClient, manifest: str) -> None:
    """Create a CustomResourceDefinition, unless it exists, and wait until it is served."""
    crd = yaml.safe_load(manifest)
    with contextlib.suppress(AlreadyExists):
        await client.request("POST", CRDS, body=crd)
    await until(lambda: _served(client, crd))


async def compact(plane: ControlPlane, version: int) -> None:
    """Make etcd forget everything before a version, as it does every few minutes in a real cluster."""
    port = json.loads((plane.directory / "ports.json").read_text())["etcd"]
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{port}/v3/kv/compaction", json={"revision": version}) as answer,
    ):
        assert answer.status == HTTPStatus.OK, await answer.text()


async def make_try(client: KubeClient, namespace: str, name: str, **payload: Any) -> dict[str, Any]:
    """Create a resource of the tests' own kind."""
    body = {
        "apiVersion": TRIES.api_version,
        "kind": TRIES.kind,
        "metadata": {"name": name},
        "spec": {"type": "email", "payload": payload},
    }
    return await client.request("POST", TRIES.collection(namespace), body=body)
