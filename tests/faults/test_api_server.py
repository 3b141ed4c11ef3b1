"""The API server and etcd are away, forget, and refuse: etcd is the truth, also when it is an older truth."""

import asyncio
from pathlib import Path

import pytest

from distriqueue.kube.resources import JOBS, LEASES
from tests.faults.conftest import Run
from tests.faults.drills import OUTAGE_SECONDS, QUICK, Drill, Trial
from tests.support.jobs import is_final
from tests.support.waiting import until

FAMILY = "Kubernetes"
NOSPACE_SECONDS = 10.0 if QUICK else 30.0
OFFSET = "distriqueue.io/epoch-offset"


@pytest.mark.quick
async def test_api_server_down(run: Run) -> None:
    async def inject(drill: Drill) -> None:
        plane = drill.stage.plane
        await asyncio.to_thread(plane.kill_apiserver)
        await asyncio.sleep(OUTAGE_SECONDS)  # the fault is a time that passes
        await asyncio.to_thread(plane.start_apiserver)

    trial = Trial(
        name="server-down",
        family=FAMILY,
        fault=f"API server, kill -9, away for {OUTAGE_SECONDS:.0f} s",
        promise="what runs is finished, its reports wait in the broker; no attempt is repeated",
        once=True,
    )
    await run(trial, inject)


async def test_etcd_killed(run: Run) -> None:
    async def inject(drill: Drill) -> None:
        plane = drill.stage.plane
        await asyncio.to_thread(plane.kill_etcd)
        await asyncio.sleep(5)
        await asyncio.to_thread(plane.start_etcd)
        await asyncio.to_thread(plane.wait_ready)

    trial = Trial(
        name="etcd-kill",
        family=FAMILY,
        fault="etcd, kill -9, away for 5 s",
        promise="writes without an answer are decided again; no attempt is repeated",
        once=True,
    )
    await run(trial, inject)


async def test_etcd_full(run: Run) -> None:
    async def inject(drill: Drill) -> None:
        plane = drill.stage.plane
        alarm = {"alarm": "NOSPACE", "memberID": "0"}
        await asyncio.to_thread(plane.ask_etcd, "/v3/maintenance/alarm", {"action": "ACTIVATE", **alarm})
        try:
            await asyncio.sleep(NOSPACE_SECONDS)  # the fault is a time that passes
        finally:
            await asyncio.to_thread(plane.ask_etcd, "/v3/maintenance/alarm", {"action": "DEACTIVATE", **alarm})

    trial = Trial(
        name="etcd-full",
        family=FAMILY,
        fault=f"etcd out of space for {NOSPACE_SECONDS:.0f} s: every write is refused",
        promise="nobody can lead, so nothing is granted; what runs is finished and reported",
        once=True,
    )
    await run(trial, inject)


async def test_etcd_put_back(run: Run, tmp_path: Path) -> None:
    async def inject(drill: Drill) -> None:
        plane = drill.stage.plane
        copy = tmp_path / "etcd"
        await asyncio.to_thread(plane.copy_etcd, copy)
        with drill.silent():  # what was reported from here on is forgotten
            finished = len([job for job in await drill.jobs.named(drill.names) if is_final(job)])
            goal = finished + len(drill.names) // 4
            await until(lambda: drill.returned() >= goal, pause=0.1)
            # A leader after the copy: its epoch is above everything that the copy knows.
            await drill.kill(await drill.leader())
            leader = await drill.leader()
            epoch = int(leader.metric("distriqueue_leader_epoch"))
            await until(lambda: any(record.epoch >= epoch for record in drill.stage.records.started()), pause=0.1)
            await asyncio.to_thread(plane.put_back_etcd, copy)
        drill.outcomes.forget()
        drill.fault_ended()

        def later() -> bool:
            return any(record.epoch > epoch for record in drill.stage.records.started())

        await until(later, seconds=180, pause=0.2)
        answer = await drill.client.request("GET", LEASES.path(drill.stage.namespace, "distriqueue-shard-0"))
        offset = answer["metadata"].get("annotations", {}).get(OFFSET)
        drill.note = f"The Lease carries an epoch offset of {offset}"

    trial = Trial(
        name="etcd-put-back",
        family=FAMILY,
        fault="etcd put back to a copy from before a quarter of the results and before the last election",
        promise="results that etcd has forgotten come again: their jobs run again. New epochs are above the forgotten "
        "ones, by an offset in the Lease",
        why="etcd has forgotten its result or its grant",
        overlap=False,
    )
    await run(trial, inject)


async def test_watch_gone(run: Run) -> None:
    async def inject(drill: Drill) -> None:
        plane = drill.stage.plane
        relays = [links.server for name, links in drill.links.items() if name.startswith("operator")]
        for relay in relays:
            relay.hold()
        # What changes now is seen by no watch; then the past is compacted, and the API server forgets it, too.
        deleted, drill.names[:] = drill.names[-10:], drill.names[:-10]
        for name in deleted:
            await drill.jobs.delete(name)
        await drill.create(10, prefix="late")
        answer = await drill.client.request("GET", JOBS.collection(drill.stage.namespace), params={"limit": "1"})
        revision = answer["metadata"]["resourceVersion"]
        await asyncio.to_thread(plane.kill_apiserver)
        await asyncio.to_thread(plane.ask_etcd, "/v3/kv/compaction", {"revision": revision, "physical": True})
        await asyncio.to_thread(plane.start_apiserver)
        for relay in relays:
            relay.cut()
            relay.go_on()
        drill.fault_ended()
        logs = [operator.log for operator in drill.stage.operators]
        await until(lambda: any("listing again" in log.read_text() for log in logs), seconds=120)

    trial = Trial(
        name="watch-gone",
        family=FAMILY,
        fault="operators cut off while jobs are made and deleted, history compacted, API server restarted: the watch "
        "ends with 410 Gone",
        promise="a new list makes good what the watch has missed",
        why="its worker was lost meanwhile",
        relays=True,
    )
    await run(trial, inject)
