"""Custody for handlers that are elsewhere: heartbeats only when asked, slots that change, grants taken over."""

import itertools

import pytest

from distriqueue_protocol.messages import GrantId, HeldGrant, Registration, Ticket
from distriqueue_worker.commands import Exit, Notice, Noticed, OwnStop, Publish, Stop
from distriqueue_worker.custody import Custody
from distriqueue_worker.sessions import PacedSession
from tests.unit.worker.steering import DONE, END, EPOCH, START, Steering


class Paced(Steering):
    """A worker elsewhere, with capacity for two handlers and no slot yet."""

    def __init__(self) -> None:
        super().__init__()
        numbers = itertools.count(1)
        registration = Registration(worker="w", concurrency=2, start_time=START, supersedes="incarnation-0")
        self.custody = Custody(
            registration, incarnations=lambda: f"incarnation-{next(numbers)}", session=PacedSession()
        )
        self.custody.resize(0, self.now)

    def ask(self) -> None:
        self.custody.ask(self.now)
        self.decide()

    def begin(self) -> None:
        self.connect()
        self.ask()
        self.confirm()
        self.hear()
        self.decide()

    def resize(self, slots: int) -> None:
        self.custody.resize(slots, self.now)
        self.decide()
        self.be_ready()


@pytest.fixture(name="worker")
def worker_fixture() -> Paced:
    worker = Paced()
    worker.begin()
    return worker


def test_no_heartbeat_goes_out_that_was_not_asked_for(worker: Paced) -> None:
    assert len(worker.heartbeats()) == 1
    worker.after(5.5)
    worker.hear(EPOCH + 1)
    worker.disconnect()
    worker.connect()
    assert len(worker.heartbeats()) == 1
    worker.ask()
    assert len(worker.heartbeats()) == 2
    assert worker.sent()[-1].epoch == EPOCH + 1


def test_the_lease_counts_from_the_word_and_not_from_the_message(worker: Paced) -> None:
    worker.disconnect()
    worker.after(3.0)
    worker.ask()
    worker.after(4.0)
    worker.connect()
    worker.confirm()
    assert worker.custody.lease_from == 3.0
    worker.after(7.75)
    assert not [one for one in worker.said(Noticed) if one.event is Notice.FENCED]
    worker.after(0.25)
    assert [one for one in worker.said(Noticed) if one.event is Notice.FENCED]


def test_a_word_that_waited_too_long_is_no_heartbeat(worker: Paced) -> None:
    worker.disconnect()
    worker.ask()
    worker.after(5.0)
    worker.connect()
    assert len(worker.heartbeats()) == 1


def test_the_next_incarnation_says_nothing_on_an_earlier_word(worker: Paced) -> None:
    worker.disconnect()
    worker.after(9.0)
    worker.ask()
    worker.after(3.5)
    assert [one for one in worker.said(Noticed) if one.event is Notice.REBORN]
    worker.connect()
    assert len(worker.heartbeats()) == 1


def test_claims_are_made_for_the_slots_there_are(worker: Paced) -> None:
    worker.resize(1)
    worker.ticket("a")
    worker.ticket("b")
    worker.decide()
    assert worker.claims() == ["a"]
    first = worker.grant(1)
    worker.resize(2)
    assert worker.claims() == ["b"]
    worker.resize(0)
    second = worker.grant(2)
    assert set(worker.custody.running) == {first, second}, "what was claimed is granted still"
    worker.ask()
    assert {held.grant for held in worker.heartbeats()[-1].grants} == {first, second}


def test_what_was_adopted_is_listed_at_once_and_can_be_reported() -> None:
    worker = Paced()
    grant = GrantId(EPOCH - 1, 7)
    ticket = Ticket(namespace="test", name="job", uid="uid-job", type="*", attempt=2, epoch=EPOCH - 1)
    worker.custody.adopt(ticket, HeldGrant(grant=grant, uid="uid-job", attempt=2, start_time=START), worker.now)
    worker.begin()
    (heartbeat,) = worker.heartbeats()
    assert heartbeat.registration.supersedes == "incarnation-0"
    assert [held.grant for held in heartbeat.grants] == [grant]
    worker.custody.end(grant, DONE, END, worker.now)
    worker.decide()
    (report,) = [command.report for command in worker.said(Publish)]
    assert (report.grant, report.attempt, report.start_time) == (grant, 2, START)


def test_without_a_word_for_12_s_everything_ends(worker: Paced) -> None:
    worker.resize(1)
    worker.ticket("a")
    worker.decide()
    grant = worker.grant(1)
    worker.after(12.0)
    assert worker.said(Stop) == [Stop(grant, OwnStop.LEASE_LOST, at_once=True)]
    assert not worker.said(Exit)
    worker.after(2.0)
    assert worker.said(Exit)
