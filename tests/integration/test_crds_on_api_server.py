"""The definitions on a real API server, by kubectl: what is refused and in which words, what passes, what is shown."""

import json
import random
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from distriqueue.api.fences import Fence, violated_fences
from distriqueue.api.limits import PAYLOAD_LIMIT_BYTES
from localcluster.binaries import ensure
from localcluster.control_plane import ControlPlane, Tuning

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
Kubectl = Callable[..., subprocess.CompletedProcess[str]]
Manifest = dict[str, Any]


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    with ControlPlane(tmp_path_factory.mktemp("crds"), tuning=Tuning(fsync=False)) as plane:
        run = partial(_run, str(ensure("kubectl")), f"--kubeconfig={plane.kubeconfig}")
        _done(run("apply", "-f", ROOT / "crds/distributedjobs.yaml", "-f", ROOT / "crds/distributedworkers.yaml"))
        _done(run("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"))
        # From before there was a policy: too large, and still to be handled like any other.
        _eventually(lambda: _submit(run, _job("large", payload=_text(PAYLOAD_LIMIT_BYTES))).returncode == 0)
        _done(run("apply", "-f", ROOT / "crds"))
        probe = _job("probe", payload=_text(PAYLOAD_LIMIT_BYTES))
        _eventually(lambda: _submit(run, probe, "--dry-run=server").returncode != 0)
        changed = _job("large", payload={"renamed": "x" * PAYLOAD_LIMIT_BYTES})
        _eventually(lambda: _replace(run, changed, "--dry-run=server").returncode != 0)
        _eventually(lambda: run("explain", "dworker").returncode == 0)
        yield run


def _run(*arguments: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(argument) for argument in arguments], input=stdin, capture_output=True, text=True, check=False, timeout=60
    )


def _done(answer: subprocess.CompletedProcess[str]) -> str:
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def _refused(answer: subprocess.CompletedProcess[str]) -> str:
    assert answer.returncode != 0, f"was not refused: {answer.stdout}"
    return answer.stderr


def _eventually(holds: Callable[[], bool], *, seconds: float = 60) -> None:
    """Wait for what the API server takes up a moment after it has accepted it."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.1)


def _job(name: str, **spec: Any) -> Manifest:
    return {
        "apiVersion": "distriqueue.io/v1alpha1",
        "kind": "DistributedJob",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"type": "email", **spec},
    }


def _text(characters: int) -> Manifest:
    return {"text": "x" * characters}


def _submit(kubectl: Kubectl, manifest: Manifest, *options: str) -> subprocess.CompletedProcess[str]:
    return kubectl("create", "-f", "-", *options, stdin=json.dumps(manifest, ensure_ascii=False))


def _replace(kubectl: Kubectl, manifest: Manifest, *options: str) -> subprocess.CompletedProcess[str]:
    return kubectl("replace", "-f", "-", *options, stdin=json.dumps(manifest, ensure_ascii=False))


def _patch(kubectl: Kubectl, name: str, spec: Manifest) -> subprocess.CompletedProcess[str]:
    """Change a spec, as a person does."""
    return kubectl("patch", "djob", name, "--type=merge", "-p", json.dumps({"spec": spec}))


def _get(kubectl: Kubectl, *what: str) -> Any:
    return json.loads(_done(kubectl("get", *what, "-o", "json")))


def _put_status(kubectl: Kubectl, kind: str, name: str, status: Manifest | None) -> subprocess.CompletedProcess[str]:
    """Replace the whole status, as the operator does."""
    manifest = _get(kubectl, kind, name)
    manifest["status"] = status
    if status is None:
        del manifest["status"]
    return _replace(kubectl, manifest, "--subresource=status")


REFUSED: dict[str, tuple[Manifest, list[str]]] = {
    "wrong priority": ({"priority": "Urgent"}, ['"Urgent"', 'supported values: "High", "Medium", "Low"']),
    "negative timeout": ({"timeoutSeconds": -5}, ["spec.timeoutSeconds", "greater than or equal to 1"]),
    "timeout over a week": ({"timeoutSeconds": 604801}, ["spec.timeoutSeconds", "less than or equal to 604800"]),
    "timeout in words": ({"timeoutSeconds": "1h"}, ["spec.timeoutSeconds", "must be of type integer"]),
    "no type": ({"type": None}, ["spec.type", "Required value"]),
    "type in capitals": ({"type": "Email"}, ["spec.type", "lower-case letters", "'image.resize'"]),
    "type too long": ({"type": "x" * 64}, ["spec.type", "63"]),
    "pool with an underscore": ({"poolName": "a_b"}, ["spec.poolName", "lower-case letters, digits and '-'"]),
    "pool too long": ({"poolName": "p" * 41}, ["spec.poolName", "40"]),
    "no attempts": ({"maxAttempts": 0}, ["spec.maxAttempts", "greater than or equal to 1"]),
    "too many attempts": ({"maxAttempts": 101}, ["spec.maxAttempts", "less than or equal to 100"]),
    "priority value over 100": ({"priorityValue": 101}, ["spec.priorityValue", "less than or equal to 100"]),
    "shrinking backoff": ({"backoff": {"factorPercent": 50}}, ["factorPercent", "greater than or equal to 100"]),
    "backoff above its most": (
        {"backoff": {"initialSeconds": 600}},
        ["spec.backoff.maxSeconds", "set maxSeconds to the value of initialSeconds or more"],
    ),
    "payload that is no object": ({"payload": [1]}, ["spec.payload", "must be of type object"]),
    "payload of too many keys": ({"payload": {f"k{i}": i for i in range(1025)}}, ["spec.payload", "1024"]),
    "payload too large": (
        {"payload": _text(PAYLOAD_LIMIT_BYTES)},
        ["spec.payload: Too large", "64 KiB (65536 bytes)", "store large data outside and pass a reference"],
    ),
    "payload of a megabyte": ({"payload": _text(1_400_000)}, ["spec.payload: Too large", "64 KiB (65536 bytes)"]),
    "payload of many small values": ({"payload": {"list": [0] * 400_000}}, ["spec.payload: Too large"]),
    "payload of Japanese": ({"payload": {"text": "仕事" * 11_000}}, ["spec.payload: Too large"]),
    "payload and a reference": (
        {"payload": {"a": 1}, "payloadFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}},
        ["spec.payloadFrom: Forbidden", "a job has either payload or payloadFrom: leave one of them out"],
    ),
    "two references": (
        {"payloadFrom": {"configMapKeyRef": {"name": "a", "key": "b"}, "secretKeyRef": {"name": "a", "key": "b"}}},
        ["spec.payloadFrom", "name one source: either configMapKeyRef or secretKeyRef"],
    ),
    "no reference": ({"payloadFrom": {}}, ["spec.payloadFrom", "name one source"]),
    "reference without a key": (
        {"payloadFrom": {"configMapKeyRef": {"name": "a"}}},
        ["spec.payloadFrom.configMapKeyRef.key", "Required value"],
    ),
    "reference to a path": (
        {"payloadFrom": {"secretKeyRef": {"name": "a/b", "key": "c"}}},
        ["spec.payloadFrom.secretKeyRef.name", "such as 'report-settings'"],
    ),
    "reference to a key above": (
        {"payloadFrom": {"secretKeyRef": {"name": "a", "key": ".."}}},
        ["spec.payloadFrom.secretKeyRef.key", "does not begin with two dots"],
    ),
    "reference to another namespace": (
        {"payloadFrom": {"configMapKeyRef": {"name": "a", "namespace": "b", "key": "c"}}},
        ['unknown field "spec.payloadFrom.configMapKeyRef.namespace"'],
    ),
    "unknown field": ({"priorty": "High"}, ['unknown field "spec.priorty"']),
    "unknown field inside": ({"backoff": {"initialSecond": 3}}, ['unknown field "spec.backoff.initialSecond"']),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_refused_in_words_that_help(kubectl: Kubectl, case: str) -> None:
    spec, words = REFUSED[case]
    message = _refused(_submit(kubectl, _job("refused", **spec)))
    for word in words:
        assert word in message
    assert kubectl("get", "djob", "refused").returncode != 0


def test_apply_says_the_same_as_create(kubectl: Kubectl) -> None:
    manifest = json.dumps(_job("refused", payload=_text(PAYLOAD_LIMIT_BYTES)))
    for options in ([], ["--server-side"]):
        message = _refused(kubectl("apply", *options, "-f", "-", stdin=manifest))
        assert "64 KiB (65536 bytes)" in message


_random = random.Random(1)  # noqa: S311 - test data
WITHIN_LIMIT: dict[str, Manifest] = {
    "one long text": _text(65_000),
    "blanks after commas": {"text": ", " * 32_000},
    "fractions": {"list": [0.1] * 15_000},
    "whole fractions": {"list": [1.0] * 15_000},
    "long fractions": {"list": [_random.random() for _ in range(3_000)]},
    "tiny fractions": {"list": [1e-300] * 9_000},
    "huge numbers": {"list": [1.7976931348623157e308] * 2_500},
    "numbers just above 64 bits": {"list": [2.0**64] * 2_500, "negative": [-(2.0**63) * 1.5] * 100},
    "large integers": {"list": [2**63 - 1] * 3_000},
    "control characters": {"text": "\x00\x07\x1f" * 3_000},
    "delete": {"text": "\x7f" * 60_000},
    "no-break spaces": {"text": "\u00a0" * 30_000},
    "byte order marks": {"text": "\ufeff" * 20_000},
    "unassigned": {"text": "\u0378" * 30_000},
    "tags": {"text": "\U000e0067" * 16_000},
    "emoji": {"text": "\N{GRINNING FACE}" * 16_000},
    "quotes and backslashes": {"text": '"\\' * 16_000},
    "lists in lists": {"list": [[[]]] * 9_000},
    "nulls and truths": {"list": [None, True, False] * 4_000},
}


@pytest.mark.parametrize("case", WITHIN_LIMIT)
def test_no_payload_within_the_limit_is_refused(kubectl: Kubectl, case: str) -> None:
    payload = WITHIN_LIMIT[case]
    assert PAYLOAD_LIMIT_BYTES / 3 < len(orjson.dumps(payload)) <= PAYLOAD_LIMIT_BYTES
    _done(_submit(kubectl, _job("within", payload=payload), "--dry-run=server"))


def test_the_limit_is_exact_for_plain_text(kubectl: Kubectl) -> None:
    around = len(orjson.dumps(_text(0)))
    _done(_submit(kubectl, _job("within", payload=_text(PAYLOAD_LIMIT_BYTES - around)), "--dry-run=server"))
    _refused(_submit(kubectl, _job("above", payload=_text(PAYLOAD_LIMIT_BYTES - around + 1)), "--dry-run=server"))


def test_a_job_that_is_too_large_already_can_still_be_handled(kubectl: Kubectl) -> None:
    _done(kubectl("label", "djob", "large", "seen=yes"))
    _done(_put_status(kubectl, "djob", "large", {"phase": "Failed", "epoch": 1}))
    _done(kubectl("delete", "djob", "large", "--timeout=10s"))


def test_defaults_are_filled_in_and_pending_needs_no_write(kubectl: Kubectl) -> None:
    # A status that a person writes into the manifest counts for nothing.
    _done(_submit(kubectl, {**_job("defaults"), "status": {"phase": "Succeeded", "epoch": 7}}))
    made = _get(kubectl, "djob", "defaults")
    assert made["spec"] == {
        "type": "email",
        "payload": {},
        "priority": "Medium",
        "priorityValue": 50,
        "poolName": "default",
        "maxAttempts": 3,
        "backoff": {"initialSeconds": 5, "factorPercent": 200, "maxSeconds": 300, "jitterPercent": 10},
        "timeoutSeconds": 3600,
    }
    assert made["status"] == {"phase": "Pending"}


def test_a_payload_is_kept_as_it_is(kubectl: Kubectl) -> None:
    payload = {"null": None, "deep": [{"a": None, "b": [1.5, -2, "ü", {}]}], "CamelCase": {"x.y/z": True}}
    _done(_submit(kubectl, _job("kept", payload=payload)))
    assert _get(kubectl, "djob", "kept")["spec"]["payload"] == payload


CHANGES: dict[str, Manifest] = {
    "type": {"type": "fail"},
    "attempts": {"maxAttempts": 4},
    "budget": {"retryBudget": {"workerLost": 3}},
    "dedup key": {"dedupKey": "nightly"},
    "timeout": {"timeoutSeconds": 10},
    "backoff": {"backoff": {"initialSeconds": 6}},
    "pool": {"poolName": "other"},
    "value in the payload": {"payload": {"to": "b", "n": 1}},
    "value deep in the payload": {"payload": {"to": "a", "n": {"x": 2}}},
    "key more": {"payload": {"to": "a", "n": 1, "m": 1}},
    "key less": {"payload": {"to": "a"}},
    "key of another name": {"payload": {"to": "a", "m": 1}},
    "no payload": {"payload": {}},
}


@pytest.fixture(scope="module")
def fixed(kubectl: Kubectl) -> str:
    _done(_submit(kubectl, _job("fixed", payload={"to": "a", "n": 1})))
    return "fixed"


@pytest.mark.parametrize("case", CHANGES)
def test_the_spec_is_immutable(kubectl: Kubectl, fixed: str, case: str) -> None:
    manifest = _job(fixed, **{"payload": {"to": "a", "n": 1}, **CHANGES[case]})
    message = _refused(_replace(kubectl, manifest))
    assert "Forbidden" in message
    assert "create a new job" in message
    assert "kubectl replace --force" in message


def test_a_reference_is_taken_and_cannot_change(kubectl: Kubectl) -> None:
    first, second = ({"configMapKeyRef": {"name": "settings", "key": key}} for key in ("payload.json", ".other"))
    _done(_submit(kubectl, _job("referring", payloadFrom=first)))
    assert _get(kubectl, "djob", "referring")["spec"]["payload"] == {}
    _done(_patch(kubectl, "referring", {"priority": "High"}))
    for payload_from in (second, {"secretKeyRef": first["configMapKeyRef"], "configMapKeyRef": None}, None):
        assert "create a new job" in _refused(_patch(kubectl, "referring", {"payloadFrom": payload_from}))
    _done(_submit(kubectl, _job("plain")))
    assert "create a new job" in _refused(_patch(kubectl, "plain", {"payloadFrom": first}))
    explained = " ".join(_done(kubectl("explain", "djob.spec.payloadFrom")).split())
    assert "Exactly one of configMapKeyRef and secretKeyRef" in explained
    assert "It is read when an attempt is about to start" in explained


LIVES: dict[str, tuple[Manifest, Manifest, str]] = {
    "a cancel is not taken back": ({"cancel": True}, {"cancel": False}, "a cancel cannot be taken back"),
    "a cancel is not left out": ({"cancel": True}, {"cancel": None}, "a cancel cannot be taken back"),
    "a retry is not taken back": ({"retryGeneration": 2}, {"retryGeneration": 1}, "raise it by one"),
    "a cancelled job is not run again": ({"cancel": True}, {"retryGeneration": 1}, "cannot be run again"),
    "nor both at once": ({}, {"cancel": True, "retryGeneration": 1}, "cannot be run again"),
    "a deadline is not negative": ({}, {"deadlineSeconds": -1}, "greater than or equal to 1"),
    "a start is a time": ({}, {"startAfter": "tomorrow"}, "date-time"),
}


@pytest.mark.parametrize("case", LIVES)
def test_what_a_person_may_not_take_back(kubectl: Kubectl, case: str) -> None:
    before, after, words = LIVES[case]
    name = case.replace(" ", "-")
    _done(_submit(kubectl, _job(name, **before)))
    assert words in _refused(_patch(kubectl, name, after))


def test_what_a_person_may_change(kubectl: Kubectl) -> None:
    _done(_submit(kubectl, _job("living")))
    for change in (
        {"priority": "High", "priorityValue": 60},
        {"suspend": True},
        {"suspend": None, "startAfter": "2026-03-01T06:00:00Z"},
        {"deadlineSeconds": 60, "ttlSecondsAfterFinished": 0},
        {"retryGeneration": 1},
        {"retryGeneration": 3},
        {"cancel": True},
    ):
        _done(_patch(kubectl, "living", change))


def test_a_final_phase_is_left_for_a_retry_by_hand_and_once(kubectl: Kubectl) -> None:
    _done(_submit(kubectl, _job("retried")))
    _done(_put_status(kubectl, "djob", "retried", {**FINAL, "retryGeneration": 0}))
    again: Manifest = {**HELD, "phase": "Pending", "retryGeneration": 1}
    assert violated_fences(_refused(_put_status(kubectl, "djob", "retried", again))) == {Fence.PHASE}
    _done(_patch(kubectl, "retried", {"retryGeneration": 1}))
    forgetful = {**HELD, "phase": "Pending"}
    assert violated_fences(_refused(_put_status(kubectl, "djob", "retried", forgetful))) == {Fence.PHASE}
    _done(_put_status(kubectl, "djob", "retried", again))
    _done(_put_status(kubectl, "djob", "retried", {**again, "phase": "Succeeded"}))
    assert violated_fences(_refused(_put_status(kubectl, "djob", "retried", again))) == {Fence.PHASE}


def test_labels_may_change_and_the_same_spec_may_be_applied_again(kubectl: Kubectl, fixed: str) -> None:
    manifest = _job(fixed, payload={"n": 1, "to": "a"})
    manifest["metadata"]["labels"] = {"team": "a"}
    _done(_replace(kubectl, manifest))
    _done(kubectl("apply", "-f", "-", stdin=json.dumps(manifest)))
    assert _get(kubectl, "djob", fixed)["metadata"]["generation"] == 1


NOW = "2026-11-22T10:11:12.123456Z"
HELD: Manifest = {"phase": "Running", "epoch": 10, "attempt": 2, "lastGrant": {"epoch": 10, "counter": 5}}
FINAL: Manifest = {**HELD, "phase": "Dead"}
FENCED: dict[str, tuple[Manifest, Manifest | None, set[Fence]]] = {
    "epoch falls": (HELD, {**HELD, "epoch": 9}, {Fence.EPOCH}),
    "epoch vanishes": (HELD, {k: v for k, v in HELD.items() if k != "epoch"}, {Fence.EPOCH}),
    "attempt falls": (HELD, {**HELD, "attempt": 1}, {Fence.ATTEMPT}),
    "attempt vanishes": (HELD, {k: v for k, v in HELD.items() if k != "attempt"}, {Fence.ATTEMPT}),
    "counter falls": (HELD, {**HELD, "lastGrant": {"epoch": 10, "counter": 4}}, {Fence.LAST_GRANT}),
    "grant of an older epoch": (HELD, {**HELD, "lastGrant": {"epoch": 9, "counter": 99}}, {Fence.LAST_GRANT}),
    "grant vanishes": (HELD, {k: v for k, v in HELD.items() if k != "lastGrant"}, {Fence.LAST_GRANT}),
    "status vanishes": (HELD, None, {Fence.EPOCH, Fence.ATTEMPT, Fence.LAST_GRANT}),
    "status empties": (HELD, {}, {Fence.EPOCH, Fence.ATTEMPT, Fence.LAST_GRANT}),
    "Succeeded is left": ({"phase": "Succeeded"}, {"phase": "Running"}, {Fence.PHASE}),
    "Failed is left": ({"phase": "Failed"}, {"phase": "Retrying"}, {Fence.PHASE}),
    "Dead is left": (FINAL, {**HELD, "epoch": 11}, {Fence.PHASE}),
    "Cancelled becomes Succeeded": ({"phase": "Cancelled"}, {"phase": "Succeeded"}, {Fence.PHASE}),
    "a final status vanishes": ({"phase": "Succeeded"}, None, {Fence.PHASE}),
    "a frozen leader wakes": (FINAL, {"phase": "Running", "epoch": 3, "attempt": 1}, set(Fence)),
}


@pytest.mark.parametrize("case", FENCED)
def test_a_fence_stops_the_write_and_names_itself(kubectl: Kubectl, case: str) -> None:
    before, after, fences = FENCED[case]
    name = case.lower().replace(" ", "-")
    _done(_submit(kubectl, _job(name)))
    _done(_put_status(kubectl, "djob", name, before))
    message = _refused(_put_status(kubectl, "djob", name, after))
    assert violated_fences(message) == fences
    assert _get(kubectl, "djob", name)["status"] == before


def test_no_fence_by_way_of_the_spec(kubectl: Kubectl) -> None:
    _done(_submit(kubectl, _job("by-spec")))
    _done(_put_status(kubectl, "djob", "by-spec", FINAL))
    _done(_replace(kubectl, {**_job("by-spec"), "status": {"phase": "Pending"}}))
    assert _get(kubectl, "djob", "by-spec")["status"] == FINAL


def test_what_rises_passes(kubectl: Kubectl) -> None:
    _done(_submit(kubectl, _job("rising")))
    steps: list[Manifest] = [
        {"phase": "Queued", "epoch": 10},
        {"phase": "Running", "epoch": 10, "attempt": 1},
        {"phase": "Retrying", "epoch": 10, "attempt": 1, "lastGrant": {"epoch": 10, "counter": 5}},
        {"phase": "Running", "epoch": 10, "attempt": 2, "lastGrant": {"epoch": 10, "counter": 5}},
        {"phase": "Retrying", "epoch": 11, "attempt": 2, "lastGrant": {"epoch": 11, "counter": 1}},
        {"phase": "Succeeded", "epoch": 12, "attempt": 3, "lastGrant": {"epoch": 12, "counter": 0}},
        {"phase": "Succeeded", "epoch": 12, "attempt": 3, "lastGrant": {"epoch": 12, "counter": 0}, "result": 1},
    ]
    for status in steps:
        _done(_put_status(kubectl, "djob", "rising", status))


def _condition(kind: str, reason: str) -> Manifest:
    return {
        "type": kind,
        "status": "True",
        "reason": reason,
        "message": "",
        "lastTransitionTime": "2026-11-22T10:11:12Z",
    }


@pytest.mark.parametrize("result", [None, True, 0, 1.5, "text", [1, None, {"a": None}], {"deep": {"a": [None]}}])
def test_a_result_is_any_json_value(kubectl: Kubectl, result: Any) -> None:
    name = f"result-{uuid.uuid4()}"
    _done(_submit(kubectl, _job(name)))
    status = {"phase": "Succeeded", "result": result}
    _done(_put_status(kubectl, "djob", name, status))
    assert _get(kubectl, "djob", name)["status"] == status


def test_kubectl_wait_and_get_understand_a_finished_job(kubectl: Kubectl) -> None:
    _done(_submit(kubectl, _job("done", type="calculate", priority="High")))
    entry = {"number": 1, "worker": "w-1", "outcome": "Failed", "reason": "Timeout", "startTime": NOW}
    status = {
        "phase": "Succeeded",
        "attempt": 2,
        "worker": "w-2",
        "startTime": NOW,
        "completionTime": NOW,
        "result": 42,
        "attempts": [entry, {"number": 2, "worker": "w-2", "outcome": "Succeeded", "startTime": NOW}],
        "conditions": [_condition("Accepted", "Accepted"), _condition("Complete", "Succeeded")],
    }
    _done(_put_status(kubectl, "djob", "done", status))
    assert _get(kubectl, "djob", "done")["status"] == status
    _done(kubectl("wait", "--for=condition=Complete", "djob/done", "--timeout=5s"))
    header, row = _done(kubectl("get", "djobs", "done")).splitlines()
    assert header.split() == ["NAME", "TYPE", "PRIORITY", "PHASE", "ATTEMPT", "WORKER", "AGE"]
    assert row.split()[:6] == ["done", "calculate", "High", "Succeeded", "2", "w-2"]


def test_the_wide_columns_say_why(kubectl: Kubectl) -> None:
    _done(_submit(kubectl, _job("dead")))
    attempts = [{"number": 1, "reason": "HandlerError"}, {"number": 2, "reason": "Timeout"}]
    conditions = [_condition("Accepted", "Accepted"), _condition("Failed", "AttemptsExhausted")]
    status = {"phase": "Dead", "attempts": attempts, "conditions": conditions, "completionTime": NOW}
    _done(_put_status(kubectl, "djob", "dead", status))
    header, row = _done(kubectl("get", "djobs", "dead", "-o", "wide")).splitlines()
    assert header.split()[-5:] == ["REASON", "LAST-ATTEMPT", "PROGRESS", "FINISHED", "POOL"]
    assert row.split()[-4:-2] == ["AttemptsExhausted", "Timeout"]
    assert row.split()[-1] == "default"


def test_jobs_are_found_by_type_pool_and_phase(kubectl: Kubectl) -> None:
    _done(_submit(kubectl, _job("found", type="rare", poolName="gpu")))
    for selector in ("spec.type=rare", "spec.poolName=gpu", "spec.type=rare,status.phase=Pending"):
        assert _done(kubectl("get", "djobs", "--field-selector", selector, "-o", "name")).split() == [
            "distributedjob.distriqueue.io/found"
        ]


@pytest.mark.parametrize(
    "status",
    [
        {"phase": "Paused"},
        {"startTime": "yesterday"},
        {"error": "x" * 4097},
        {"attempts": [{"number": n} for n in range(1, 12)]},
        {"attempts": [{"number": 1}, {"number": 1}]},
        {"attempts": [{"number": 1, "logTail": "x" * 4097}]},
        {"attempts": [{"number": 1, "reason": "two words"}]},
        {"conditions": [{"type": "Complete", "status": "Yes", "reason": "A", "lastTransitionTime": NOW}]},
        {"lastGrant": {"epoch": 1}},
        {"epoch": -1},
    ],
)
def test_a_status_is_bounded_as_well(kubectl: Kubectl, fixed: str, status: Manifest) -> None:
    _refused(_put_status(kubectl, "djob", fixed, status))


def test_a_worker_is_shown_and_fenced(kubectl: Kubectl) -> None:
    manifest = {
        "apiVersion": "distriqueue.io/v1alpha1",
        "kind": "DistributedWorker",
        "metadata": {"name": "w-1", "namespace": "default"},
    }
    _done(_submit(kubectl, manifest))
    assert _get(kubectl, "dworker", "w-1")["status"] == {"phase": "Offline"}
    status = {
        "phase": "Online",
        "incarnation": "i-1",
        "poolName": "default",
        "podUID": "u",
        "version": "0.1.0",
        "concurrency": 4,
        "running": 3,
        "types": ["*", "email"],
        "epoch": 7,
        "conditions": [_condition("Ready", "Heartbeating")],
    }
    _done(_put_status(kubectl, "dworker", "w-1", status))
    header, row = _done(kubectl("get", "dworkers", "w-1")).splitlines()
    assert header.split() == ["NAME", "POOL", "PHASE", "RUNNING", "SLOTS", "VERSION", "AGE"]
    assert row.split()[:6] == ["w-1", "default", "Online", "3", "4", "0.1.0"]
    _done(kubectl("wait", "--for=condition=Ready", "dworker/w-1", "--timeout=5s"))
    assert "w-1" in _done(kubectl("get", "dworkers", "--field-selector", "status.phase=Online,status.poolName=default"))
    assert violated_fences(_refused(_put_status(kubectl, "dworker", "w-1", {**status, "epoch": 6}))) == {Fence.EPOCH}


def test_explain_reads_like_documentation(kubectl: Kubectl) -> None:
    text = " ".join(_done(kubectl("explain", "djob.spec")).split())
    assert "timeoutSeconds <integer> Seconds that one attempt may run" in text
    assert "enum: High, Medium, Low" in text
    assert "type <string> -required-" in text
    fields = _done(kubectl("explain", "djob", "--recursive")).splitlines()
    assert sum(line.strip().startswith(("lastGrant", "jitterPercent", "logTail")) for line in fields) == 3


def test_one_category_for_all(kubectl: Kubectl) -> None:
    assert "distributedjob.distriqueue.io/" in _done(kubectl("get", "distriqueue", "-o", "name"))


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_the_examples_pass(kubectl: Kubectl, example: Path) -> None:
    assert example.read_text().startswith("# ")
    _done(kubectl("create", "--dry-run=server", "-f", example))
