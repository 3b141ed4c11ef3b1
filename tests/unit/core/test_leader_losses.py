"""When a worker counts as lost, and when it does not."""

from distriqueue.core.commands import SendMarker, SendToWorker, WriteStatus, WriteWorker
from tests.unit.core.desk import Desk, Worker, held, introduced, raw_job


def test_a_late_message_of_a_dead_incarnation_in_the_same_pod_ends_nobody() -> None:
    desk = Desk([raw_job("a")]).lead()
    old = introduced(desk, "w", incarnation="incarnation-1", pod="pod")
    late = Worker(desk, "w", incarnation="incarnation-1", pod="pod")
    late.sequence = 50
    desk.take()
    new = Worker(desk, "w", incarnation="incarnation-2", pod="pod")
    new.beat(supersedes=old.incarnation)
    desk.wait(0.5)
    desk.markers_back()
    assert desk.observed.words == ["lost Replaced"]
    desk.wait(0.5)
    grant = new.granted("a")
    # What was stuck in the old socket arrives now.
    late.beat()
    desk.wait(0.5)
    desk.markers_back()
    assert desk.observed.words == ["lost Replaced", "Granted", "ignored Over"]
    new.beat(grants=[held(grant, "a")])
    assert desk.of(SendMarker) == []


def test_an_incarnation_that_was_replaced_and_lives_is_told_to_stop_what_it_lists() -> None:
    desk = Desk([raw_job("a")]).lead()
    old = introduced(desk, "w", incarnation="incarnation-1")
    grant = old.granted("a")
    new = Worker(desk, "w", incarnation="incarnation-2")
    new.beat(grants=[held(grant, "a")], supersedes=old.incarnation)
    desk.take()
    # The worker never got the answer to its registration, and goes on under the old name.
    for proven in (False, True):
        old.beat(grants=[held(grant, "a")])
        stops = {
            sent.incarnation: [(order.grant, order.reason) for order in sent.message.stops]
            for sent in desk.of(SendToWorker)
            if sent.message.stops
        }
        assert stops == {old.incarnation: [(grant, "Over")]}, "whoever runs it now is left alone"
        if not proven:
            desk.wait(0.5)
            desk.markers_back()
            assert "lost Replaced" in desk.observed.words


def test_a_restarted_container_waits_for_the_name_until_its_predecessor_is_proven_lost() -> None:
    desk = Desk([raw_job("a")]).lead()
    introduced(desk, "w", incarnation="incarnation-1", pod="pod")
    new = Worker(desk, "w", incarnation="incarnation-2", pod="pod")
    names: list[str] = []
    for _ in range(4):
        new.beat()
        names += [c.status["incarnation"] for c in desk.wait(4.0) if isinstance(c, WriteWorker)]
        desk.markers_back()
    assert desk.observed.words == ["lost HeartbeatMissed"]
    new.beat()
    names += [c.status["incarnation"] for c in desk.wait(1.0) if isinstance(c, WriteWorker)]
    assert "incarnation-2" in names
    assert new.granted("a")


def test_two_workers_in_one_pod_both_work() -> None:
    desk = Desk([raw_job("a"), raw_job("b")]).lead()
    one = introduced(desk, "w", incarnation="incarnation-1", pod="pod")
    two = Worker(desk, "w", incarnation="incarnation-2", pod="pod")
    names: set[str] = set()
    for _ in range(12):
        one.beat()
        two.beat()
        names |= {c.name for c in desk.wait(2.0) if isinstance(c, WriteWorker)}
        desk.markers_back()
    assert names == {"w-incarnation-2"}
    assert one.granted("a") < two.granted("b")
    assert not [word for word in desk.observed.words if word.startswith("lost")]


def test_silence_alone_is_no_loss() -> None:
    desk = Desk([raw_job("a")]).lead()
    worker = introduced(desk)
    worker.granted("a")
    commands = desk.wait(14.0)
    assert not [c for c in commands if isinstance(c, SendMarker)]
    commands = desk.wait(2.0)
    assert len([c for c in commands if isinstance(c, SendMarker)]) == 1
    desk.markers_back(reports=False)
    assert desk.observed.words == ["Granted"]
    desk.markers_back(inbox=False)
    assert desk.observed.words == ["Granted", "lost HeartbeatMissed"]


def test_a_report_that_a_fenced_process_still_has_outlives_the_incarnation_that_earned_it() -> None:
    desk = Desk([raw_job("a"), raw_job("b")]).lead()
    first = introduced(desk, "w", incarnation="incarnation-1")
    grant = first.granted("a")
    second = Worker(desk, "w", incarnation="incarnation-2")
    second.beat(supersedes="incarnation-1", reports=[held(grant, "a")])
    desk.wait(0.5)
    desk.markers_back()
    assert desk.observed.words == ["Granted", "lost Replaced"]
    assert desk.of(WriteStatus) == [], "its result is under way"
    desk.report(first, "a", grant)
    assert desk.land(desk.write())["phase"] == "Succeeded"
    desk.show("a", {"phase": "Succeeded"})
    # The slot is with nobody any more: the loss of the second incarnation has nothing to do with it.
    desk.wait(16.0)
    desk.markers_back()
    assert desk.observed.words[-1] == "lost HeartbeatMissed"
    assert desk.of(WriteStatus) == []


def test_a_job_goes_over_to_the_incarnation_that_supersedes_and_is_not_lost_with_the_old_one() -> None:
    desk = Desk([raw_job("a"), raw_job("b")]).lead()
    first = introduced(desk, "w", incarnation="incarnation-1")
    grant, forgotten = first.granted("a"), first.granted("b")
    second = Worker(desk, "w", incarnation="incarnation-2")
    second.beat(supersedes="incarnation-1", grants=[held(grant, "a")])
    desk.wait(0.5)
    desk.markers_back()
    assert desk.observed.words[-1] == "lost Replaced"
    (write,) = [write for write in desk.of(WriteStatus) if write.status["phase"] != "Running"]
    assert (write.name, write.status["attempts"][-1]["outcome"]) == ("b", "Lost"), "what it did not take along"
    assert forgotten > grant
    desk.land(write)
    desk.report(second, "a", grant)
    assert desk.land(desk.write())["phase"] == "Succeeded"


def test_an_old_heartbeat_of_a_superseded_incarnation_does_not_take_the_job_back() -> None:
    desk = Desk([raw_job("a")]).lead()
    first = introduced(desk, "w", incarnation="incarnation-1")
    grant = first.granted("a")
    second = Worker(desk, "w", incarnation="incarnation-2")
    second.beat(supersedes="incarnation-1", grants=[held(grant, "a")])
    # It was sent while that incarnation lived, and stuck in the socket of another process.
    first.beat(grants=[held(grant, "a")])
    assert desk.observed.words[-1] == "ignored Over"
    desk.wait(0.5)
    desk.markers_back()
    assert desk.observed.words[-1] == "lost Replaced"
    assert [write.status["phase"] for write in desk.of(WriteStatus)] in ([], ["Running"]), "its attempt lives"
    desk.report(second, "a", grant)
    assert desk.land(desk.write())["phase"] == "Succeeded"
