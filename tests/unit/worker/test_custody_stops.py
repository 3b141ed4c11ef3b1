"""Stop orders: which ones count, what the runtime is told, and what is reported of a handler that was stopped."""

import pytest

from distriqueue_protocol.messages import Answer, GrantId, Outcome, StopOrder, StopReason
from distriqueue_worker.commands import Ack, Checkpointed, Notice, Noticed, OwnStop, Result, Start, Stop
from distriqueue_worker.custody import EARLY_ORDERS
from tests.unit.worker.steering import DONE, EPOCH, Steering

ASKING = [StopReason.CANCELLED, StopReason.DEADLINE_EXCEEDED, StopReason.RETRIED, StopReason.TIMEOUT]
SILENT = [StopReason.OVER, StopReason.DELETED]
FAILED = Result(Outcome.FAILED, reason="ValueError", error="of its own")


@pytest.fixture(name="worker")
def worker_fixture() -> Steering:
    worker = Steering()
    worker.begin()
    return worker


@pytest.mark.parametrize("reason", [*ASKING, "SomethingOfANewerLeader"])
def test_an_order_asks_once_and_the_end_is_reported(worker: Steering, reason: str) -> None:
    grant = worker.run()
    for _ in range(3):
        worker.stop(grant, reason)
    assert worker.said(Stop) == [Stop(grant, reason, at_once=False)]
    worker.note(grant, Checkpointed("half", 6))
    worker.end(grant, None)
    (report,) = worker.published()
    assert (report.outcome, report.reason, report.checkpoint) == (Outcome.INTERRUPTED, reason, "half")
    worker.stop(grant, reason)
    assert len(worker.said(Stop)) == 1


@pytest.mark.parametrize("reason", ASKING)
@pytest.mark.parametrize("result", [DONE, FAILED])
def test_what_a_stopped_handler_reached_is_reported(worker: Steering, reason: str, result: Result) -> None:
    grant = worker.run()
    worker.stop(grant, reason)
    worker.end(grant, result)
    (report,) = worker.published()
    assert (report.outcome, report.result, report.reason) == (result.outcome, result.value, result.reason)


@pytest.mark.parametrize("reason", SILENT)
@pytest.mark.parametrize("result", [None, DONE, FAILED])
def test_of_a_job_that_is_over_nothing_is_reported(worker: Steering, reason: str, result: Result | None) -> None:
    grant = worker.run()
    worker.stop(grant, reason)
    assert worker.said(Stop) == [Stop(grant, reason, at_once=reason is StopReason.OVER)]
    worker.end(grant, result)
    worker.after(0.5)
    assert worker.published() == []
    assert worker.heartbeats()[-1].grants == ()


def test_what_comes_first_does_not_decide(worker: Steering) -> None:
    grant = worker.run()
    for reason in (StopReason.CANCELLED, StopReason.DELETED, StopReason.CANCELLED, StopReason.OVER):
        worker.stop(grant, reason)
    assert [(stop.reason, stop.at_once) for stop in worker.said(Stop)] == [("Cancelled", False), ("Over", True)]
    worker.end(grant, DONE)
    assert worker.published() == []


def test_the_end_of_the_lease_hurries_and_nothing_is_reported(worker: Steering) -> None:
    grant = worker.run()
    worker.live(1)
    worker.stop(grant, StopReason.CANCELLED)
    worker.after(12.25)
    worker.stop(grant, StopReason.CANCELLED)
    assert worker.said(Stop)[1:] == [Stop(grant, OwnStop.LEASE_LOST, at_once=True)]
    worker.end(grant, None)
    worker.connect()
    assert worker.published() == []


def test_the_shutdown_hurries_and_the_order_is_what_is_reported(worker: Steering) -> None:
    grant = worker.run()
    worker.stop(grant, StopReason.RETRIED)
    worker.custody.shut_down(0, worker.now)
    worker.decide()
    assert worker.said(Stop)[1:] == [Stop(grant, OwnStop.SHUTDOWN, at_once=True)]
    worker.end(grant, None)
    assert worker.published()[-1].reason == "Retried"


@pytest.mark.parametrize(
    ("result", "outcome"), [(None, Outcome.INTERRUPTED), (FAILED, Outcome.INTERRUPTED), (DONE, Outcome.SUCCEEDED)]
)
def test_a_shutdown_is_nobodys_failure(worker: Steering, result: Result | None, outcome: Outcome) -> None:
    grant = worker.run()
    worker.custody.shut_down(0, worker.now)
    worker.decide()
    worker.end(grant, result)
    assert worker.published()[-1].outcome is outcome


@pytest.mark.parametrize("reason", [*ASKING, *SILENT])
@pytest.mark.parametrize("together", [True, False])
def test_a_grant_that_was_stopped_before_it_was_answered_starts_nothing(
    worker: Steering, reason: str, *, together: bool
) -> None:
    claim = worker.claim()
    grant = GrantId(EPOCH, 77)
    answers, stops = (Answer(claim=claim, grant=grant),), (StopOrder(grant=grant, reason=reason),)
    if together:
        worker.tell(answers=answers, stops=stops)
    else:
        worker.tell(stops=stops)
        worker.tell(answers=answers)
    assert worker.said(Start) == []
    assert worker.said(Stop) == []
    assert len(worker.said(Ack)) == 1
    worker.after(0.5)
    assert (worker.heartbeats()[-1].claims, worker.heartbeats()[-1].grants) == ((), ())
    assert worker.custody.free_slots == 2
    assert sum(notice.event is Notice.GRANT_IGNORED for notice in worker.said(Noticed)) == 1


def test_orders_for_strangers_are_not_remembered_for_ever(worker: Steering) -> None:
    worker.tell(stops=tuple(StopOrder(grant=GrantId(EPOCH, 1000 + n), reason="Over") for n in range(EARLY_ORDERS + 1)))
    claim = worker.claim()
    worker.tell(answers=(Answer(claim=claim, grant=GrantId(EPOCH, 1000)),))
    assert len(worker.said(Start)) == 1
