"""The leader's own queue: its order, and how much of it the broker is given."""

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from distriqueue.core.backlog import Backlog, RunwaySettings
from distriqueue.core.jobs import Job, Stage, read_job
from distriqueue_protocol.names import Priority
from tests.unit.core.desk import WALL, raw_job

NAMES = count()


def job(*, age: float = 0.0, pool: str = "default", priority: str = "Medium", value: int = 50) -> Job:
    resource = raw_job(
        f"j{next(NAMES)}", created=WALL - 100 - age, poolName=pool, priority=priority, priorityValue=value
    )
    return read_job(resource, wall=WALL)


def backlog(**settings: float) -> Backlog:
    made = Backlog(RunwaySettings(**settings))  # type: ignore[arg-type]  # numbers of a test
    made.add_pool("default")
    return made


def taken(of: Backlog, *, slots: int = 0, mono: float = 0.0) -> list[Job]:
    return list(of.take(slots={"default": slots}, mono=mono))


def test_the_higher_value_first_and_then_the_older() -> None:
    one = backlog(least=100)
    jobs = [job(value=50), job(value=90), job(value=50, age=60), job(value=0, age=99)]
    for each in jobs:
        one.wait(each)
    assert taken(one) == [jobs[1], jobs[2], jobs[0], jobs[3]]


def test_each_priority_has_a_lane_of_its_own() -> None:
    one = backlog(least=2)
    low = [job(priority="Low", age=100) for _ in range(50)]
    for each in low:
        one.wait(each)
    assert len(taken(one)) == 2
    high = job(priority="High")
    one.wait(high)
    assert taken(one) == [high], "a deep backlog of Low leaves the lane of High free"
    lanes = {queue[1]: (waiting, out) for queue, waiting, out in one.lanes()}
    assert lanes == {Priority.HIGH: (0, 1), Priority.MEDIUM: (0, 0), Priority.LOW: (48, 2)}


def test_a_job_that_comes_back_stands_where_its_age_puts_it() -> None:
    one = backlog(least=1)
    old, young = job(age=60), job()
    one.wait(young)
    one.wait(old)
    assert taken(one) == [old]
    one.wait(old)  # its ticket was not taken
    assert taken(one) == [old]


def test_the_runway_is_bounded_by_slots_by_rate_and_by_its_most() -> None:
    one = backlog(least=2, per_slot=3, seconds=1.0, most=40)
    for _ in range(100):
        one.wait(job())
    first = taken(one)
    assert len(first) == 2
    first += taken(one, slots=4)
    assert len(first) == 12
    for each in first:
        one.granted(each)
    one.measure(1.0)
    first = taken(one, slots=4)
    assert len(first) == 12, "6 a second is less than 3 for each of 4 slots"
    for _ in range(4):
        for each in first:
            one.granted(each)
        first = taken(one, slots=4)
    one.measure(2.0)
    assert len(first) + len(taken(one, slots=4)) > 12, "faster than the slots say"
    assert len(taken(one, slots=1000)) <= 40


def test_a_lane_without_workers_gets_a_few_tickets() -> None:
    one = backlog()
    for _ in range(20):
        one.wait(job())
    assert len(taken(one)) == RunwaySettings().least


def test_backoff_waits_until_it_is_due() -> None:
    one = backlog()
    early, late = job(), job()
    one.wait_until(late, due=20.0)
    one.wait_until(early, due=10.0)
    assert one.retrying == 2
    assert one.next_due() == 10.0
    one.due(9.9)
    assert taken(one) == []
    one.due(10.0)
    assert (taken(one), one.retrying) == ([early], 1)
    one.leave(late)
    late.stage = Stage.FINAL
    one.due(30.0)
    assert (taken(one), one.retrying) == ([], 0)


def test_long_out_names_a_ticket_once_and_unanswered_again_and_again() -> None:
    one = backlog()
    each = job()
    one.wait(each)
    taken(one, mono=0.0)
    assert list(one.long_out(mono=2.9, age=3.0)) == []
    assert list(one.long_out(mono=3.0, age=3.0)) == [each]
    assert list(one.long_out(mono=9.0, age=3.0)) == []
    assert list(one.unanswered(mono=14.9, age=15.0)) == []
    assert list(one.unanswered(mono=15.0, age=15.0)) == [each]
    assert list(one.unanswered(mono=29.9, age=15.0)) == []
    assert list(one.unanswered(mono=30.0, age=15.0)) == [each]
    one.granted(each)
    assert list(one.unanswered(mono=60.0, age=15.0)) == []


def test_a_new_ticket_of_the_same_job_is_another_ticket() -> None:
    one = backlog()
    each = job()
    one.wait(each)
    taken(one, mono=0.0)
    one.wait(each)
    taken(one, mono=2.0)
    assert list(one.long_out(mono=3.0, age=3.0)) == []
    assert list(one.long_out(mono=5.0, age=3.0)) == [each]


def test_pools_do_not_meet() -> None:
    one = backlog(least=1)
    assert one.is_new_pool("gpu")
    one.add_pool("gpu")
    assert not one.is_new_pool("gpu")
    here, there = job(), job(pool="gpu")
    one.wait(here)
    one.wait(there)
    assert set(map(id, taken(one))) == {id(here), id(there)}


@given(
    st.lists(
        st.tuples(st.sampled_from(["wait", "backoff", "take", "grant", "leave", "due"]), st.integers(0, 5)),
        max_size=60,
    )
)
def test_the_counts_are_those_of_the_stages(events: list[tuple[str, int]]) -> None:
    one = backlog(least=3)
    jobs = [job() for _ in range(6)]
    for each in jobs:
        one.wait(each)
    for mono, (event, number) in enumerate(events):
        each = jobs[number]
        if event == "wait":
            one.wait(each)
        elif event == "backoff":
            one.wait_until(each, due=float(mono + number))
        elif event == "take":
            taken(one, mono=float(mono))
        elif event == "grant" and each.stage in (Stage.WAITING, Stage.TICKETED):
            one.granted(each)
        elif event == "leave":
            one.leave(each)
            each.stage = Stage.FINAL
        elif event == "due":
            one.due(float(mono))
        stages = [each.stage for each in jobs]
        assert sum(waiting for _, waiting, _ in one.lanes()) == stages.count(Stage.WAITING)
        assert sum(out for _, _, out in one.lanes()) == stages.count(Stage.TICKETED)
        assert one.retrying == stages.count(Stage.BACKOFF)
