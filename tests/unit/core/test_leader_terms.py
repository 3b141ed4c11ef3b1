"""How a term begins and ends."""

from distriqueue.core.commands import PublishTicket, WriteStatus
from distriqueue.core.leader import Step
from distriqueue_protocol.messages import GrantId
from tests.unit.core.desk import EPOCH, Desk, Worker, held, introduced, raw_job, raw_worker, stepped_down


def test_a_status_of_a_later_epoch_ends_the_term() -> None:
    desk = Desk([raw_job("a", status={"phase": "Pending", "epoch": EPOCH + 7})])
    (down,) = stepped_down(desk.take())
    assert down.minimum_epoch == EPOCH + 7


def test_a_worker_resource_of_a_later_epoch_ends_the_term() -> None:
    desk = Desk([], [raw_worker("w", "incarnation-1", epoch=EPOCH + 3)])
    assert stepped_down(desk.take())[0].minimum_epoch == EPOCH + 3


def test_a_worker_that_heard_a_later_epoch_ends_the_term() -> None:
    desk = Desk([raw_job("a")]).lead()
    worker = Worker(desk)
    worker.epoch = EPOCH + 1
    worker.beat()
    assert stepped_down(desk.take())[0].minimum_epoch == EPOCH + 1


def test_a_report_of_a_later_epoch_ends_the_term_and_is_not_acknowledged() -> None:
    desk = Desk([raw_job("a")]).lead()
    desk.report(introduced(desk), "a", GrantId(EPOCH + 1, 1))
    assert desk.take() == stepped_down(desk.take())


def test_a_job_that_shows_up_with_a_later_epoch_ends_the_term() -> None:
    desk = Desk().lead()
    desk.show("a", {"phase": "Queued", "epoch": EPOCH + 1})
    assert stepped_down(desk.take())[0].minimum_epoch == EPOCH + 1


def test_a_leader_that_steps_down_wants_nothing_else() -> None:
    desk = Desk([raw_job("a")]).lead()
    worker = introduced(desk)
    worker.ask("a")
    late = Worker(desk, "late")
    late.epoch = EPOCH + 1
    late.beat()
    desk.show("b", {"phase": "Pending"})
    assert desk.take() == stepped_down(desk.take())
    desk.wait(30.0)
    assert len(desk.take()) == 1


def test_nothing_is_published_or_granted_before_the_takeover_is_done() -> None:
    desk = Desk([raw_job("a")], [raw_worker("w", "incarnation-of-w")])
    assert desk.of(PublishTicket) == []
    worker = Worker(desk)
    worker.epoch = EPOCH - 1
    worker.ask("a")
    worker.beat()
    assert desk.step() is Step.ROLL_CALL
    assert worker.answers() == []
    worker.epoch = EPOCH
    worker.beat()
    assert desk.step() is Step.MARKING
    assert worker.answers() == []
    desk.markers_back(reports=False)
    assert desk.step() is Step.MARKING
    desk.markers_back(inbox=False)
    assert desk.step() is Step.LEADING
    assert [answer.grant for answer in worker.answers()] == [GrantId(EPOCH, 1)]


def test_a_worker_that_hears_nobody_and_asks_for_nothing_is_waited_for_as_long_as_a_silent_one() -> None:
    """Its word may be an old one, from before a grant, that was stuck somewhere."""
    desk = Desk([], [raw_worker("w", "incarnation-of-w")])
    worker = Worker(desk)
    worker.epoch = EPOCH - 1
    for _ in range(3):
        worker.beat(hears=False)
        assert desk.step() is Step.ROLL_CALL
        desk.wait(5.0)
    worker.beat(hears=False)
    assert desk.step() is Step.MARKING


def test_a_worker_that_is_named_and_silent_is_waited_for_until_it_is_proven_lost() -> None:
    desk = Desk([], [raw_worker("w", "incarnation-of-w")])
    desk.wait(14.5)
    assert desk.step() is Step.ROLL_CALL
    desk.wait(1.0)
    assert desk.step() is Step.ROLL_CALL
    desk.markers_back()
    assert desk.observed.words == ["lost HeartbeatMissed"]
    assert desk.step() is Step.MARKING


def test_an_offline_worker_is_not_waited_for() -> None:
    desk = Desk([], [raw_worker("w", "incarnation-of-w", phase="Offline")])
    assert desk.step() is Step.MARKING


def test_whoever_had_to_create_the_lease_waits_for_strangers_if_there_is_anything_that_they_may_hold() -> None:
    fresh = Desk([raw_job("a", status={"phase": "Succeeded", "epoch": 5})], lease_created=True)
    assert fresh.step() is Step.MARKING
    desk = Desk([raw_job("a")], lease_created=True)
    desk.wait(14.5)
    assert desk.step() is Step.ROLL_CALL
    desk.wait(1.0)
    assert desk.step() is Step.MARKING


def test_the_reports_before_the_marker_are_written_before_anything_is_granted() -> None:
    desk = Desk([raw_job("a", status={"phase": "Queued", "epoch": 50}), raw_job("b")])
    worker = Worker(desk)
    desk.report(worker, "a", GrantId(50, 1))
    desk.markers_back()
    assert desk.step() is Step.MARKING
    write = desk.write()
    assert write.status["phase"] == "Succeeded"
    desk.land(write)
    desk.take()
    desk.wait(0.5)
    assert desk.step() is Step.LEADING


def test_a_marker_that_got_lost_is_sent_again() -> None:
    desk = Desk([raw_job("a")])
    desk.take()
    desk.markers.clear()
    desk.wait(10.5)
    desk.markers_back()
    assert desk.step() is Step.LEADING


def test_running_that_nobody_answers_for_is_a_lost_attempt() -> None:
    running = {"phase": "Running", "attempt": 2, "epoch": 50, "worker": "w"}
    desk = Desk([raw_job("a", status=running)])  # type: ignore[arg-type]  # a plain dict
    desk.markers_back()
    write = desk.write()
    assert (write.status["phase"], write.status["attempt"]) == ("Retrying", 2)
    assert write.status["lastGrant"] == {"epoch": EPOCH, "counter": 0}
    assert write.status["attempts"][-1]["reason"] == "WorkerLost"
    desk.land(write)
    (ticket,) = desk.of(PublishTicket)
    assert ticket.ticket.attempt == 3


def test_running_that_somebody_answers_for_goes_on() -> None:
    running = {"phase": "Running", "attempt": 1, "epoch": 50, "worker": "w"}
    desk = Desk([raw_job("a", status=running)], [raw_worker("w", "incarnation-of-w")])  # type: ignore[arg-type]
    worker = Worker(desk)
    grant = GrantId(50, 9)
    worker.beat(grants=[held(grant, "a")])
    desk.markers_back()
    assert desk.step() is Step.LEADING
    assert desk.of(WriteStatus) == []
    desk.report(worker, "a", grant)
    assert desk.write().status["phase"] == "Succeeded"
