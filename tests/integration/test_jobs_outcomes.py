"""Jobs from kubectl to their result: real operators and workers as processes, a real API server, a real RabbitMQ."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest

from distriqueue.api.admission import SIZE_POLICY
from distriqueue.core.leader import LeaderSettings
from distriqueue.kube.errors import Refused
from distriqueue.kube.resources import JOBS
from localcluster.errors import CommandError
from localcluster.resources import install_definitions
from tests.support.jobs import Job, Jobs, condition, manifest, phase
from tests.support.stages import CALM, Stage, Stages
from tests.support.waiting import until

pytestmark = pytest.mark.integration

SHORT_JOBS = 20
FLUSH_SECONDS = LeaderSettings().running_after


@pytest.fixture(name="stage", scope="module")
def stage_fixture(stages: Stages) -> Iterator[Stage]:
    with stages.open(**CALM) as stage:
        stage.start(operators=2, workers=1)
        yield stage


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


@asynccontextmanager
async def watched(jobs: Jobs) -> AsyncIterator[list[tuple[float, Job]]]:
    """Every version of every job of the namespace, as a watch shows them from here on, with the (monotonic) time."""
    now = await jobs.client.request("GET", JOBS.collection(jobs.namespace), params={"limit": "1"})
    seen: list[tuple[float, Job]] = []

    async def watch() -> None:
        params = {"resourceVersion": now["metadata"]["resourceVersion"]}
        async with aclosing(jobs.client.stream(JOBS.collection(jobs.namespace), params, inactivity=120)) as events:
            async for event in events:
                seen.append((time.monotonic(), event["object"]))  # noqa: PERF401 - others look at the list while it grows

    task = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_job_succeeds(stage: Stage, jobs: Jobs) -> None:
    text = json.dumps(manifest(stage.namespace, "succeeds", payload={"customer": "c-42", "rows": [1, 2.5, None]}))
    stage.kubectl("apply", "--filename=-", stdin=text)
    stage.kubectl("wait", "--for=condition=Complete", "djob/succeeds", "--timeout=60s")

    status = (await jobs.get("succeeds"))["status"]
    assert status["phase"] == "Succeeded"
    assert status["result"] == {"payload": {"customer": "c-42", "rows": [1, 2.5, None]}, "attempt": 1}
    assert (status["attempt"], status["worker"]) == (1, "worker-0")
    assert [(entry["number"], entry["outcome"]) for entry in status["attempts"]] == [(1, "Succeeded")]
    conditions = {item["type"]: (item["status"], item["reason"]) for item in status["conditions"]}
    assert conditions == {"Accepted": ("True", "Accepted"), "Complete": ("True", "Succeeded")}
    assert moment(status["startTime"]) <= moment(status["completionTime"])
    assert status["queuedTime"]
    assert status["observedGeneration"] == 1
    assert "error" not in status
    assert status["lastGrant"]["epoch"] == status["epoch"]
    assert stage.records.starts_by_job(prefix="succeeds") == {"succeeds": 1}


async def test_a_short_job_costs_one_status_write(stage: Stage, jobs: Jobs) -> None:
    leader = stage.leader()
    assert leader is not None
    before = leader.metric("distriqueue_status_writes_total")
    async with watched(jobs) as seen:
        created: dict[str, float] = {}
        for number in range(SHORT_JOBS):
            created[f"short-{number}"] = time.monotonic()
            await jobs.create(f"short-{number}")
            await jobs.ended(f"short-{number}")
        await until(lambda: [phase(job) for _, job in seen].count("Succeeded") == SHORT_JOBS)
        histories = {
            name: [(at, phase(job)) for at, job in seen if job["metadata"]["name"] == name] for name in created
        }
    # One that a busy machine holds up for longer than the flush interval may be written as Queued or Running too.
    quick = [name for name, history in histories.items() if history[-1][0] - created[name] < FLUSH_SECONDS]
    assert quick, histories
    for name in quick:
        assert [word for _, word in histories[name]] == ["Pending", "Succeeded"]
    writes = sum(len(history) - 1 for history in histories.values())
    assert leader.metric("distriqueue_status_writes_total") - before == writes


async def test_a_failing_job_is_tried_again_and_dies(stage: Stage, jobs: Jobs) -> None:
    backoff = {"initialSeconds": 1, "factorPercent": 200, "jitterPercent": 0}
    await jobs.create("dies", type="logging", payload={"lines": 3}, maxAttempts=3, backoff=backoff)
    retrying = await jobs.until("dies", lambda job: phase(job) == "Retrying")
    assert moment(retrying["status"]["nextAttemptTime"]) > moment(retrying["status"]["attempts"][-1]["completionTime"])

    status = (await jobs.ended("dies"))["status"]
    assert (status["phase"], status["attempt"], status["error"]) == ("Dead", 3, "failed after logging")
    attempts = status["attempts"]
    assert [(entry["number"], entry["outcome"], entry["reason"]) for entry in attempts] == [
        (number, "Failed", "ValueError") for number in (1, 2, 3)
    ]
    waits = [
        (moment(later["startTime"]) - moment(earlier["completionTime"])).total_seconds()
        for earlier, later in pairwise(attempts)
    ]
    assert waits[0] >= 1, waits
    assert waits[1] >= 2, waits
    assert all("line 2 of the handler" in entry["logTail"] for entry in attempts)
    failed = condition({"status": status}, "Failed")
    assert (failed["status"], failed["reason"]) == ("True", "AttemptsExhausted")
    assert "attempt 3, the last one" in failed["message"]
    assert "nextAttemptTime" not in status
    assert "result" not in status
    assert stage.records.starts_by_job(prefix="dies") == {"dies": 3}
    described = stage.kubectl("describe", "djob/dies")
    assert "line 2 of the handler" in described
    assert "failed after logging" in described


async def test_a_flaky_job_succeeds_in_the_end(stage: Stage, jobs: Jobs) -> None:
    await jobs.create("flaky", type="flaky", payload={"failures": 2}, backoff={"initialSeconds": 0})
    status = (await jobs.ended("flaky"))["status"]
    assert (status["phase"], status["result"], status["attempt"]) == ("Succeeded", 3, 3)
    assert [entry["outcome"] for entry in status["attempts"]] == ["Failed", "Failed", "Succeeded"]
    assert "error" not in status
    grants = [record.grant for record in stage.records.started(prefix="flaky")]
    counters = [int(grant.partition("-")[2]) for grant in grants]
    assert counters == sorted(set(counters)), "the fencing token grows with every attempt"


FOR_GOOD = [
    pytest.param("refusing", {}, "PermanentError", "no attempt can help", 1, id="permanent-error"),
    pytest.param(
        "email", {"to": "a@example.com", "subject": "s", "cc": "b"}, "InvalidPayload", "cc", 0, id="unknown-key"
    ),
    pytest.param("big", {"characters": 70_000}, "ResultTooLarge", "65536", 1, id="result-too-large"),
]


@pytest.mark.parametrize(("type_", "payload", "reason", "words", "starts"), FOR_GOOD)
async def test_what_no_attempt_can_mend_fails_at_once(
    stage: Stage, jobs: Jobs, type_: str, payload: dict[str, Any], reason: str, words: str, starts: int
) -> None:
    name = f"for-good-{reason.lower()}"
    await jobs.create(name, type=type_, payload=payload, maxAttempts=5)
    job = await jobs.ended(name)
    status = job["status"]
    assert (status["phase"], len(status["attempts"])) == ("Failed", 1)
    assert (status["attempts"][0]["outcome"], status["attempts"][0]["reason"]) == ("Failed", reason)
    assert words in status["error"]
    assert condition(job, "Failed")["reason"] == "PermanentError"
    assert condition(job, "Accepted")["status"] == "True"
    assert len(stage.records.started(prefix=name)) == starts


async def test_an_attempt_that_runs_out_of_time_is_stopped(stage: Stage, jobs: Jobs) -> None:
    await jobs.create("too-slow", type="hold", payload={"until": "never"}, timeoutSeconds=1, maxAttempts=1)
    status = (await jobs.ended("too-slow"))["status"]
    assert (status["phase"], status["attempts"][0]["reason"]) == ("Dead", "Timeout")
    assert [record.event for record in stage.records.all(prefix="too-slow")] == ["started", "stopped"]


async def test_a_handler_that_crashes_takes_only_its_own_process_along(jobs: Jobs) -> None:
    await jobs.create("crashes", type="crash", maxAttempts=1)
    status = (await jobs.ended("crashes"))["status"]
    assert (status["phase"], status["attempts"][0]["reason"]) == ("Dead", "ProcessDied"), status
    assert "exit code 23" in status["error"]
    await jobs.create("after-the-crash")
    assert phase(await jobs.ended("after-the-crash")) == "Succeeded"


async def test_a_large_result_is_kept_whole(jobs: Jobs) -> None:
    await jobs.create("large", type="big", payload={"characters": 65_000})
    status = (await jobs.ended("large"))["status"]
    assert status["result"] == "x" * 65_000


TOO_LARGE = {"text": "x" * 70_000}


def test_a_payload_over_the_limit_is_refused_on_apply(stage: Stage) -> None:
    wrong = json.dumps(manifest(stage.namespace, "too-large-to-apply", payload=TOO_LARGE))
    with pytest.raises(CommandError, match=r"spec\.payload: Too large.*64 KiB \(65536 bytes\).*pass a reference to it"):
        stage.kubectl("create", "--filename=-", stdin=wrong)
    with pytest.raises(CommandError, match="not found"):
        stage.kubectl("get", "djob/too-large-to-apply")


@pytest.fixture(name="without_policy")
async def without_policy_fixture(stage: Stage, jobs: Jobs) -> AsyncIterator[None]:
    """The API server as an administrator leaves it who does not want the policy; it comes back afterwards."""
    dry = {"dryRun": "All"}
    body = manifest(stage.namespace, "dry", payload=TOO_LARGE)

    async def passes() -> bool:
        try:
            await jobs.client.request("POST", JOBS.collection(stage.namespace), body=body, params=dry)
        except Refused:
            return False
        return True

    async def refused() -> bool:
        return not await passes()

    stage.kubectl("delete", f"validatingadmissionpolicybinding/{SIZE_POLICY}")
    await until(passes)
    yield
    install_definitions(stage.plane.kubeconfig)
    await until(refused)


@pytest.mark.usefixtures("without_policy")
async def test_a_payload_over_the_limit_is_refused_by_the_leader_when_nothing_else_does(
    stage: Stage, jobs: Jobs
) -> None:
    await jobs.create("too-large", payload=TOO_LARGE)
    job = await jobs.ended("too-large")
    assert phase(job) == "Failed"
    accepted = condition(job, "Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", "PayloadTooLarge")
    assert "the limit is 65536" in accepted["message"]
    assert "reference" in accepted["message"]
    failed = condition(job, "Failed")
    assert (failed["status"], failed["reason"]) == ("True", "PayloadTooLarge")
    assert "attempts" not in job["status"]
    assert stage.records.started(prefix="too-large") == []
    stage.kubectl("wait", "--for=condition=Accepted=false", "djob/too-large", "--timeout=10s")
