"""The election on a real API server: one leads, the next takes over, epochs grow, and a frozen leader knows it."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import pytest

from distriqueue.kube.client import KubeClient
from distriqueue.kube.election import Durations, Elector, Leadership
from distriqueue.kube.errors import Conflict
from distriqueue.kube.leases import OFFSET_ANNOTATION, TAKEOVER_ANNOTATION, boot_clock, wall_clock
from distriqueue.kube.resources import LEASES
from localcluster.control_plane import ControlPlane
from tests.integration.kube_plane import client_fixture, namespace_fixture, plane_fixture, until

__all__ = ["client_fixture", "namespace_fixture", "plane_fixture"]

pytestmark = pytest.mark.integration

NAME = "operator"
SHORT = Durations(lease=2, renew=1.4, retry=0.3, margin=0.3)
HOUR = Durations(lease=3600, renew=1800, retry=0.3)
"""With these, nothing but the watch can bring a hand-over about within a test."""


class SkewedClock:
    """A clock that a test can move forward, as a freeze does."""

    def __init__(self) -> None:
        self.skew = 0.0

    def __call__(self) -> float:
        return boot_clock() + self.skew


async def lease(client: KubeClient, namespace: str) -> dict[str, Any]:
    return await client.request("GET", LEASES.path(namespace, NAME))


async def write_lease(client: KubeClient, namespace: str, changed: dict[str, Any]) -> None:
    await client.request("PUT", LEASES.path(namespace, NAME), body=changed)


async def delete_lease(client: KubeClient, namespace: str) -> None:
    await client.request("DELETE", LEASES.path(namespace, NAME))


@pytest.fixture
async def clients(plane: ControlPlane) -> AsyncIterator[list[KubeClient]]:
    made = [await KubeClient.connect(plane.kubeconfig, pool_size=2) for _ in range(2)]
    yield made
    for one in made:
        await one.close()


@pytest.fixture
def electors(clients: list[KubeClient], namespace: str) -> tuple[Elector, Elector]:
    first, second = (
        Elector(one, namespace, NAME, identity, SHORT) for one, identity in zip(clients, ("a", "b"), strict=True)
    )
    return first, second


@asynccontextmanager
async def standing_by(elector: Elector) -> AsyncIterator[asyncio.Task[Leadership]]:
    task = asyncio.create_task(elector.acquire())
    try:
        yield task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
        elif not task.cancelled():
            await task.result().release()


def crash(leadership: Leadership) -> None:
    """What kill -9 leaves: nobody renews, nobody releases."""
    assert leadership._renewing is not None
    leadership._renewing.cancel()


async def renewed(leadership: Leadership) -> None:
    """Return after its next renewal. Each look is held against the last one: the first may have been at the peak."""
    last = leadership.remaining()

    def rose() -> bool:
        nonlocal last
        before, last = last, leadership.remaining()
        return last > before

    await until(rose)


async def test_the_first_creates_the_lease_and_leads(
    electors: tuple[Elector, Elector], client: KubeClient, namespace: str
) -> None:
    first, _ = electors
    async with await first.acquire() as leadership:
        found = await lease(client, namespace)
        assert leadership.valid()
        assert leadership.created
        assert leadership.epoch > 0
        assert 0 < leadership.remaining() <= SHORT.lease
        assert found["spec"]["holderIdentity"] == "a" == first.holder
        assert found["spec"]["leaseDurationSeconds"] == SHORT.lease
        assert found["spec"]["leaseTransitions"] == 0


async def test_it_goes_on_leading_by_renewing(
    electors: tuple[Elector, Elector], client: KubeClient, namespace: str
) -> None:
    first, second = electors
    async with await first.acquire() as leadership, standing_by(second) as other:
        seen = set()

        async def renewed_often() -> bool:
            seen.add((await lease(client, namespace))["spec"]["renewTime"])
            assert leadership.valid()
            return len(seen) > 12  # longer than the Lease lasts by itself

        await until(renewed_often)
        assert not other.done()
        assert second.holder == "a"


async def test_a_release_hands_over_and_counts_the_transition(
    electors: tuple[Elector, Elector], client: KubeClient, namespace: str
) -> None:
    first, second = electors
    leadership = await first.acquire()
    async with standing_by(second) as other:
        await until(lambda: second.holder == "a")
        leadership.takeover_ended()
        assert await leadership.release()
        assert not leadership.valid()
        assert leadership.lost.is_set()
        assert leadership.remaining() == 0
        next_one = await other
        assert next_one.valid()
        assert next_one.epoch > leadership.epoch
        assert not next_one.created
        assert next_one.transitions == 1
        spec = (await lease(client, namespace))["spec"]
        assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("b", 1)


async def test_a_release_wakes_the_standby_before_the_lease_would_end(
    clients: list[KubeClient], namespace: str
) -> None:
    first, second = (Elector(one, namespace, NAME, name, HOUR) for one, name in zip(clients, "ab", strict=True))
    leadership = await first.acquire()
    async with standing_by(second) as other:
        await until(lambda: second.holder == "a")
        assert await leadership.release()
        async with asyncio.timeout(30):
            assert (await other).valid()


async def test_a_crashed_leader_is_followed_only_after_its_lease(electors: tuple[Elector, Elector]) -> None:
    first, second = electors
    leadership = await first.acquire()
    async with standing_by(second) as other:
        await until(lambda: second.holder == "a")
        until_then = leadership._valid_until
        crash(leadership)
        next_one = await other
        assert boot_clock() > until_then, "the first might still have counted on its lease"
        assert next_one.epoch > leadership.epoch
        assert not leadership.valid()


async def test_never_two_at_once_and_epochs_grow(clients: list[KubeClient], namespace: str) -> None:
    """Many candidates, each leading for a moment and then leaving by a release or a crash."""
    electors = [Elector(clients[n % 2], namespace, NAME, f"candidate-{n}", SHORT) for n in range(4)]
    leaders: list[Leadership] = []
    epochs: list[int] = []

    async def stand(elector: Elector, *, crashes: bool) -> None:
        leadership = await elector.acquire()
        leaders.append(leadership)
        epochs.append(leadership.epoch)
        assert sum(leader.valid() for leader in leaders) == 1
        await asyncio.sleep(0)
        if crashes:
            crash(leadership)
        else:
            await leadership.release()

    async with asyncio.timeout(60):
        await asyncio.gather(*(stand(elector, crashes=n == 1) for n, elector in enumerate(electors)))
    assert epochs == sorted(set(epochs))
    assert len(epochs) == 4


async def test_epochs_grow_over_deletions_of_the_lease(
    electors: tuple[Elector, Elector], client: KubeClient, namespace: str
) -> None:
    first, _ = electors
    epochs = []
    for _ in range(3):
        leadership = await first.acquire()
        assert leadership.created
        epochs.append(leadership.epoch)
        await delete_lease(client, namespace)
        async with asyncio.timeout(30):
            await leadership.lost.wait()
        assert not leadership.valid()
        assert not await leadership.release()
    assert epochs == sorted(set(epochs))


async def test_a_standby_takes_over_when_the_lease_is_deleted(
    clients: list[KubeClient], client: KubeClient, namespace: str
) -> None:
    first, second = (Elector(one, namespace, NAME, name, HOUR) for one, name in zip(clients, "ab", strict=True))
    leadership = await first.acquire()
    async with standing_by(second) as other:
        await until(lambda: second.holder == "a")
        await delete_lease(client, namespace)
        async with asyncio.timeout(30):
            next_one = await other
            await leadership.lost.wait()
        assert next_one.created
        assert next_one.epoch > leadership.epoch


async def test_the_epoch_is_above_the_minimum_and_stays_so(
    electors: tuple[Elector, Elector], client: KubeClient, namespace: str
) -> None:
    first, second = electors
    leadership = await first.acquire(minimum_epoch=10**9)
    assert leadership.epoch > 10**9
    leadership.takeover_ended()
    await leadership.release()
    offset = int((await lease(client, namespace))["metadata"]["annotations"][OFFSET_ANNOTATION])
    assert offset > 0
    # The next one need not know the minimum.
    follower = await second.acquire()
    assert follower.epoch > leadership.epoch
    assert not follower.created
    # Nor, if it has seen the annotation, when the Lease is deleted.
    await delete_lease(client, namespace)
    async with asyncio.timeout(30):
        await follower.lost.wait()
    async with await second.acquire(minimum_epoch=lambda: 5) as last:
        assert last.epoch > follower.epoch
        assert int((await lease(client, namespace))["metadata"]["annotations"][OFFSET_ANNOTATION]) == offset


async def test_a_minimum_below_changes_nothing(
    electors: tuple[Elector, Elector], client: KubeClient, namespace: str
) -> None:
    first, _ = electors
    async with await first.acquire(minimum_epoch=1):
        assert OFFSET_ANNOTATION not in (await lease(client, namespace))["metadata"].get("annotations", {})


async def test_what_others_wrote_into_the_lease_stays(
    electors: tuple[Elector, Elector], client: KubeClient, namespace: str
) -> None:
    first, second = electors
    leadership = await first.acquire()
    edited = False
    while not edited:  # against the renewals, somebody edits the Lease
        changed = await lease(client, namespace)
        changed["metadata"] |= {"labels": {"team": "x"}, "annotations": {"note": "y"}}
        with contextlib.suppress(Conflict):  # a renewal was faster
            await write_lease(client, namespace, changed)
            edited = True
    await renewed(leadership)
    assert leadership.valid(), "an edit is no loss"
    await leadership.release()
    async with await second.acquire():
        metadata = (await lease(client, namespace))["metadata"]
        assert metadata["labels"] == {"team": "x"}
        assert metadata["annotations"] == {"note": "y"}


async def test_a_lease_that_nobody_ever_held_tells_no_more_than_a_missing_one(
    electors: tuple[Elector, Elector], client: KubeClient, namespace: str
) -> None:
    body = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": {"name": NAME}}
    await client.request("POST", LEASES.collection(namespace), body=body)
    async with await electors[0].acquire() as leadership:
        assert leadership.created
        assert leadership.transitions == 1


async def test_a_lease_counts_as_created_until_a_takeover_under_it_has_ended(
    electors: tuple[Elector, Elector], client: KubeClient, namespace: str
) -> None:
    first, second = electors
    for elector in (first, second, first):  # leaders that go before the end of their takeover
        async with await elector.acquire() as leadership:
            assert leadership.created
            await renewed(leadership)
    async with await second.acquire() as leadership:
        leadership.takeover_ended()
        await renewed(leadership)
    proven = await lease(client, namespace)
    assert proven["metadata"]["annotations"] == {TAKEOVER_ANNOTATION: proven["metadata"]["uid"]}
    async with await first.acquire() as leadership:
        assert not leadership.created
    await delete_lease(client, namespace)
    # Put back from a backup, annotations and all: another object.
    metadata = {"name": NAME, "annotations": proven["metadata"]["annotations"]}
    body = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata, "spec": proven["spec"]}
    await client.request("POST", LEASES.collection(namespace), body=body)
    async with await second.acquire() as leadership:
        assert leadership.created


async def test_a_foreign_holder_ends_the_leadership(
    electors: tuple[Elector, Elector], client: KubeClient, namespace: str
) -> None:
    first, _ = electors
    leadership = await first.acquire()
    while not leadership.lost.is_set():
        changed = await lease(client, namespace)
        changed["spec"]["holderIdentity"] = "intruder"
        with contextlib.suppress(Conflict):  # a renewal was faster
            await write_lease(client, namespace, changed)
            async with asyncio.timeout(30):
                await leadership.lost.wait()
    assert not leadership.valid()
    assert not await leadership.release()
    assert (await lease(client, namespace))["spec"]["holderIdentity"] == "intruder"


async def test_the_clocks_of_other_machines_are_not_believed(
    electors: tuple[Elector, Elector], client: KubeClient, namespace: str
) -> None:
    """A holder whose wall clock is a year behind keeps its Lease; one a year ahead loses it when it is silent."""
    first, second = electors
    for year in (2001, 2101):
        body = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": NAME},
            "spec": {
                "holderIdentity": "elsewhere",
                "leaseDurationSeconds": SHORT.lease,
                "renewTime": f"{year}-01-01T00:00:00.000000Z",
            },
        }
        await client.request("POST", LEASES.collection(namespace), body=body)
        began = boot_clock()
        elector = first if year == 2001 else second
        leadership = await elector.acquire()
        assert boot_clock() - began >= SHORT.lease
        await leadership.release()
        await delete_lease(client, namespace)


async def test_a_frozen_leader_knows_it_before_any_io(clients: list[KubeClient], namespace: str) -> None:
    clock = SkewedClock()
    elector = Elector(clients[0], namespace, NAME, "a", SHORT, clock=clock)
    leadership = await elector.acquire()
    assert leadership.valid()
    clock.skew = 10.0
    # no await since the freeze: nothing could have been read or renewed
    assert not leadership.valid()
    assert leadership.remaining() == 0
    clock.skew = 0.0
    assert not leadership.valid(), "once over, it stays over"
    again = await elector.acquire()
    assert again.valid()
    assert again.epoch > leadership.epoch
    await again.release()


async def test_a_leader_frozen_during_a_renewal_does_not_count_from_the_answer(
    clients: list[KubeClient], client: KubeClient, namespace: str
) -> None:
    clock = SkewedClock()
    frozen = False

    def wall() -> datetime:  # asked for each renewal, after its start was noted and before it is sent
        if frozen:
            clock.skew += 10.0
        return wall_clock()

    elector = Elector(clients[0], namespace, NAME, "a", SHORT, clock=clock, wall=wall)
    leadership = await elector.acquire()
    taken = elector._lease.record
    frozen = True
    await until(lambda: elector._lease.record is not taken)  # the answer to the renewal is there
    assert not leadership.valid()
    async with asyncio.timeout(30):
        await leadership.lost.wait()
    assert (await lease(client, namespace))["spec"]["holderIdentity"] == "a", "that renewal itself had succeeded"


async def test_it_cannot_lead_twice_at_once(electors: tuple[Elector, Elector]) -> None:
    first, _ = electors
    async with await first.acquire():
        with pytest.raises(RuntimeError, match="leads already"):
            await first.acquire()


async def test_the_api_server_is_away_for_a_moment_and_for_longer(
    plane: ControlPlane, electors: tuple[Elector, Elector]
) -> None:
    first, _ = electors
    leadership = await first.acquire()
    await asyncio.to_thread(plane.kill_apiserver)
    try:
        async with asyncio.timeout(30):
            await leadership.lost.wait()
        assert not leadership.valid()
        assert not await leadership.release()
        waiting = asyncio.create_task(first.acquire())
        await asyncio.sleep(0.5)  # it tries meanwhile, in vain
        assert not waiting.done()
    finally:
        await asyncio.to_thread(plane.start_apiserver)
    async with asyncio.timeout(60):
        again = await waiting
    assert again.valid()
    assert again.epoch > leadership.epoch
    await again.release()


async def test_it_leads_on_over_a_restart_that_its_lease_outlasts(
    plane: ControlPlane, clients: list[KubeClient], namespace: str
) -> None:
    patient = Durations(lease=120, renew=100, retry=0.3)
    elector = Elector(clients[0], namespace, NAME, "a", patient)
    leadership = await elector.acquire()
    await asyncio.to_thread(plane.kill_apiserver)
    await asyncio.to_thread(plane.start_apiserver)
    await renewed(leadership)
    assert leadership.valid()
    assert await leadership.release()


LEADING_PROCESS = """
import asyncio, sys
from pathlib import Path
from distriqueue.kube.client import KubeClient
from distriqueue.kube.election import Durations, Elector

async def main(kubeconfig, namespace):
    async with await KubeClient.connect(Path(kubeconfig), pool_size=2) as client:
        leadership = await Elector(client, namespace, "operator", "process", Durations(2, 1.4, 0.3, 0.3)).acquire()
        print("leads", leadership.epoch, flush=True)
        valid = True
        while valid:
            await asyncio.sleep(0.01)
            valid = leadership.valid()
        print("valid", leadership.valid(), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@asynccontextmanager
async def leading_process(plane: ControlPlane, namespace: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        LEADING_PROCESS,
        str(plane.kubeconfig),
        namespace,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        async with asyncio.timeout(60):
            assert process.stdout is not None
            word, epoch = (await process.stdout.readline()).split()
            assert word == b"leads"
        yield process, int(epoch)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_killed_process_is_followed(
    plane: ControlPlane, electors: tuple[Elector, Elector], namespace: str
) -> None:
    async with leading_process(plane, namespace) as (process, epoch), standing_by(electors[0]) as other:
        await until(lambda: electors[0].holder == "process")
        process.kill()
        assert (await other).epoch > epoch


async def test_a_stopped_process_is_followed_and_knows_when_it_wakes(
    plane: ControlPlane, electors: tuple[Elector, Elector], namespace: str
) -> None:
    async with leading_process(plane, namespace) as (process, epoch), standing_by(electors[0]) as other:
        await until(lambda: electors[0].holder == "process")
        process.send_signal(signal.SIGSTOP)
        leadership = await other
        assert leadership.epoch > epoch
        process.send_signal(signal.SIGCONT)
        assert process.stdout is not None
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"valid False\n"
        await renewed(leadership)
        assert leadership.valid(), "the sleeper must not have disturbed it"
