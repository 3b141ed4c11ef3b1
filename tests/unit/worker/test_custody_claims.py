"""Tickets, claims, grants: what a worker asks for, and what it may start."""

import pytest

from distriqueue_protocol.messages import Answer, GrantId, Refusal
from distriqueue_protocol.names import Priority
from distriqueue_worker.commands import Ack, Consume, HandBack, Notice, Noticed, Send, Start, StopConsuming, Tag
from tests.unit.worker.steering import EPOCH, Steering


@pytest.fixture(name="worker")
def worker_fixture() -> Steering:
    worker = Steering()
    worker.begin()
    return worker


def test_nothing_is_consumed_before_a_heartbeat_is_confirmed_and_a_leader_heard() -> None:
    worker = Steering()
    worker.connect()
    assert worker.said(Consume) == []
    worker.hear()
    assert worker.said(Consume) == []
    worker.confirm()
    assert worker.said(Consume) == [Consume(prefetch=4)]


def test_no_claim_before_the_broker_confirmed_all_consumers() -> None:
    worker = Steering()
    worker.connect()
    worker.confirm()
    worker.hear()
    worker.ticket("low", priority=Priority.LOW)
    worker.decide()
    worker.ticket("high", priority=Priority.HIGH)
    worker.be_ready()
    assert worker.claims() == ["high", "low"]


def test_high_is_claimed_before_medium_before_low_and_only_for_free_slots(worker: Steering) -> None:
    for priority in (Priority.LOW, Priority.MEDIUM, Priority.HIGH):
        worker.ticket(f"{priority}-1", priority=priority)
    worker.decide()
    assert worker.claims() == ["High-1", "Medium-1"]
    assert worker.custody.free_slots == 0


def test_claims_of_one_turn_travel_in_one_message(worker: Steering) -> None:
    before = len(worker.sent())
    worker.ticket("a")
    worker.ticket("b")
    worker.decide()
    (message,) = worker.sent()[before:]
    assert [claim.uid for claim in message.claims] == ["uid-a", "uid-b"]
    assert [claim.ticket_epoch for claim in message.claims] == [EPOCH, EPOCH]


def test_the_sequence_grows_by_one_with_every_message(worker: Steering) -> None:
    worker.ticket("a")
    worker.live(12)
    numbers = [message.sequence for message in worker.sent()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_grant_starts_the_handler_and_acknowledges_the_ticket_first(worker: Steering) -> None:
    tag = worker.ticket("a")
    worker.decide()
    grant = worker.grant(1)
    assert [command for command in worker.log if isinstance(command, Ack | Start)] == [
        Ack(tag),
        Start(grant, worker.custody.running[grant].ticket),
    ]


@pytest.mark.parametrize("refusal", list(Refusal))
def test_every_refusal_acknowledges_the_ticket_and_frees_the_slot(worker: Steering, refusal: Refusal) -> None:
    tag = worker.ticket("a")
    worker.decide()
    worker.refuse(1, refusal)
    assert worker.said(Ack) == [Ack(tag)]
    assert worker.said(Start) == []
    assert worker.custody.free_slots == 2


def test_a_slot_is_taken_from_the_claim_to_the_end_of_the_handler(worker: Steering) -> None:
    grant = worker.run("a")
    worker.ticket("b")
    worker.ticket("c")
    worker.decide()
    assert worker.claims() == ["b"]
    worker.end(grant)
    assert worker.claims() == ["b", "c"]


def test_a_claim_is_answered_once(worker: Steering) -> None:
    grant = worker.run("a")
    worker.tell(answers=(Answer(claim=1, grant=grant),))
    worker.tell(answers=(Answer(claim=1, refusal=Refusal.TAKEN),))
    assert len(worker.said(Start)) == 1
    assert grant in worker.custody.running


def test_a_grant_for_a_closed_claim_starts_nothing_and_a_heartbeat_says_so(worker: Steering) -> None:
    worker.ticket("a")
    worker.decide()
    worker.after(12.25)
    assert worker.claims() == []
    worker.begin()
    before = len(worker.heartbeats())
    worker.grant(1)
    worker.after(0.5)
    assert worker.said(Start) == []
    assert worker.heartbeats()[before].grants == ()
    assert worker.heartbeats()[before].claims == ()


def test_a_leader_of_an_old_epoch_is_not_listened_to(worker: Steering) -> None:
    running = worker.run("a")
    worker.ticket("b")
    worker.decide()
    worker.hear(EPOCH + 1)
    worker.grant(2, epoch=EPOCH)
    worker.stop(running)
    assert list(worker.custody.running) == [running]
    assert worker.custody.running[running].stopping is None
    assert worker.claims() == ["b"]
    worker.grant(2, epoch=EPOCH + 1)
    assert len(worker.custody.running) == 2


def test_a_grant_of_a_new_leader_counts_as_hearing_it(worker: Steering) -> None:
    worker.ticket("a")
    worker.decide()
    worker.grant(1, epoch=EPOCH + 5)
    assert worker.custody.epoch == EPOCH + 5
    assert len(worker.said(Start)) == 1


def test_a_new_epoch_is_answered_by_a_heartbeat_at_once_which_asks_again(worker: Steering) -> None:
    worker.ticket("a")
    worker.decide()
    before = len(worker.sent())
    worker.hear(EPOCH + 1)
    (message,) = worker.sent()[before:]
    assert message.epoch == EPOCH + 1
    assert message.heartbeat is not None
    assert message.heartbeat.claims == message.claims != ()


def test_a_claim_without_an_answer_is_asked_again_with_the_next_heartbeat(worker: Steering) -> None:
    worker.ticket("a")
    worker.decide()
    worker.live(6)
    assert [message.claims[0].id for message in worker.sent() if message.claims] == [1, 1]


def test_tickets_go_back_when_no_slot_was_free_for_half_a_second(worker: Steering) -> None:
    first, second = worker.ticket("a"), worker.ticket("b")
    waiting = worker.ticket("c")
    worker.decide()
    worker.after(0.25)
    assert worker.said(HandBack) == []
    worker.after(0.5)
    assert worker.said(HandBack) == [HandBack(waiting)]
    assert worker.said(StopConsuming) == [StopConsuming()]
    assert first != second


def test_a_worker_of_long_jobs_then_takes_no_stock(worker: Steering) -> None:
    grant = worker.run("a")
    worker.run("b")
    worker.after(1)
    worker.end(grant)
    assert worker.said(Consume) == [Consume(prefetch=4), Consume(prefetch=1)]


def test_short_jobs_bring_the_stock_back(worker: Steering) -> None:
    grant = worker.run("a")
    worker.run("b")
    worker.after(1)
    worker.end(grant)
    worker.be_ready()
    worker.end(worker.run("c"))
    assert worker.said(Consume)[-1] == Consume(prefetch=4)


def test_busy_slots_that_change_hands_quickly_keep_the_stock(worker: Steering) -> None:
    for number in range(40):
        worker.ticket(f"job-{number}")
    worker.decide()
    for number in range(1, 30):
        grant = worker.grant(number)
        worker.live(0.25)
        worker.end(grant)
    assert worker.said(HandBack) == []
    assert worker.said(StopConsuming) == []


def test_a_ticket_that_comes_after_the_consumers_were_cancelled_goes_back(worker: Steering) -> None:
    worker.run("a")
    worker.run("b")
    worker.after(1)
    late = worker.ticket("late")
    worker.decide()
    assert worker.said(HandBack)[-1] == HandBack(late)


def test_a_ticket_of_an_old_connection_is_dropped(worker: Steering) -> None:
    worker.disconnect()
    worker.begin()
    ticket = Tag(connection=1, number=77)
    worker.connection = 1
    worker.ticket("stale")
    worker.decide()
    assert worker.claims() == []
    assert HandBack(ticket) not in worker.log


def test_claims_survive_a_reconnect_without_their_delivery(worker: Steering) -> None:
    worker.ticket("claimed")
    worker.ticket("other")
    worker.ticket("unclaimed")
    worker.decide()
    worker.disconnect()
    worker.connect()
    assert worker.claims() == ["claimed", "other"]
    assert len(worker.heartbeats()[-1].claims) == 2
    assert worker.sent()[-1].claims == worker.heartbeats()[-1].claims
    worker.grant(1)
    assert worker.said(Ack) == []
    assert len(worker.said(Start)) == 1


def test_claim_numbers_never_start_again(worker: Steering) -> None:
    worker.ticket("a")
    worker.decide()
    worker.freeze(13)
    worker.decide()
    worker.begin()
    worker.ticket("b")
    worker.decide()
    assert list(worker.custody.intake.claims) == [2]


def test_a_silent_leader_closes_claims_and_keeps_handlers(worker: Steering) -> None:
    running = worker.run("runs")
    tag = worker.ticket("claimed")
    worker.decide()
    for _ in range(3):
        worker.after(4.0)
        worker.confirm()
    assert Noticed(Notice.LEADER_SILENT, {"epoch": EPOCH}) in worker.log
    assert worker.said(HandBack) == [HandBack(tag)]
    assert worker.claims() == []
    last = worker.heartbeats()[-1]
    assert not last.hears_leader
    assert last.claims == ()
    assert [held.grant for held in last.grants] == [running]
    assert worker.said(StopConsuming) == [StopConsuming()]
    assert len(worker.said(Consume)) == 1
    worker.hear()
    assert worker.heartbeats()[-1].hears_leader
    assert len(worker.said(Consume)) == 2


def test_an_old_epoch_is_not_hearing_a_leader(worker: Steering) -> None:
    for _ in range(3):
        worker.after(4.0)
        worker.confirm()
        worker.hear(EPOCH - 1)
    assert not worker.custody.hears_leader


def test_another_shards_leader_does_not_count(worker: Steering) -> None:
    worker.custody.hear_epoch(EPOCH + 7, 3, worker.now)
    assert worker.custody.epoch == EPOCH


def test_messages_that_are_not_heartbeats_renew_nothing(worker: Steering) -> None:
    worker.ticket("a")
    worker.decide()
    claim = worker.said(Send)[-1].message
    assert claim.heartbeat is None
    lease = worker.custody.lease_from
    worker.now += 1
    worker.custody.confirm_message(claim.sequence, worker.now)
    assert worker.custody.lease_from == lease


def test_a_grant_that_is_known_is_not_ignored_aloud(worker: Steering) -> None:
    grant = worker.run("a")
    worker.tell(answers=(Answer(claim=1, grant=grant),))
    worker.end(grant)
    worker.tell(answers=(Answer(claim=1, grant=grant),))
    worker.tell(answers=(Answer(claim=9, grant=GrantId(EPOCH, 99)),))
    ignored = [one.fields["grant"] for one in worker.said(Noticed) if one.event is Notice.GRANT_IGNORED]
    assert ignored == [GrantId(EPOCH, 99)]


def test_a_payload_that_comes_with_the_answer_replaces_that_of_the_ticket(worker: Steering) -> None:
    worker.ticket("job")
    worker.decide()
    grant = GrantId(EPOCH, 1)
    worker.tell(answers=(Answer(claim=1, grant=grant, payload={"to": "you"}),))
    (start,) = worker.said(Start)
    assert (start.grant, start.ticket.payload) == (grant, {"to": "you"})
    assert worker.custody.running[grant].held.uid == "uid-job"
