"""HTTP workers on real parts: custody holds whatever answer is lost, and whoever dies."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from distriqueue.kube.client import KubeClient
from tests.support.gateways import Gateway, make_caller, start
from tests.support.http_workers import HandWorker, ShellWorker
from tests.support.jobs import Jobs
from tests.support.stages import CALM, Stage, Stages
from tests.support.waiting import until

pytestmark = pytest.mark.integration

Make = Callable[..., Any]


@pytest.fixture(name="stage", scope="module")
def stage_fixture(stages: Stages) -> Iterator[Stage]:
    with stages.open(AUTH_CACHE_SECONDS="1", **CALM) as stage:
        stage.start(operators=1, workers=0)
        yield stage


@pytest.fixture(name="gateways", scope="module")
def gateways_fixture(stage: Stage) -> list[Gateway]:
    return [start(stage.programs, "gateway-a"), start(stage.programs, "gateway-b")]


@pytest.fixture(name="token")
async def token_fixture(kube: KubeClient, stage: Stage) -> str:
    return await make_caller(kube, stage.namespace, "worker")


@pytest.fixture(name="hand")
async def hand_fixture(stage: Stage, gateways: list[Gateway], token: str) -> AsyncIterator[Make]:
    """Makes registered workers in a pool of the test's own; they leave with the test."""
    made: list[HandWorker] = []

    async def make(pool: str, *, gateway: Gateway = gateways[0], **fields: Any) -> HandWorker:
        worker = HandWorker(gateway, token, stage, f"{pool}-{len(made)}", pool=pool, **fields)
        made.append(worker)
        answer = await worker.register()
        assert answer.status_code == 200, answer.text
        return worker

    yield make
    for worker in made:
        async with worker:
            await worker.post(f"{worker.session}/leave")


@asynccontextmanager
async def beating(worker: HandWorker) -> AsyncIterator[None]:
    """It goes on sending heartbeats meanwhile."""

    async def beat() -> None:
        while True:
            await worker.beat()
            await asyncio.sleep(2)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def attempts(job: dict[str, Any]) -> list[tuple[int, str]]:
    return [(entry["number"], entry.get("outcome", "")) for entry in job["status"].get("attempts", [])]


async def test_a_job_runs_by_http_alone(hand: Make, jobs: Jobs) -> None:
    worker = await hand("alone", capacity=2)
    await jobs.create("alone-1", poolName="alone", payload={"n": 1}, timeoutSeconds=60)
    (job,) = await worker.take()
    assert (job["name"], job["payload"], job["attempt"], job["timeoutSeconds"]) == ("alone-1", {"n": 1}, 1, 60)
    assert (await worker.beat(progress={"percent": 40, "message": "half"})).json() == {"stop": [], "leader": True}
    shown = await jobs.until("alone-1", lambda job: job["status"].get("progress"))
    assert shown["status"]["progress"]["percent"] == 40
    assert shown["status"]["worker"] == "alone-0"
    assert (await worker.report(job["grant"])).json() == {"grant": job["grant"]}
    ended = await jobs.ended("alone-1")
    assert (ended["status"]["phase"], ended["status"]["result"]) == ("Succeeded", {"grant": job["grant"]})
    status = await jobs.worker_until("alone-0", "Online")
    assert (status["poolName"], status["concurrency"]) == ("alone", 2)


async def test_an_answer_that_is_lost_is_given_again(hand: Make, jobs: Jobs) -> None:
    worker = await hand("lost")
    await jobs.create("lost-1", poolName="lost")
    (lost,) = await worker.ask()
    assert (await worker.beat()).status_code == 200, "which lists nothing, and takes nothing for dead"
    (again,) = await worker.take()
    assert again == {**lost, "receipt": again["receipt"]}
    assert await worker.ask(0) == []
    assert (await worker.report(again["grant"])).status_code == 200
    ended = await jobs.ended("lost-1")
    assert attempts(ended) == [(1, "Succeeded")]


async def test_a_request_that_comes_late_is_answered_with_nothing(hand: Make, jobs: Jobs) -> None:
    worker = await hand("late")
    await jobs.create("late-1", poolName="late")
    (job,) = await worker.take()
    worker.requests -= 1
    assert await worker.ask(0) == [], "and gives nothing back"
    assert (await worker.beat()).json()["stop"] == []
    assert (await worker.report(job["grant"])).status_code == 200


async def test_a_report_counts_once_and_only_from_who_holds_the_grant(hand: Make, jobs: Jobs) -> None:
    worker, other = await hand("once"), await hand("once")
    await jobs.create("once-1", poolName="once")
    (job,) = await worker.take()
    assert (await other.report(job["grant"])).status_code == 409
    assert (await worker.report("1-1")).status_code == 409
    assert (await worker.report(job["grant"], result="x" * 70_000)).status_code == 422
    for _ in range(2):
        assert (await worker.report(job["grant"])).status_code == 200
    assert attempts(await jobs.ended("once-1")) == [(1, "Succeeded")]


async def test_the_status_of_a_job_takes_the_report_of_the_attempt_that_it_has(
    hand: Make, jobs: Jobs, stage: Stage
) -> None:
    worker = await hand("put")
    for name in ("put-1", "put-2"):
        await jobs.create(name, poolName="put")
    (job,) = await worker.take()
    body = {"grant": job["grant"], "outcome": "failed", "reason": "Broken", "error": "no", "permanent": True}
    other = "put-2" if job["name"] == "put-1" else "put-1"
    path = f"/api/jobs/{stage.namespace}"
    client = worker._client
    assert (await client.put(f"{path}/{job['name']}/status", json=body)).status_code == 409
    body["session"] = worker.session
    assert (await client.put(f"{path}/{other}/status", json=body)).status_code == 409
    assert (await client.put(f"/api/jobs/{job['id']}/status", json={**body, "grant": "7-7"})).status_code == 409
    assert (await client.put(f"/api/jobs/{job['id']}/status", json=body)).status_code == 200
    ended = await jobs.ended(job["name"])
    assert (ended["status"]["phase"], ended["status"]["attempts"][0]["reason"]) == ("Failed", "Broken")
    worker.jobs.clear()


async def test_what_a_worker_lists_no_more_goes_to_others(hand: Make, jobs: Jobs) -> None:
    worker = await hand("dropped")
    await jobs.create("dropped-1", poolName="dropped", backoff={"initialSeconds": 0})
    (job,) = await worker.take()
    worker.jobs.clear()
    assert (await worker.beat()).status_code == 200
    assert (await worker.report(job["grant"])).status_code == 409
    (again,) = await worker.take(wait=20)
    assert again["grant"] != job["grant"]
    assert (await worker.report(again["grant"])).status_code == 200
    assert (await jobs.ended("dropped-1"))["status"]["phase"] == "Succeeded"


async def test_a_cancelled_job_is_told_by_the_next_heartbeat(hand: Make, jobs: Jobs) -> None:
    worker = await hand("cancel")
    await jobs.create("cancel-1", poolName="cancel")
    (job,) = await worker.take()
    await jobs.patch("cancel-1", cancel=True)

    async def told() -> bool:
        stops = (await worker.beat()).json()["stop"]
        return bool(stops == [{"grant": job["grant"], "reason": "Cancelled"}])

    await until(told, pause=0.5)
    assert (await worker.report(job["grant"], outcome="interrupted")).status_code == 200
    assert (await jobs.ended("cancel-1"))["status"]["phase"] == "Cancelled"


async def test_jobs_of_other_types_go_to_others(hand: Make, jobs: Jobs) -> None:
    email = await hand("typed", types=["email"])
    await jobs.create("typed-1", poolName="typed", type="report")
    await jobs.create("typed-2", poolName="typed", type="email")
    (job,) = await email.take()
    assert job["name"] == "typed-2"
    assert (await email.report(job["grant"])).status_code == 200
    everything = await hand("typed", types=["*"])
    (job,) = await everything.take(wait=20)
    assert job["name"] == "typed-1"
    assert (await everything.report(job["grant"])).status_code == 200


async def test_any_replica_takes_what_is_for_a_session_of_another(
    hand: Make, jobs: Jobs, gateways: list[Gateway]
) -> None:
    worker = await hand("hop")
    await jobs.create("hop-1", poolName="hop")
    await worker.move(gateways[1])
    (job,) = await worker.take()
    assert (await worker.beat()).status_code == 200
    assert (await worker.report("7-7")).status_code == 409
    assert (await worker.report(job["grant"], result="x" * 70_000)).json()["errors"][0]["field"] == "/result"
    assert (await worker.report(job["grant"])).status_code == 200
    assert (await worker.post(f"{worker.session}/leave")).status_code == 204
    assert (await worker.beat()).status_code == 410
    assert attempts(await jobs.ended("hop-1")) == [(1, "Succeeded")]


async def test_a_session_is_its_callers_alone(
    hand: Make, jobs: Jobs, stage: Stage, kube: KubeClient, gateways: list[Gateway]
) -> None:
    worker = await hand("mine")
    await jobs.create("mine-1", poolName="mine")
    (job,) = await worker.take()
    thief = await make_caller(kube, stage.namespace, "thief")
    async with HandWorker(gateways[0], thief, stage, "thief", pool="mine") as other:
        other.session = worker.session
        assert (await other.beat()).status_code == 404
        assert (await other.report(job["grant"])).status_code == 404
        assert (await other.post(f"{worker.session}/leave")).status_code == 404
        assert (await other.register()).status_code == 422, "it cannot supersede another's session"
        other.session = ""
        other.jobs = {job["grant"]: job}
        refused = await other.register()
        assert refused.json()["errors"][0]["field"] == "/jobs/0/receipt"
    assert (await worker.report(job["grant"])).status_code == 200


async def test_who_may_not_run_jobs_of_a_namespace_gets_none(
    stage: Stage, kube: KubeClient, gateways: list[Gateway]
) -> None:
    reader = await make_caller(kube, stage.namespace, "reader", verbs=["get", "list"])
    runner = await make_caller(kube, stage.namespace, "runner")
    cases: list[tuple[str, dict[str, Any], int]] = [
        (reader, {}, 403),
        (runner, {"namespaces": []}, 403),
        (runner, {"namespaces": [stage.namespace, "elsewhere"]}, 403),
        ("nobody", {}, 401),
    ]
    for token, fields, status in cases:
        async with HandWorker(gateways[0], token, stage, "refused", **fields) as worker:
            assert (await worker.register()).status_code == status


async def test_a_worker_that_falls_silent_loses_its_jobs_and_its_session(hand: Make, jobs: Jobs) -> None:
    silent = await hand("silent")
    await jobs.create("silent-1", poolName="silent", backoff={"initialSeconds": 0})
    (job,) = await silent.take()
    other = await hand("silent")
    async with beating(other):
        taken: list[dict[str, Any]] = []

        async def given() -> bool:
            taken.extend(await other.take(wait=10))
            return bool(taken)

        await until(given, seconds=60)
        assert taken[0]["attempt"] == 2
        late = await silent.report(job["grant"])
        assert late.status_code in {409, 410}, late.text
        assert (await silent.beat()).status_code == 410
        # It registers with what it holds, as it should, and is told to stop it.
        silent.jobs = {job["grant"]: job}
        assert (await silent.register()).status_code == 200

        async def told() -> bool:
            stops = (await silent.beat()).json()["stop"]
            return bool(stops == [{"grant": job["grant"], "reason": "Over"}])

        await until(told, pause=0.5)
        assert (await silent.report(job["grant"])).status_code == 409
        assert (await other.report(taken[0]["grant"])).status_code == 200
    ended = await jobs.ended("silent-1")
    assert attempts(ended) == [(1, "Lost"), (2, "Succeeded")]
    assert ended["status"]["result"] == {"grant": taken[0]["grant"]}


@pytest.mark.parametrize("way", ["killed", "stopped"])
async def test_jobs_go_along_to_another_replica(
    way: str, hand: Make, jobs: Jobs, stage: Stage, gateways: list[Gateway]
) -> None:
    doomed = await asyncio.to_thread(start, stage.programs, f"gateway-{way}")
    worker = await hand(f"along-{way}", gateway=doomed, capacity=3)
    names = await jobs.burst(f"along-{way}", 3, poolName=f"along-{way}")
    while len(worker.jobs) < len(names):
        await worker.take(3 - len(worker.jobs))
    done, *running = worker.jobs
    assert (await worker.report(done)).status_code == 200
    await asyncio.to_thread(doomed.program.kill if way == "killed" else doomed.program.stop)
    await worker.move(gateways[1])
    assert (await worker.beat()).status_code == 410
    assert (await worker.register()).status_code == 200
    assert (await worker.beat()).json()["stop"] == []
    for grant in running:
        assert (await worker.report(grant)).status_code == 200
    for job in await jobs.all_ended(names):
        assert attempts(job) == [(1, "Succeeded")]


async def test_a_worker_may_register_twice(hand: Make, jobs: Jobs) -> None:
    worker = await hand("twice")
    await jobs.create("twice-1", poolName="twice")
    (job,) = await worker.take()
    before = worker.session
    assert (await worker.register()).status_code == 200
    unknown, worker.session = worker.session, before  # the answer was lost
    assert (await worker.register()).status_code == 200

    async def over() -> bool:
        """A session that nobody beats for has ended; a report it refuses is no sign of life."""
        body = {"grant": "7-7", "outcome": "interrupted"}
        return bool((await worker.post(f"{unknown}/jobs/report", body)).status_code == 410)

    async with beating(worker):
        await until(over, pause=0.5)
        assert (await worker.report(job["grant"])).status_code == 200
    assert attempts(await jobs.ended("twice-1")) == [(1, "Succeeded")]


async def test_who_goes_on_with_the_session_before_is_told_to_stop(
    hand: Make, jobs: Jobs, gateways: list[Gateway]
) -> None:
    worker = await hand("before")
    await jobs.create("before-1", poolName="before")
    (job,) = await worker.take()
    before = worker.session
    await worker.move(gateways[1])
    assert (await worker.register()).status_code == 200
    assert (await worker.beat()).json()["stop"] == []
    after, worker.session = worker.session, before

    async def told() -> bool:
        """The replica that keeps the session before knows of no other; the leader does."""
        stops = (await worker.beat()).json()["stop"]
        return [(stop["grant"], stop["reason"]) for stop in stops] == [(job["grant"], "Over")]

    await until(told, pause=0.5)
    worker.session = after
    assert (await worker.report(job["grant"])).status_code == 200
    assert attempts(await jobs.ended("before-1")) == [(1, "Succeeded")]


async def test_what_is_not_reported_when_a_worker_leaves_runs_elsewhere(hand: Make, jobs: Jobs) -> None:
    worker = await hand("left", capacity=2)
    await jobs.create("left-1", poolName="left", backoff={"initialSeconds": 0})
    (job,) = await worker.take()
    assert (await worker.post(f"{worker.session}/leave")).status_code == 204
    assert (await worker.post(f"{worker.session}/leave")).status_code == 204
    other = await hand("left")
    (again,) = await other.take(wait=20)
    assert again["grant"] != job["grant"]
    assert (await other.report(again["grant"])).status_code == 200
    ended = await jobs.ended("left-1")
    assert attempts(ended)[-1] == (2, "Succeeded")
    assert ended["status"]["attempts"][0]["reason"] == "WorkerStopped"


async def test_the_shell_worker_runs_jobs(stage: Stage, jobs: Jobs, token: str, gateways: list[Gateway]) -> None:
    urls = " ".join(gateway.url for gateway in gateways)
    with ShellWorker(stage, "shell", urls=urls, token=token, WORKER_POOL="shell") as worker:
        names = await jobs.burst("shell", 12, poolName="shell", payload={"seconds": 0.1})
        await jobs.create("shell-fails", poolName="shell", payload={"fail": True}, maxAttempts=1)
        for job in await jobs.all_ended(names, seconds=90):
            assert job["status"]["phase"] == "Succeeded"
            assert job["status"]["worker"] == "shell"
        failed = (await jobs.ended("shell-fails", seconds=60))["status"]
        entry = failed["attempts"][0]
        assert (failed["phase"], entry["reason"], entry["error"]) == ("Dead", "ExitStatus", "exit status 1")
        await jobs.create("shell-long", poolName="shell", payload={"seconds": 600})
        await until(lambda: bool(stage.records.started(prefix="shell-long")))
        assert await asyncio.to_thread(worker.terminate) == 0
    status = (await jobs.until("shell-long", lambda job: job["status"].get("attempts", [{}])[0].get("outcome")))[
        "status"
    ]
    assert status["attempts"][0]["reason"] == "WorkerStopped"
    assert stage.records.events("stopped", prefix="shell-long")
    assert stage.records.starts_by_job(prefix="shell-") == dict.fromkeys([*names, "shell-fails", "shell-long"], 1)
