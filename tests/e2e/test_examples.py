"""What a new user types, with kubectl: the examples to their end, the columns, the explanations, the sizes that fit."""

import re
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from localcluster.installing import NAMESPACE, ROOT
from tests.e2e.systems import PATIENCE_SECONDS, System

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300, func_only=True)]

EXAMPLES = ROOT / "examples"
FAILING = "example-failing"
WAIT = f"--timeout={PATIENCE_SECONDS:.0f}s"


@pytest.fixture(scope="module", autouse=True)
def _applied(system: System, namespace: str) -> None:
    system.kubectl("apply", f"--namespace={namespace}", "--filename", str(EXAMPLES))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_kubectl_wait_returns_for_every_example(system: System, namespace: str, path: Path) -> None:
    name = yaml.safe_load(path.read_text())["metadata"]["name"]
    condition = "Failed" if name == FAILING else "Complete"
    said = system.kubectl("wait", f"--for=condition={condition}", f"djob/{name}", f"--namespace={namespace}", WAIT)
    assert said == f"distributedjob.distriqueue.io/{name} condition met\n"


def test_a_result_is_read_by_one_command(system: System, namespace: str) -> None:
    name = "djob/example-medium"
    system.kubectl("wait", "--for=condition=Complete", name, f"--namespace={namespace}", WAIT)
    result = system.kubectl("get", name, f"--namespace={namespace}", "--output=jsonpath={.status.result}")
    assert result == '{"result":42}'


def test_a_job_that_fails_keeps_its_attempts_and_waits_longer_each_time(system: System, namespace: str) -> None:
    system.kubectl("wait", "--for=condition=Failed", f"djob/{FAILING}", f"--namespace={namespace}", WAIT)
    status = system.job(FAILING, namespace=namespace)["status"]
    assert status["phase"] == "Dead"
    assert status["attempt"] == 3
    attempts = status["attempts"]
    assert [(attempt["number"], attempt["outcome"]) for attempt in attempts] == [
        (number, "Failed") for number in (1, 2, 3)
    ]
    assert {attempt["error"] for attempt in attempts} == {"the disk of the printer is full"}
    waits = [
        (_time(later["startTime"]) - _time(earlier["completionTime"])).total_seconds()
        for earlier, later in pairwise(attempts)
    ]
    # Without jitter no wait is shorter than what the manifest says: 1 s, then 2 s.
    assert waits[0] >= 1
    assert waits[1] >= 2
    (failed,) = (condition for condition in status["conditions"] if condition["type"] == "Failed")
    assert failed["reason"] == "AttemptsExhausted"


def test_kubectl_describe_says_why_a_job_failed(system: System, namespace: str) -> None:
    system.kubectl("wait", "--for=condition=Failed", f"djob/{FAILING}", f"--namespace={namespace}", WAIT)
    said = system.kubectl("describe", "djob", FAILING, f"--namespace={namespace}")
    assert re.search(r"Error: +the disk of the printer is full", said)
    for number in (1, 2, 3):
        assert f"INFO attempt {number} of 3 is about to fail" in said
    assert "RuntimeError: the disk of the printer is full" in said
    assert re.search(r"Reason: +AttemptsExhausted", said)


def test_the_columns_of_kubectl_get(system: System, namespace: str) -> None:
    system.kubectl("wait", "--for=condition=Failed", f"djob/{FAILING}", f"--namespace={namespace}", WAIT)
    narrow, wide = (
        system.kubectl("get", "djobs", FAILING, f"--namespace={namespace}", *more).splitlines()
        for more in ((), ("--output=wide",))
    )
    assert narrow[0].split() == ["NAME", "TYPE", "PRIORITY", "PHASE", "ATTEMPT", "WORKER", "AGE"]
    assert narrow[1].split()[:5] == [FAILING, "fail", "Medium", "Dead", "3"]
    assert narrow[1].split()[5] in {worker["metadata"]["name"] for worker in system.get("dworkers")["items"]}
    assert wide[0].split() == [*narrow[0].split(), "REASON", "LAST-ATTEMPT", "PROGRESS", "FINISHED", "POOL"]
    values = wide[1].split()  # its progress is blank: the handler has told none
    assert values[7:9] == ["AttemptsExhausted", "RuntimeError"]
    assert values[10] == "default"


def test_workers_are_listed(system: System) -> None:
    pods = {pod["metadata"]["name"] for pod in system.pods("worker")}

    def listed() -> list[list[str]]:
        return [line.split() for line in system.kubectl("get", "dworkers", f"--namespace={NAMESPACE}").splitlines()]

    header, *_ = system.until(listed, lambda rows: {row[0] for row in rows if row[2] == "Online"} == pods)
    assert header == ["NAME", "POOL", "PHASE", "RUNNING", "SLOTS", "VERSION", "AGE"]


@pytest.mark.parametrize("field", ["djob.spec", "djob.spec.backoff", "djob.status", "djob.status.attempts"])
def test_kubectl_explain_describes_every_field(system: System, field: str) -> None:
    said = system.kubectl("explain", field)
    head, _, fields = said.partition("FIELDS:\n")
    assert "<empty>" not in said
    assert len(head.partition("DESCRIPTION:")[2].split()) > 3
    described = re.findall(r"^  (\w+)\t<[^\n]+((?:\n  enum: [^\n]+)?)\n    (\S[^\n]+)", fields, re.MULTILINE)
    assert described
    assert [name for name, _, _ in described] == re.findall(r"^  (\w+)\t<", fields, re.MULTILINE)


def test_kubectl_explain_reads_like_documentation(system: System) -> None:
    said = " ".join(system.kubectl("explain", "djob.spec.maxAttempts").split())
    assert "How many times the job is tried in all, the first time included" in said
    assert "Default 3." in said


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
