"""Acknowledging in few frames, and never more than was asked."""

from hypothesis import given
from hypothesis import strategies as st

from distriqueue_worker.acknowledging import Deliveries


def test_a_prefix_goes_in_one_frame_and_stragglers_singly() -> None:
    deliveries = Deliveries()
    for tag in range(1, 8):
        deliveries.add(tag)
    assert list(deliveries.settle([1, 2, 3, 5, 7])) == [(3, True), (5, False), (7, False)]
    assert list(deliveries.settle([4, 6])) == [(6, True)]


def test_unknown_and_repeated_tags_are_left_out() -> None:
    deliveries = Deliveries()
    deliveries.add(1)
    assert list(deliveries.settle([1, 1, 9])) == [(1, False)]
    assert list(deliveries.settle([1])) == []


@given(st.lists(st.lists(st.integers(1, 30), max_size=10), max_size=10), st.integers(1, 30))
def test_what_the_broker_takes_as_answered_is_what_was_asked(rounds: list[list[int]], count: int) -> None:
    deliveries = Deliveries()
    broker = set(range(1, count + 1))
    for tag in broker:
        deliveries.add(tag)
    for asked in rounds:
        expected = broker - set(asked)
        for tag, multiple in deliveries.settle(asked):
            answered = {one for one in broker if one <= tag} if multiple else {tag}
            assert answered <= broker
            broker -= answered
        assert broker == expected
