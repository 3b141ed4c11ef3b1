"""What an HTTP worker may say of its jobs."""

from typing import Any

import pytest
from pydantic import ValidationError

from distriqueue.gateway.http_workers.messages import NextRequest, RegisterRequest, ReportRequest, read_grant
from distriqueue.gateway.http_workers.outcomes import checked_checkpoint, checked_result
from distriqueue.gateway.problems import Unprocessable
from distriqueue_protocol.messages import GrantId, Outcome
from distriqueue_worker.commands import Checkpointed


def said(**fields: Any) -> ReportRequest:
    return ReportRequest.model_validate({"grant": "7-1", "outcome": "succeeded", **fields})


def test_a_success_has_a_value_and_nothing_else() -> None:
    result = checked_result(said(result={"answer": 42}, error="not read"))
    assert (result.outcome, result.value, result.error) == (Outcome.SUCCEEDED, {"answer": 42}, "")


def test_a_failure_has_a_reason_even_if_none_was_given() -> None:
    result = checked_result(said(outcome="failed"))
    assert (result.outcome, result.reason, result.error, result.permanent) == (
        Outcome.FAILED,
        "Failed",
        "Failed",
        False,
    )
    result = checked_result(
        said(outcome="failed", reason="ExitStatus", error="it was 3", permanent=True, logTail="end")
    )
    assert (result.reason, result.error, result.permanent, result.log_tail) == ("ExitStatus", "it was 3", True, "end")


def test_an_interruption_is_nobodys_failure() -> None:
    assert checked_result(said(outcome="interrupted")).outcome is Outcome.INTERRUPTED


def test_a_result_that_is_too_large_is_named() -> None:
    with pytest.raises(Unprocessable) as raised:
        checked_result(said(result="x" * 70_000))
    assert raised.value.errors[0].field == "/result"
    with pytest.raises(Unprocessable) as raised:
        checked_checkpoint("x" * 20_000, "/jobs/3/checkpoint")
    assert raised.value.errors[0].field == "/jobs/3/checkpoint"
    assert checked_checkpoint([1], "/checkpoint") == Checkpointed([1], 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Upper"},
        {"name": "w", "pool": "*"},
        {"name": "w", "capacity": 0},
        {"name": "w", "capacity": 257},
        {"name": "w", "namespaces": ["a"] * 65},
        {"name": "w", "jobs": [{"receipt": "with space"}]},
        {"name": "w", "unknown": 1},
    ],
)
def test_a_registration_is_bounded(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RegisterRequest.model_validate(wrong)


def test_grants_are_read_as_they_are_written() -> None:
    assert read_grant(said(grant=str(GrantId(2**61, 0))).grant) == GrantId(2**61, 0)
    for wrong in ("7", "7-", "-1-2", "07-1", "7-1-1", "a-1"):
        with pytest.raises(ValidationError):
            said(grant=wrong)


def test_a_request_for_jobs_needs_no_fields() -> None:
    assert NextRequest.model_validate({}) == NextRequest(request=0, received=0, max=1)
