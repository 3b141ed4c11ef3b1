"""Reports, stop orders and leaving: how a worker lets go of what it has."""

import pytest

from distriqueue_protocol.messages import Outcome, StopReason
from distriqueue_worker.commands import (
    EXIT_DONE,
    EXIT_FENCED,
    EXIT_UNCONFIRMED,
    Consume,
    Exit,
    HandBack,
    OwnStop,
    Start,
    Stop,
    StopConsuming,
)
from tests.unit.worker.steering import DONE, END, START, Steering


@pytest.fixture(name="worker")
def worker_fixture() -> Steering:
    worker = Steering()
    worker.begin()
    return worker


def test_a_report_says_what_was_run_by_whom_and_when(worker: Steering) -> None:
    grant = worker.run("a")
    worker.end(grant)
    (report,) = worker.published()
    assert (report.namespace, report.name, report.uid, report.attempt) == ("test", "a", "uid-a", 1)
    assert (report.grant, report.worker, report.incarnation) == (grant, "w", "incarnation-1")
    assert (report.outcome, report.result) == (Outcome.SUCCEEDED, {"done": True})
    assert (report.start_time, report.completion_time) == (START, END)


def test_a_report_is_published_again_until_it_is_confirmed(worker: Steering) -> None:
    grant = worker.run("a")
    worker.end(grant)
    for expected in (2, 3, 4):
        worker.custody.fail_report(grant, worker.now)
        worker.live(5)
        assert len(worker.published()) == expected


def test_a_report_under_way_is_not_published_twice(worker: Steering) -> None:
    worker.end(worker.run("a"))
    worker.live(30)
    assert len(worker.published()) == 1


def test_a_confirmed_report_is_sent_again_after_5_s_and_then_every_10_s_until_settled(worker: Steering) -> None:
    grant = worker.run("a")
    worker.end(grant)
    times = []
    for _ in range(140):
        before = len(worker.published())
        worker.custody.confirm_report(grant, worker.now)
        due = worker.now
        while len(worker.published()) == before and worker.now - due < 20:
            worker.live(0.25)
        times.append(worker.now - due)
        if len(times) == 3:
            break
    assert times == [5.0, 10.0, 10.0]
    worker.tell(settled=(grant,))
    before = len(worker.published())
    worker.live(30)
    assert len(worker.published()) == before


def test_reports_are_listed_until_they_are_settled(worker: Steering) -> None:
    grant = worker.run("a")
    worker.end(grant)
    worker.custody.confirm_report(grant, worker.now)
    worker.live(6)
    assert [held.grant for held in worker.heartbeats()[-1].reports] == [grant]
    assert worker.heartbeats()[-1].grants == ()
    worker.tell(settled=(grant,))
    worker.live(6)
    assert worker.heartbeats()[-1].reports == ()


def test_reports_survive_a_reconnect(worker: Steering) -> None:
    grant = worker.run("a")
    worker.end(grant)
    worker.disconnect()
    worker.connect()
    assert [report.grant for report in worker.published()] == [grant, grant]


def test_a_report_that_ends_while_disconnected_is_published_afterwards(worker: Steering) -> None:
    grant = worker.run("a")
    worker.disconnect()
    worker.end(grant)
    assert worker.published() == []
    worker.connect()
    assert [report.grant for report in worker.published()] == [grant]


def test_a_report_settled_before_it_was_published_is_not_published() -> None:
    worker = Steering()
    worker.begin()
    grant = worker.run("a")
    worker.disconnect()
    worker.end(grant)
    worker.tell(settled=(grant,))
    worker.connect()
    assert worker.published() == []
    assert worker.custody.ledger.unconfirmed == 0


def test_a_stop_order_stops_the_handler_and_its_result_is_not_reported(worker: Steering) -> None:
    grant = worker.run("a")
    worker.stop(grant)
    worker.stop(grant)
    assert worker.said(Stop) == [Stop(grant, StopReason.OVER, at_once=True)]
    worker.live(5)
    assert [held.grant for held in worker.heartbeats()[-1].grants] == [grant]  # it is not dead yet
    worker.end(grant, DONE)
    worker.after(0.5)
    assert worker.published() == []
    assert worker.heartbeats()[-1].grants == ()
    assert worker.custody.free_slots == 2


def test_a_stop_order_for_what_is_not_held_does_nothing(worker: Steering) -> None:
    grant = worker.run("a")
    worker.end(grant)
    worker.stop(grant)
    assert worker.said(Stop) == []
    assert len(worker.custody.ledger) == 1


def confirm_all(worker: Steering) -> None:
    for report in worker.published():
        worker.custody.confirm_report(report.grant, worker.now)
    worker.decide()


def exits(worker: Steering) -> list[int]:
    return [command.code for command in worker.said(Exit)]


def test_an_idle_worker_leaves_with_a_last_word(worker: Steering) -> None:
    worker.custody.shut_down(25, worker.now)
    worker.decide()
    assert worker.said(StopConsuming) == [StopConsuming()]
    last = worker.heartbeats()[-1]
    assert last.draining
    assert last.leaving
    assert exits(worker) == []
    worker.confirm()
    assert exits(worker) == [EXIT_DONE]


def test_a_draining_worker_says_so_at_once_and_lets_handlers_finish(worker: Steering) -> None:
    grant = worker.run("a")
    worker.custody.shut_down(25, worker.now)
    worker.decide()
    assert worker.heartbeats()[-1].draining
    assert not worker.heartbeats()[-1].leaving
    worker.live(20)
    assert worker.said(Stop) == []
    worker.end(grant)
    worker.live(1)
    assert not worker.heartbeats()[-1].leaving  # the broker has not confirmed the report
    confirm_all(worker)
    worker.tell(settled=(grant,))
    assert worker.heartbeats()[-1].leaving
    worker.confirm()
    assert exits(worker) == [EXIT_DONE]


def test_a_leaving_worker_lists_what_is_not_settled_even_in_its_last_heartbeat(worker: Steering) -> None:
    grant = worker.run("a")
    worker.custody.shut_down(25, worker.now)
    worker.end(grant)
    confirm_all(worker)
    worker.live(1.5)
    assert not worker.heartbeats()[-1].leaving  # the leader gets a moment to settle it
    worker.live(1)
    last = worker.heartbeats()[-1]
    assert last.leaving
    assert [held.grant for held in last.reports] == [grant]
    assert exits(worker) == [EXIT_DONE]


def test_open_claims_get_a_moment_for_their_answers(worker: Steering) -> None:
    worker.ticket("granted")
    back = worker.ticket("unanswered")
    worker.ticket("unclaimed")
    worker.decide()
    worker.custody.shut_down(25, worker.now)
    worker.decide()
    assert len(worker.said(HandBack)) == 1
    worker.grant(1)
    assert len(worker.said(Start)) == 1
    worker.live(1)
    assert worker.claims() == []
    assert worker.said(HandBack)[-1] == HandBack(back)
    assert len(worker.said(Consume)) == 1


def test_a_worker_does_not_leave_while_a_claim_is_open(worker: Steering) -> None:
    worker.ticket("unanswered")
    worker.decide()
    worker.custody.shut_down(25, worker.now)
    worker.decide()
    assert worker.heartbeats()[-1].claims != ()
    assert not worker.heartbeats()[-1].leaving
    worker.custody.shut_down(0, worker.now)
    worker.decide()
    assert worker.claims() == []
    assert worker.heartbeats()[-1].leaving


def test_when_the_grace_is_over_handlers_are_stopped_and_reported_interrupted(worker: Steering) -> None:
    grant = worker.run("a")
    worker.custody.shut_down(3, worker.now)
    worker.live(3)
    assert worker.said(Stop) == [Stop(grant, OwnStop.SHUTDOWN, at_once=True)]
    worker.end(grant, None)
    (report,) = worker.published()
    assert (report.outcome, report.reason) == (Outcome.INTERRUPTED, "WorkerStopped")


def test_a_second_request_ends_the_grace(worker: Steering) -> None:
    grant = worker.run("a")
    worker.custody.shut_down(25, worker.now)
    worker.live(1)
    worker.custody.shut_down(0, worker.now)
    worker.decide()
    assert worker.said(Stop) == [Stop(grant, OwnStop.SHUTDOWN, at_once=True)]


def test_a_handler_that_survives_the_grace_ends_with_the_process(worker: Steering) -> None:
    worker.run("immortal")
    worker.custody.shut_down(0, worker.now)
    worker.live(1.75)
    assert exits(worker) == []
    worker.live(0.5)
    assert exits(worker) == [EXIT_FENCED]
    assert worker.published() == []


def test_a_broker_that_confirms_no_reports_does_not_hold_the_worker_for_ever(worker: Steering) -> None:
    worker.end(worker.run("a"))
    worker.custody.shut_down(0, worker.now)
    worker.live(14)
    assert exits(worker) == []
    worker.live(1.25)
    assert exits(worker) == [EXIT_UNCONFIRMED]


def test_an_idle_worker_leaves_also_without_a_broker(worker: Steering) -> None:
    worker.disconnect()
    worker.custody.shut_down(25, worker.now)
    worker.decide()
    worker.after(4)
    assert exits(worker) == [EXIT_DONE]


def test_a_last_word_that_was_lost_is_said_again(worker: Steering) -> None:
    worker.custody.shut_down(25, worker.now)
    worker.decide()
    worker.disconnect()
    worker.connect()
    assert worker.heartbeats()[-1].leaving
    worker.confirm()
    assert exits(worker) == [EXIT_DONE]


def test_a_draining_worker_that_loses_its_lease_still_leaves(worker: Steering) -> None:
    grant = worker.run("a")
    worker.custody.shut_down(25, worker.now)
    worker.after(12.25)
    worker.end(grant, None)
    worker.connect()
    assert worker.custody.incarnation == "incarnation-2"
    assert worker.heartbeats()[-1].leaving
    worker.confirm()
    assert exits(worker) == [EXIT_DONE]
