"""Events on a real API server: what it takes, what kubectl shows of them, and that nothing fails because of one."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from distriqueue.api.events import EventReason
from distriqueue.core.commands import EmitEvent
from distriqueue.kube.client import KubeClient
from distriqueue.kube.events import EVENTS_IN_A_BURST, EventRecorder
from distriqueue.kube.resources import EVENTS, JOBS, LEASES, WORKERS
from localcluster.control_plane import ControlPlane
from localcluster.resources import kubectl
from tests.integration.kube_plane import apply_crd, client_fixture, namespace_fixture, plane_fixture, until

__all__ = ["client_fixture", "namespace_fixture", "plane_fixture"]

pytestmark = pytest.mark.integration

CRDS = Path(__file__).parents[2] / "crds"


class Recording:
    """A recorder, what became of its Events, and the clock that it goes by."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self.results: Counter[str] = Counter()
        self.seconds = 0.0
        self.recorder = EventRecorder(
            client,
            namespace=namespace,
            lease_name="shard",
            instance="operator-" + "x" * 200,
            count=lambda result: self.results.update([result]),
            clock=lambda: self.seconds,
        )

    async def settled(self, count: int) -> None:
        await until(lambda: self.results.total() >= count)


@pytest.fixture(name="recording")
async def recording_fixture(client: KubeClient, namespace: str) -> AsyncIterator[Recording]:
    for definition in ("distributedjobs", "distributedworkers"):
        await apply_crd(client, (CRDS / f"{definition}.yaml").read_text())
    recording = Recording(client, namespace)
    running = asyncio.create_task(recording.recorder.run())
    yield recording
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


def lost(namespace: str, name: str, *, uid: str = "u", note: str = "Attempt 1 was lost") -> EmitEvent:
    return EmitEvent("DistributedJob", namespace, name, uid, EventReason.ATTEMPT_LOST, note)


async def events(client: KubeClient, namespace: str) -> list[dict[str, Any]]:
    answer = await client.request("GET", EVENTS.collection(namespace))
    found: list[dict[str, Any]] = answer["items"]
    return found


async def make_job(client: KubeClient, namespace: str, name: str) -> str:
    body = {
        "apiVersion": JOBS.api_version,
        "kind": JOBS.kind,
        "metadata": {"name": name},
        "spec": {"type": "email"},
    }
    made = await client.request("POST", JOBS.collection(namespace), body=body)
    uid: str = made["metadata"]["uid"]
    return uid


async def test_an_event_stands_with_its_job(
    recording: Recording, client: KubeClient, namespace: str, plane: ControlPlane
) -> None:
    uid = await make_job(client, namespace, "a")
    recording.recorder.emit(lost(namespace, "a", uid=uid))
    await recording.settled(1)
    assert recording.results == {"Created": 1}
    (event,) = await events(client, namespace)
    assert (event["type"], event["reason"], event["action"]) == ("Warning", "AttemptLost", "EndAttempt")
    assert (event["reportingController"], event["regarding"]["uid"]) == ("distriqueue.io/operator", uid)
    shown = await asyncio.to_thread(kubectl, plane.kubeconfig, f"-n{namespace}", "describe", "djob", "a")
    row = next(line.split() for line in shown.splitlines() if "AttemptLost" in line)
    assert row[:2] == ["Warning", "AttemptLost"]
    assert row[-4:] == ["Attempt", "1", "was", "lost"]
    assert "distriqueue.io/operator" in row


async def test_the_same_again_is_one_event_with_a_count(
    recording: Recording, client: KubeClient, namespace: str, plane: ControlPlane
) -> None:
    uid = await make_job(client, namespace, "a")
    event = EmitEvent("DistributedJob", namespace, "a", uid, EventReason.TICKET_RESENT, "sent again")
    for _ in range(3):
        recording.recorder.emit(event)
    recording.recorder.emit(lost(namespace, "a"))
    await recording.settled(4)
    assert recording.results == {"Created": 2, "Repeated": 2}
    found = {item["reason"]: item for item in await events(client, namespace)}
    assert found["TicketResent"]["series"]["count"] == 3
    assert found["TicketResent"]["type"] == "Normal"
    assert "series" not in found["AttemptLost"]
    shown = await asyncio.to_thread(kubectl, plane.kubeconfig, f"-n{namespace}", "describe", "djob", "a")
    assert "(x3 over" in next(line for line in shown.splitlines() if "TicketResent" in line)

    # Somebody deleted it, or the API server has forgotten it: then it is made anew.
    await client.request("DELETE", EVENTS.path(namespace, found["TicketResent"]["metadata"]["name"]))
    recording.recorder.emit(event)
    await recording.settled(5)
    assert recording.results == {"Created": 3, "Repeated": 2}


async def test_workers_and_the_lease_are_known_by_name_alone(
    recording: Recording, client: KubeClient, namespace: str
) -> None:
    body = {"apiVersion": WORKERS.api_version, "kind": WORKERS.kind, "metadata": {"name": "w"}}
    worker = await client.request("POST", WORKERS.collection(namespace), body=body)
    body = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": {"name": "shard"}}
    lease = await client.request("POST", LEASES.collection(namespace), body=body)
    recording.recorder.emit(EmitEvent("DistributedWorker", "", "w", "", EventReason.WORKER_LOST, "lost"))
    recording.recorder.emit(EmitEvent("DistributedWorker", "", "gone", "", EventReason.WORKER_LOST, "lost"))
    recording.recorder.emit(EmitEvent("Lease", "", "", "", EventReason.CUSTODY_REPAIRED, "recounted"))
    await recording.settled(3)
    assert recording.results == {"Created": 3}
    regarding = {item["regarding"]["name"]: item["regarding"] for item in await events(client, namespace)}
    assert regarding["w"]["uid"] == worker["metadata"]["uid"]
    assert regarding["shard"]["uid"] == lease["metadata"]["uid"]
    assert "uid" not in regarding["gone"]


async def test_what_is_long_is_cut_to_what_the_api_server_takes(
    recording: Recording, client: KubeClient, namespace: str
) -> None:
    for name in ("a" * 253, f"{'a' * 235}.{'b' * 17}"):
        recording.recorder.emit(lost(namespace, name, note="ä" * 2000))
    for reason in EventReason:
        recording.recorder.emit(EmitEvent("DistributedJob", namespace, "a", "u", reason, "a broken \ud800 character"))
    await recording.settled(2 + len(EventReason))
    assert recording.results == {"Created": 2 + len(EventReason)}
    notes = [item["note"] for item in await events(client, namespace) if item["regarding"]["name"] != "a"]
    assert [len(note.encode()) for note in notes] == [1023, 1023]


async def test_too_many_are_dropped_and_counted(recording: Recording, client: KubeClient, namespace: str) -> None:
    for number in range(2 * EVENTS_IN_A_BURST):
        recording.recorder.emit(lost(namespace, f"a-{number}"))
    assert recording.results == {"Dropped": EVENTS_IN_A_BURST}
    await recording.settled(2 * EVENTS_IN_A_BURST)
    assert recording.results == {"Dropped": EVENTS_IN_A_BURST, "Created": EVENTS_IN_A_BURST}
    recording.seconds += 1.0
    for number in range(10):
        recording.recorder.emit(lost(namespace, f"b-{number}"))
    await recording.settled(2 * EVENTS_IN_A_BURST + 10)
    assert recording.results == {"Dropped": EVENTS_IN_A_BURST + 5, "Created": EVENTS_IN_A_BURST + 5}
    assert len(await events(client, namespace)) == EVENTS_IN_A_BURST + 5


async def test_nothing_fails_when_an_event_does(recording: Recording, client: KubeClient, namespace: str) -> None:
    recording.recorder.emit(lost("there-is-no-such-namespace", "a"))
    recording.recorder.emit(lost(namespace, "a"))
    await recording.settled(2)
    assert recording.results == {"Failed": 1, "Created": 1}
    (event,) = await events(client, namespace)
    assert json.loads(json.dumps(event))["regarding"]["name"] == "a"
