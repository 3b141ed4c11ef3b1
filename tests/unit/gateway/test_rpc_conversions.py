"""Messages and views say the same: no field is lost, and JSON passes unchanged."""

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from google.protobuf.descriptor import Descriptor
from pydantic import BaseModel

from distriqueue.gateway.problems import InvalidRequest, Unprocessable
from distriqueue.gateway.queries import JobQuery, Order
from distriqueue.gateway.rest.bodies import DEPTH_LIMIT, parse
from distriqueue.gateway.rpc import conversions
from distriqueue.gateway.rpc.stubs import jobs_pb2
from distriqueue.gateway.views import (
    ExplanationView,
    JobAttempt,
    JobPage,
    JobProgress,
    JobStatus,
    JobSubmission,
    JobView,
)

MOMENT = datetime(2026, 3, 1, 6, 0, 0, 123456, tzinfo=UTC)
SUBMISSION: dict[str, Any] = {
    "name": "report-1",
    "labels": {"team": "blue"},
    "type": "report",
    "payload": {"big": 9007199254740993, "whole": 1, "real": 1.5, "none": None, "deep": [{"ü": True}]},
    "priority": "High",
    "priorityValue": 0,
    "poolName": "gpu",
    "maxAttempts": 5,
    "backoff": {"initialSeconds": 0, "factorPercent": 150, "maxSeconds": 60, "jitterPercent": 0},
    "timeoutSeconds": 60,
    "deadlineSeconds": 600,
    "startAfter": MOMENT.isoformat(),
    "ttlSecondsAfterFinished": 0,
    "dedupKey": "key",
    "suspend": False,
    "retryBudget": {"application": 1, "timeout": 0, "outOfMemory": 2, "workerLost": 3},
}
VIEW: dict[str, Any] = {
    "id": "0b8e9b5e-6f0a-4c53-9a56-5f2b0e2f9c3d",
    "namespace": "shop",
    "name": "report-1",
    "labels": {"team": "blue"},
    "submittedBy": "jane",
    "type": "report",
    "status": "dead",
    "phase": "Dead",
    "reason": "AttemptsUsedUp",
    "message": "all were used up",
    "priority": "Low",
    "priorityValue": 7,
    "poolName": "gpu",
    "payload": {"big": 9007199254740993},
    "payloadFrom": {"configMapKeyRef": {"name": "settings", "key": "payload.json"}},
    "attempt": 2,
    "maxAttempts": 2,
    "retryBudget": {"timeout": 1},
    "backoff": {"initialSeconds": 1, "factorPercent": 100, "maxSeconds": 2, "jitterPercent": 3},
    "timeoutSeconds": 60,
    "deadlineSeconds": 600,
    "ttlSecondsAfterFinished": 0,
    "dedupKey": "key",
    "suspended": True,
    "cancelRequested": True,
    "retryGeneration": 4,
    "worker": "worker-1",
    "progress": {"percent": 50, "message": "half", "time": MOMENT.isoformat()},
    "result": [1, 2.5, 9007199254740993],
    "error": "it broke",
    "createdTime": MOMENT.isoformat(),
    "startAfter": MOMENT.isoformat(),
    "queuedTime": MOMENT.isoformat(),
    "startTime": MOMENT.isoformat(),
    "completionTime": MOMENT.isoformat(),
    "nextAttemptTime": MOMENT.isoformat(),
    "attempts": [
        {
            "number": 1,
            "worker": "worker-1",
            "startTime": MOMENT.isoformat(),
            "completionTime": MOMENT.isoformat(),
            "outcome": "Failed",
            "reason": "ValueError",
            "error": "it broke",
            "logTail": "last words",
        },
        {"number": 2},
    ],
    "resourceVersion": "123",
}


@pytest.mark.parametrize(
    ("message", "view", "in_view_alone"),
    [
        (jobs_pb2.Job, JobView, set()),
        (jobs_pb2.JobSubmission, JobSubmission, {"namespace"}),  # the request has it, for all of its submissions
        (jobs_pb2.Attempt, JobAttempt, set()),
        (jobs_pb2.Progress, JobProgress, set()),
        (jobs_pb2.Explanation, ExplanationView, set()),
    ],
)
def test_a_message_has_the_fields_of_its_view(message: Any, view: type[BaseModel], in_view_alone: set[str]) -> None:
    descriptor: Descriptor = message.DESCRIPTOR
    assert {name.removesuffix("_json") for name in descriptor.fields_by_name} == set(view.model_fields) - in_view_alone


@pytest.mark.parametrize("source", ["configMapKeyRef", "secretKeyRef"])
def test_a_submission_is_what_rest_makes_of_the_same(source: str) -> None:
    fields = {**SUBMISSION, "payloadFrom": {source: {"name": "settings", "key": "payload.json"}}}
    plain = {key: value for key, value in fields.items() if key not in {"payload", "priority", "startAfter"}}
    message = _from_json(plain)
    message.payload_json = orjson.dumps(fields["payload"]).decode()
    message.priority = jobs_pb2.PRIORITY_HIGH
    message.start_after.FromDatetime(MOMENT)
    assert set(JobSubmission.model_fields) - {"namespace"} == {_snake(key) for key in fields}, "a field is not tried"
    assert conversions.submission(message) == parse(orjson.dumps(fields), JobSubmission)


def test_what_was_not_said_is_not_said() -> None:
    submission = conversions.submission(jobs_pb2.JobSubmission(type="report"))
    assert submission.model_fields_set == {"type"}


@pytest.mark.parametrize("text", ['{"a": 9007199254740993}', '{"a": 1.0}', '{"a": 1e300}', '{"a": -0.1, "b": 0}'])
def test_numbers_keep_their_value_and_their_kind(text: str) -> None:
    payload = conversions.submission(jobs_pb2.JobSubmission(type="report", payload_json=text)).payload
    expected = orjson.loads(text)
    assert payload == expected
    assert [type(value) for value in payload.values()] == [type(value) for value in expected.values()]
    view = JobView.model_validate({**VIEW, "payload": payload, "result": payload})
    shown = conversions.job(view)
    assert orjson.loads(shown.payload_json) == expected
    assert "1.0" in shown.result_json or "1.0" not in text


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (jobs_pb2.JobSubmission(type="report", payload_json="{"), "/payload"),
        (jobs_pb2.JobSubmission(type="report", payload_json='{"a": NaN}'), "/payload"),
        (jobs_pb2.JobSubmission(type="report", payload_json="[]"), "/payload"),
        (jobs_pb2.JobSubmission(payload_json="{}"), "/type"),
        (jobs_pb2.JobSubmission(type="report", max_attempts=0), "/maxAttempts"),
        (jobs_pb2.JobSubmission(type="report", priority=9), "/priority"),  # type: ignore[arg-type]  # as of a later version
    ],
)
def test_what_is_wrong_is_named_as_rest_names_it(message: jobs_pb2.JobSubmission, field: str) -> None:
    with pytest.raises(Unprocessable) as caught:
        conversions.submission(message)
    assert [error.field for error in caught.value.errors] == [field]
    assert all(error.message for error in caught.value.errors)


@pytest.mark.parametrize("levels", [DEPTH_LIMIT, 300, 900, 5000])
def test_a_payload_that_is_too_deep_is_refused(levels: int) -> None:
    with pytest.raises((InvalidRequest, Unprocessable)):  # below some depth it is no JSON to the parser
        conversions.submission(_nested(levels))


def test_a_payload_as_deep_as_rest_takes_it_is_taken() -> None:
    assert conversions.submission(_nested(DEPTH_LIMIT - 1)).payload


def _nested(levels: int) -> jobs_pb2.JobSubmission:
    lists = levels - 1
    return jobs_pb2.JobSubmission(type="report", payload_json='{"a":' + "[" * lists + "]" * lists + "}")


def test_a_job_is_shown_whole() -> None:
    view = JobView.model_validate(VIEW)
    assert set(JobView.model_fields) == {_snake(key) for key in VIEW}, "a field is not tried"
    message = conversions.job(view)
    unset = [
        field.name
        for field in jobs_pb2.Job.DESCRIPTOR.fields
        if field.name not in {f.name for f, _ in message.ListFields()}
    ]
    assert unset == []
    assert message.status == jobs_pb2.JOB_STATUS_DEAD
    assert message.phase == jobs_pb2.JOB_PHASE_DEAD
    assert message.priority == jobs_pb2.PRIORITY_LOW
    assert orjson.loads(message.payload_json) == VIEW["payload"]
    assert orjson.loads(message.result_json) == VIEW["result"]
    assert message.start_time.ToDatetime(tzinfo=UTC) == MOMENT
    assert message.attempts[0].outcome == jobs_pb2.ATTEMPT_OUTCOME_FAILED
    assert message.attempts[0].log_tail == "last words"
    assert message.attempts[1].outcome == jobs_pb2.ATTEMPT_OUTCOME_UNSPECIFIED
    assert message.payload_from.config_map_key_ref.key == "payload.json"
    assert message.retry_budget.timeout == 1
    assert not message.retry_budget.HasField("application")


def test_what_a_job_has_not_is_absent() -> None:
    few = {"id", "namespace", "name", "type", "priority", "priorityValue", "poolName", "maxAttempts", "timeoutSeconds"}
    plain = {key: VIEW[key] for key in few} | {
        "status": "pending",
        "phase": "Unheard",
        "createdTime": MOMENT,
        "resourceVersion": "1",
    }
    message = conversions.job(JobView.model_validate(plain))
    assert message.phase == jobs_pb2.JOB_PHASE_UNSPECIFIED
    assert not message.HasField("result_json")
    assert not message.HasField("completion_time")
    assert not message.HasField("progress")
    assert message.payload_json == "{}"


def test_a_page_has_its_token() -> None:
    view = JobView.model_validate(VIEW)
    page = conversions.page(JobPage(items=[view], total=3, limit=1, offset=0, next="there"))
    assert (page.jobs[0].name, page.total, page.next_page_token) == ("report-1", 3, "there")
    assert not conversions.page(JobPage(items=[], total=0, limit=1, offset=0)).next_page_token


def test_a_filter_is_what_rest_makes_of_the_same() -> None:
    message = jobs_pb2.JobFilter(
        namespace="shop",
        statuses=[jobs_pb2.JOB_STATUS_FAILED, jobs_pb2.JOB_STATUS_COMPLETED],
        phases=[jobs_pb2.JOB_PHASE_QUEUED],
        type="report",
        pool_name="gpu",
        label_selector="team in (blue, red),!old",
        created_after=MOMENT,
        created_before=MOMENT,
        completed_after=MOMENT,
        completed_before=MOMENT,
    )
    expected = JobQuery.parse(
        namespace="shop",
        status=["failed,completed", "queued"],
        type="report",
        pool="gpu",
        labels="team in (blue, red),!old",
        created_after=MOMENT.isoformat(),
        created_before=MOMENT.isoformat(),
        completed_after=MOMENT.isoformat(),
        completed_before=MOMENT.isoformat(),
        limit=7,
        order="oldest",
    )
    assert conversions.query(message, limit=7, order=jobs_pb2.LIST_ORDER_OLDEST) == expected
    assert conversions.query(jobs_pb2.JobFilter()) == JobQuery.parse()
    assert conversions.query(jobs_pb2.JobFilter()).order is Order.NEWEST


def test_a_status_of_a_later_version_is_refused() -> None:
    with pytest.raises(Unprocessable, match="not as it has to be") as caught:
        conversions.query(jobs_pb2.JobFilter(statuses=[99]))  # type: ignore[list-item]  # as of a later version
    assert "JOB_STATUS_PENDING" in caught.value.errors[0].message


def test_statuses_of_the_proto_are_those_of_rest() -> None:
    words = {name.removeprefix("JOB_STATUS_").lower() for name in jobs_pb2.JobStatus.keys()}  # noqa: SIM118 - no mapping
    assert words - {"unspecified"} == {status.value for status in JobStatus}


def _from_json(fields: dict[str, Any]) -> jobs_pb2.JobSubmission:
    from google.protobuf.json_format import ParseDict  # noqa: PLC0415 - the independent way, needed here alone

    return ParseDict(fields, jobs_pb2.JobSubmission())


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
