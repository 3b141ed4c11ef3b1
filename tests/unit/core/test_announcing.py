"""What is worth an Event, and what is not."""

from typing import Any

from distriqueue.api.events import ACTIONS, NORMAL_REASONS, EventReason
from distriqueue.api.limits import REASON_LIMIT
from distriqueue.core.commands import EmitEvent, WriteStatus
from tests.unit.core.desk import Desk, introduced, raw_job


def events(desk: Desk) -> list[tuple[str, str, str]]:
    return [(event.kind, event.name, event.reason.value) for event in desk.of(EmitEvent)]


def run(desk: Desk, outcome: str, **more: Any) -> None:
    """Let a worker run the one job to its end."""
    worker = introduced(desk)
    grant = worker.granted("a")
    desk.report(worker, "a", grant, outcome=outcome, **more)
    desk.land(desk.write())


def test_a_job_that_succeeds_makes_none() -> None:
    desk = Desk([raw_job()]).lead()
    run(desk, "Succeeded")
    assert events(desk) == []


def test_an_attempt_that_fails_and_is_tried_again_makes_none() -> None:
    desk = Desk([raw_job(maxAttempts=2)]).lead()
    run(desk, "Failed")
    assert events(desk) == []


def test_a_dead_job_makes_one_with_the_last_error() -> None:
    desk = Desk([raw_job(maxAttempts=1)]).lead()
    run(desk, "Failed", reason="ValueError", error="no such customer")
    (event,) = desk.of(EmitEvent)
    assert (event.namespace, event.name, event.uid) == ("default", "a", "uid-a")
    assert event.reason is EventReason.ATTEMPTS_EXHAUSTED
    assert "Attempt 1" in event.note
    assert "ValueError: no such customer" in event.note


def test_an_attempt_that_its_worker_gave_up_is_lost() -> None:
    desk = Desk([raw_job()]).lead()
    run(desk, "Interrupted")
    assert events(desk) == [("DistributedJob", "a", "AttemptLost")]


def test_a_lost_worker_makes_one_and_one_for_each_job_that_it_held() -> None:
    desk = Desk([raw_job("a", maxAttempts=1), raw_job("b")]).lead()
    worker = introduced(desk)
    worker.granted("a")
    worker.granted("b")
    desk.idle(16)
    desk.markers_back()
    writes = desk.of(WriteStatus)
    for write in writes:  # Running, for each
        desk.land(write)
    for write in desk.of(WriteStatus):
        desk.land(write)
    (lost,) = [event for event in desk.take() if isinstance(event, EmitEvent) and event.kind == "DistributedWorker"]
    assert (lost.name, lost.namespace, lost.reason) == ("w", "", EventReason.WORKER_LOST)
    assert "held 2 jobs" in lost.note


def test_a_worker_that_leaves_by_itself_makes_none() -> None:
    desk = Desk([raw_job()]).lead()
    worker = introduced(desk)
    worker.beat(leaving=True)
    desk.idle(1)
    desk.markers_back()
    assert events(desk) == []


def test_a_ticket_that_is_sent_again_says_the_same_each_time() -> None:
    desk = Desk([raw_job()]).lead()
    worker = introduced(desk)
    notes = []
    for _ in range(2):
        desk.idle(10)
        worker.beat()
        desk.idle(10)
        worker.beat()
        notes += [event.note for event in desk.of(EmitEvent) if event.reason is EventReason.TICKET_RESENT]
    assert len(notes) >= 2
    assert len(set(notes)) == 1  # so they are one Event with a count


def test_every_reason_has_its_action_and_is_one_word() -> None:
    assert set(ACTIONS) == set(EventReason)
    assert set(EventReason) >= NORMAL_REASONS
    for word in (*EventReason, *ACTIONS.values()):
        assert word.isalnum()
        assert word[0].isupper()
        assert len(word) <= REASON_LIMIT
