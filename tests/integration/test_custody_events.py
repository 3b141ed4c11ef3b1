"""What people see of custody: Events of a killed worker and of a dead job, none of a job that went well.

And the auditor beside it: it looks at everything again and again, and finds nothing.
"""

import asyncio
from collections.abc import Iterator

import pytest

from distriqueue.kube.resources import EVENTS
from tests.support.jobs import Jobs, phase
from tests.support.stages import CALM, Stage, Stages, sample
from tests.support.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture(name="stage", scope="module")
def stage_fixture(stages: Stages) -> Iterator[Stage]:
    with stages.open(**CALM) as stage:
        stage.start(operators=1, workers=0)
        yield stage


async def said_of(jobs: Jobs, name: str) -> list[tuple[str, str, str]]:
    """The Events about an object: type, reason and note, in the order in which they were made."""
    answer = await jobs.client.request("GET", EVENTS.collection(jobs.namespace))
    found = [event for event in answer["items"] if event["regarding"]["name"] == name]
    found.sort(key=lambda event: event["eventTime"])
    return [(event["type"], event["reason"], event["note"]) for event in found]


async def test_a_killed_worker_and_its_lost_attempt_are_seen_by_kubectl(stage: Stage, jobs: Jobs) -> None:
    worker = stage.worker("killed", concurrency=1, WORKER_POOL="killed")
    await jobs.create("held", type="hold", payload={"until": "killed"}, poolName="killed")
    await jobs.until("held", lambda job: phase(job) == "Running")
    worker.kill()
    await jobs.until("held", lambda job: phase(job) != "Running")
    stage.worker("next", concurrency=1, WORKER_POOL="killed")
    stage.records.release("killed")
    assert phase(await jobs.ended("held")) == "Succeeded"

    async def told() -> bool:
        return bool(await said_of(jobs, "held")) and bool(await said_of(jobs, "killed"))

    await until(told)
    ((kind, reason, note),) = await said_of(jobs, "held")
    assert (kind, reason) == ("Warning", "AttemptLost")
    assert "Attempt 1 on worker killed was lost (WorkerLost: " in note
    assert "another one follows" in note
    ((kind, reason, note),) = await said_of(jobs, "killed")
    assert (kind, reason) == ("Warning", "WorkerLost")
    assert "HeartbeatMissed" in note
    assert "1 job" in note

    for what, word in ((("djob", "held"), "AttemptLost"), (("dworker", "killed"), "WorkerLost")):
        described = await asyncio.to_thread(stage.kubectl, "describe", *what)
        assert word in described.partition("\nEvents:")[2]
    selector = "--field-selector=reportingComponent=distriqueue.io/operator"
    listed = await asyncio.to_thread(stage.kubectl, "get", "events", selector)
    assert {line.split()[2] for line in listed.splitlines()[1:]} >= {"AttemptLost", "WorkerLost"}

    leader = stage.leader()
    assert leader is not None
    assert sample(leader, "distriqueue_attempts_lost_total", reason="WorkerLost") == 1
    assert sample(leader, "distriqueue_events_total", result="Created") >= 2
    assert "Attempt 1 on worker killed was lost" in leader.log.read_text()


async def test_a_job_that_goes_well_makes_no_event_and_a_dead_one_does(stage: Stage, jobs: Jobs) -> None:
    worker = stage.worker("calm", concurrency=2, WORKER_POOL="calm")
    names = await jobs.burst("well", 20, poolName="calm")
    await jobs.create("badly", type="fail", poolName="calm", maxAttempts=1)
    await jobs.all_ended([*names, "badly"])
    assert phase(await jobs.get("badly")) == "Dead"

    async def told() -> bool:
        return bool(await said_of(jobs, "badly"))

    await until(told)
    ((kind, reason, note),) = await said_of(jobs, "badly")
    assert (kind, reason) == ("Warning", "AttemptsExhausted")
    assert "Attempt 1, the last one, did not succeed" in note
    for name in names:
        assert await said_of(jobs, name) == []
    await asyncio.to_thread(worker.stop)


async def test_the_auditor_goes_on_and_finds_nothing(stage: Stage) -> None:
    leader = stage.leader()
    assert leader is not None
    before = sample(leader, "distriqueue_audit_rounds_total")
    await until(lambda: sample(leader, "distriqueue_audit_rounds_total") >= before + 2)
    for name in ("audit_findings", "jobs_lost", "attempts_duplicate"):
        assert sample(leader, f"distriqueue_{name}_total") == 0, name
    assert 0 <= sample(leader, "distriqueue_audit_age_seconds") < 60
