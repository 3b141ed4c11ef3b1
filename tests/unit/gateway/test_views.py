"""Submissions and views: the bounds are the resource's own, and what is shown is what is there."""

import re
from typing import Any, cast

import orjson
import pytest
from pydantic import ValidationError

from distriqueue.api import limits
from distriqueue.api.jobs import JobSpec
from distriqueue.api.phases import JobPhase
from distriqueue.api.raw import RawJob
from distriqueue.core.explaining import Blocker, Explanation
from distriqueue.gateway.problems import Unprocessable
from distriqueue.gateway.showing import explanation_view, job_document, job_view, status_of, worker_view
from distriqueue.gateway.submissions import (
    is_repeated,
    job_json,
    keyed_name,
    made_name,
    random_part,
    request_hash,
    spec_json,
)
from distriqueue.gateway.views import (
    NAME_PATTERN,
    STATUS_OF_PHASE,
    JobStatus,
    JobSubmission,
    JobView,
    without_kubernetes,
)
from tests.unit.gateway.job_resources import job, row, uid_of

LATER = {"cancel", "retry_generation"}


def submission(**fields: Any) -> JobSubmission:
    return JobSubmission.model_validate({"type": "email", **fields})


def test_a_submission_is_the_spec_with_a_name_beside_it() -> None:
    own = {"namespace", "name", "labels"}
    assert set(JobSubmission.model_fields) == set(JobSpec.model_fields) - LATER | own
    for name in set(JobSpec.model_fields) - LATER:
        ours, theirs = JobSubmission.model_fields[name], JobSpec.model_fields[name]
        assert (ours.annotation, ours.metadata, ours.default) == (theirs.annotation, theirs.metadata, theirs.default)


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"cancel": True}, "cancel"),
        ({"retryGeneration": 1}, "retryGeneration"),
        ({"typ": "email"}, "typ"),
        ({"maxAttempts": 101}, "maxAttempts"),
        ({"type": "No"}, "type"),
        ({"namespace": "a/../b"}, "namespace"),
        ({"name": "a/../b"}, "name"),
        ({"name": "a\n"}, "name"),
        ({"labels": {"a b": "c"}}, "labels"),
        ({"labels": {"a": "c" * 64}}, "labels"),
        ({"payload": []}, "payload"),
    ],
)
def test_what_is_wrong_is_refused_by_name(fields: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError) as refused:
        submission(**fields)
    assert refused.value.errors()[0]["loc"][0] == where


def test_a_resource_has_what_the_caller_wrote_and_no_defaults() -> None:
    wanted = submission(
        payload={"a": None, "b": [1.5]}, backoff={"maxSeconds": 9}, dedupKey=None, labels={"app": "shop"}
    )
    made = orjson.loads(job_json(wanted, spec_json(wanted), name="a", caller="ann", asked=None))
    assert made == {
        "apiVersion": "distriqueue.io/v1alpha1",
        "kind": "DistributedJob",
        "metadata": {"name": "a", "labels": {"app": "shop"}, "annotations": {"distriqueue.io/submitted-by": "ann"}},
        "spec": {"type": "email", "payload": {"a": None, "b": [1.5]}, "backoff": {"maxSeconds": 9}},
    }


def test_a_payload_is_measured_by_its_bytes() -> None:
    room = limits.PAYLOAD_LIMIT_BYTES - len('{"text":""}')
    assert spec_json(submission(payload={"text": "ü" * (room // 2)}))
    with pytest.raises(Unprocessable, match="64 KiB") as refused:
        spec_json(submission(payload={"text": "ü" * (room // 2 + 1)}))
    assert refused.value.errors[0].field == "/payload"


def test_a_key_names_one_job_for_each_namespace_and_caller() -> None:
    names = {keyed_name(*words) for words in [("a", "b", "c"), ("a", "b", "d"), ("a", "x", "c"), ("x", "b", "c")]}
    assert len(names) == 4
    assert keyed_name("a", "b", "c") in names
    for key in ("", "a\nb", "ü", "a" * 256):
        with pytest.raises(Unprocessable):
            keyed_name("a", "b", key)


def test_a_request_is_the_same_in_another_order() -> None:
    def asked(**fields: Any) -> str:
        wanted = submission(**fields)
        return request_hash(wanted, spec_json(wanted))

    assert asked(payload={"a": 1, "b": 2}) == asked(payload={"b": 2, "a": 1})
    assert asked(payload={"a": 1}) != asked(payload={"a": 2})
    assert asked(labels={"a": "b"}) != asked()
    assert asked(name="a") != asked()


def test_an_earlier_request_is_known_by_its_hash_and_its_caller() -> None:
    found: Any = job(1, 1, annotations={"distriqueue.io/request-hash": "h", "distriqueue.io/submitted-by": "ann"})
    assert is_repeated(found, caller="ann", asked="h")
    assert not is_repeated(found, caller="bob", asked="h")
    assert not is_repeated(found, caller="ann", asked="g")
    assert not is_repeated(row(1).raw(), caller="ann", asked="h")


@pytest.mark.parametrize("kind", ["email", "image.resize", "a_b", "a__.b"])
def test_made_names_are_names(kind: str) -> None:
    assert re.fullmatch(NAME_PATTERN, made_name(submission(type=kind), random_part()))


def test_every_phase_has_a_status() -> None:
    assert set(STATUS_OF_PHASE) == set(JobPhase)
    assert set(STATUS_OF_PHASE.values()) == set(JobStatus)
    assert status_of("Invented") is JobStatus.PENDING


def test_a_view_shows_the_job() -> None:
    shown = job_view(
        row(
            1,
            7,
            labels={"app": "shop"},
            annotations={
                "distriqueue.io/submitted-by": "ann",
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
            },
            spec={"suspend": True, "startAfter": "2026-11-23T05:00:00.5Z"},
            status={
                "phase": "Dead",
                "attempt": 2,
                "attempts": [{"number": 2, "outcome": "Failed", "reason": "ValueError", "later": 1}],
                "checkpoint": [1],
                "conditions": [
                    {"type": "Suspended", "status": "True", "reason": "Suspended", "message": "no"},
                    {"type": "Failed", "status": "True", "reason": "AttemptsExhausted", "message": "2 of 2"},
                ],
            },
        ).raw()
    )
    assert (shown.id, shown.namespace, shown.name, shown.submitted_by) == (uid_of(1), "shop", "job-1", "ann")
    assert (shown.status, shown.phase, shown.reason, shown.message) == ("dead", "Dead", "AttemptsExhausted", "2 of 2")
    assert shown.suspended
    assert shown.start_after is not None
    assert shown.start_after.microsecond == 500_000
    assert shown.attempts[0].reason == "ValueError"
    assert shown.resource_version == "7"


def test_what_streams_send_is_the_view_as_json() -> None:
    raw = row(
        1, 7, status={"phase": "Succeeded", "result": {"a": None}, "completionTime": "2026-11-23T04:00:01.25Z"}
    ).raw()
    sent = orjson.dumps(job_document(raw))
    assert JobView.model_validate_json(sent) == job_view(raw)
    keys = set(orjson.loads(job_view(raw).model_dump_json(exclude_none=True)))
    assert set(orjson.loads(sent)) <= keys


def test_a_resource_of_another_version_is_shown_all_the_same() -> None:
    raw: Any = job(
        1, 1, spec={"backoff": {"maxSeconds": 9, "new": 1}}, status={"phase": "Invented", "progress": {"new": 1}}
    )
    del raw["spec"]["maxAttempts"], raw["spec"]["poolName"]
    shown = job_view(raw)
    assert (shown.max_attempts, shown.pool_name, shown.phase, shown.status) == (3, "default", "Invented", "pending")


def test_a_worker_without_a_status_is_offline() -> None:
    assert worker_view({"metadata": {"name": "w"}}).phase == "Offline"
    assert worker_view({"metadata": {"name": "w"}, "status": {"phase": "Online", "types": ["a"]}}).types == ["a"]


def test_an_explanation_is_shown() -> None:
    shown = explanation_view(Explanation(Blocker.BACKOFF, "waits", until=0.5, earliest=1.0))
    assert (shown.blocker, shown.earliest_start_seconds) == ("Backoff", 1.0)
    assert shown.until is not None
    assert shown.until.timestamp() == 0.5


def test_schemas_lose_what_only_kubernetes_understands() -> None:
    schema = without_kubernetes(JobSubmission.model_json_schema())
    assert "x-kubernetes" not in orjson.dumps(schema).decode()
    assert schema["properties"]["type"]["pattern"].startswith("^[a-z0-9]")
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize(
    ("moment", "shown"),
    [
        ("2026-01-01T00:00:00+99:99", False),
        ("0000-01-01T00:00:00Z", False),
        ("0001-01-01T00:00:00+14:00", False),
        ("9999-12-31T23:59:59-14:00", False),
        ("2026-01-01t00:00:00z", True),
        ("2026-01-01T00:00:00.123456789+05:30", True),
    ],
)
def test_a_moment_that_cannot_be_read_is_not_shown_and_all_else_is(moment: str, *, shown: bool) -> None:
    attempt = {"number": 1, "startTime": moment, "completionTime": moment, "outcome": "Failed"}
    progress = {"percent": 7, "time": moment}
    status = {"queuedTime": moment, "completionTime": moment, "attempts": [attempt], "progress": progress}
    resource = row(1, spec={"startAfter": moment}, status=status).raw()
    document = job_document(resource)
    for part in (document, document["attempts"][0]):
        assert ("completionTime" in part) is shown
    view = job_view(resource)
    assert JobView.model_validate_json(orjson.dumps(document)) == view, "streams and lists say the same"
    assert (view.start_after is not None) is shown
    assert view.progress is not None
    assert (view.progress.percent, view.progress.time is not None) == (7, shown)
    assert [(one.number, one.outcome, one.start_time is not None) for one in view.attempts] == [(1, "Failed", shown)]


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def test_a_spec_that_was_stored_under_other_bounds_is_shown_without_what_does_not_fit() -> None:
    spec = {"backoff": {"factorPercent": "many"}, "payload": nested(900), "maxAttempts": "x"}
    view = job_view(cast("RawJob", job(1, 1, spec=spec)))
    assert (view.type, view.backoff, view.payload, view.max_attempts) == ("email", None, {}, 3)


@pytest.mark.parametrize("levels", [191, 252, 300, 1000])
def test_a_job_that_is_nested_too_deeply_is_kept_without_that(levels: int) -> None:
    kept = row(1, spec={"payload": nested(levels)}, status={"phase": "Succeeded", "result": [nested(levels)]}).raw()
    assert "payload" not in kept["spec"]
    assert "result" not in kept["status"]
    assert (kept["spec"]["type"], kept["status"]["phase"]) == ("email", "Succeeded")


def test_a_job_as_deep_as_a_payload_may_be_is_kept_whole_and_readable_for_all() -> None:
    deepest = nested(190)
    kept = row(1, spec={"payload": deepest}).raw()
    assert kept["spec"]["payload"] == deepest
    assert JobView.model_validate_json(job_view(kept).model_dump_json()).payload == deepest
