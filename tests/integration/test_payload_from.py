"""Payloads in ConfigMaps and Secrets, through a real API server, a real broker, operator and worker processes."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aio_pika
import pytest
import yaml

from distriqueue.kube.client import MERGE_PATCH, KubeClient
from distriqueue.kube.resources import CONFIG_MAPS
from tests.support.jobs import Job, Jobs, condition, phase
from tests.support.payload_tasks import digest
from tests.support.stages import CALM, TASKS, Stage, Stages
from tests.support.waiting import until

pytestmark = pytest.mark.integration

CANARY = 'canary-7f3a"quoted"-yranac'
PIN = 765432107654
SECRET: dict[str, Any] = {
    "token": CANARY,
    "pins": [PIN],
    "deep": {"key": f"-----BEGIN-----\n{CANARY}-line\n-----END-----"},
}
SHOWN = ("canary-7f3a", "-yranac", str(PIN))
"""What must be nowhere."""


@pytest.fixture(name="stage", scope="module")
def stage_fixture(stages: Stages, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stages.open(LOG_LEVEL="debug", **CALM) as stage:
        stage.start(operators=1, workers=0)
        secrets = tmp_path_factory.mktemp("secrets")
        for namespace, name in ((stage.namespace, "access"), ("another", "theirs")):
            place = secrets / namespace / name
            (place / "..data").mkdir(parents=True)
            (place / "..data/payload.json").write_text(json.dumps(SECRET))
            (place / "..data/broken.json").write_text(f'{{"token": "{PIN}" {PIN}')
            for key in ("payload.json", "broken.json"):
                (place / key).symlink_to(f"..data/{key}")
        stage.worker(
            "worker",
            concurrency=4,
            WORKER_TASKS=f"{TASKS},tests.support.payload_tasks",
            WORKER_SECRETS_DIRECTORY=str(secrets),
        )
        yield stage


def config_map(name: str, key: str = "payload.json") -> dict[str, Any]:
    """A reference to a ConfigMap."""
    return {"configMapKeyRef": {"name": name, "key": key}}


def secret(name: str, key: str = "payload.json") -> dict[str, Any]:
    """A reference to a Secret."""
    return {"secretKeyRef": {"name": name, "key": key}}


async def make_map(jobs: Jobs, name: str, payload: object, **more: Any) -> None:
    """Create a ConfigMap whose key payload.json holds a payload."""
    text = payload if isinstance(payload, str) else json.dumps(payload, indent=2)
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"payload.json": text}, **more}
    await jobs.client.request("POST", CONFIG_MAPS.collection(jobs.namespace), body=body)


async def change_map(jobs: Jobs, name: str, payload: object) -> None:
    """Change it."""
    body = {"data": {"payload.json": json.dumps(payload)}}
    path = CONFIG_MAPS.path(jobs.namespace, name)
    await jobs.client.request("PATCH", path, body=body, content_type=MERGE_PATCH)


async def waits(jobs: Jobs, name: str, reason: str) -> Job:
    """Wait until a job says that it waits for its payload."""
    job = await jobs.until(name, lambda job: condition(job, "PayloadReady").get("reason") == reason)
    assert condition(job, "PayloadReady")["status"] == "False"
    assert phase(job) == "Pending"
    assert not job["status"].get("attempts")
    return job


@pytest.mark.parametrize("kind", ["digest.loop", "digest.thread", "digest.process"])
async def test_handlers_get_what_stands_in_a_config_map(stage: Stage, jobs: Jobs, kind: str) -> None:
    name = kind.replace(".", "-")
    payload = {"list": [1, 2.5, None], "text": 'ä\n\u0000"', "large": "x" * 60_000}
    await make_map(jobs, name, payload)
    await jobs.create(name, type=kind, payloadFrom=config_map(name))
    job = await jobs.ended(name)
    assert job["status"]["result"] == {"digest": digest(payload), "attempt": 1}
    assert job["spec"]["payload"] == {}
    assert "x" * 100 not in json.dumps(job)
    assert condition(job, "PayloadReady") == {}
    assert stage.leader() is not None


async def test_binary_data_is_a_place_too(stage: Stage, jobs: Jobs) -> None:
    del stage
    await make_map(jobs, "binary", {}, binaryData={"more.json": "eyJhIjogMX0="})
    await jobs.create("binary", type="digest.loop", payloadFrom=config_map("binary", "more.json"))
    assert (await jobs.ended("binary"))["status"]["result"]["digest"] == digest({"a": 1})


async def test_each_attempt_gets_what_stands_there_then(stage: Stage, jobs: Jobs) -> None:
    del stage
    await make_map(jobs, "changing", {"version": 1})
    await jobs.create("changing", type="record", payloadFrom=config_map("changing"))
    assert (await jobs.ended("changing"))["status"]["result"]["payload"] == {"version": 1}
    await change_map(jobs, "changing", {"version": 2})
    await jobs.patch("changing", retryGeneration=1)
    job = await jobs.until("changing", lambda job: job["status"].get("result", {}).get("attempt") == 2)
    assert job["status"]["result"]["payload"] == {"version": 2}


async def test_a_job_waits_for_a_config_map_without_using_up_an_attempt(stage: Stage, jobs: Jobs) -> None:
    await jobs.create("early", type="record", payloadFrom=config_map("late"), maxAttempts=1)
    job = await waits(jobs, "early", "ConfigMapNotFound")
    assert condition(job, "PayloadReady")["message"] == (
        f'there is no ConfigMap "late" in namespace "{stage.namespace}": create it, with the key "payload.json"; '
        "the job goes on by itself"
    )
    await jobs.create("beside", payload={"other": True})
    assert phase(await jobs.ended("beside")) == "Succeeded"
    assert "PayloadNotReady" in stage.kubectl("describe", "djob", "early").partition("\nEvents:")[2]
    await make_map(jobs, "late", "{}", data={"another": "{}"})
    await waits(jobs, "early", "ConfigMapKeyNotFound")
    await change_map(jobs, "late", {"at": "last"})
    job = await jobs.ended("early", seconds=120)
    assert job["status"]["result"] == {"payload": {"at": "last"}, "attempt": 1}
    ready = condition(job, "PayloadReady")
    assert (ready["status"], ready["reason"]) == ("True", "PayloadResolved")
    assert len(job["status"]["attempts"]) == 1


@pytest.mark.parametrize(
    ("text", "reason", "words"),
    [
        ("{", "InvalidPayload", "is not JSON (at line 1 column 1): write a JSON object there"),
        ("[]", "InvalidPayload", "is JSON and no object"),
        (
            json.dumps({"x": "y" * 65536}),
            "PayloadTooLarge",
            "has 65544 bytes, the limit is 65536: store the data elsewhere",
        ),
    ],
)
async def test_what_is_no_payload_ends_the_job(stage: Stage, jobs: Jobs, text: str, reason: str, words: str) -> None:
    del stage
    name = f"wrong-{len(text)}"
    await make_map(jobs, name, text)
    await jobs.create(name, payloadFrom=config_map(name))
    job = await jobs.ended(name)
    assert (phase(job), condition(job, "Failed")["reason"]) == ("Failed", reason)
    assert words in condition(job, "Failed")["message"]
    assert condition(job, "Accepted")["status"] == "False"
    await change_map(jobs, name, {"mended": True})
    await jobs.patch(name, retryGeneration=1)
    job = await jobs.until(name, lambda job: phase(job) == "Succeeded")
    assert condition(job, "Accepted")["status"] == "True"


async def test_a_cancelled_job_that_waits_never_starts(stage: Stage, jobs: Jobs) -> None:
    await jobs.create("unwanted", payloadFrom=config_map("unwanted"))
    await waits(jobs, "unwanted", "ConfigMapNotFound")
    await jobs.patch("unwanted", cancel=True)
    assert phase(await jobs.ended("unwanted")) == "Cancelled"
    await make_map(jobs, "unwanted", {})
    await jobs.create("after", payload={})
    await jobs.ended("after")
    assert stage.records.starts_by_job(prefix="unwanted") == {}


async def test_a_secret_of_another_namespace_cannot_be_named(stage: Stage, jobs: Jobs) -> None:
    for name in ("theirs", "nothing"):
        await jobs.create(name, type="digest.loop", payloadFrom=secret(name), maxAttempts=1)
        job = await jobs.ended(name)
        (attempt,) = job["status"]["attempts"]
        assert (phase(job), attempt["reason"]) == ("Dead", "SecretNotMounted")
        assert f'is not mounted into this worker for namespace "{stage.namespace}"' in attempt["error"]


@asynccontextmanager
async def tapped(stage: Stage) -> AsyncIterator[list[tuple[str, bytes]]]:
    """Everything that is published in the stage's virtual host, or delivered there: routing key and body."""
    heard: list[tuple[str, bytes]] = []
    stage.broker.ctl("trace_on", "-p", stage.namespace)
    try:
        connection = await aio_pika.connect(stage.amqp_url)
        async with connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(exclusive=True)
            await queue.bind("amq.rabbitmq.trace", "#")

            async def hear(message: aio_pika.abc.AbstractIncomingMessage) -> None:
                heard.append((str(message.headers.get("routing_keys")), message.body))

            await queue.consume(hear, no_ack=True)
            yield heard
    finally:
        stage.broker.ctl("trace_off", "-p", stage.namespace)


async def test_a_secret_shows_nowhere(stage: Stage, jobs: Jobs) -> None:
    async with tapped(stage) as heard:
        for kind in ("digest.loop", "digest.thread", "digest.process"):
            name = f"secret-{kind.replace('.', '-')}"
            await jobs.create(name, type=kind, payloadFrom=secret("access"))
            assert (await jobs.ended(name))["status"]["result"]["digest"] == digest(SECRET)
        failing = {"leak.loop": "ValueError", "leak.process": "ValueError", "strict": "InvalidPayload"}
        for kind, reason in failing.items():
            name = f"secret-{kind.replace('.', '-')}"
            await jobs.create(name, type=kind, payloadFrom=secret("access"), maxAttempts=1)
            job = await jobs.ended(name)
            assert job["status"]["attempts"][0]["reason"] == reason
            if reason == "ValueError":
                assert "cannot log in with {'token': '***'" in job["status"]["error"]
                assert "***" in job["status"]["attempts"][0]["logTail"]
        await jobs.create("secret-broken", type="digest.loop", payloadFrom=secret("access", "broken.json"))
        job = await jobs.ended("secret-broken")
        assert (phase(job), job["status"]["attempts"][0]["reason"]) == ("Failed", "InvalidPayload")
        await make_map(jobs, "open", {"open": "canary-of-a-config-map"})
        await jobs.create("open", type="digest.loop", payloadFrom=config_map("open"))
        await jobs.ended("open")
        await until(lambda: _all_settled(stage))
    # The tap hears everything: what has to be there is.
    tickets = [body for _, body in heard if b'"type":"leak.loop"' in body]
    assert tickets
    assert all(b'"payloadSecret":{"name":"access","key":"payload.json"}' in body for body in tickets)
    carrying = [body for _, body in heard if b"canary-of-a-config-map" in body]
    assert carrying
    assert all(b'"answers"' in body for body in carrying), "a ConfigMap's payload travels with the answer alone"
    everything = [body for _, body in heard]
    everything += [log.read_bytes() for log in stage.programs.directory.glob("*.log")]
    assert any(b"the payload is" in text for text in everything), "the logs were looked at"
    for kind in ("djobs", "dworkers", "events", "configmaps", "leases"):
        everything.append(stage.kubectl("get", kind, "-o", "json", "--show-managed-fields").encode())
    everything += [file.read_bytes() for file in stage.broker.directory.rglob("*") if file.is_file()]
    for text in everything:
        for piece in SHOWN:
            assert piece.encode() not in text, text[max(0, text.find(piece.encode()) - 200) :][:400]


async def _all_settled(stage: Stage) -> bool:
    return stage.workers["worker"].metric("distriqueue_worker_reports_unsettled") == 0


async def test_a_right_that_is_missing_is_named_and_waited_for(
    stages: Stages, kube: KubeClient, tmp_path: Path
) -> None:
    groups = ["distriqueue.io", "coordination.k8s.io", "events.k8s.io"]
    rules: list[dict[str, Any]] = [
        {"apiGroups": groups, "resources": ["*"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
    ]
    with stages.open(**CALM) as stage:
        core, rbac = "/api/v1/namespaces", "/apis/rbac.authorization.k8s.io/v1/namespaces"
        account, namespace = {"name": "operator"}, stage.namespace
        await kube.request("POST", f"{core}/{namespace}/serviceaccounts", body={"metadata": account})
        await kube.request("POST", f"{rbac}/{namespace}/roles", body={"metadata": account, "rules": rules})
        binding = {
            "metadata": account,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "operator"},
            "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": namespace}],
        }
        await kube.request("POST", f"{rbac}/{namespace}/rolebindings", body=binding)
        answer = await kube.request("POST", f"{core}/{namespace}/serviceaccounts/operator/token", body={"spec": {}})
        content = yaml.safe_load(stage.plane.kubeconfig.read_text())
        content["users"][0]["user"] = {"token": answer["status"]["token"]}
        (tmp_path / "kubeconfig").write_text(json.dumps(content))
        stage.operator("operator", KUBECONFIG=str(tmp_path / "kubeconfig"))
        stage.worker("worker")
        jobs = Jobs(kube, namespace)
        await make_map(jobs, "closed", {"a": 1})
        await jobs.create("closed", payloadFrom=config_map("closed"))
        job = await waits(jobs, "closed", "ConfigMapForbidden")
        rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}
        assert (
            'add the rule {apiGroups: [""], resources: [configmaps], verbs: [get]} to its role'
            in (condition(job, "PayloadReady")["message"])
        )
        role = {"metadata": account, "rules": [*rules, rule]}
        await kube.request("PUT", f"{rbac}/{namespace}/roles/operator", body=role)
        job = await jobs.ended("closed", seconds=120)
        assert job["status"]["result"] == {"payload": {"a": 1}, "attempt": 1}
