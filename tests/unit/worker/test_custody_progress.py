"""What handlers say while they run: how it reaches the leader, and what is left of it for the next attempt."""

import pytest

from distriqueue_protocol.messages import GrantId, Outcome, Progress
from distriqueue_worker.commands import Checkpointed, Progressed, Result
from distriqueue_worker.progressing import MESSAGE_BYTES
from tests.unit.worker.steering import DONE, EPOCH, Steering

FAILED = Result(Outcome.FAILED, reason="ValueError")


@pytest.fixture(name="worker")
def worker_fixture() -> Steering:
    worker = Steering()
    worker.begin()
    return worker


def told(worker: Steering) -> list[Progress]:
    return [word for message in worker.sent() for word in message.progress]


def test_the_first_word_goes_out_at_once_and_the_next_ones_a_second_apart(worker: Steering) -> None:
    grant = worker.run()
    times = []
    for percent in range(20):
        before = len(told(worker))
        worker.note(grant, Progressed(percent, "working"))
        worker.after(0.125, step=0.125)
        times += [worker.now] * (len(told(worker)) - before)
    assert times == [0.125, 1.0, 2.0]  # the first one at 0, before the time went on
    assert [word.percent for word in told(worker)] == [0, 7, 15]
    worker.live(6)
    assert [word.percent for word in told(worker)] == [0, 7, 15, 19]  # and then nothing new


def test_progress_and_checkpoint_travel_together_and_the_last_of_each_counts(worker: Steering) -> None:
    grant = worker.run()
    worker.note(grant, Progressed(10, "a"))
    worker.note(grant, Checkpointed({"page": 1}, 10))
    worker.note(grant, Checkpointed({"page": 2}, 10))
    worker.live(2)
    assert told(worker)[-1] == Progress(grant=grant, percent=10, message="a", checkpoint={"page": 2})


def test_a_heartbeat_takes_progress_along(worker: Steering) -> None:
    grant = worker.run()
    worker.note(grant, Progressed(1, ""))
    worker.live(4)
    for _ in range(8):
        worker.live(0.25)
        worker.note(grant, Progressed(2, str(worker.now)))
    (beat,) = [message for message in worker.sent() if message.heartbeat and message.progress]
    assert beat.progress[0].grant == grant


def test_what_was_not_confirmed_is_said_again_on_the_next_connection(worker: Steering) -> None:
    one, two = worker.run("one"), worker.run("two")
    worker.note(one, Progressed(1, ""))
    worker.custody.confirm_message(worker.sent()[-1].sequence, worker.now)
    worker.live(1)
    worker.note(two, Progressed(2, ""))
    before = len(told(worker))
    worker.disconnect()
    worker.connect()
    assert [word.grant for word in told(worker)[before:]] == [two]


def test_a_new_leader_is_told_everything_that_was_ever_said(worker: Steering) -> None:
    one, silent = worker.run("one"), worker.run("silent", checkpoint="inherited")
    worker.note(one, Progressed(1, ""))
    worker.live(2)
    worker.custody.confirm_message(worker.sent()[-1].sequence, worker.now)
    before = len(told(worker))
    worker.hear(EPOCH + 1)
    assert told(worker)[before:] == [Progress(grant=one, percent=1)]
    assert silent in worker.custody.running


def test_nothing_is_said_to_nobody(worker: Steering) -> None:
    grant = worker.run()
    while worker.custody.hears_leader:
        worker.after(0.25)
        worker.confirm()
    before = len(told(worker))
    worker.note(grant, Progressed(7, ""))
    for _ in range(24):
        worker.after(0.25)
        worker.confirm()
    assert len(told(worker)) == before
    worker.hear()
    assert [word.percent for word in told(worker)[before:]] == [7]


def test_a_message_holds_so_much_and_the_rest_comes_a_second_later() -> None:
    worker = Steering(slots=60)
    worker.begin()
    grants = [worker.run(f"job-{number}") for number in range(60)]
    worker.live(1)
    for grant in grants:
        worker.custody.note(grant, Checkpointed("x" * 16_000, 16_002), worker.now)
    worker.live(6)
    assert sorted({word.grant for word in told(worker)}) == grants
    assert len(told(worker)) == len(grants)
    messages = [message for message in worker.sent() if message.progress]
    assert len(messages) == 2
    assert all(len(message.encode()) < MESSAGE_BYTES + 50_000 for message in messages)


def test_a_failed_attempt_leaves_its_checkpoint(worker: Steering) -> None:
    grant = worker.run()
    worker.note(grant, Checkpointed([1, 2], 5))
    worker.end(grant, FAILED)
    assert worker.published()[-1].checkpoint == [1, 2]


def test_an_attempt_that_leaves_none_hands_on_what_it_was_given(worker: Steering) -> None:
    grant = worker.run(checkpoint={"page": 3})
    worker.note(grant, Progressed(5, ""))
    assert told(worker)[-1].checkpoint == {"page": 3}
    worker.end(grant, FAILED)
    assert worker.published()[-1].checkpoint == {"page": 3}


def test_a_checkpoint_can_be_taken_back(worker: Steering) -> None:
    grant = worker.run(checkpoint={"page": 3})
    worker.note(grant, Checkpointed(None, 4))
    worker.end(grant, FAILED)
    assert worker.published()[-1].checkpoint is None


def test_a_success_leaves_no_checkpoint_and_the_dead_say_nothing(worker: Steering) -> None:
    grant = worker.run(checkpoint=1)
    worker.note(grant, Checkpointed(2, 1))
    before = len(told(worker))
    worker.note(grant, Checkpointed(3, 1))
    worker.end(grant, DONE)
    assert worker.published()[-1].checkpoint is None
    worker.note(grant, Progressed(100, ""))
    worker.note(GrantId(EPOCH, 99), Progressed(100, ""))
    worker.live(6)
    assert len(told(worker)) == before


def test_a_worker_that_lost_its_lease_says_no_more(worker: Steering) -> None:
    grant = worker.run()
    worker.after(12.25)
    before = len(worker.sent())
    worker.note(grant, Progressed(50, ""))
    worker.after(1)
    worker.end(grant, None)
    worker.connect()
    worker.hear()
    worker.confirm()
    worker.live(2)
    assert len(worker.sent()) > before
    assert told(worker) == []
