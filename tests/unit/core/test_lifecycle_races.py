"""Wishes that meet a write under way, an answer that is lost, or a worker that was thought lost."""

from typing import Any

import pytest

from distriqueue.api.fences import Fence
from distriqueue.api.raw import RawJobStatus
from distriqueue.core.commands import PublishTicket, WriteStatus
from distriqueue.core.findings import Finding
from distriqueue.core.times import microtime
from distriqueue_protocol.messages import GrantId, Progress, SessionMessage
from tests.unit.core.desk import WALL, Desk, Worker, acked, held, introduced, raw_job, raw_worker


def leading(*names: str, **spec: Any) -> tuple[Desk, Worker]:
    desk = Desk([raw_job(name, **spec) for name in names]).lead()
    return desk, introduced(desk)


def lose_answer(desk: Desk, write: WriteStatus, *, version: int, **spec: Any) -> None:
    """A write landed, its answer did not come; somebody changed the spec before the job was read again."""
    desk.show(write.name, write.status, version=version - 1)
    now = raw_job(write.name, version=version, status=write.status, **spec)
    now["metadata"]["generation"] = 2
    desk.leader.on_job(now, desk.now)
    desk.leader.on_reread(write.id, now, desk.now)


def progress(worker: Worker, grant: GrantId, **words: Any) -> None:
    worker.sequence += 1
    head = {"incarnation": worker.incarnation, "sequence": worker.sequence, "epoch": worker.epoch}
    worker.say(SessionMessage(**head, progress=(Progress(grant=grant, **words),)))


# --- the answer to a write is lost -------------------------------------------------------------------------------


def test_a_cancel_that_came_after_an_end_without_answer_is_read() -> None:
    desk, worker = leading("a")
    grant = worker.granted("a")
    desk.report(worker, "a", grant, outcome="Failed")
    lose_answer(desk, desk.write(), version=3001, cancel=True)
    assert desk.land(desk.write())["phase"] == "Cancelled"


def test_a_retry_that_came_after_an_end_without_answer_begins() -> None:
    desk, worker = leading("a")
    grant = worker.granted("a")
    desk.report(worker, "a", grant)
    lose_answer(desk, desk.write(), version=3001, retryGeneration=1)
    status = desk.land(desk.write())
    assert (status["phase"], status["retryGeneration"]) == ("Pending", 1)
    assert desk.of(PublishTicket)


def test_a_retry_that_the_watch_showed_while_an_older_version_was_read_begins() -> None:
    desk, worker = leading("a")
    grant = worker.granted("a")
    desk.report(worker, "a", grant)
    write = desk.write()
    desk.show("a", write.status, version=3000)
    retried = raw_job("a", version=3001, status=write.status, retryGeneration=1)
    desk.leader.on_job(retried, desk.now)
    # The reading was under way before the retry was asked for.
    desk.leader.on_reread(write.id, raw_job("a", version=3000, status=write.status), desk.now)
    assert desk.land(desk.write())["phase"] == "Pending"


def test_a_job_that_somebody_ended_by_hand_runs_again_when_its_attempt_has_stopped_and_not_before() -> None:
    ended: RawJobStatus = {"phase": "Failed", "epoch": 50}
    desk = Desk([raw_job("a", status=ended, retryGeneration=1)], [raw_worker("w", "incarnation-of-w")])
    worker = Worker(desk)
    late = GrantId(50, 3)
    worker.beat(grants=[held(late, "a")])
    desk.lead()
    assert not [c for c in desk.wait(5) if isinstance(c, WriteStatus)], "Running would be refused by a fence"
    worker.beat(grants=[held(late, "a")])
    assert [order.reason for order in worker.orders()[0]] == ["Retried"]
    desk.report(worker, "a", late, outcome="Interrupted", reason="Retried")
    desk.leader.on_write_refused(desk.write().id, frozenset({Fence.PHASE}), "fence/phase: final", desk.now)
    assert desk.land(desk.write())["phase"] == "Pending"


def test_a_changed_priority_that_came_after_an_end_without_answer_counts() -> None:
    desk, worker = leading("a", backoff={"initialSeconds": 0})
    grant = worker.granted("a")
    desk.of(PublishTicket)
    desk.report(worker, "a", grant, outcome="Failed")
    lose_answer(desk, desk.write(), version=3001, priority="High")
    desk.wait(1)
    assert [job.priority for job in desk.leader._books.jobs.values()] == ["High"]


@pytest.mark.parametrize("wish", [{"cancel": True}, {"suspend": True}, {"retryGeneration": 1}])
def test_a_wish_that_is_shown_while_a_write_has_no_answer_lets_nothing_start(wish: dict[str, Any]) -> None:
    desk, worker = leading("a")
    (queued,) = [c for c in desk.wait(4) if isinstance(c, WriteStatus)]
    desk.show("a", {"phase": "Pending"}, version=11, **wish)
    number = worker.ask("a")
    (answer,) = [answer for answer in worker.answers() if answer.claim == number]
    assert answer.grant is None
    desk.leader.on_reread(queued.id, raw_job("a", version=11, **wish), desk.now)
    assert desk.write().status != queued.status


# --- a retry by hand, and a grant that nobody knew of ------------------------------------------------------------


def reopening() -> tuple[Desk, Worker, GrantId, WriteStatus]:
    """A worker that was lost before anybody knew what it held wakes while its job is being reopened."""
    desk, _ = leading("a")
    sleeper = introduced(desk, "sleeper")
    desk.show("a", {"phase": "Pending"}, version=11, retryGeneration=1)
    return desk, sleeper, GrantId(50, 3), desk.write()


def test_a_report_that_comes_while_its_job_is_reopened_is_refused_and_the_job_runs() -> None:
    desk, sleeper, grant, write = reopening()
    tag = desk.report(sleeper, "a", grant)
    assert desk.land(write)["phase"] == "Pending"
    assert tag in acked(desk.wait(1))
    desk.show("a", write.status, retryGeneration=1)
    worker = introduced(desk, "other")
    assert worker.granted("a", attempt=1) > grant


def test_a_grant_that_is_heard_of_while_its_job_is_reopened_is_stopped_and_the_job_runs() -> None:
    desk, sleeper, grant, write = reopening()
    sleeper.beat(grants=[held(grant, "a")])
    desk.land(write)
    assert grant in {order.grant for order in sleeper.orders()[0]}
    sleeper.beat()
    assert introduced(desk, "other").granted("a", attempt=1) > grant


# --- refused writes ----------------------------------------------------------------------------------------------


def test_what_was_shown_while_a_write_was_under_way_is_read_when_a_fence_refuses_it() -> None:
    desk, worker = leading("a")
    grant = worker.granted("a")
    desk.report(worker, "a", grant)
    write = desk.write()
    desk.show("a", {"phase": "Pending", "attempt": 4}, version=12)
    desk.leader.on_write_refused(write.id, frozenset({Fence.ATTEMPT}), "", desk.now)
    desk.wait(1)
    assert introduced(desk, "other").granted("a", attempt=5)


def test_a_loss_that_is_refused_is_written_without_what_the_worker_made_up() -> None:
    desk, worker = leading("a")
    grant = worker.granted("a")
    worker.beat(grants=[held(grant, "a").model_copy(update={"start_time": "2026-02-31T00:00:00Z"})])
    (running,) = [c for c in desk.wait(16) if isinstance(c, WriteStatus)]
    desk.leader.on_write_refused(running.id, frozenset(), "no such day", desk.now)
    desk.markers_back()
    write = desk.write()
    assert write.status["startTime"] == "2026-02-31T00:00:00Z"
    desk.leader.on_write_refused(write.id, frozenset(), "no such day", desk.now)
    desk.idle(1)
    assert desk.write().status["startTime"] == microtime(WALL + 0.5)


def test_a_retry_of_a_job_with_a_spec_that_cannot_be_is_refused_once() -> None:
    desk, _ = leading("b")
    desk.leader.on_job(raw_job("a", type="", retryGeneration=1), desk.now)
    status = desk.land(desk.write())
    assert (status["phase"], status["retryGeneration"]) == ("Failed", 1)
    desk.show("a", status, type="", retryGeneration=1)
    assert not desk.of(WriteStatus)


def test_a_job_whose_write_a_fence_refuses_though_it_is_not_over_runs_again() -> None:
    desk, worker = leading("a")
    grant = worker.granted("a")
    desk.report(worker, "a", grant)
    desk.show("a", {"phase": "Pending"})
    desk.leader.on_write_refused(desk.write().id, frozenset({Fence.ATTEMPT}), "", desk.now)
    desk.leader.auditor.shown = {"uid-a": raw_job("a")}
    desk.wait(15)
    assert desk.leader.auditor.findings == {Finding.NOT_ENTERED: 1}
    assert introduced(desk, "other").granted("a") > grant


def test_a_refused_running_leaves_the_report_alone() -> None:
    desk, worker = leading("a")
    grant = worker.granted("a")
    (running,) = [c for c in desk.wait(2) if isinstance(c, WriteStatus)]
    desk.report(worker, "a", grant, result=7)
    desk.leader.on_write_refused(running.id, frozenset(), "somebody's policy", desk.now)
    status = desk.land(desk.write())
    assert (status["phase"], status["result"]) == ("Succeeded", 7)


def test_an_end_that_is_refused_is_written_without_anything_that_a_worker_made_up() -> None:
    desk, worker = leading("a")
    grant = worker.granted("a")
    progress(worker, grant, percent=3, message="x", checkpoint={"bad": 1})
    desk.report(worker, "a", grant, outcome="Failed", checkpoint={"bad": 2})
    desk.leader.on_write_refused(desk.write().id, frozenset(), "no", desk.now)
    status = desk.write().status
    assert status["attempts"][-1]["reason"] == "ResultRefused"
    assert not {"checkpoint", "progress"} & status.keys()


# --- how a stopped attempt ends ----------------------------------------------------------------------------------


def test_an_attempt_that_was_stopped_for_a_retry_is_nobodys_failure_although_a_cancel_followed() -> None:
    desk, worker = leading("a")
    grant = worker.granted("a")
    desk.show("a", {"phase": "Pending"}, version=11, retryGeneration=1)
    desk.show("a", {"phase": "Pending"}, version=12, retryGeneration=1, cancel=True)
    desk.report(worker, "a", grant, outcome="Interrupted", reason="Retried")
    status = desk.land(desk.write())
    assert (status["phase"], status["attempts"][-1]["outcome"]) == ("Cancelled", "Stopped")


def test_an_attempt_that_an_earlier_leader_had_stopped_is_nobodys_failure() -> None:
    desk = Desk([raw_job("a", retryGeneration=1, maxAttempts=1)], [raw_worker("w", "incarnation-of-w")])
    worker = Worker(desk, "w")
    worker.beat()
    desk.report(worker, "a", GrantId(50, 3), outcome="Interrupted", reason="Retried")
    status = desk.land(desk.write())
    assert (status["phase"], status["attempts"][-1]["outcome"]) == ("Retrying", "Stopped")


@pytest.mark.parametrize("checkpoint", [0, False, "", [], {}])
def test_an_empty_checkpoint_is_one(checkpoint: Any) -> None:
    desk, worker = leading("a")
    grant = worker.granted("a")
    progress(worker, grant, checkpoint={"row": 1})
    desk.report(worker, "a", grant, outcome="Failed", checkpoint=checkpoint)
    assert desk.write().status["checkpoint"] == checkpoint


def test_a_checkpoint_is_dropped_by_a_handler_that_says_so() -> None:
    earlier: RawJobStatus = {"phase": "Retrying", "attempt": 1, "checkpoint": {"row": 1}}
    desk = Desk([raw_job("a", status=earlier), raw_job("b", status=earlier)]).lead()
    worker = introduced(desk)
    grant = worker.granted("a", attempt=2)
    desk.report(worker, "a", grant, attempt=2, outcome="Failed")
    assert "checkpoint" not in desk.write().status
    progress(worker, worker.granted("b", attempt=2), percent=1)
    assert "checkpoint" not in next(c for c in desk.wait(2) if isinstance(c, WriteStatus)).status


def test_a_checkpoint_that_nobody_can_store_is_not_heard() -> None:
    earlier: RawJobStatus = {"phase": "Retrying", "attempt": 1, "checkpoint": {"row": 1}}
    desk = Desk([raw_job("a", status=earlier)]).lead()
    worker = introduced(desk)
    grant = worker.granted("a", attempt=2)
    progress(worker, grant, checkpoint=2**70)
    desk.report(worker, "a", grant, attempt=2, outcome="Failed", checkpoint=2**70)
    assert desk.write().status["checkpoint"] == {"row": 1}


def test_the_progress_of_an_earlier_attempt_is_not_that_of_the_last_one() -> None:
    earlier: RawJobStatus = {
        "phase": "Retrying",
        "attempt": 1,
        "attempts": [{"number": 1, "outcome": "Failed"}],
        "progress": {"percent": 80},
    }
    desk = Desk([raw_job("a", status=earlier)]).lead()
    worker = introduced(desk)
    grant = worker.granted("a", attempt=2)
    desk.report(worker, "a", grant, attempt=2)
    assert "progress" not in desk.write().status


# --- deadline and dedupKey ---------------------------------------------------------------------------------------


def test_the_deadline_of_a_retry_that_starts_later_counts_from_its_start() -> None:
    retried: RawJobStatus = {"phase": "Pending", "retryGeneration": 1, "retryTime": microtime(WALL)}
    job = raw_job("a", status=retried, retryGeneration=1, startAfter=microtime(WALL + 100), deadlineSeconds=10)
    desk = Desk([job]).lead()
    assert not [c for c in desk.wait(99) if isinstance(c, WriteStatus)]
    desk.idle(8)
    assert desk.land(desk.write())["phase"] == "Queued"
    desk.idle(8)
    status = desk.land(desk.write())
    assert (status["phase"], status["conditions"][-1]["reason"]) == ("Failed", "DeadlineExceeded")


def test_a_cancelled_job_that_still_runs_keeps_its_key_over_a_takeover() -> None:
    desk = Desk(
        [raw_job("a", cancel=True, dedupKey="k"), raw_job("b", dedupKey="k", created=WALL + 10)],
        [raw_worker("w", "incarnation-of-w")],
    )
    worker = Worker(desk, "w")
    worker.beat(grants=[held(GrantId(50, 3), "a")])
    desk.lead()
    write = desk.write()
    assert (write.name, write.status["conditions"][-1]["reason"]) == ("b", "Duplicate")


def test_a_job_that_succeeded_and_may_not_run_again_has_no_result_and_no_complete_any_more() -> None:
    succeeded: RawJobStatus = {
        "phase": "Succeeded",
        "attempt": 1,
        "result": 1,
        "conditions": [
            {"type": "Accepted", "status": "True", "reason": "Accepted"},
            {"type": "Complete", "status": "True", "reason": "Succeeded"},
        ],
    }
    desk, _ = leading("b", dedupKey="k")
    desk.show("a", succeeded, version=12, dedupKey="k", retryGeneration=1)
    status = desk.write().status
    assert (status["phase"], "result" in status) == ("Cancelled", False)
    assert [one["type"] for one in status["conditions"]] == ["Accepted", "Failed"]


def test_at_a_takeover_a_job_that_never_ended_has_its_key_before_one_that_is_to_run_again() -> None:
    dead: RawJobStatus = {"phase": "Dead", "attempt": 3}
    desk = Desk(
        [raw_job("a", status=dead, dedupKey="k", retryGeneration=1), raw_job("b", dedupKey="k", created=WALL + 10)]
    ).lead()
    write = desk.write()
    assert (write.name, write.status["conditions"][-1]["reason"]) == ("a", "Duplicate")


# --- memory ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [{}, {"startAfter": microtime(WALL + 1e6)}])
def test_jobs_that_are_deleted_while_they_wait_leave_nothing_behind(spec: dict[str, Any]) -> None:
    desk, _ = leading(*(f"first-{number}" for number in range(50)))
    for number in range(2000):
        desk.leader.on_job(raw_job(f"job-{number}", **spec), desk.now)
        desk.leader.on_job_deleted(f"uid-job-{number}", desk.now)
    assert len(desk.leader.backlog.snapshot().queued) < 500
