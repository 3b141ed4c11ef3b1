"""Claims, grants and reports."""

import pytest

from distriqueue.core.commands import CallRoll, DeclarePool, PublishTicket, WriteStatus, WriteWorker
from distriqueue_protocol.messages import GrantId, Refusal, SessionMessage
from distriqueue_protocol.names import Priority
from tests.unit.core.desk import EPOCH, Desk, Worker, acked, held, introduced, raw_job, raw_worker


def refusal(worker: Worker, name: str, *, attempt: int = 1) -> Refusal | None:
    number = worker.ask(name, attempt=attempt)
    (answer,) = [answer for answer in worker.answers() if answer.claim == number]
    return answer.refusal


def test_a_claim_is_granted_once() -> None:
    desk = Desk([raw_job("a")]).lead()
    one, two = introduced(desk, "one"), introduced(desk, "two")
    assert one.granted("a") == GrantId(EPOCH, 1)
    assert refusal(two, "a") is Refusal.TAKEN
    assert refusal(one, "a") is Refusal.TAKEN, "a second claim for the same attempt"
    assert desk.leader.held == 1


def test_why_claims_are_refused() -> None:
    late, big = {"initialSeconds": 60}, {"x": "y" * 70_000}
    desk = Desk([raw_job("a"), raw_job("b", backoff=late), raw_job("c", payload=big)]).lead()
    refused = desk.write()
    worker = introduced(desk)
    assert refusal(worker, "nobody") is Refusal.DELETED
    assert refusal(worker, "a", attempt=2) is Refusal.OLD_ATTEMPT
    assert refusal(worker, "c") is Refusal.FINISHED, "the leader is about to refuse it"
    desk.land(refused)
    grant = worker.granted("b")
    desk.report(worker, "b", grant, outcome="Failed")
    write = desk.write()
    assert refusal(worker, "b", attempt=2) is Refusal.TAKEN, "its end is being written"
    desk.land(write)
    assert refusal(worker, "b") is Refusal.OLD_ATTEMPT
    assert refusal(worker, "b", attempt=2) is Refusal.OLD_ATTEMPT, "not due yet"
    desk.report(worker, "a", worker.granted("a"))
    desk.land(desk.write())
    assert refusal(worker, "a", attempt=2) is Refusal.FINISHED


def test_the_same_claim_gets_the_same_answer_and_a_refusal_stays_one() -> None:
    desk = Desk([raw_job("a"), raw_job("b")]).lead()
    worker, other = introduced(desk), introduced(desk, "other")
    grant = other.granted("b")
    first, second = worker.ask("a"), worker.ask("b")
    before = {answer.claim: answer for answer in worker.answers()}
    assert before[first].grant is not None
    assert before[second].refusal is Refusal.TAKEN
    other.beat()  # it never had it: the slot is free
    assert grant not in {slot.grant for slot in desk.leader.roster.sessions[other.incarnation].slots.values()}
    worker.beat()
    assert {answer.claim: answer for answer in worker.answers()} == before
    # A claim that is asked again beside the heartbeat, as after a reconnect.
    worker.sequence += 1
    worker.say(
        SessionMessage(
            incarnation=worker.incarnation, sequence=worker.sequence, epoch=EPOCH, claims=tuple(worker.open.values())
        )
    )
    assert {answer.claim: answer for answer in worker.answers()} == before


def test_nothing_is_granted_before_a_resource_names_the_worker() -> None:
    desk = Desk([raw_job("a")]).lead()
    worker = Worker(desk)
    worker.beat()
    worker.ask("a")
    assert worker.answers() == []
    commands = desk.wait(0.5)
    assert [command.name for command in commands if isinstance(command, WriteWorker)] == ["w"]
    assert desk.leader.held == 1


def test_a_deleted_resource_is_written_again_before_the_next_grant() -> None:
    desk = Desk([raw_job("a")]).lead()
    worker = introduced(desk)
    desk.take()
    desk.leader.on_worker_vanished("w", desk.now)
    worker.ask("a")
    assert desk.leader.take() == []
    desk.wait(0.5)
    assert desk.leader.held == 1


def test_a_grant_in_flight_keeps_the_slot_while_the_claim_is_listed() -> None:
    desk = Desk([raw_job("a")]).lead()
    worker = introduced(desk)
    worker.ask("a")
    for _ in range(3):
        worker.beat()
        assert desk.leader.held == 1
    worker.open.clear()
    worker.beat()
    assert desk.leader.held == 0
    assert desk.observed.words == ["Granted", "returned"]


def test_a_worker_that_leaves_before_its_grant_arrives_costs_no_attempt() -> None:
    desk = Desk([raw_job("a")]).lead()
    worker = introduced(desk)
    worker.granted("a")
    worker.beat(leaving=True)
    assert desk.observed.words == ["Granted", "returned"]
    assert introduced(desk, "next").granted("a") == GrantId(EPOCH, 2)


def test_a_worker_that_leaves_with_a_report_under_way_is_waited_for() -> None:
    desk = Desk([raw_job("a")]).lead()
    worker = introduced(desk)
    grant = worker.granted("a")
    worker.beat(leaving=True, reports=[held(grant, "a")])
    desk.idle(0.5)
    # The marker went out after that word: the report stands before it.
    tag = desk.report(worker, "a", grant)
    desk.idle(0.5)
    desk.markers_back()
    write = desk.write()
    assert write.status["phase"] == "Succeeded"
    desk.land(write)
    assert acked(desk.take()) == [tag]


def test_a_pod_that_has_ended_is_lost_as_soon_as_the_markers_are_back() -> None:
    desk = Desk([raw_job("a")]).lead()
    worker = introduced(desk, pod="pod-1")
    worker.granted("a")
    desk.leader.on_pod_ended("another", desk.now)
    desk.leader.on_pod_ended("pod-1", desk.now)
    worker.ask("a")
    assert worker.answers() == []
    desk.idle(0.5)  # that claim was a word of it: the question is asked again
    desk.markers_back()
    assert desk.observed.words == ["Granted", "lost PodGone"]
    write = desk.write()
    assert (write.status["attempts"][-1]["outcome"], write.status["attempts"][-1]["reason"]) == ("Lost", "WorkerLost")


def test_of_several_grants_the_highest_holds_the_slot() -> None:
    desk = Desk([raw_job("a")], [raw_worker("one", "incarnation-of-one"), raw_worker("two", "incarnation-of-two")])
    one, two = Worker(desk, "one"), Worker(desk, "two")
    low, high = GrantId(50, 1), GrantId(50, 2)
    one.beat(grants=[held(low, "a")])
    two.beat(grants=[held(high, "a")])
    assert [order.grant for order in one.orders()[0]] == [low]
    one.beat(grants=[held(low, "a")])
    assert [order.grant for order in one.orders()[0]] == [low], "until it is not listed any more"
    desk.lead()
    tag = desk.report(one, "a", low)
    assert acked(desk.take()) == [tag]
    assert desk.observed.words == ["refused Stale"]
    desk.report(two, "a", high)
    assert desk.write().status["lastGrant"] == {"epoch": 50, "counter": 2}


def test_a_lower_grant_that_comes_second_is_stopped() -> None:
    desk = Desk([raw_job("a")])
    one, two = Worker(desk, "one"), Worker(desk, "two")
    low, high = GrantId(50, 1), GrantId(50, 2)
    two.beat(grants=[held(high, "a")])
    one.beat(grants=[held(low, "a")])
    assert [order.grant for order in one.orders()[0]] == [low]
    assert desk.leader.held == 1


def test_a_report_nobody_contradicts_is_accepted() -> None:
    desk = Desk([raw_job("a")]).lead()
    tag = desk.report(Worker(desk, "stranger"), "a", GrantId(50, 7), attempt=3)
    write = desk.write()
    assert (write.status["phase"], write.status["attempt"]) == ("Succeeded", 3)
    desk.land(write)
    assert acked(desk.take()) == [tag]


@pytest.mark.parametrize(
    ("grant", "word"),
    [(GrantId(60, 5), "refused Duplicate"), (GrantId(60, 4), "refused Stale"), (GrantId(50, 99), "refused Stale")],
)
def test_a_report_that_is_not_above_last_grant_is_refused_and_settled(grant: GrantId, word: str) -> None:
    status = {"phase": "Retrying", "attempt": 1, "epoch": 60, "lastGrant": {"epoch": 60, "counter": 5}}
    desk = Desk([raw_job("a", status=status)]).lead()  # type: ignore[arg-type]  # a plain dict
    worker = introduced(desk)
    tag = desk.report(worker, "a", grant)
    assert desk.observed.words == [word]
    assert worker.orders()[1] == [grant]
    assert acked(desk.take()) == [tag]
    assert desk.of(WriteStatus) == []


def test_a_report_that_comes_twice_before_its_write_is_acknowledged_twice_and_written_once() -> None:
    desk = Desk([raw_job("a")]).lead()
    worker = introduced(desk)
    grant = worker.granted("a")
    tags = [desk.report(worker, "a", grant), desk.report(worker, "a", grant)]
    write = desk.write()
    assert acked(desk.take()) == []
    desk.land(write)
    assert acked(desk.take()) == tags


def test_what_is_over_is_stopped_and_settled_again_and_again() -> None:
    desk = Desk().lead()
    worker = introduced(desk)
    running, reported = GrantId(50, 1), GrantId(50, 2)
    for _ in range(2):
        worker.beat(grants=[held(running, "gone")], reports=[held(reported, "gone")])
        stops, settled = worker.orders()
        assert [order.grant for order in stops] == [running]
        assert settled == [reported]


def test_a_report_that_is_listed_and_not_here_yet_is_not_settled() -> None:
    desk = Desk([raw_job("a")]).lead()
    worker = introduced(desk)
    grant = worker.granted("a")
    worker.beat(reports=[held(grant, "a")])
    assert worker.orders() == ([], [])
    assert desk.leader.held == 1


def test_high_before_medium_before_low_and_the_oldest_first() -> None:
    jobs = [raw_job(f"low-{number}", priority="Low") for number in range(30)]
    desk = Desk(jobs).lead()
    desk.take()
    desk.show("urgent", {"phase": "Pending"}, priority="High")
    (ticket,) = desk.of(PublishTicket)
    assert (ticket.ticket.name, ticket.priority) == ("urgent", Priority.HIGH)


def test_a_ticket_that_was_not_taken_is_published_again_with_its_queues() -> None:
    desk = Desk([raw_job("a")]).lead()
    (ticket,) = desk.of(PublishTicket)
    desk.take()
    desk.leader.on_ticket_failed(ticket.uid, ticket.number)
    commands = desk.take()
    assert [command.pool for command in commands if isinstance(command, DeclarePool)] == ["default"]
    assert not [command for command in commands if isinstance(command, PublishTicket)], "not in a circle without end"
    (again,) = [command for command in desk.wait(0.5) if isinstance(command, PublishTicket)]
    assert again.number > ticket.number
    desk.leader.on_ticket_failed(ticket.uid, ticket.number)
    assert desk.of(PublishTicket) == [], "that was the old one"


def test_a_ticket_that_nobody_claims_though_slots_are_free_is_sent_again() -> None:
    desk = Desk([raw_job("a")]).lead()
    desk.take()
    assert [c for c in desk.wait(40.0) if isinstance(c, PublishTicket)] == [], "there is no worker"
    worker = introduced(desk)
    tickets = []
    for _ in range(10):
        worker.beat()
        tickets += [c for c in desk.wait(4.0) if isinstance(c, PublishTicket)]
    assert 2 <= len(tickets) <= 3, "every 15 s"


def test_a_ticket_that_is_out_for_long_is_shown_as_queued() -> None:
    desk = Desk([raw_job("a")]).lead()
    (ticket,) = desk.of(PublishTicket)
    desk.leader.on_ticket_confirmed(ticket.uid, ticket.number, queued_time="2026-01-01T00:00:00.000000Z")
    assert [c for c in desk.wait(2.5) if isinstance(c, WriteStatus)] == []
    (write,) = [c for c in desk.wait(1.0) if isinstance(c, WriteStatus)]
    assert (write.status["phase"], write.status["queuedTime"]) == ("Queued", "2026-01-01T00:00:00.000000Z")
    assert "attempt" not in write.status


def test_the_roll_is_called_every_four_seconds() -> None:
    desk = Desk()
    assert len([c for c in desk.wait(20.0) if isinstance(c, CallRoll)]) == 6


def test_a_worker_of_an_impossible_pool_gets_no_queues() -> None:
    desk = Desk().lead()
    worker = Worker(desk)
    worker.registration = worker.registration.model_copy(update={"pool": "*"})
    worker.beat()
    assert desk.observed.words == ["ignored InvalidPool"]
    assert not [c for c in desk.wait(1.0) if isinstance(c, DeclarePool | WriteWorker)]


def test_a_lower_grant_whose_end_is_being_written_is_refused_only_if_that_write_does_not_land() -> None:
    low, high = GrantId(50, 1), GrantId(50, 2)
    for lands in (True, False):
        desk = Desk([raw_job("a")])
        one, two = Worker(desk, "one"), Worker(desk, "two")
        tag = desk.report(one, "a", low, outcome="Failed")
        write = desk.write()
        two.beat(grants=[held(high, "a")])
        assert acked(desk.take()) == []
        if lands:
            assert desk.land(write)["phase"] == "Retrying"
        else:
            desk.leader.on_reread(write.id, raw_job("a", version=11), desk.now)
        assert acked(desk.take()) == [tag]
        assert desk.observed.words == ([] if lands else ["refused Stale"])
        assert desk.leader.held == 1, "the higher one holds the slot"
        desk.report(two, "a", high, attempt=2)
        assert desk.write().status["phase"] == "Succeeded"
