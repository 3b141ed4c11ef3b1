"""The models: how resources are read and written in Python."""

from datetime import UTC, datetime
from typing import Any, get_args, get_type_hints

import pytest
from pydantic import BaseModel, ValidationError

from distriqueue.api import jobs, models, names, raw, workers

MANIFEST = {
    "apiVersion": "distriqueue.io/v1alpha1",
    "kind": "DistributedJob",
    "metadata": {"name": "a", "uid": "u", "managedFields": [{}]},
    "spec": {"type": "email", "payload": {"to": "x"}, "priorityValue": 7, "later": True},
}


def test_reading_a_resource_leaves_out_what_is_unknown() -> None:
    job = jobs.DistributedJob.from_raw(MANIFEST)
    assert (job.metadata.name, job.spec.type, job.spec.priority_value) == ("a", "email", 7)
    assert job.status.phase == "Pending"


def test_writing_gives_a_manifest_in_the_usual_order_without_nulls() -> None:
    written = jobs.DistributedJob.from_raw(MANIFEST).to_raw()
    assert list(written) == ["apiVersion", "kind", "metadata", "spec", "status"]
    assert written["metadata"] == {"name": "a", "uid": "u"}
    assert written["spec"]["backoff"]["maxSeconds"] == 300
    assert written["status"] == {"phase": "Pending"}


def test_a_misspelt_argument_fails_where_it_is_written() -> None:
    with pytest.raises(ValidationError, match="priorty"):
        jobs.JobSpec.model_validate({"type": "email", "priorty": "High"})


def test_python_names_and_yaml_names_are_both_taken() -> None:
    assert jobs.JobSpec(type="email", timeout_seconds=5) == jobs.JobSpec.model_validate(
        {"type": "email", "timeoutSeconds": 5}
    )


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "Email"},
        {"type": ""},
        {"type": "x" * 64},
        {"type": "email", "poolName": "a_b"},
        {"type": "email", "poolName": "p" * 41},
        {"type": "email", "priority": "Urgent"},
        {"type": "email", "timeoutSeconds": -1},
        {"type": "email", "maxAttempts": 0},
        {"type": "email", "backoff": {"factorPercent": 99}},
    ],
)
def test_what_the_schema_refuses_the_model_refuses(spec: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        jobs.JobSpec.model_validate(spec)


def test_microseconds_survive() -> None:
    moment = datetime(2026, 11, 22, 1, 2, 3, 456789, tzinfo=UTC)
    written = jobs.JobStatus(start_time=moment).model_dump(mode="json")
    assert written["startTime"] == "2026-11-22T01:02:03.456789Z"
    assert jobs.JobStatus.model_validate(written).start_time == moment


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValidationError):
        jobs.JobStatus.model_validate({"startTime": "2026-11-22T01:02:03"})


def test_the_models_carry_the_names_of_the_constants() -> None:
    for model, kind in ((jobs.DistributedJob, names.JOB_KIND), (workers.DistributedWorker, names.WORKER_KIND)):
        assert get_args(model.model_fields["kind"].annotation) == (kind,)
        assert get_args(model.model_fields["api_version"].annotation) == (names.API_VERSION,)


@pytest.mark.parametrize(
    ("typed_dict", "model"),
    [
        (raw.RawBackoff, jobs.Backoff),
        (raw.RawPayloadSource, jobs.PayloadSource),
        (raw.RawKeyReference, jobs.KeyReference),
        (raw.RawJobSpec, jobs.JobSpec),
        (raw.RawGrant, jobs.Grant),
        (raw.RawAttempt, jobs.Attempt),
        (raw.RawJobStatus, jobs.JobStatus),
        (raw.RawJob, jobs.DistributedJob),
        (raw.RawCondition, models.Condition),
        (raw.RawWorkerStatus, workers.WorkerStatus),
        (raw.RawWorker, workers.DistributedWorker),
    ],
)
def test_plain_dictionaries_have_the_keys_of_the_models(typed_dict: type, model: type[BaseModel]) -> None:
    aliases = {field.alias for field in model.model_fields.values()}
    assert set(get_type_hints(typed_dict)) == aliases
