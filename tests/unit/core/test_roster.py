"""Sessions, their order, and the proofs of their loss."""

from typing import Any

from distriqueue.core.roster import BURIED, PROOF_PATIENCE_SECONDS, Roster, Session
from distriqueue_protocol.messages import Claim, Heartbeat, Registration, SessionMessage
from distriqueue_protocol.names import WORKER_LOST_SECONDS
from tests.unit.core.desk import EPOCH, STARTED


def message(
    sequence: int,
    *,
    incarnation: str = "incarnation-1",
    epoch: int = EPOCH,
    beat: bool = True,
    claims: tuple[int, ...] = (),
    asked: tuple[int, ...] = (),
    supersedes: str | None = None,
    **more: Any,
) -> SessionMessage:
    def claim(number: int) -> Claim:
        return Claim(id=number, uid="uid-a", attempt=1, ticket_epoch=EPOCH)

    registration = Registration(worker="w", concurrency=4, start_time=STARTED, supersedes=supersedes)
    heartbeat = Heartbeat(registration=registration, claims=tuple(map(claim, claims)), **more) if beat else None
    return SessionMessage(
        incarnation=incarnation, sequence=sequence, epoch=epoch, claims=tuple(map(claim, asked)), heartbeat=heartbeat
    )


def roster() -> Roster:
    return Roster(epoch=EPOCH, mono=0.0)


def known(of: Roster, *, mono: float = 0.0, incarnation: str = "incarnation-1") -> Session:
    heard = of.hear(message(1, incarnation=incarnation), mono=mono)
    assert isinstance(heard, Session)
    return heard


def prove(of: Roster, *, mono: float) -> list[str]:
    """Let every marker come back at once; whose loss is proven by then."""
    for number in of.suspects(mono=mono):
        of.marker(number, through_reports=False)
        of.marker(number, through_reports=True)
    return [session.incarnation for session in of.proven()]


def test_what_is_not_higher_than_the_last_number_is_ignored_and_gaps_are_fine() -> None:
    one = roster()
    session = known(one)
    assert one.hear(message(5), mono=1.0) is session
    assert one.hear(message(4), mono=9.0) == "OldSequence"
    assert one.hear(message(5), mono=9.0) == "OldSequence"
    assert session.last_heard == 1.0, "an old message is no sign of life"


def test_claims_of_somebody_unknown_are_not_heard() -> None:
    one = roster()
    assert one.hear(message(1, beat=False, asked=(1,)), mono=0.0) == "NotIntroduced"
    one.expect("incarnation-1", record="w", pod_uid="")
    assert one.hear(message(2, beat=False, asked=(1,)), mono=0.0) == "NotIntroduced"
    assert one.expecting == 1


def test_the_book_is_replaced_by_a_full_state() -> None:
    one = roster()
    session = known(one)
    one.hear(message(2, beat=False, asked=(7, 8)), mono=0.0)
    assert set(session.claims) == {7, 8}
    one.hear(message(3, claims=(8,), draining=True), mono=0.0)
    assert set(session.claims) == {8}
    assert session.capacity == 0


def test_the_roll_call_is_answered_by_the_new_epoch_or_by_hearing_nobody_and_asking_for_nothing() -> None:
    for epoch, more, mono, answered in [
        (EPOCH, {}, 0.0, True),
        (EPOCH - 1, {}, WORKER_LOST_SECONDS, False),
        (EPOCH - 1, {"hears_leader": False}, WORKER_LOST_SECONDS - 0.1, False),
        (EPOCH - 1, {"hears_leader": False}, WORKER_LOST_SECONDS, True),
        (EPOCH - 1, {"hears_leader": False, "claims": (1,)}, WORKER_LOST_SECONDS, False),
        (EPOCH, {"claims": (1,)}, 0.0, True),
    ]:
        one = roster()
        one.expect("incarnation-1", record="w", pod_uid="")
        one.hear(message(1, epoch=epoch, **more), mono=mono)  # type: ignore[arg-type]  # a table
        assert one.expecting == (0 if answered else 1)


def test_a_loss_needs_both_markers_and_the_reports_before_them() -> None:
    one = roster()
    known(one)
    assert list(one.suspects(mono=WORKER_LOST_SECONDS - 0.1)) == []
    one.unsettled = {3, 4}
    (number,) = one.suspects(mono=WORKER_LOST_SECONDS)
    assert one.proven() == []
    one.marker(number, through_reports=False)
    assert one.proven() == []
    one.marker(number, through_reports=True)
    one.unsettled.add(5)  # came after the marker
    one.settled((3,))
    assert one.proven() == []
    one.settled((4,))
    assert [session.incarnation for session in one.proven()] == ["incarnation-1"]
    assert one.sessions == {}
    assert not one.proving


def test_a_word_of_the_suspect_ends_the_proof() -> None:
    one = roster()
    session = known(one)
    (number,) = one.suspects(mono=20.0)
    one.marker(number, through_reports=False)
    one.hear(message(2), mono=20.5)
    one.marker(number, through_reports=True)
    assert one.proven() == []
    assert not one.proving
    assert list(one.suspects(mono=21.0)) == []
    assert session.proof is None


def test_one_marker_proves_the_loss_of_all_that_fell_silent_together() -> None:
    one = roster()
    for number in range(500):
        known(one, incarnation=f"incarnation-{number}")
    alive = "incarnation-17"
    (marker,) = one.suspects(mono=20.0)
    one.hear(message(2, incarnation=alive), mono=20.1)
    one.marker(marker, through_reports=False)
    one.marker(marker, through_reports=True)
    assert len(one.proven()) == 499
    assert list(one.sessions) == [alive]


def test_a_lost_marker_is_sent_again_but_not_while_writes_are_awaited() -> None:
    one = roster()
    known(one)
    (first,) = one.suspects(mono=20.0)
    assert list(one.suspects(mono=20.0 + PROOF_PATIENCE_SECONDS - 0.1)) == []
    (second,) = one.suspects(mono=20.0 + PROOF_PATIENCE_SECONDS)
    assert second != first
    one.marker(first, through_reports=False)
    one.marker(first, through_reports=True)
    assert one.proven() == [], "the first one counts no longer"
    one.unsettled = {1}
    one.marker(second, through_reports=False)
    one.marker(second, through_reports=True)
    assert list(one.suspects(mono=100.0)) == []
    one.settled((1,))
    assert len(one.proven()) == 1


def test_one_that_ended_is_proven_at_once_and_never_heard_again() -> None:
    one = roster()
    session = known(one)
    one.end(session, "PodGone")
    one.end(session, "Left")
    assert session.ended == "PodGone"
    assert prove(one, mono=1.0) == ["incarnation-1"]
    assert one.hear(message(9), mono=2.0) == "Over"


def test_one_that_was_only_silent_may_come_back() -> None:
    one = roster()
    known(one)
    assert prove(one, mono=15.0) == ["incarnation-1"]
    assert isinstance(one.hear(message(2), mono=16.0), Session)


def test_a_process_speaks_for_its_own_earlier_incarnations() -> None:
    one = roster()
    first = known(one)
    one.hear(message(1, incarnation="incarnation-2", supersedes="incarnation-1"), mono=1.0)
    assert first.ended == "Replaced"
    one.hear(message(1, incarnation="incarnation-4", supersedes="incarnation-3"), mono=1.0)
    assert one.hear(message(1, incarnation="incarnation-3"), mono=1.0) == "Over", "it was never heard, and is over"
    assert isinstance(one.hear(message(2, incarnation="incarnation-4", supersedes="incarnation-4"), mono=1.0), Session)
    assert one.sessions["incarnation-4"].ended is None


def test_the_memory_of_the_dead_is_bounded() -> None:
    one = roster()
    known(one, incarnation="incarnation-0")
    for number in range(BURIED + 10):
        one.hear(message(number + 2, incarnation="incarnation-0", supersedes=f"other-{number:06}"), mono=0.0)
    assert isinstance(one.hear(message(1, incarnation="other-000000"), mono=0.0), Session)
    assert one.hear(message(1, incarnation=f"other-{BURIED:06}"), mono=0.0) == "Over"


def test_slots_follow_what_workers_say() -> None:
    one = roster()
    assert one.slots_by_pool() == {}
    session = known(one)
    assert one.slots_by_pool() == {"default": 4}
    assert one.pools_with_room() == {"default"}
    one.hear(message(2, draining=True), mono=0.0)
    assert one.slots_by_pool() == {}
    one.hear(message(3), mono=0.0)
    assert one.slots_by_pool() == {"default": 4}
    one.end(session, "PodGone")
    assert one.slots_by_pool() == {}
    assert one.pools_with_room() == set()


def test_the_report_queue_alone_proves_nothing() -> None:
    one = roster()
    known(one)
    (number,) = one.suspects(mono=WORKER_LOST_SECONDS)
    one.marker(number, through_reports=True)
    assert one.proven() == [], "its heartbeats may stand in the inbox"
    one.marker(number, through_reports=False)
    assert len(one.proven()) == 1
