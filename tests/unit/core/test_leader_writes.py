"""Status writes: what is decided again, what is obeyed, and when a report is acknowledged."""

from typing import Any

import pytest

from distriqueue.api.fences import Fence
from distriqueue.api.raw import RawJobStatus
from distriqueue.core.commands import PublishTicket, WriteStatus
from distriqueue_protocol.messages import GrantId
from tests.unit.core.desk import EPOCH, WALL, Desk, Worker, acked, held, introduced, raw_job, stepped_down


def granted(**spec: Any) -> tuple[Desk, Worker, GrantId]:
    desk = Desk([raw_job("a", **spec)]).lead()
    worker = introduced(desk)
    return desk, worker, worker.granted("a")


def status(phase: str, **more: Any) -> RawJobStatus:
    whole: dict[str, Any] = {"phase": phase, "epoch": 50, **more}
    return whole  # type: ignore[return-value]  # a plain dict of a test


def test_a_report_is_acknowledged_and_settled_after_its_write_and_not_before() -> None:
    desk, worker, grant = granted()
    tag = desk.report(worker, "a", grant, result={"n": 1})
    write = desk.write()
    assert (write.status["phase"], write.status["result"]) == ("Succeeded", {"n": 1})
    assert write.resource_version == 10
    assert acked(desk.take()) == []
    desk.land(write)
    commands = desk.take()
    assert acked(commands) == [tag]
    desk.report(worker, "a", grant)
    assert desk.observed.words[-1] == "refused Unknown"


def test_a_short_job_is_one_write_and_a_longer_one_two() -> None:
    desk, worker, grant = granted()
    assert desk.wait(0.5) == []
    desk.report(worker, "a", grant)
    assert desk.land(desk.write())["phase"] == "Succeeded"
    desk, worker, grant = granted()
    running = [c for c in desk.wait(2.0) if isinstance(c, WriteStatus)]
    assert [write.status["phase"] for write in running] == ["Running"]
    assert running[0].status["attempt"] == 1
    desk.report(worker, "a", grant)
    assert desk.of(WriteStatus) == [], "one write at a time"
    desk.land(running[0])
    assert desk.write().status["phase"] == "Succeeded"


def test_an_unanswered_write_that_has_landed_is_not_written_again() -> None:
    desk, worker, grant = granted()
    tag = desk.report(worker, "a", grant)
    write = desk.write()
    desk.leader.on_reread(write.id, raw_job("a", version=11, status=write.status), desk.now)
    commands = desk.take()
    assert acked(commands) == [tag]
    assert not [c for c in commands if isinstance(c, WriteStatus)]


def test_after_a_conflict_it_is_decided_again_on_what_is_there_now() -> None:
    desk, worker, grant = granted()
    desk.report(worker, "a", grant)
    write = desk.write()
    there = status("Queued", error="from somebody else")
    desk.leader.on_reread(write.id, raw_job("a", version=11, status=there), desk.now)
    again = desk.write()
    assert again.id != write.id
    assert (again.resource_version, again.status["phase"]) == (11, "Succeeded")


def test_a_final_phase_that_somebody_else_wrote_is_obeyed() -> None:
    desk, worker, grant = granted()
    tag = desk.report(worker, "a", grant)
    write = desk.write()
    desk.leader.on_reread(write.id, raw_job("a", version=11, status=status("Dead")), desk.now)
    commands = desk.take()
    assert acked(commands) == [tag]
    assert desk.observed.words[-1] == "refused Stale"
    assert not [c for c in commands if isinstance(c, WriteStatus)]


def test_the_late_write_of_an_earlier_leader_is_obeyed_and_the_same_report_not_written_twice() -> None:
    desk = Desk([raw_job("a")])
    worker = Worker(desk)
    grant = GrantId(50, 3)
    worker.beat(reports=[held(grant, "a")])
    desk.lead()
    tag = desk.report(worker, "a", grant, outcome="Failed")
    write = desk.write()
    ended = status("Retrying", attempt=1, lastGrant={"epoch": 50, "counter": 3})
    desk.leader.on_reread(write.id, raw_job("a", version=11, status=ended), desk.now)
    commands = desk.take()
    assert acked(commands) == [tag]
    assert not [c for c in commands if isinstance(c, WriteStatus)]
    assert [c.ticket.attempt for c in commands if isinstance(c, PublishTicket)] == [2]


def test_the_same_by_the_watch_stops_a_handler_that_nobody_waits_for() -> None:
    desk, worker, grant = granted()
    ended = status("Retrying", attempt=1, lastGrant={"epoch": grant.epoch, "counter": grant.counter})
    desk.show("a", ended, version=20)
    assert [order.grant for order in worker.orders()[0]] == [grant]
    assert worker.granted("a", attempt=2) > grant


def test_what_the_watch_shows_during_a_write_is_read_after_it() -> None:
    desk, worker, _ = granted()
    (write,) = [c for c in desk.wait(2.0) if isinstance(c, WriteStatus)]
    desk.show("a", status("Cancelled"), version=5000)
    desk.land(write)
    assert [order.reason for order in worker.orders()[0]] == ["Over"]


def test_a_job_that_was_found_missing_does_not_come_back_with_an_old_event() -> None:
    desk, worker, grant = granted()
    (write,) = [c for c in desk.wait(2.0) if isinstance(c, WriteStatus)]
    desk.leader.on_reread(write.id, None, desk.now)
    assert [order.grant for order in worker.orders()[0]] == [grant]
    desk.show("a", status("Queued"), version=12)
    number = worker.ask("a")
    assert [answer.refusal for answer in worker.answers() if answer.claim == number] == ["Finished"]
    desk.leader.on_job_deleted("uid-a", desk.now)
    number = worker.ask("a")
    assert [answer.refusal for answer in worker.answers() if answer.claim == number] == ["Deleted"]


def test_another_job_of_the_same_name_is_another_job() -> None:
    desk, worker, _ = granted()
    (write,) = [c for c in desk.wait(2.0) if isinstance(c, WriteStatus)]
    other = raw_job("a", version=12)
    other["metadata"]["uid"] = "uid-other"
    desk.leader.on_reread(write.id, other, desk.now)
    assert [order.reason for order in worker.orders()[0]] == ["Deleted"]
    assert desk.of(WriteStatus) == []


def test_a_running_attempt_that_its_worker_does_not_know_is_lost() -> None:
    desk, worker, grant = granted()
    (running,) = [c for c in desk.wait(2.0) if isinstance(c, WriteStatus)]
    desk.land(running)
    worker.beat()
    write = desk.write()
    assert (write.status["phase"], write.status["attempts"][-1]["outcome"]) == ("Retrying", "Lost")
    assert write.status["lastGrant"] == {"epoch": grant.epoch, "counter": grant.counter}
    desk.land(write)
    assert worker.granted("a", attempt=2) > grant


def test_a_grant_that_never_arrived_and_was_never_written_costs_no_attempt() -> None:
    desk, worker, grant = granted()
    worker.beat()
    assert desk.observed.words[-1] == "returned"
    assert desk.of(WriteStatus) == []
    assert worker.granted("a") > grant


def test_endless_conflicts_become_slow() -> None:
    desk, worker, grant = granted()
    desk.report(worker, "a", grant)
    writes = 0
    for version in range(11, 200):
        found = desk.of(WriteStatus)
        writes += len(found)
        for write in found:
            there = status("Queued", error=str(version))
            desk.leader.on_reread(write.id, raw_job("a", version=version, status=there), desk.now)
        desk.now = desk.now._replace(mono=desk.now.mono + 0.5, wall=desk.now.wall + 0.5)
        desk.leader.tick(desk.now)
    assert 5 < writes < 30


def test_a_refused_end_of_a_lost_attempt_is_tried_again() -> None:
    desk, _, _ = granted()
    (write,) = [c for c in desk.wait(16.0) if isinstance(c, WriteStatus)]
    assert write.status["phase"] == "Running"
    desk.markers_back()
    desk.land(write)
    write = desk.write()
    assert write.status["phase"] == "Retrying"
    desk.leader.on_write_refused(write.id, frozenset(), "spec.x: something", desk.now)
    again = [c for c in desk.wait(2.0) if isinstance(c, WriteStatus)]
    assert [c.status["phase"] for c in again] == ["Retrying"]


def test_a_result_that_the_schema_refuses_fails_the_job() -> None:
    desk, worker, grant = granted()
    tag = desk.report(worker, "a", grant, result={"a": 1})
    write = desk.write()
    desk.leader.on_write_refused(write.id, frozenset(), "status.result: too odd", desk.now)
    again = desk.write()
    assert (again.status["phase"], again.status["attempts"][-1]["reason"]) == ("Failed", "ResultRefused")
    assert "result" not in again.status
    desk.land(again)
    assert acked(desk.take()) == [tag]


def test_a_refusal_by_the_fence_of_a_final_phase_settles_the_report() -> None:
    desk, worker, grant = granted()
    tag = desk.report(worker, "a", grant)
    write = desk.write()
    desk.leader.on_write_refused(write.id, frozenset({Fence.PHASE}), "fence/phase: ...", desk.now)
    commands = desk.take()
    assert acked(commands) == [tag]
    assert not [c for c in commands if isinstance(c, WriteStatus | PublishTicket)]


def test_a_refusal_by_the_fence_of_the_epoch_ends_the_term_and_acknowledges_nothing() -> None:
    desk, worker, grant = granted()
    desk.report(worker, "a", grant)
    write = desk.write()
    desk.leader.on_write_refused(write.id, frozenset({Fence.EPOCH}), "fence/epoch: ...", desk.now)
    commands = desk.take()
    assert stepped_down(commands)[0].minimum_epoch == EPOCH
    assert acked(commands) == []


def test_a_retry_time_from_a_wrong_clock_is_bounded() -> None:
    waits = status("Retrying", attempt=1, nextAttemptTime="2033-05-18T03:33:20.000000Z")
    desk = Desk([raw_job("a", status=waits, backoff={"maxSeconds": 10})]).lead()
    assert desk.leader.backlog.retrying == 1
    commands = desk.wait(20.5)
    assert [c.ticket.attempt for c in commands if isinstance(c, PublishTicket)] == [2]


def test_a_deleted_job_is_stopped_and_its_report_settled() -> None:
    desk, worker, grant = granted()
    desk.leader.on_job_deleted("uid-a", desk.now)
    assert [(order.grant, order.reason) for order in worker.orders()[0]] == [(grant, "Deleted")]
    tag = desk.report(worker, "a", grant)
    commands = desk.take()
    assert acked(commands) == [tag]
    assert not [c for c in commands if isinstance(c, WriteStatus)]


def test_a_job_that_is_being_deleted_counts_as_gone() -> None:
    desk, worker, grant = granted()
    going = raw_job("a", version=11)
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    desk.leader.on_job(going, desk.now)
    assert [order.grant for order in worker.orders()[0]] == [grant]


def test_a_payload_over_the_limit_is_refused_with_the_limit_in_words() -> None:
    desk = Desk([raw_job("a", payload={"text": "x" * 70_000})]).lead()
    write = desk.write()
    assert write.status["phase"] == "Failed"
    conditions = {condition["type"]: condition for condition in write.status["conditions"]}
    assert conditions["Accepted"]["status"] == "False"
    assert conditions["Failed"]["reason"] == "PayloadTooLarge"
    assert "65536" in conditions["Failed"]["message"]
    desk.leader.on_reread(write.id, raw_job("a", version=11, status=status("Pending", attempt=1)), desk.now)
    again = desk.write()
    assert (again.resource_version, again.status["attempt"]) == (11, 1), "decided on what is there"
    desk.land(again)
    assert desk.of(WriteStatus) == []
    assert desk.of(PublishTicket) == []


@pytest.mark.parametrize("levels", [191, 300, 1000])
def test_a_payload_that_is_nested_too_deeply_is_refused_and_holds_nobody_up(levels: int) -> None:
    payload: dict[str, Any] = {}
    for _ in range(levels - 1):
        payload = {"a": payload}
    desk = Desk([raw_job("a", payload=payload), raw_job("b", payload=payload["a"] if levels == 191 else {})]).lead()
    assert [command.ticket.name for command in desk.of(PublishTicket)] == ["b"]
    write = desk.write()
    assert (write.name, write.status["phase"]) == ("a", "Failed")
    assert write.status["conditions"][0]["reason"] == "InvalidPayload"
    assert "190 levels" in write.status["error"]


def test_a_spec_that_is_none_is_refused() -> None:
    desk = Desk([raw_job("a", type="")]).lead()
    assert desk.write().status["conditions"][0]["reason"] == "InvalidSpec"
    desk = Desk([raw_job("a", priority="Urgent")]).lead()
    assert "Urgent" in desk.write().status["error"]


def test_a_job_is_forgotten_only_when_the_watch_shows_it_final() -> None:
    desk, worker, grant = granted()
    desk.report(worker, "a", grant)
    write = desk.write()
    final = desk.land(write)
    desk.take()
    # An event from before: the job must not begin again.
    desk.show("a", status("Queued"), version=10)
    number = worker.ask("a", attempt=1)
    assert [answer.refusal for answer in worker.answers() if answer.claim == number] == ["Finished"]
    desk.show("a", final)
    number = worker.ask("a", attempt=1)
    assert [answer.refusal for answer in worker.answers() if answer.claim == number] == ["Deleted"]
    assert desk.of(PublishTicket) == []


def test_the_wall_clock_is_only_written_down() -> None:
    desk, worker, grant = granted()
    desk.now = desk.now._replace(wall=WALL - 7200)
    desk.report(worker, "a", grant)
    assert desk.land(desk.write())["phase"] == "Succeeded"


def test_a_spec_that_makes_no_ticket_is_refused_and_holds_nobody_up() -> None:
    desk = Desk([raw_job("a", timeoutSeconds=0), raw_job("b")]).lead()
    assert [command.ticket.name for command in desk.of(PublishTicket)] == ["b"]
    write = desk.write()
    assert (write.name, write.status["conditions"][0]["reason"]) == ("a", "InvalidSpec")
    assert "timeoutSeconds" in write.status["error"]
    desk.land(write)
    assert desk.leader.backlog.retrying == 0
    assert {out for _, _, out in desk.leader.backlog.lanes()} == {0, 1}
