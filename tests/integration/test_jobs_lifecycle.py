"""What people do to jobs by patching them, on real operators, workers, API server and RabbitMQ."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from distriqueue.kube.errors import NotFound
from tests.support.jobs import Job, Jobs, condition, is_final, phase
from tests.support.stages import CALM, Stage, Stages, sample
from tests.support.waiting import until

pytestmark = pytest.mark.integration

CANCELLED = 1000
OTHERS = 200
GATE = "lifecycle"


@pytest.fixture(name="stage", scope="module")
def stage_fixture(stages: Stages) -> Iterator[Stage]:
    with stages.open(**CALM) as stage:
        stage.start(operators=2, workers=1)
        yield stage


def outcomes(job: Job) -> list[tuple[str, str]]:
    return [(entry["outcome"], entry.get("reason", "")) for entry in job["status"].get("attempts", [])]


def kubectl_patch(stage: Stage, name: str, **spec: object) -> None:
    stage.kubectl("patch", "djob", name, "--type=merge", f"--patch={json.dumps({'spec': spec})}")


async def test_a_thousand_waiting_jobs_are_cancelled_under_load_and_none_starts(stage: Stage, jobs: Jobs) -> None:
    """Their tickets are in the broker, and the only slot of their pool is taken until all of them are cancelled."""
    worker = await asyncio.to_thread(stage.worker, "doomed-pool", concurrency=1, WORKER_POOL="doomed")
    await jobs.create("holds-the-slot", type="hold", payload={"until": "all-cancelled"}, poolName="doomed")
    await until(lambda: stage.records.started(prefix="holds-the-slot"))
    doomed, busy = await asyncio.gather(
        jobs.burst("doomed", CANCELLED, poolName="doomed"),
        jobs.burst("busy", OTHERS, type="record.slow", payload={"seconds": 0.05}),
    )
    await jobs.patch_all(doomed, cancel=True)
    ended = await jobs.all_ended([*doomed, *busy])
    phases = Counter((job["metadata"]["name"].split("-")[0], phase(job)) for job in ended)
    assert phases == {("busy", "Succeeded"): OTHERS, ("doomed", "Cancelled"): CANCELLED}
    stage.records.release("all-cancelled")
    # One that comes after them in the queue: the tickets of all others have been asked for and refused by then.
    await jobs.create("after-them", poolName="doomed", priorityValue=0)
    assert phase(await jobs.ended("after-them")) == "Succeeded"
    claims = "distriqueue_worker_claims_total"
    assert sample(worker, claims) > sample(worker, claims, answer="Granted") == 2
    assert stage.records.starts_by_job(prefix="doomed") == {}


def in_seconds(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


async def test_a_running_job_is_cancelled(stage: Stage, jobs: Jobs) -> None:
    await jobs.create("running", type="hold", payload={"until": "never"})
    await jobs.until("running", lambda job: phase(job) == "Running")
    kubectl_patch(stage, "running", cancel=True)
    stage.kubectl("wait", "--for=jsonpath={.status.phase}=Cancelled", "djob/running", "--timeout=60s")
    job = await jobs.get("running")
    assert outcomes(job) == [("Stopped", "Cancelled")]
    assert condition(job, "Failed")["reason"] == "Cancelled"
    assert [record.event for record in stage.records.all(prefix="running")] == ["started", "stopped"]


async def test_a_handler_that_does_not_listen_is_killed(stage: Stage, jobs: Jobs) -> None:
    await jobs.create("process", type="record.process", payload={"seconds": 3600})
    await until(lambda: stage.records.started(prefix="process"))
    await jobs.patch("process", cancel=True)
    job = await jobs.ended("process")
    assert (phase(job), outcomes(job)) == ("Cancelled", [("Stopped", "Cancelled")])


async def test_a_job_is_suspended_and_resumed(stage: Stage, jobs: Jobs) -> None:
    await jobs.create("suspended", suspend=True)
    kubectl_patch(stage, "suspended", suspend=True)
    stage.kubectl("wait", "--for=condition=Suspended", "djob/suspended", "--timeout=60s")
    assert not stage.records.started(prefix="suspended")
    kubectl_patch(stage, "suspended", suspend=False)
    job = await jobs.ended("suspended")
    assert phase(job) == "Succeeded"
    assert condition(job, "Suspended")["status"] == "False"


async def test_a_dead_job_is_run_again_and_again(stage: Stage, jobs: Jobs) -> None:
    spec = {"maxAttempts": 1, "payload": {"to": 3, "fail_at": 2}}
    await jobs.create("again", type="count", **spec)
    assert phase(await jobs.ended("again")) == "Dead"
    kubectl_patch(stage, "again", retryGeneration=1)
    job = await jobs.until("again", lambda job: phase(job) == "Succeeded")
    assert job["status"]["result"] == {"begun_at": 2}, "the checkpoint of the last run was handed on"
    assert outcomes(job) == [("Failed", "ValueError"), ("Succeeded", "")]
    assert (job["status"]["retryGeneration"], job["status"]["attempt"]) == (1, 2)
    assert not condition(job, "Failed")
    kubectl_patch(stage, "again", retryGeneration=2)
    job = await jobs.until("again", lambda job: job["status"].get("retryGeneration") == 2 and is_final(job))
    assert (phase(job), job["status"]["attempt"]) == ("Dead", 3), "a success leaves no checkpoint"
    assert stage.records.starts_by_job(prefix="again") == {"again": 3}


async def test_a_running_job_is_run_anew(stage: Stage, jobs: Jobs) -> None:
    await jobs.create("anew", type="hold", payload={"until": GATE})
    await jobs.until("anew", lambda job: phase(job) == "Running")
    await jobs.patch("anew", retryGeneration=1)
    await until(lambda: stage.records.starts_by_job(prefix="anew") == {"anew": 2})
    stage.records.release(GATE)
    job = await jobs.ended("anew")
    assert outcomes(job) == [("Stopped", "Retried"), ("Succeeded", "")]
    events = [record.event for record in stage.records.all(prefix="anew")]
    assert events == ["started", "stopped", "started", "returned"], "never two at once"


async def test_the_deadline_of_the_whole_job(jobs: Jobs) -> None:
    await jobs.create("late", type="hold", payload={"until": "never"}, deadlineSeconds=3)
    await jobs.create("later", poolName="nobody", deadlineSeconds=2)
    for name in ("late", "later"):
        job = await jobs.ended(name)
        assert (phase(job), condition(job, "Failed")["reason"]) == ("Failed", "DeadlineExceeded")
    assert outcomes(await jobs.get("late")) == [("Stopped", "DeadlineExceeded")]


async def test_a_job_starts_after_its_time(stage: Stage, jobs: Jobs) -> None:
    start = in_seconds(2)
    await jobs.create("timed", startAfter=start)
    assert phase(await jobs.ended("timed")) == "Succeeded"
    (record,) = stage.records.started(prefix="timed")
    assert record.wall >= datetime.fromisoformat(start).timestamp()


async def test_a_finished_job_goes_when_its_time_is_over(jobs: Jobs) -> None:
    await jobs.create("brief", ttlSecondsAfterFinished=1)
    await jobs.create("kept", ttlSecondsAfterFinished=3600)

    async def gone() -> bool:
        try:
            await jobs.get("brief")
        except NotFound:
            return True
        return False

    await until(gone)
    assert phase(await jobs.ended("kept")) == "Succeeded"


async def test_a_second_job_with_the_same_key_is_a_duplicate(jobs: Jobs) -> None:
    await jobs.create("first", dedupKey="one", poolName="nobody")
    await jobs.create("second", dedupKey="one")
    job = await jobs.ended("second")
    assert (phase(job), condition(job, "Failed")["reason"]) == ("Cancelled", "Duplicate")
    assert "first" in condition(job, "Failed")["message"]
    await jobs.patch("first", cancel=True)
    await jobs.ended("first")
    await jobs.create("third", dedupKey="one")
    assert phase(await jobs.ended("third")) == "Succeeded"


async def test_a_waiting_job_is_moved_up(stage: Stage, jobs: Jobs) -> None:
    """The pool gets its worker when all wait."""
    names = await jobs.burst("line", 40, poolName="line", priority="Low")
    await jobs.patch(names[-1], priority="High")
    await asyncio.to_thread(stage.worker, "line", concurrency=1, WORKER_POOL="line")
    await jobs.all_ended(names)
    order = [record.name for record in stage.records.started(prefix="line")]
    assert order.index(names[-1]) < len(names) // 2


async def test_progress_is_shown_while_a_job_runs(stage: Stage, jobs: Jobs) -> None:
    await jobs.create("slowly", type="count", payload={"to": 100, "seconds": 0.2})
    await jobs.until("slowly", lambda job: job["status"].get("progress", {}).get("percent", 0) >= 20)
    header, row = stage.kubectl("get", "djob", "slowly", "--output=wide").splitlines()
    assert header.split()[header.split().index("PROGRESS")] == "PROGRESS"
    assert row.split()[3] == "Running"
    job = await jobs.get("slowly")
    assert job["status"]["progress"]["message"].startswith("at ")
    assert job["status"]["checkpoint"] >= 1
    await jobs.patch("slowly", cancel=True)
    assert phase(await jobs.ended("slowly")) == "Cancelled"


async def test_an_attempt_whose_worker_was_killed_hands_its_checkpoint_on(stage: Stage, jobs: Jobs) -> None:
    worker = await asyncio.to_thread(stage.worker, "doomed-worker", concurrency=1, WORKER_POOL="handed-on")
    spec = {"poolName": "handed-on", "payload": {"to": 400, "seconds": 0.1}, "retryBudget": {"workerLost": 1}}
    await jobs.create("handed-on", type="count", maxAttempts=1, **spec)
    await jobs.until("handed-on", lambda job: job["status"].get("checkpoint", 0) >= 10)
    worker.kill()
    await asyncio.to_thread(stage.worker, "next-worker", concurrency=1, WORKER_POOL="handed-on")
    await jobs.until("handed-on", lambda job: len(job["status"]["attempts"]) == 2)
    job = await jobs.until("handed-on", lambda job: job["status"].get("checkpoint", 0) >= 100)
    assert job["status"]["failures"] == {"workerLost": 1}
    await jobs.patch("handed-on", cancel=True)
    assert phase(await jobs.ended("handed-on")) == "Cancelled"
