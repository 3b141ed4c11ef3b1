"""`kubectl djobs` as people run it: a program of its own, on a real API server with a real leader and real workers.

Each test has a pool or names of its own, because all share one stage.
"""

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from distriqueue.kube.client import KubeClient
from localcluster.binaries import ensure
from localcluster.control_plane import ControlPlane
from localcluster.programs import ROOT, SOURCES
from tests.integration.kube_plane import new_namespace
from tests.support.gateways import make_caller
from tests.support.jobs import Jobs, condition, manifest, phase
from tests.support.stages import CALM, Stage, Stages
from tests.support.waiting import until

pytestmark = pytest.mark.integration

PATIENCE_SECONDS = 120
PAGED = 510
"""More jobs than one page of a list has."""
PYTHONPATH = os.pathsep.join([*(str(ROOT / source) for source in SOURCES), str(ROOT)])


@pytest.fixture(name="stage", scope="module")
def stage_fixture(stages: Stages) -> Iterator[Stage]:
    with stages.open(**CALM) as stage:
        stage.start(operators=1, workers=1)
        yield stage


class Terminal:
    """Runs the program, with a kubeconfig whose namespace is the stage's."""

    def __init__(self, directory: Path, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.programs = directory / "bin"
        self.programs.mkdir(parents=True)
        for name, module in (("kubectl-djobs", "__main__"), ("kubectl_complete-djobs", "completing")):
            function = "main" if module == "__main__" else "for_kubectl"
            starter = self.programs / name
            starter.write_text(f"#!{sys.executable}\nfrom distriqueue.cli.{module} import {function}\n{function}()\n")
            starter.chmod(0o755)

    def environment(self, **more: str) -> dict[str, str]:
        return {
            "PATH": os.pathsep.join([str(self.programs), str(ensure("kubectl").parent), os.environ["PATH"]]),
            "PYTHONPATH": PYTHONPATH,
            "KUBECONFIG": str(self.kubeconfig),
            "HOME": str(self.programs),
            "TERM": "xterm",
            **more,
        }

    def run(
        self, *words: str, program: tuple[str, ...] = (sys.executable, "-m", "distriqueue.cli"), **given: str
    ) -> subprocess.CompletedProcess[str]:
        ran = subprocess.run(
            [*program, *words],
            env=self.environment(),
            input=given.get("stdin", ""),
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert "Traceback" not in ran.stderr, ran.stderr
        return ran

    async def djobs(self, *words: str, code: int = 0, stdin: str = "") -> str:
        """Run a command; returns what it prints when it ends as expected."""
        ran = await asyncio.to_thread(self.run, *words, stdin=stdin)
        assert ran.returncode == code, (words, ran.returncode, ran.stdout, ran.stderr)
        return ran.stdout if code == 0 else ran.stderr + ran.stdout

    async def json(self, *words: str) -> Any:
        return json.loads(await self.djobs(*words, "-o", "json"))

    def drawn(self, *words: str, **variables: str) -> str:
        """Run a command on a terminal; returns all that it wrote there."""
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "distriqueue.cli", *words],
            env=self.environment(COLUMNS="140", LINES="40", **variables),
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        written = b""
        try:
            while piece := os.read(master, 65536):
                written += piece
        except OSError:  # the other end is closed
            pass
        finally:
            os.close(master)
        assert process.wait(PATIENCE_SECONDS) == 0
        return written.decode()


@pytest.fixture(name="terminal", scope="module")
def terminal_fixture(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    directory = tmp_path_factory.mktemp("terminal")
    return Terminal(directory, kubeconfig_of(stage.plane, directory, namespace=stage.namespace))


def kubeconfig_of(plane: ControlPlane, directory: Path, *, namespace: str, token: str | None = None) -> Path:
    """The administrator's kubeconfig with another namespace, and perhaps as somebody else."""
    content = json.loads(plane.kubeconfig.read_text())
    content["contexts"][0]["context"]["namespace"] = namespace
    if token is not None:
        content["users"][0]["user"] = {"token": token}
    path = directory / f"kubeconfig-{namespace}"
    path.write_text(json.dumps(content))
    return path


# --- submitting ----------------------------------------------------------------------------------------------------


async def test_submit_and_wait_through_kubectl(terminal: Terminal) -> None:
    words = ("djobs", "submit", "--type", "record", "--payload", '{"a": 1}', "--name", "via-kubectl", "--wait")
    ran = await asyncio.to_thread(terminal.run, *words, program=("kubectl",))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("via-kubectl: Succeeded after ")
    assert json.loads(ran.stdout.split("\n", 1)[1]) == {"payload": {"a": 1}, "attempt": 1}
    assert "distributedjob.distriqueue.io/via-kubectl created" in ran.stderr


async def test_the_exit_code_tells_how_a_job_ended(terminal: Terminal, jobs: Jobs) -> None:
    failed, dead, cancelled, late = await asyncio.gather(
        terminal.djobs("submit", "--type", "refusing", "--wait", code=1),
        terminal.djobs("submit", "--type", "flaky", "--payload", '{"failures": 1}', "--max-attempts=1", "-w", code=3),
        cancelled_while_waited_for(terminal, jobs),
        terminal.djobs("submit", "--type", "record", "--pool", "nobody", "--wait", "--timeout", "1s", code=5),
    )
    assert "Failed" in failed
    assert "no attempt can help" in failed
    assert "Dead" in dead
    assert "attempt 1 fails as told" in dead
    assert "Cancelled" in cancelled
    assert "not over after 1 s" in late
    assert "kubectl djobs explain" in late


async def cancelled_while_waited_for(terminal: Terminal, jobs: Jobs) -> str:
    submitting = asyncio.create_task(
        terminal.djobs("submit", "--type", "record", "--name", "unwanted", "--suspend", "--wait", code=4)
    )
    await until(lambda: exists(jobs, "unwanted"))
    await terminal.djobs("cancel", "unwanted")
    return await submitting


async def exists(jobs: Jobs, name: str) -> bool:
    return bool(await jobs.named([name]))


async def test_flags_become_the_spec(terminal: Terminal) -> None:
    job = await terminal.json(
        *("submit", "--type", "record", "--name", "flags", "--suspend", "--priority", "high", "--priority-value", "70"),
        *("--pool", "gpu", "--max-attempts", "7", "--attempt-timeout", "1m30s", "--deadline", "1h", "--ttl", "2h"),
        *("--dedup-key", "k", "--start-after", "2030-01-01T00:00:00Z", "--label", "app=web", "--payload", "{}"),
    )
    spec = {key: value for key, value in job["spec"].items() if key not in {"backoff", "payload"}}
    assert spec == {
        "type": "record",
        "suspend": True,
        "priority": "High",
        "priorityValue": 70,
        "poolName": "gpu",
        "maxAttempts": 7,
        "timeoutSeconds": 90,
        "deadlineSeconds": 3600,
        "ttlSecondsAfterFinished": 7200,
        "dedupKey": "k",
        "startAfter": "2030-01-01T00:00:00Z",
    }
    assert job["metadata"]["labels"] == {"app": "web"}


async def test_manifests_are_all_created_or_none(terminal: Terminal, jobs: Jobs) -> None:
    namespace = jobs.namespace
    manifests = [manifest(namespace, f"several-{number}") for number in range(3)]
    assert await terminal.djobs("submit", "-f", "-", "--wait", "-o", "name", stdin=yaml.safe_dump_all(manifests)) == (
        "".join(f"distributedjob.distriqueue.io/several-{number}\n" for number in range(3))
    )
    manifests = [manifest(namespace, "again-0"), manifest(namespace, "again-1", retries=3)]
    said = await terminal.djobs("submit", "-f", "-", code=1, stdin=yaml.safe_dump_all(manifests))
    assert 'unknown field "spec.retries"' in said
    assert "nothing was created" in said
    assert await jobs.named(["again-0", "again-1"]) == []


# --- looking -------------------------------------------------------------------------------------------------------


async def test_lists_come_in_pages_and_in_every_form(
    terminal: Terminal, kube: KubeClient, plane: ControlPlane, tmp_path: Path
) -> None:
    namespace = await new_namespace(kube)
    names = await Jobs(kube, namespace).burst("many", PAGED, suspend=True)
    await Jobs(kube, namespace).create("other", type="email", suspend=True, priority="High")
    elsewhere = Terminal(tmp_path, kubeconfig_of(plane, tmp_path, namespace=namespace))
    found = (await elsewhere.djobs("list", "--type", "record", "-o", "name")).split()
    assert found == [f"distributedjob.distriqueue.io/{name}" for name in names]
    assert len((await elsewhere.djobs("list")).splitlines()) == PAGED + 2
    high = (await elsewhere.djobs("list", "--priority", "high")).splitlines()
    assert high[0].split()[:3] == ["NAME", "TYPE", "PRIORITY"]
    assert high[1].split()[:4] == ["other", "email", "High", "Pending"]
    assert "other" in await terminal.djobs("list", "--all-namespaces", "--type", "email")
    assert "other" in await terminal.djobs("-n", namespace, "get", "other"), "options may stand before the command"
    whole = yaml.safe_load(await elsewhere.djobs("get", "djob/other", "-o", "yaml"))
    assert whole["spec"]["type"] == "email"
    assert (await elsewhere.json("list", "--phase", "dead"))["items"] == []
    assert "no job missing" in await elsewhere.djobs("get", "missing", code=1)


async def test_describe_and_logs_of_a_job_that_failed(terminal: Terminal) -> None:
    await terminal.djobs(
        *("submit", "--type", "logging", "--payload", '{"lines": 3}', "--name", "talks", "--max-attempts=1", "-w"),
        code=3,
    )
    said = await terminal.djobs("describe", "talks")
    for expected in (
        "Phase:      Dead",
        "AttemptsExhausted",
        "ValueError",
        "failed after logging",
        "line 2 of the handler",
    ):
        assert expected in said
    log = await terminal.djobs("logs", "talks")
    assert log.splitlines()[:3] == [f"INFO line {number} of the handler" for number in range(3)]
    assert "ValueError: failed after logging" in log
    assert "no attempt 4 in its history: it has 1" in await terminal.djobs("logs", "talks", "--attempt", "4", code=1)


async def test_logs_of_a_worker_without_a_pod_say_where_they_are(terminal: Terminal, jobs: Jobs, stage: Stage) -> None:
    await jobs.create("runs-podless", type="hold", payload={"until": "podless"})
    await jobs.until("runs-podless", lambda job: phase(job) == "Running")
    said = await terminal.djobs("logs", "runs-podless", code=1)
    assert "the worker 'worker-0' runs in no pod" in said
    stage.records.release("podless")
    await terminal.djobs("logs", "runs-podless", "--follow")
    await jobs.create("silent", suspend=True)
    assert "has not started" in await terminal.djobs("logs", "silent", code=1)


async def test_watch_ends_with_the_jobs(terminal: Terminal, jobs: Jobs) -> None:
    for number in range(2):
        await jobs.create(f"bar-{number}", type="count", payload={"to": 20, "seconds": 0.1})
    piped, drawn, plain = await asyncio.gather(
        terminal.djobs("watch", "bar-0", "bar-1"),
        asyncio.to_thread(terminal.drawn, "watch", "bar-0", "bar-1"),
        asyncio.to_thread(terminal.drawn, "watch", "bar-0", "bar-1", NO_COLOR="1"),
    )
    assert "bar-0: Succeeded on worker-0" in piped
    assert piped.splitlines()[-1] == "2 Succeeded"
    assert "━" in drawn
    assert "100%" in drawn
    assert "\x1b[32m" in drawn
    assert "\x1b[32m" not in plain
    assert "no job nowhere" in await terminal.djobs("watch", "nowhere", code=1)


async def test_list_watch_goes_on_until_it_is_interrupted(terminal: Terminal, jobs: Jobs) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "distriqueue.cli", "list", "--type", "record.slow", "--watch"),
        env=terminal.environment(),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert (await process.stdout.readline()).startswith(b"NAME")
    await jobs.create("seen", type="record.slow", payload={"seconds": 2})
    phases = []
    while "Succeeded" not in phases:
        line = (await asyncio.wait_for(process.stdout.readline(), PATIENCE_SECONDS)).decode().split()
        if line[0] == "seen":
            phases.append(line[3])
    assert phases[0] == "Pending"
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), PATIENCE_SECONDS) == 130


# --- explaining ----------------------------------------------------------------------------------------------------


async def test_positions_are_the_order_in_which_jobs_start(terminal: Terminal, jobs: Jobs, stage: Stage) -> None:
    stage.worker("ordered", concurrency=1, WORKER_POOL="ordered")
    await jobs.create("ordered-first", type="hold", payload={"until": "ordered"}, poolName="ordered")
    await jobs.until("ordered-first", lambda job: phase(job) == "Running")
    order: dict[str, dict[str, Any]] = {
        "ordered-low": {"priority": "Low"},
        "ordered-medium": {},
        "ordered-urgent": {"priority": "High", "priorityValue": 90},
        "ordered-high": {"priority": "High", "priorityValue": 10},
    }
    for name, spec in order.items():
        await jobs.create(name, poolName="ordered", **spec)
        await jobs.until(name, lambda job: phase(job) == "Queued")
    waiting = ["ordered-urgent", "ordered-high", "ordered-medium", "ordered-low"]
    said = await asyncio.gather(*(terminal.json("explain", name) for name in waiting))
    assert [one["position"] for one in said] == [1, 2, 3, 4]
    assert [one["blocker"] for one in said] == ["WorkersFull", "BehindOthers", "BehindOthers", "BehindOthers"]
    assert {(one["running"], one["slots"]) for one in said} == {(1, 1)}
    new = await terminal.json("submit", "--type", "record", "--pool", "ordered", "--priority", "medium", "--dry-run")
    assert (new["blocker"], new["position"]) == ("BehindOthers", 4), "before submitting"
    stage.records.release("ordered")
    await jobs.all_ended(waiting)
    assert [record.name for record in stage.records.started(prefix="ordered-")] == ["ordered-first", *waiting]


async def test_each_reason_to_wait_has_a_sentence(terminal: Terminal, jobs: Jobs) -> None:
    await asyncio.gather(
        jobs.create("waits-for-worker", poolName="deserted"),
        jobs.create("waits-for-person", suspend=True),
        jobs.create("waits-for-time", startAfter="2031-01-01T00:00:00Z"),
        jobs.create("waits-for-payload", payloadFrom={"configMapKeyRef": {"name": "absent", "key": "p"}}),
        jobs.create("is-over"),
    )
    await jobs.ended("is-over")
    await jobs.until("waits-for-payload", lambda job: condition(job, "PayloadReady").get("status") == "False")
    expected = {
        "waits-for-worker": ("NoWorker", "DISTRIQUEUE_WORKER_POOL=deserted"),
        "waits-for-person": ("Suspended", "kubectl djobs resume waits-for-person"),
        "waits-for-time": ("StartAfter", "2031-01-01T00:00:00Z"),
        "waits-for-payload": ("NoPayload", "absent"),
        "is-over": ("Finished", "kubectl djobs retry is-over"),
    }
    answers = await asyncio.gather(*(terminal.json("explain", name) for name in expected))
    for (word, todo), said in zip(expected.values(), answers, strict=True):
        assert said["blocker"] == word
        assert todo in said["sentence"]
    assert "Waits for: Suspended" in await terminal.djobs("explain", "waits-for-person")


async def test_a_type_that_no_worker_knows_fails_as_explained(terminal: Terminal, jobs: Jobs, stage: Stage) -> None:
    stage.worker("narrow", WORKER_POOL="narrow", WORKER_DEFAULT_TASK="false")
    await jobs.create("narrow-known", poolName="narrow")
    await jobs.ended("narrow-known")  # so the worker's resource is there
    asked = ("submit", "--pool", "narrow", "--type", "no-such-task", "--max-attempts=1")
    said = await terminal.json(*asked, "--dry-run")
    assert said["blocker"] == "NoWorkerForType"
    assert "fails with UnknownType" in said["sentence"]
    await terminal.djobs(*asked, "--name", "narrow-unknown", "--wait", code=3)
    job = await jobs.get("narrow-unknown")
    assert job["status"]["attempts"][0]["reason"] == "UnknownType"


# --- changing ------------------------------------------------------------------------------------------------------


async def test_suspend_resume_and_retry(terminal: Terminal, jobs: Jobs) -> None:
    await jobs.create("moved", poolName="unstaffed")
    await terminal.djobs("suspend", "moved")
    assert (await jobs.get("moved"))["spec"]["suspend"] is True
    await terminal.djobs("resume", "djob/moved")
    assert (await jobs.get("moved"))["spec"]["suspend"] is False
    assert "it is not suspended" in await terminal.djobs("resume", "moved", code=1)
    await terminal.djobs("cancel", "moved")
    await jobs.ended("moved")
    assert "it is over (Cancelled)" in await terminal.djobs("cancel", "moved", code=1)
    assert "cannot be run again" in await terminal.djobs("retry", "moved", code=1)
    await jobs.create("anew")
    await jobs.ended("anew")
    await terminal.djobs("retry", "anew")
    await jobs.until("anew", lambda job: job["status"].get("attempt") == 2 and phase(job) == "Succeeded")
    assert "name the jobs" in await terminal.djobs("cancel", code=2)


async def test_many_are_cancelled_by_selector(terminal: Terminal, jobs: Jobs) -> None:
    names = await jobs.burst("herd", 30, type="herd", poolName="unstaffed")
    assert await terminal.djobs("cancel", "--type", "herd") == "30 jobs will be cancelled\n"
    assert {phase(job) for job in await jobs.all_ended(names)} == {"Cancelled"}
    assert await terminal.djobs("cancel", "--type", "herd") == "0 jobs will be cancelled\n"


async def test_redrive_takes_dead_letters_alone(terminal: Terminal, jobs: Jobs) -> None:
    dead = await jobs.burst("letter", 4, type="flaky", payload={"failures": 1}, maxAttempts=1)
    await jobs.all_ended(dead)
    chosen = ("redrive", "--type", "flaky", "--reason", "ValueError")
    listed = (await terminal.djobs(*chosen, "--dry-run")).splitlines()
    assert [line for line in listed if "letter-" in line] != []
    assert "attempt 1 fails as told" in listed[0]
    assert phase(await jobs.get(dead[0])) == "Dead", "a dry run changes nothing"
    first = await terminal.djobs(*chosen, "--limit", "1", *dead)
    assert "1 dead letter will run again" in first
    others = [name for name in dead if f"/{name} " not in first]
    assert len(others) == len(dead) - 1
    await terminal.djobs(*chosen, "--rate", "2", *others)
    ended = [await jobs.until(name, lambda job: phase(job) == "Succeeded") for name in dead]
    assert {job["status"]["attempt"] for job in ended} == {2}
    assert "0 dead letters" in await terminal.djobs(*chosen, *dead)
    assert "it is no dead letter (Succeeded)" in await terminal.djobs("redrive", *dead, code=1)
    assert "leave out -A" in await terminal.djobs("redrive", *dead, "-A", code=2)


# --- the cluster ---------------------------------------------------------------------------------------------------


async def test_overviews(terminal: Terminal, jobs: Jobs, stage: Stage) -> None:
    await jobs.create("overview-waits", poolName="overview", priority="High")
    await jobs.create("overview-rests", poolName="overview", suspend=True)
    status = await terminal.json("status")
    [lease] = status["leases"]
    assert lease["held"]
    assert lease["namespace"] == stage.namespace
    assert lease["holder"].startswith("operator-0")
    assert status["epoch"] > 0
    assert status["workers"]["Online"] >= 1
    assert status["jobs"]["Pending"] >= 1
    assert "Leader:" in await terminal.djobs("status")
    workers = {one["metadata"]["name"]: one for one in (await terminal.json("workers"))["items"]}
    assert workers["worker-0"]["status"]["phase"] == "Online"
    assert "worker-0" in await terminal.djobs("workers", "--pool", "default")
    rows = {(row["pool"], row["priority"]): row for row in await terminal.json("queues")}
    high, medium = rows["overview", "High"], rows["overview", "Medium"]
    assert high["waiting"] + high["out"] == 1
    assert medium["resting"] == 1
    assert "overview" in await terminal.djobs("queues")
    pools = {one["pool"]: one for one in (await terminal.json("top"))["pools"]}
    assert pools["default"]["slots"] == 4
    assert pools["overview"]["waiting"]["High"] == 1
    assert "worker-0" in await terminal.djobs("top")


# --- rights, completion --------------------------------------------------------------------------------------------


async def test_somebody_with_rights_in_one_namespace(
    kube: KubeClient, stage: Stage, jobs: Jobs, tmp_path: Path
) -> None:
    token = await make_caller(kube, stage.namespace, "ordinary")
    theirs = Terminal(tmp_path, kubeconfig_of(stage.plane, tmp_path, namespace=stage.namespace, token=token))
    await jobs.create("ordinary-one", suspend=True)
    assert "ordinary-one" in await theirs.djobs("list")
    assert "jobs" in await theirs.djobs("list", "-n", "kube-system", code=6)
    assert "cannot list resource" in await theirs.djobs("list", "-A", code=6)
    await theirs.djobs("resume", "ordinary-one")
    await jobs.create("unstaffed-one", poolName="unstaffed")
    said = await theirs.djobs("explain", "unstaffed-one")
    assert "You may not see the workers" in said, "nobody says that there are none"
    assert "the workers are not yours to see" in await theirs.djobs("workers", code=6)
    token = await make_caller(kube, stage.namespace, "informed", workers=True)
    theirs = Terminal(tmp_path / "2", kubeconfig_of(stage.plane, tmp_path, namespace=stage.namespace, token=token))
    said = await theirs.djobs("explain", "unstaffed-one")
    assert "No worker of pool 'unstaffed' is online" in said
    assert "Jobs that you may not see can come first, too" in said, "the Lease and other namespaces are not theirs"


async def test_kubectl_completes_commands_and_names(terminal: Terminal, jobs: Jobs) -> None:
    await jobs.create("complete-this", suspend=True)

    async def completed(*words: str) -> list[str]:
        ran = await asyncio.to_thread(terminal.run, "__complete", "djobs", *words, program=("kubectl",))
        assert ran.returncode == 0, ran.stderr
        return [line.split("\t")[0] for line in ran.stdout.splitlines() if not line.startswith(":")]

    assert await completed("redr") == ["redrive"]
    assert await completed("get", "complete-t") == ["complete-this"]
    assert await completed("cancel", "complete-this", "complete-t") == [], "it is on the line already"
