"""Status writes on a real API server: what a body without spec does, and that every refusal is told apart."""

import asyncio
from typing import Any

import pytest

from distriqueue.kube.client import KubeClient
from distriqueue.kube.errors import Conflict, NotFound, NotLeading, Refused, Unanswered, Unreachable
from distriqueue.kube.resources import version_of
from distriqueue.kube.statuses import StatusWriter
from localcluster.control_plane import ControlPlane
from tests.integration.kube_plane import (
    TRIES,
    client_fixture,
    make_try,
    namespace_fixture,
    plane_fixture,
)
from tests.integration.tcp_relay import Relay

__all__ = ["client_fixture", "namespace_fixture", "plane_fixture"]

pytestmark = pytest.mark.integration


@pytest.fixture
def writer(client: KubeClient) -> StatusWriter:
    return StatusWriter(client, TRIES)


def key(made: dict[str, Any]) -> tuple[str, str, str, int]:
    metadata = made["metadata"]
    return metadata["namespace"], metadata["name"], metadata["uid"], version_of(made)


async def test_it_replaces_the_status_and_touches_nothing_else(
    writer: StatusWriter, client: KubeClient, namespace: str
) -> None:
    body = {
        "apiVersion": TRIES.api_version,
        "kind": TRIES.kind,
        "metadata": {
            "name": "a",
            "labels": {"team": "x"},
            "annotations": {"note": "y"},
            "finalizers": ["try.distriqueue.io/keep"],
        },
        "spec": {"type": "email", "payload": {"deep": {"er": [1, 2]}}},
    }
    params = {"fieldManager": "somebody", "force": "true"}
    before = await client.request(
        "PATCH", TRIES.path(namespace, "a"), body=body, params=params, content_type="application/apply-patch+yaml"
    )
    version = await writer.write(*key(before), {"phase": "Running", "note": "1", "epoch": 3})
    version = await writer.write(*key(before)[:3], version, {"phase": "Done", "epoch": 3})
    after = await writer.read(namespace, "a")
    assert version_of(after) == version > version_of(before)
    assert after["status"] == {"phase": "Done", "epoch": 3}, "a status is replaced, not merged"
    assert after["spec"] == before["spec"]
    assert after["spec"]["order"] == "Medium"
    for kept in ("labels", "annotations", "finalizers", "generation", "uid", "creationTimestamp"):
        assert after["metadata"][kept] == before["metadata"][kept]
    managers = {entry["manager"]: entry for entry in after["metadata"]["managedFields"]}
    assert managers.pop("somebody") == before["metadata"]["managedFields"][0], "who owns the spec goes on owning it"
    ((_, ours),) = managers.items()
    assert ours["subresource"] == "status"
    assert set(ours["fieldsV1"]) == {"f:status"}


async def test_root_rules_see_the_stored_spec(writer: StatusWriter, client: KubeClient, namespace: str) -> None:
    made = await make_try(client, namespace, "a")
    with pytest.raises(Refused, match=r"status.type is spec.type"):
        await writer.write(*key(made), {"type": "fax"})
    await writer.write(*key(made), {"type": "email"})


async def test_a_fence_refuses_and_says_which(writer: StatusWriter, client: KubeClient, namespace: str) -> None:
    made = await make_try(client, namespace, "a")
    version = await writer.write(*key(made), {"epoch": 5})
    for lower in ({"epoch": 4}, {}):
        with pytest.raises(Refused) as refusal:
            await writer.write(*key(made)[:3], version, lower)
        assert "fence/epoch:" in refusal.value.message
        assert refusal.value.causes
        assert not refusal.value.retryable
    assert (await writer.read(namespace, "a"))["status"]["epoch"] == 5


async def test_an_old_version_conflicts(writer: StatusWriter, client: KubeClient, namespace: str) -> None:
    made = await make_try(client, namespace, "a")
    await writer.write(*key(made), {"note": "first"})
    with pytest.raises(Conflict):
        await writer.write(*key(made), {"note": "second"})
    assert (await writer.read(namespace, "a"))["status"]["note"] == "first"


async def test_a_later_object_of_the_same_name_is_left_alone(
    writer: StatusWriter, client: KubeClient, namespace: str
) -> None:
    made = await make_try(client, namespace, "a")
    await client.request("DELETE", TRIES.path(namespace, "a"))
    with pytest.raises(NotFound):
        await writer.write(*key(made), {"note": "x"})
    again = await make_try(client, namespace, "a")
    with pytest.raises(Conflict):
        await writer.write(*key(made), {"note": "x"})
    with pytest.raises(Conflict):  # not even when its version is known
        await writer.write(*key(made)[:3], version_of(again), {"note": "x"})
    assert "note" not in (await writer.read(namespace, "a"))["status"]


async def test_the_check_is_asked_last_and_nothing_is_sent(client: KubeClient, namespace: str) -> None:
    made = await make_try(client, namespace, "a")
    leads = True
    writer = StatusWriter(client, TRIES, concurrency=1, check=lambda: leads)
    first = asyncio.create_task(writer.write(*key(made), {"note": "in time"}))
    second = asyncio.create_task(writer.write(*key(made), {"note": "too late"}))
    version = await first  # the second waits for its turn, and is decided upon only then
    leads = False
    with pytest.raises(NotLeading):
        await second
    found = await writer.read(namespace, "a")
    assert version_of(found) == version
    assert found["status"]["note"] == "in time"


async def test_the_check_is_asked_after_a_slow_connection_was_made(
    plane: ControlPlane, client: KubeClient, namespace: str
) -> None:
    made = await make_try(client, namespace, "a")
    leads = True
    async with Relay.to(plane.server) as relay, await KubeClient.connect(relay.kubeconfig(plane.kubeconfig)) as slow:
        relay.hold()
        writing = asyncio.create_task(StatusWriter(slow, TRIES).write(*key(made), {"note": "x"}, check=lambda: leads))
        await relay.connected()  # it wants to send, and cannot yet
        leads = False
        relay.go_on()
        with pytest.raises(NotLeading):
            await writing
    assert "note" not in (await StatusWriter(client, TRIES).read(namespace, "a"))["status"]


async def test_an_answer_that_is_lost_is_unanswered_and_not_repeated(
    plane: ControlPlane, client: KubeClient, namespace: str
) -> None:
    made = await make_try(client, namespace, "a")
    async with Relay.to(plane.server) as relay, await KubeClient.connect(relay.kubeconfig(plane.kubeconfig)) as cut:
        writer = StatusWriter(cut, TRIES)
        await writer.read(namespace, "a")  # a kept-alive connection, on which aiohttp likes to repeat a PUT
        relay.swallow_answers()
        writing = asyncio.create_task(writer.write(*key(made), {"note": "landed"}))
        await relay.swallowed()
        relay.answer_again()  # a repetition would now be answered: with a conflict with itself
        relay.cut()
        with pytest.raises(Unanswered) as lost:
            await writing
        assert not isinstance(lost.value, Unreachable)
    found = await StatusWriter(client, TRIES).read(namespace, "a")
    assert found["status"]["note"] == "landed"


async def test_no_connection_is_known_to_have_done_nothing(
    plane: ControlPlane, client: KubeClient, namespace: str
) -> None:
    made = await make_try(client, namespace, "a")
    async with Relay.to(plane.server) as relay:
        kubeconfig = relay.kubeconfig(plane.kubeconfig)
    async with await KubeClient.connect(kubeconfig) as gone:
        with pytest.raises(Unreachable):
            await StatusWriter(gone, TRIES).write(*key(made), {"note": "x"})


async def test_many_at_once(client: KubeClient, namespace: str) -> None:
    writer = StatusWriter(client, TRIES, concurrency=16)
    made = await asyncio.gather(*(make_try(client, namespace, f"n{number}") for number in range(64)))
    versions = await asyncio.gather(*(writer.write(*key(one), {"note": one["metadata"]["name"]}) for one in made))
    assert len(set(versions)) == 64
    page = await client.request("GET", TRIES.collection(namespace))
    assert all(item["status"]["note"] == item["metadata"]["name"] for item in page["items"])
