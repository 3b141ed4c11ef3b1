"""What people do to a job, and what becomes of it: cancel, suspend, retry, deadlines, priorities, time to live."""

from typing import Any

import pytest

from distriqueue.api.raw import RawJobStatus
from distriqueue.core.books import LeaderSettings
from distriqueue.core.commands import DeleteJob, PublishTicket, WriteStatus
from distriqueue.core.reaping import Finished
from distriqueue.core.times import microtime
from distriqueue_protocol.messages import GrantId, Progress, Refusal, SessionMessage
from tests.unit.core.desk import EPOCH, WALL, Desk, Worker, acked, held, introduced, raw_job, raw_worker

DEAD: RawJobStatus = {
    "phase": "Dead",
    "attempt": 3,
    "epoch": 50,
    "lastGrant": {"epoch": 50, "counter": 7},
    "failures": {"application": 3},
    "error": "boom",
    "completionTime": microtime(WALL - 60),
    "conditions": [
        {"type": "Accepted", "status": "True", "reason": "Accepted"},
        {"type": "Failed", "status": "True", "reason": "AttemptsExhausted"},
    ],
}


def leading(*names: str, settings: LeaderSettings | None = None, **spec: Any) -> tuple[Desk, Worker]:
    desk = Desk([raw_job(name, **spec) for name in names], settings=settings).lead()
    return desk, introduced(desk)


def conditions(status: RawJobStatus) -> dict[str, tuple[str, str]]:
    return {one["type"]: (one["status"], one["reason"]) for one in status["conditions"]}


def refusal(worker: Worker, name: str, *, attempt: int = 1) -> Refusal | None:
    number = worker.ask(name, attempt=attempt)
    (answer,) = [answer for answer in worker.answers() if answer.claim == number]
    return answer.refusal


def orders(worker: Worker) -> list[str]:
    return [order.reason for order in worker.orders()[0]]


# --- cancel ------------------------------------------------------------------------------------------------------


def test_a_waiting_job_is_cancelled_at_once_and_its_ticket_is_worth_nothing() -> None:
    desk, worker = leading("a")
    desk.show("a", {"phase": "Pending"}, version=11, cancel=True)
    assert refusal(worker, "a") is Refusal.CANCELLED  # before the write has landed
    status = desk.land(desk.write())
    assert (status["phase"], conditions(status)["Failed"]) == ("Cancelled", ("True", "Cancelled"))
    assert "completionTime" in status
    assert refusal(worker, "a") is Refusal.FINISHED


def test_of_a_held_job_the_worker_is_asked_and_the_phase_waits_for_its_answer() -> None:
    desk, worker = leading("a")
    grant = worker.granted("a")
    desk.show("a", {"phase": "Pending"}, version=11, cancel=True)
    assert orders(worker) == ["Cancelled"]
    worker.beat(grants=[held(grant, "a")])
    assert orders(worker) == ["Cancelled"], "repeated until it is answered"
    assert not desk.of(WriteStatus)
    desk.report(worker, "a", grant, outcome="Interrupted", reason="Cancelled")
    status = desk.land(desk.write())
    assert status["phase"] == "Cancelled"
    assert [(one["outcome"], one["reason"]) for one in status["attempts"]] == [("Stopped", "Cancelled")]
    assert "failures" not in status


def test_a_handler_that_succeeds_before_it_is_stopped_has_succeeded() -> None:
    desk, worker = leading("a")
    grant = worker.granted("a")
    desk.show("a", {"phase": "Pending"}, version=11, cancel=True)
    desk.report(worker, "a", grant, result=1)
    status = desk.land(desk.write())
    assert (status["phase"], status["result"]) == ("Succeeded", 1)


@pytest.mark.parametrize("outcome", ["Failed", "Interrupted"])
def test_a_cancelled_job_is_not_tried_again_however_its_attempt_ends(outcome: str) -> None:
    desk, worker = leading("a")
    grant = worker.granted("a")
    desk.show("a", {"phase": "Pending"}, version=11, cancel=True)
    desk.report(worker, "a", grant, outcome=outcome, error="boom")
    assert desk.land(desk.write())["phase"] == "Cancelled"


def test_a_cancelled_job_whose_worker_is_lost_is_cancelled_when_the_loss_is_proven() -> None:
    desk, worker = leading("a")
    worker.granted("a")
    desk.show("a", {"phase": "Pending"}, version=11, cancel=True)
    (running,) = [c for c in desk.wait(16) if isinstance(c, WriteStatus)]
    assert desk.land(running)["phase"] == "Running"
    desk.markers_back()
    status = desk.land(desk.write())
    assert (status["phase"], status["attempts"][-1]["outcome"]) == ("Cancelled", "Lost")


def test_nothing_is_closed_before_the_takeover_knows_who_holds_what() -> None:
    desk = Desk([raw_job("a", cancel=True)], [raw_worker("w", "incarnation-of-w")])
    assert not [c for c in desk.wait(2) if isinstance(c, WriteStatus)]
    worker = Worker(desk, "w")
    grant = GrantId(50, 3)
    worker.beat(grants=[held(grant, "a")])
    desk.lead()
    assert orders(worker) == ["Cancelled"]
    assert not [c for c in desk.of(WriteStatus) if c.status["phase"] == "Cancelled"]


def test_an_old_grant_that_turns_up_later_is_stopped_at_once() -> None:
    desk, worker = leading("b")
    desk.show("a", {"phase": "Pending"}, version=11, cancel=True)
    late = GrantId(50, 9)
    worker.beat(grants=[held(late, "a")])
    assert orders(worker) == ["Cancelled"]


# --- suspend and resume ------------------------------------------------------------------------------------------


def test_a_suspended_job_is_not_granted_and_says_so() -> None:
    desk, worker = leading("a")
    desk.show("a", {"phase": "Pending"}, version=11, suspend=True)
    assert refusal(worker, "a") is Refusal.SUSPENDED
    status = desk.land(desk.write())
    assert (status["phase"], conditions(status)["Suspended"]) == ("Pending", ("True", "Suspended"))
    desk.show("a", status)
    assert not [c for c in desk.wait(30) if isinstance(c, PublishTicket | WriteStatus)]
    desk.show("a", status, version=5000)
    assert desk.of(PublishTicket)
    status = desk.land(desk.write())
    assert conditions(status)["Suspended"] == ("False", "Resumed")
    worker.granted("a")


def test_a_running_attempt_goes_on_when_its_job_is_suspended_and_the_next_one_waits() -> None:
    desk, worker = leading("a")
    grant = worker.granted("a")
    desk.show("a", {"phase": "Pending"}, version=11, suspend=True)
    assert orders(worker) == []
    desk.land(desk.write())
    desk.report(worker, "a", grant, outcome="Failed")
    status = desk.land(desk.write())
    assert (status["phase"], conditions(status)["Suspended"]) == ("Retrying", ("True", "Suspended"))
    assert not [c for c in desk.wait(600) if isinstance(c, PublishTicket)]


def test_a_job_that_was_made_suspended_waits_from_the_start() -> None:
    desk, worker = leading("a", suspend=True)
    assert not desk.of(PublishTicket)
    assert refusal(worker, "a") is Refusal.SUSPENDED


# --- retry by hand -----------------------------------------------------------------------------------------------


def test_a_dead_job_runs_again_with_its_whole_budget_and_its_history() -> None:
    desk, worker = leading("b")
    desk.take()
    desk.show("a", DEAD, version=60, retryGeneration=1)
    status = desk.land(desk.write())
    assert (status["phase"], status["attempt"], status["retryGeneration"]) == ("Pending", 3, 1)
    assert not {"error", "failures", "completionTime"} & status.keys()
    assert conditions(status) == {"Accepted": ("True", "Accepted")}
    assert (status["lastGrant"]["epoch"], "retryTime" in status) == (EPOCH, True)
    (ticket,) = desk.of(PublishTicket)
    assert ticket.ticket.attempt == 4
    grant = worker.granted("a", attempt=4)
    desk.report(worker, "a", grant, attempt=4, outcome="Failed")
    assert desk.land(desk.write())["phase"] == "Retrying"


def test_a_late_report_of_an_attempt_before_the_retry_is_refused() -> None:
    desk, worker = leading("b")
    desk.show("a", DEAD, version=60, retryGeneration=1)
    desk.land(desk.write())
    desk.take()
    tag = desk.report(worker, "a", GrantId(50, 8), attempt=3, result="late")
    assert acked(desk.take()) == [tag]
    assert "refused Stale" in desk.observed.words


def test_a_running_attempt_is_stopped_before_the_retry_begins() -> None:
    desk, worker = leading("a")
    grant = worker.granted("a")
    desk.show("a", {"phase": "Pending"}, version=11, retryGeneration=1)
    assert orders(worker) == ["Retried"]
    desk.report(worker, "a", grant, outcome="Interrupted", reason="Retried")
    status = desk.land(desk.write())
    assert (status["phase"], status["attempts"][-1]["outcome"]) == ("Retrying", "Stopped")
    assert not desk.of(PublishTicket)
    status = desk.land(desk.write())
    assert (status["phase"], status["retryGeneration"]) == ("Pending", 1)
    (ticket,) = desk.of(PublishTicket)
    assert ticket.ticket.attempt == 2


def test_a_retry_that_was_asked_for_while_it_succeeded_runs_again() -> None:
    desk, worker = leading("a")
    grant = worker.granted("a")
    desk.show("a", {"phase": "Pending"}, version=11, retryGeneration=1)
    desk.report(worker, "a", grant, result=1)
    assert desk.land(desk.write())["phase"] == "Succeeded"
    status = desk.land(desk.write())
    assert (status["phase"], "result" in status) == ("Pending", False)


def test_a_retry_skips_the_backoff() -> None:
    desk, worker = leading("a", backoff={"initialSeconds": 1000, "maxSeconds": 1000})
    grant = worker.granted("a")
    desk.report(worker, "a", grant, outcome="Failed")
    status = desk.land(desk.write())
    desk.show("a", status)
    desk.show("a", status, version=5000, retryGeneration=1)
    desk.land(desk.write())
    assert desk.of(PublishTicket)


def test_many_are_redriven_at_a_rate() -> None:
    desk, _ = leading("b", settings=LeaderSettings(reopened_per_second=2.0))
    desk.take()
    for number in range(10):
        desk.show(f"dead-{number}", DEAD, version=60, retryGeneration=1)
    first = len(desk.of(WriteStatus))
    later = len([c for c in desk.wait(2.0) if isinstance(c, WriteStatus)])
    assert (first, later) == (1, 4)


def test_a_job_that_is_over_needs_no_leader() -> None:
    desk, _ = leading("b")
    desk.take()
    desk.show("a", {**DEAD, "retryGeneration": 1}, version=60, retryGeneration=1)
    desk.show("c", {**DEAD, "phase": "Cancelled"}, version=61, retryGeneration=1, cancel=True)
    assert not desk.wait(1) or not desk.of(WriteStatus)


# --- time --------------------------------------------------------------------------------------------------------


def test_a_job_that_waits_past_its_deadline_has_failed() -> None:
    desk, worker = leading("a", deadlineSeconds=60)
    desk.take()
    (queued,) = [c for c in desk.wait(58) if isinstance(c, WriteStatus)]
    desk.land(queued)
    (write,) = [c for c in desk.wait(3) if isinstance(c, WriteStatus)]
    assert refusal(worker, "a") is Refusal.FINISHED
    status = desk.land(write)
    assert (status["phase"], conditions(status)["Failed"][1]) == ("Failed", "DeadlineExceeded")
    assert "spec.deadlineSeconds" in status["error"]


def test_a_handler_is_stopped_at_the_deadline() -> None:
    desk, worker = leading("a", deadlineSeconds=60)
    grant = worker.granted("a")
    for _ in range(13):
        for write in desk.of(WriteStatus):
            desk.land(write)
        desk.idle(4)
        worker.beat(grants=[held(grant, "a")])
    desk.idle(10)
    assert "DeadlineExceeded" in orders(worker)
    desk.report(worker, "a", grant, outcome="Interrupted", reason="DeadlineExceeded")
    status = desk.land(desk.write())
    assert (status["phase"], conditions(status)["Failed"][1]) == ("Failed", "DeadlineExceeded")
    assert status["attempts"][-1]["outcome"] == "Stopped"


def test_a_deadline_may_be_moved() -> None:
    desk, _ = leading("a", deadlineSeconds=10)
    desk.show("a", {"phase": "Pending"}, version=11, deadlineSeconds=1000)
    writes = [c for c in desk.wait(60) if isinstance(c, WriteStatus)]
    assert "Failed" not in [write.status["phase"] for write in writes]


def test_a_job_starts_after_its_time() -> None:
    desk, _ = leading("a", startAfter=microtime(WALL + 100))
    assert not [c for c in desk.wait(99) if isinstance(c, PublishTicket)]
    assert [c for c in desk.wait(2) if isinstance(c, PublishTicket)]


def test_a_start_may_be_moved_to_now() -> None:
    desk, _ = leading("a", startAfter=microtime(WALL + 100))
    desk.take()
    desk.show("a", {"phase": "Pending"}, version=11, startAfter=microtime(WALL))
    assert desk.of(PublishTicket)


def test_a_handler_that_its_worker_does_not_stop_is_stopped_by_the_leader() -> None:
    desk, worker = leading("a", timeoutSeconds=10)
    grant = worker.granted("a")
    for _ in range(9):
        for write in desk.of(WriteStatus):
            desk.land(write)
        desk.idle(5)
        worker.beat(grants=[held(grant, "a")])
    assert orders(worker)[-1:] == ["Timeout"]
    desk.report(worker, "a", grant, outcome="Interrupted", reason="Timeout")
    status = desk.land(desk.write())
    assert (status["attempts"][-1]["outcome"], status["failures"]) == ("Failed", {"timeout": 1})


# --- time to live ------------------------------------------------------------------------------------------------


def finished(name: str = "a", *, ttl: int | None = None, ended: float = WALL) -> Finished:
    return Finished(f"uid-{name}", "default", name, "60", ended, ttl)


def test_a_finished_job_is_deleted_when_its_time_is_over() -> None:
    desk, _ = leading("b")
    desk.take()
    desk.show("a", DEAD, version=60, ttlSecondsAfterFinished=100)  # over since 60 s
    assert not [c for c in desk.wait(38) if isinstance(c, DeleteJob)]
    (deletion,) = [c for c in desk.wait(3) if isinstance(c, DeleteJob)]
    assert (deletion.name, deletion.resource_version) == ("a", "60")
    assert [c for c in desk.wait(31) if isinstance(c, DeleteJob)], "it is still there: again"
    desk.leader.on_job_deleted("uid-a", desk.now)
    assert not [c for c in desk.wait(100) if isinstance(c, DeleteJob)]


def test_a_retry_saves_a_job_from_its_deletion() -> None:
    desk, _ = leading("b")
    desk.take()
    desk.show("a", DEAD, version=60, ttlSecondsAfterFinished=100)
    desk.show("a", DEAD, version=61, ttlSecondsAfterFinished=100, retryGeneration=1)
    assert not [c for c in desk.wait(120) if isinstance(c, DeleteJob)]


@pytest.mark.parametrize(("default", "deleted"), [(50, True), (None, False)])
def test_a_job_without_a_time_to_live_has_the_default_one(default: int | None, deleted: bool) -> None:  # noqa: FBT001 - a parameter of a test
    desk, _ = leading("b", settings=LeaderSettings(default_ttl=default))
    desk.show("a", DEAD, version=60)
    assert bool([c for c in desk.wait(5) if isinstance(c, DeleteJob)]) is deleted


def test_a_successful_job_that_the_leader_has_run_is_deleted_too() -> None:
    desk, worker = leading("a", ttlSecondsAfterFinished=10)
    grant = worker.granted("a")
    desk.report(worker, "a", grant)
    desk.show("a", desk.land(desk.write()), ttlSecondsAfterFinished=10)
    assert [c for c in desk.wait(15) if isinstance(c, DeleteJob)]


# --- one of a kind -----------------------------------------------------------------------------------------------


def test_a_second_job_with_the_same_key_ends_as_a_duplicate() -> None:
    desk, worker = leading("a", dedupKey="nightly")
    grant = worker.granted("a")
    desk.show("b", {"phase": "Pending"}, version=20, dedupKey="nightly")
    status = desk.land(desk.write())
    assert (status["phase"], conditions(status)["Failed"]) == ("Cancelled", ("True", "Duplicate"))
    desk.report(worker, "a", grant)
    desk.land(desk.write())
    desk.show("c", {"phase": "Pending"}, version=21, dedupKey="nightly")
    worker.granted("c")


def test_after_a_takeover_the_one_that_runs_is_the_one_that_stays() -> None:
    jobs = [raw_job("late", dedupKey="k", version=12, created=WALL - 5), raw_job("held", dedupKey="k", version=11)]
    desk = Desk(jobs, [raw_worker("w", "incarnation-of-w")])
    worker = Worker(desk, "w")
    worker.beat(grants=[held(GrantId(50, 1), "held")])
    desk.lead()
    ((name, phase),) = [(c.name, c.status["phase"]) for c in desk.of(WriteStatus) if c.status["phase"] == "Cancelled"]
    assert (name, phase) == ("late", "Cancelled")


# --- priority ----------------------------------------------------------------------------------------------------


def test_a_waiting_job_is_moved_up() -> None:
    desk = Desk([raw_job(f"a{number}") for number in range(20)]).lead()
    desk.take()
    desk.show("a19", {"phase": "Pending"}, version=11, priority="High")
    (ticket,) = desk.of(PublishTicket)
    assert (ticket.ticket.name, ticket.priority) == ("a19", "High")
    assert {lane[1]: out for lane, _, out in desk.leader.backlog.lanes()} == {"High": 1, "Medium": 8, "Low": 0}


def test_a_ticket_that_is_out_is_followed_by_one_of_the_new_priority() -> None:
    desk, worker = leading("a")
    desk.take()
    desk.show("a", {"phase": "Pending"}, version=11, priority="High", priorityValue=90)
    (ticket,) = desk.of(PublishTicket)
    assert ticket.priority == "High"
    worker.granted("a")
    assert refusal(worker, "a") is Refusal.TAKEN


# --- progress and checkpoints ------------------------------------------------------------------------------------


def say(worker: Worker, grant: GrantId, **word: Any) -> None:
    worker.sequence += 1
    worker.say(
        SessionMessage(
            incarnation=worker.incarnation,
            sequence=worker.sequence,
            epoch=worker.epoch,
            progress=(Progress(grant=grant, **word),),
        )
    )


def test_progress_is_written_along_with_running_and_then_now_and_then() -> None:
    desk, worker = leading("a")
    grant = worker.granted("a")
    say(worker, grant, percent=10, message="reading")
    (write,) = [c for c in desk.wait(1.5) if isinstance(c, WriteStatus)]
    status = desk.land(write)
    assert {key: status["progress"][key] for key in ("percent", "message")} == {"percent": 10, "message": "reading"}
    for percent in (20, 30, 40):
        say(worker, grant, percent=percent)
    assert not [c for c in desk.wait(4) if isinstance(c, WriteStatus)]
    (write,) = [c for c in desk.wait(2) if isinstance(c, WriteStatus)]
    assert (write.status["phase"], write.status["progress"]["percent"]) == ("Running", 40)


def test_progress_waits_for_a_busy_leader_but_not_for_ever() -> None:
    desk, worker = leading("a", "b", settings=LeaderSettings(quiet_writes=1))
    grant, other = worker.granted("a"), worker.granted("b")
    first = {write.name: write for write in desk.wait(1.5) if isinstance(write, WriteStatus)}
    desk.land(first["a"])  # that of b has no answer all the while
    say(worker, grant, percent=50)
    worker.beat(grants=[held(grant, "a"), held(other, "b")])
    assert not [c for c in desk.wait(14) if isinstance(c, WriteStatus)]
    worker.beat(grants=[held(grant, "a"), held(other, "b")])
    (write,) = [c for c in desk.wait(7) if isinstance(c, WriteStatus)]
    assert write.status["progress"]["percent"] == 50


def test_the_next_attempt_gets_the_checkpoint_of_the_last_one() -> None:
    desk, worker = leading("a", backoff={"initialSeconds": 0})
    grant = worker.granted("a")
    say(worker, grant, checkpoint={"row": 6})
    desk.report(worker, "a", grant, outcome="Failed", checkpoint={"row": 7})
    status = desk.land(desk.write())
    assert status["checkpoint"] == {"row": 7}
    number = worker.ask("a", attempt=2)
    (answer,) = [answer for answer in worker.answers() if answer.claim == number]
    assert answer.checkpoint == {"row": 7}
    assert answer.grant is not None
    desk.report(worker, "a", answer.grant, attempt=2)
    assert "checkpoint" not in desk.land(desk.write())


def test_the_checkpoint_of_a_lost_attempt_is_kept() -> None:
    desk, worker = leading("a")
    grant = worker.granted("a")
    say(worker, grant, checkpoint=[1, 2])
    for write in [c for c in desk.wait(17) if isinstance(c, WriteStatus)]:
        desk.land(write)
    desk.markers_back()
    status = desk.land(desk.of(WriteStatus)[-1])
    assert (status["phase"], status["checkpoint"], status["failures"]) == ("Retrying", [1, 2], {"workerLost": 1})


def test_a_checkpoint_that_is_too_large_is_none() -> None:
    desk, worker = leading("a")
    grant = worker.granted("a")
    say(worker, grant, checkpoint="x" * 20_000)
    desk.report(worker, "a", grant, outcome="Failed", checkpoint="y" * 20_000)
    assert "checkpoint" not in desk.land(desk.write())


def test_what_is_said_of_a_grant_that_is_over_is_not_heard() -> None:
    desk, worker = leading("a")
    say(worker, GrantId(EPOCH, 99), percent=50)
    assert not [c for c in desk.wait(8) if isinstance(c, WriteStatus) and "progress" in c.status]
