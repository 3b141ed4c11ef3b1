"""What an HTTP worker was handed, and what follows from what it says about it."""

from distriqueue.gateway.http_workers.deliveries import Deliveries
from distriqueue_protocol.messages import GrantId

ONE, TWO, THREE = (GrantId(7, counter) for counter in (1, 2, 3))


def handed(*grants: GrantId) -> Deliveries:
    deliveries = Deliveries()
    for grant in grants:
        deliveries.add(grant)
    return deliveries


def test_what_is_not_confirmed_is_delivered_again_under_the_same_number() -> None:
    deliveries = handed(ONE, TWO)
    first = [(one.number, one.grant) for one in deliveries.send(5)]
    assert first == [(1, ONE), (2, TWO)]
    assert [(one.number, one.grant) for one in deliveries.send(5)] == first
    assert deliveries.receive(1)
    assert [one.grant for one in deliveries.send(5)] == [TWO]
    assert deliveries.receive(2)
    assert deliveries.send(5) == []


def test_an_answer_has_no_more_than_was_asked_for() -> None:
    deliveries = handed(ONE, TWO, THREE)
    assert [one.grant for one in deliveries.send(2)] == [ONE, TWO]
    assert deliveries.unsent() == [THREE]
    assert deliveries.send(0) == []


def test_nobody_has_received_what_was_never_sent() -> None:
    deliveries = handed(ONE, TWO)
    assert not deliveries.receive(1)
    deliveries.send(1)
    assert deliveries.receive(1)
    assert not deliveries.receive(2)
    assert deliveries.received == 1


def test_a_lower_number_takes_nothing_back() -> None:
    deliveries = handed(ONE, TWO)
    deliveries.send(2)
    assert deliveries.receive(2)
    assert deliveries.receive(1)
    assert deliveries.waiting() == []


def test_what_was_received_and_is_not_listed_has_no_handler() -> None:
    deliveries = handed(ONE, TWO)
    deliveries.send(2)
    assert deliveries.dead(received=2, listed=[TWO]) == [ONE]


def test_a_heartbeat_that_was_written_before_the_answer_was_read_takes_nobody_for_dead() -> None:
    deliveries = handed(ONE, TWO)
    deliveries.send(1)
    deliveries.receive(1)
    deliveries.send(1)
    deliveries.receive(2)  # the request for jobs overtook it
    assert deliveries.dead(received=1, listed=[ONE]) == []


def test_what_was_adopted_has_to_be_listed_from_the_first() -> None:
    deliveries = handed(TWO)
    deliveries.adopt(ONE)
    assert deliveries.dead(received=0, listed=[]) == [ONE]
    assert deliveries.dead(received=0, listed=[ONE]) == []
    assert [one.grant for one in deliveries.waiting()] == deliveries.unsent() == [TWO]


def test_what_is_over_is_delivered_no_more() -> None:
    deliveries = handed(ONE, TWO)
    deliveries.send(2)
    deliveries.remove(ONE)
    deliveries.remove(ONE)
    assert [one.grant for one in deliveries.send(2)] == [TWO]
