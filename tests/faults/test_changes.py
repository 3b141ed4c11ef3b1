"""Programs are replaced one after another under load, and jobs and namespaces are deleted while they run."""

import asyncio

import pytest

from distriqueue.kube.client import MERGE_PATCH
from distriqueue.kube.errors import NotFound, Refused
from distriqueue.kube.resources import JOBS
from localcluster.programs import Program
from tests.faults.conftest import Run
from tests.faults.drills import JOBS as COUNT
from tests.faults.drills import Drill, Spec, Trial
from tests.support.jobs import Jobs
from tests.support.waiting import until

FAMILY = "Rolling restarts and deletions"
DELETED = COUNT // 3
ROLLED_EVERY = 4


async def replaced(drill: Drill, program: Program) -> None:
    """Ask a program to end, and wait until the supervision has started it again."""

    def anew() -> bool:
        now = {other.name: other for other in (*drill.stage.operators, *drill.workers)}
        return now[program.name] is not program and now[program.name].ready()

    program.terminate()
    await until(anew, seconds=120, pause=0.2, otherwise=drill.stage.last_words)


def steady(number: int) -> Spec:
    """Long enough for the load to last while everything is replaced."""
    return {"type": "record.slow", "payload": {"seconds": 5.0 if number % ROLLED_EVERY == 0 else 0.5}}


async def test_rolling_restart(run: Run) -> None:
    async def inject(drill: Drill) -> None:
        for number, program in enumerate([*drill.stage.operators, *drill.workers]):
            await drill.create(COUNT // 5, prefix=f"round-{number}")  # each of them goes under load
            await replaced(drill, program)

    trial = Trial(
        name="rolling-restart",
        family=FAMILY,
        fault="SIGTERM to both operators and three workers, one after another, each replaced",
        promise="a leader hands over within a second; a worker finishes what it runs; no attempt is repeated",
        once=True,
        spec=steady,
        jobs=COUNT // 5,
        workers=3,
    )
    await run(trial, inject)


async def silent(drill: Drill, jobs: set[str]) -> None:
    """Wait until no handler of these jobs runs any more."""

    def going_on() -> set[tuple[str, str]]:
        records = [record for record in drill.stage.records.all() if record.uid in jobs]
        started = {(record.uid, record.grant) for record in records if record.event == "started"}
        return started - {(record.uid, record.grant) for record in records if record.event != "started"}

    await until(lambda: not going_on(), otherwise=going_on)


@pytest.mark.quick
async def test_jobs_deleted(run: Run) -> None:
    uids: set[str] = set()

    async def inject(drill: Drill) -> None:
        # Every third: some run, some wait in the broker, most with the leader.
        deleted = drill.names[::3]
        drill.names[:] = [name for name in drill.names if name not in set(deleted)]
        uids.update(job["metadata"]["uid"] for job in await drill.jobs.named(deleted))
        await asyncio.gather(*(drill.jobs.delete(name) for name in deleted))

    async def check_more(drill: Drill) -> None:
        await silent(drill, uids)
        before = len(drill.stage.records.started())
        await drill.create(10, prefix="afterwards")
        await drill.jobs.all_ended(drill.names)
        assert len(drill.stage.records.started()) == before + 10, "nothing deleted has started since"

    trial = Trial(
        name="jobs-deleted",
        family=FAMILY,
        fault="every third job deleted while some run, some wait in the broker and most with the leader",
        promise="running handlers are stopped, waiting ones never start; the others do not notice",
        once=True,
    )
    await run(trial, inject, check_more=check_more)


async def test_jobs_deleted_while_nobody_leads(run: Run) -> None:
    uids: set[str] = set()

    async def inject(drill: Drill) -> None:
        gone = list(drill.stage.operators)
        drill.retire(*gone)
        await drill.kill(*gone)
        deleted = drill.names[::3]
        drill.names[:] = [name for name in drill.names if name not in set(deleted)]
        uids.update(job["metadata"]["uid"] for job in await drill.jobs.named(deleted))
        await asyncio.gather(*(drill.jobs.delete(name) for name in deleted))
        again = drill.names[:5]
        for name in again:  # the same name created again is another job
            await drill.jobs.delete(name)
            await drill.jobs.create(name, type="record.slow", payload={"seconds": 0.1})
        await asyncio.gather(*(drill.operator(f"again-{number}") for number in range(2)))

    async def check_more(drill: Drill) -> None:
        await silent(drill, uids)

    trial = Trial(
        name="jobs-deleted-unseen",
        family=FAMILY,
        fault="every third job deleted while no operator runs, five made again under their old names",
        promise="the next leader grants none of the deleted and stops what runs of them; the new ones are new jobs",
        once=True,
    )
    await run(trial, inject, check_more=check_more)


async def test_namespace_deleted(run: Run) -> None:
    uids: set[str] = set()

    async def inject(drill: Drill) -> None:
        elsewhere = Jobs(drill.client, drill.extra)
        names = await elsewhere.burst("elsewhere", DELETED, type="record.slow", payload={"seconds": 3})
        uids.update(job["metadata"]["uid"] for job in await elsewhere.named(names))
        await until(lambda: drill.stage.records.started(prefix="elsewhere"))
        await drill.client.request("DELETE", f"/api/v1/namespaces/{drill.extra}")

        async def gone() -> bool:
            try:
                await drill.client.request("GET", f"/api/v1/namespaces/{drill.extra}")
            except NotFound:
                return True
            return False

        await until(gone, pause=0.2)

    async def check_more(drill: Drill) -> None:
        await silent(drill, uids)

    trial = Trial(
        name="namespace-deleted",
        family=FAMILY,
        fault=f"a namespace with {DELETED} jobs deleted while they run and wait",
        promise="it goes at once, nothing of ours holds it; its handlers are stopped; the jobs of others do not notice",
        once=True,
        extra_namespace=True,
    )
    await run(trial, inject, check_more=check_more)


async def test_statuses_edited_by_hand(run: Run) -> None:
    """Somebody with the right to write statuses takes them away; the fences and the next write make it good."""

    async def inject(drill: Drill) -> None:
        refused = 0
        for name in drill.names[::10]:
            path = JOBS.path(drill.stage.namespace, name, "status")
            try:
                await drill.client.request(
                    "PATCH", path, body={"status": {"phase": "Pending", "lastGrant": None}}, content_type=MERGE_PATCH
                )
            except Refused:  # by a fence: that is what they are for
                refused += 1
                drill.note = f"{refused} of {len(drill.names[::10])} edits refused"

    trial = Trial(
        name="status-edited",
        family=FAMILY,
        fault="the status of every tenth job edited by hand: phase back to Pending, no last grant",
        promise="a final job stays final (422); of one that runs the leader writes what it knows",
        once=True,
    )
    await run(trial, inject)
