"""The lease of a worker: what happens when it cannot prove that it is alive, and after a freeze."""

import pytest

from distriqueue_protocol.messages import GrantId
from distriqueue_worker.commands import (
    EXIT_FENCED,
    Exit,
    HandBack,
    Notice,
    Noticed,
    OwnStop,
    Reconnect,
    Start,
    Stop,
)
from tests.unit.worker.steering import DONE, Steering


@pytest.fixture(name="worker")
def worker_fixture() -> Steering:
    worker = Steering()
    worker.begin()
    return worker


def noticed(worker: Steering, event: Notice) -> int:
    return sum(one.event is event for one in worker.said(Noticed))


def test_at_12_s_claims_are_closed_tickets_handed_back_and_handlers_stopped(worker: Steering) -> None:
    grant = worker.run("runs")
    claimed = worker.ticket("claimed")
    worker.decide()
    worker.after(11.75)
    assert worker.said(Stop) == []
    worker.hear()  # the leader speaks, but the broker confirms nothing
    worker.after(0.25)
    assert worker.said(Stop) == [Stop(grant, OwnStop.LEASE_LOST, at_once=True)]
    assert worker.said(HandBack) == [HandBack(claimed)]
    assert worker.claims() == []


def test_the_lease_counts_from_when_the_confirmed_heartbeat_was_sent(worker: Steering) -> None:
    worker.run("runs")
    worker.after(5)  # a heartbeat goes out
    worker.after(4)
    worker.confirm()  # and is confirmed 4 s later
    worker.hear()
    worker.after(7.75)
    assert worker.said(Stop) == []
    worker.after(0.25)
    assert len(worker.said(Stop)) == 1


def test_a_fenced_worker_says_nothing_until_its_handlers_are_dead(worker: Steering) -> None:
    grant = worker.run("runs")
    worker.after(12)
    sent = len(worker.sent())
    worker.ticket("more")
    worker.hear(99)
    worker.after(1)
    assert len(worker.sent()) == sent
    assert worker.custody.incarnation == "incarnation-1"
    worker.end(grant, None)
    assert worker.custody.incarnation == "incarnation-2"
    assert worker.said(Reconnect) == [Reconnect()]
    assert worker.published() == []


def test_a_confirmation_while_handlers_are_being_stopped_gives_them_no_time(worker: Steering) -> None:
    worker.run("runs")
    worker.after(5)
    worker.after(7)
    overdue = worker.custody.overdue_at
    before = noticed(worker, Notice.HEARTBEAT_CONFIRMED)
    worker.confirm()
    assert worker.custody.overdue_at == overdue
    assert noticed(worker, Notice.HEARTBEAT_CONFIRMED) == before


def test_nothing_of_the_new_incarnation_goes_through_the_old_connection(worker: Steering) -> None:
    worker.after(12)
    assert worker.custody.incarnation == "incarnation-2"
    sent = len(worker.sent())
    worker.hear(99)
    worker.after(10)
    assert len(worker.sent()) == sent
    worker.connect()
    assert worker.sent()[-1].incarnation == "incarnation-2"


def test_the_new_incarnation_names_the_old_one_and_asks_for_nothing_before_it_is_registered(worker: Steering) -> None:
    grant = worker.run("runs")
    worker.after(12)
    worker.end(grant, None)
    worker.connect()
    message = worker.sent()[-1]
    assert message.incarnation == "incarnation-2"
    assert message.heartbeat is not None
    assert message.heartbeat.registration.supersedes == "incarnation-1"
    assert message.heartbeat.grants == ()
    assert not worker.custody.registered
    worker.hear()
    worker.confirm()
    assert worker.custody.registered


def test_handlers_that_do_not_die_by_14_s_take_the_process_with_them(worker: Steering) -> None:
    worker.run("immortal")
    worker.after(13.75)
    assert worker.said(Exit) == []
    worker.after(0.25)
    assert [command.code for command in worker.said(Exit)] == [EXIT_FENCED]


def test_a_worker_with_nothing_in_hand_becomes_a_new_incarnation_at_once(worker: Steering) -> None:
    worker.after(12)
    assert worker.custody.incarnation == "incarnation-2"
    assert worker.said(Exit) == []


def test_without_a_lease_no_new_incarnations_are_made_while_the_broker_is_away(worker: Steering) -> None:
    worker.disconnect()
    worker.after(60)
    assert noticed(worker, Notice.REBORN) == 1


def test_a_freeze_is_noticed_before_the_event_that_waited(worker: Steering) -> None:
    worker.ticket("a")
    worker.decide()
    worker.freeze(20)
    worker.grant(1)
    assert worker.said(Start) == []
    assert worker.custody.incarnation == "incarnation-2"


def test_a_confirmation_that_waited_through_a_freeze_renews_nothing(worker: Steering) -> None:
    grant = worker.run("runs")
    worker.after(5)
    worker.freeze(20)
    worker.confirm()
    assert worker.said(Stop) == [Stop(grant, OwnStop.LEASE_LOST, at_once=True)]


def test_a_confirmation_of_a_heartbeat_sent_too_long_ago_registers_nobody() -> None:
    worker = Steering()
    worker.connect()
    worker.freeze(13)
    worker.confirm()
    assert worker.custody.incarnation == "incarnation-2"
    assert not worker.custody.registered


def test_after_a_freeze_past_the_end_handlers_get_a_moment_to_die(worker: Steering) -> None:
    grant = worker.run("runs")
    worker.freeze(60)
    worker.decide()
    assert worker.said(Stop) == [Stop(grant, OwnStop.LEASE_LOST, at_once=True)]
    assert worker.said(Exit) == []
    worker.after(0.25)
    assert [command.code for command in worker.said(Exit)] == [EXIT_FENCED]


def test_a_result_that_was_reached_is_reported_under_the_incarnation_that_earned_it(worker: Steering) -> None:
    grant = worker.run("runs")
    worker.freeze(20)
    worker.end(grant, DONE)  # it ended while nobody looked
    assert worker.custody.incarnation == "incarnation-2"
    worker.connect()
    (report,) = worker.published()
    assert report.grant == grant
    assert report.incarnation == "incarnation-1"
    assert worker.custody.answer_keys() == ("incarnation-2", "incarnation-1")
    assert [held.grant for held in worker.heartbeats()[-1].reports] == [grant]


def test_what_a_watchdog_sees(worker: Steering) -> None:
    assert worker.custody.overdue_at is None
    grant = worker.run("runs")
    assert worker.custody.overdue_at == 13.5
    worker.after(12)
    assert worker.custody.overdue_at == 14.0
    worker.end(grant, None)
    assert worker.custody.overdue_at is None


def test_a_reconnect_within_the_lease_loses_nothing(worker: Steering) -> None:
    grant = worker.run("runs")
    worker.after(3)
    worker.disconnect()
    worker.after(3)
    worker.connect()
    assert [held.grant for held in worker.heartbeats()[-1].grants] == [grant]
    worker.confirm()
    worker.hear()
    worker.after(6)
    assert worker.said(Stop) == []
    assert worker.custody.incarnation == "incarnation-1"


def test_a_confirmation_of_the_lost_connection_does_not_count(worker: Steering) -> None:
    worker.after(5)
    late = worker.sent()[-1]
    worker.disconnect()
    lease = worker.custody.lease_from
    worker.custody.confirm_message(late.sequence, worker.now)
    assert worker.custody.lease_from == lease


def test_a_grant_cannot_come_back_from_the_dead(worker: Steering) -> None:
    worker.custody.end(GrantId(1, 1), DONE, "2026-11-22T10:00:01.000000Z", worker.now)
    worker.decide()
    assert worker.published() == []
