"""Status documents: what the schema takes, what the fences hold, what people read."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distriqueue.api.conditions import JobReason
from distriqueue.api.jobs import JobStatus
from distriqueue.api.limits import ERROR_LIMIT, HISTORY_LIMIT, LOG_TAIL_LIMIT, RESULT_LIMIT_BYTES
from distriqueue.api.phases import FINAL_JOB_PHASES, JobPhase
from distriqueue.api.raw import RawJobStatus
from distriqueue.core import statuses
from distriqueue.core.jobs import Closing, Job, Loss, Slot, read_job
from distriqueue.core.retrying import decide
from distriqueue.core.times import Now, checked, microtime
from distriqueue_protocol.messages import GrantId, Outcome, Report
from tests.simulation.api_server import broken_fences
from tests.unit.core.desk import STARTED, WALL, raw_job

NOW = Now(100.0, WALL + 10)


def job(**spec: Any) -> Job:
    return read_job(raw_job("a", **spec), wall=WALL)


def slot(*, attempt: int = 1, counter: int = 1, report: Report | None = None) -> Slot:
    return Slot(
        grant=GrantId(100, counter),
        claim=1,
        incarnation="incarnation-1",
        worker="w",
        attempt=attempt,
        granted_at=WALL,
        report=report,
    )


def report(**more: Any) -> Report:
    fields = {
        "namespace": "default",
        "name": "a",
        "uid": "uid-a",
        "attempt": 1,
        "grant": GrantId(100, 1),
        "worker": "w",
        "incarnation": "incarnation-1",
        "outcome": Outcome.SUCCEEDED,
        "start_time": STARTED,
        "completion_time": microtime(WALL + 1),
    }
    return Report(**{**fields, **more})


def end(of: Job, held: Slot, *, epoch: int = 100) -> RawJobStatus:
    ending = statuses.reported(held) if held.report else statuses.lost(held, Loss("WorkerLost", "it went"), now=NOW)
    verdict = decide(of, outcome=ending.outcome, reason=ending.reason, permanent=ending.permanent, draw=0.5)
    return statuses.ended(of, held, ending, verdict, epoch=epoch, now=NOW)


def valid(status: RawJobStatus) -> JobStatus:
    return JobStatus.model_validate(status)


def condition(status: RawJobStatus, kind: str) -> tuple[str, str]:
    (found,) = [c for c in status["conditions"] if c["type"] == kind]
    return found["status"], found["reason"]


def test_success() -> None:
    status = end(job(), slot(report=report(result={"sum": 3})))
    assert valid(status).result == {"sum": 3}
    assert condition(status, "Complete") == ("True", "Succeeded")
    assert condition(status, "Accepted") == ("True", "Accepted")
    assert status["attempts"][-1]["outcome"] == "Succeeded"
    assert "error" not in status


def test_a_success_takes_the_error_of_an_earlier_attempt_away_and_keeps_it_in_the_history() -> None:
    one = job()
    failed = end(one, slot(report=report(outcome=Outcome.FAILED, error="boom", reason="ValueError")))
    assert failed["error"] == "boom"
    assert "nextAttemptTime" in failed
    one.read_status(failed)
    status = end(one, slot(attempt=2, counter=2, report=report(attempt=2)))
    assert "error" not in status
    assert "nextAttemptTime" not in status
    assert [entry.get("error") for entry in status["attempts"]] == ["boom", None]


def test_the_last_attempt_that_fails_is_dead_and_says_why() -> None:
    status = end(job(maxAttempts=1), slot(report=report(outcome=Outcome.FAILED, error="boom", log_tail="trace")))
    assert valid(status).phase == "Dead"
    assert condition(status, "Failed") == ("True", "AttemptsExhausted")
    (failed,) = [c for c in status["conditions"] if c["type"] == "Failed"]
    assert failed["message"] == "attempt 1, the last one, did not succeed: HandlerError: boom"
    assert status["attempts"][-1]["logTail"] == "trace"


def test_a_permanent_error_is_failed_at_once() -> None:
    status = end(job(), slot(report=report(outcome=Outcome.FAILED, permanent=True, error="no", reason="Bad")))
    assert valid(status).phase == "Failed"
    assert condition(status, "Failed") == ("True", "PermanentError")


def test_a_worker_that_was_stopped_has_lost_the_attempt() -> None:
    status = end(job(), slot(report=report(outcome=Outcome.INTERRUPTED)))
    assert (status["attempts"][-1]["outcome"], status["attempts"][-1]["reason"]) == ("Lost", "WorkerStopped")


def test_what_was_never_started_counts_for_nothing() -> None:
    never = report(outcome=Outcome.INTERRUPTED, reason="NotStarted")
    status = valid(end(job(maxAttempts=1), slot(report=never)))
    assert (status.phase, status.failures) == ("Retrying", None)
    assert [(one.outcome, one.reason) for one in status.attempts or []] == [("Stopped", "NotStarted")]


def test_a_refusal_says_so_in_both_conditions() -> None:
    refused = job()
    refused.refusal = Closing(JobPhase.FAILED, JobReason.PAYLOAD_TOO_LARGE, "too big")
    status = statuses.closed(refused, refused.refusal, epoch=100, now=NOW)
    assert valid(status).phase == "Failed"
    assert condition(status, "Accepted") == ("False", "PayloadTooLarge")
    assert condition(status, "Failed") == ("True", "PayloadTooLarge")


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("ValueError", "ValueError"),
        ("my.module:Error Type", "MymoduleErrorType"),
        ("lower", "Lower"),
        ("404", "HandlerError"),
        ("-", "HandlerError"),
        ("Ünïcode", "Ncode"),
    ],
)
def test_reasons_are_one_word(said: str, written: str) -> None:
    status = end(job(), slot(report=report(outcome=Outcome.FAILED, reason=said)))
    assert valid(status).attempts is not None
    assert status["attempts"][-1]["reason"] == written


def test_texts_are_cut() -> None:
    said = report(outcome=Outcome.FAILED, error="é" * 4096, log_tail="a" * 4095 + "z")
    status = end(job(maxAttempts=1), slot(report=said))
    entry = status["attempts"][-1]
    assert len(entry["error"]) <= ERROR_LIMIT
    assert len(entry["logTail"]) <= LOG_TAIL_LIMIT
    assert all(len(c["message"]) <= ERROR_LIMIT for c in status["conditions"])
    valid(status)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (10**30, "ResultNotJSON"),
        ({"deep": [10**30]}, "ResultNotJSON"),
        ("x" * (RESULT_LIMIT_BYTES - 1), "ResultTooLarge"),
    ],
)
def test_a_result_that_no_status_can_hold_is_a_permanent_failure(result: Any, reason: str) -> None:
    status = end(job(), slot(report=report(result=result)))
    assert valid(status).phase == "Failed"
    assert status["attempts"][-1]["reason"] == reason
    assert "result" not in status


def test_a_result_at_the_limit_is_kept() -> None:
    text = "x" * (RESULT_LIMIT_BYTES - 2)
    assert end(job(), slot(report=report(result=text)))["result"] == text


@pytest.mark.parametrize(
    "time", ["", "yesterday", "2026-99-01T00:00:00Z", "2026-01-01 00:00:00", "2026-01-01T00:00:00"]
)
def test_times_that_are_none_are_replaced_by_our_own(time: str) -> None:
    assert checked(time) is None
    status = end(job(), slot(report=report(start_time=time, completion_time=time)))
    valid(status)
    assert status["startTime"] == status["completionTime"] == STARTED


@pytest.mark.parametrize("time", ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5+02:00", STARTED])
def test_times_of_other_languages_are_kept(time: str) -> None:
    assert checked(time) == time


def test_the_history_keeps_the_last_attempts() -> None:
    one = job(maxAttempts=100)
    for number in range(1, 2 * HISTORY_LIMIT):
        held = slot(attempt=number, counter=number)
        one.read_status(statuses.running(one, held, epoch=100, now=NOW))
        one.read_status(end(one, held))
    numbers = [entry["number"] for entry in one.status["attempts"]]
    assert numbers == list(range(HISTORY_LIMIT, 2 * HISTORY_LIMIT))
    valid(one.status)


def test_nothing_of_the_spec_is_copied() -> None:
    assert "secret" not in str(end(job(payload={"k": "secret"}), slot(report=report())))


LIVES = st.lists(
    st.tuples(
        st.sampled_from(["queued", "running", "succeeded", "failed", "permanent", "interrupted", "lost"]),
        st.integers(0, 2),  # by how much the epoch rises, for another leader may go on
    ),
    max_size=30,
)


@given(LIVES, st.integers(1, 12))
def test_whole_lives_fit_the_schema_and_the_fences(life: list[tuple[str, int]], most: int) -> None:
    one = job(maxAttempts=most, backoff={"initialSeconds": 1, "maxSeconds": 5})
    epoch = 100
    for counter, (event, rise) in enumerate(life, start=1):
        if event == "queued" and one.phase == JobPhase.RUNNING:
            continue  # a ticket is out before somebody runs it: the leader never says so of what runs
        epoch += rise
        held = Slot(GrantId(epoch, counter), 1, "incarnation-1", "w", one.next_attempt, WALL)
        if event == "queued":
            status = statuses.queued(one, epoch=epoch, now=NOW)
        elif event == "running":
            status = statuses.running(one, held, epoch=epoch, now=NOW)
        else:
            if event != "lost":
                outcome = {"succeeded": Outcome.SUCCEEDED, "interrupted": Outcome.INTERRUPTED}.get(event)
                held.report = report(outcome=outcome or Outcome.FAILED, permanent=event == "permanent")
            status = end(one, held, epoch=epoch)
        valid(status)
        assert not broken_fences(one.status, status)
        one.read_status(status)
        if one.phase in FINAL_JOB_PHASES:
            assert {c["type"] for c in status["conditions"]} >= {"Accepted"}
            assert len([c for c in status["conditions"] if c["type"] in ("Complete", "Failed")]) == 1
            break
        assert one.ended <= most
