"""What a waiting job waits for: the order is the backlog's, and each blocker is named with what to do about it."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distriqueue.api.raw import RawJob, RawJobStatus, RawWorker
from distriqueue.core.backlog import Backlog, RunwaySettings
from distriqueue.core.explaining import (
    Blocker,
    Conditions,
    Drain,
    Explanation,
    Waiting,
    WorkerFacts,
    explain,
    length,
    measure,
)
from distriqueue.core.jobs import read_job
from distriqueue.core.times import microtime, whole_seconds
from distriqueue_protocol.names import Priority
from tests.unit.core.desk import WALL, raw_job

NOW = WALL + 1000
WORKER = WorkerFacts(name="w", pool="default", phase="Online", slots=4, running=0, types=("*", "email"))


def full(worker: WorkerFacts = WORKER, **changes: Any) -> WorkerFacts:
    fields = {name: getattr(worker, name) for name in ("name", "pool", "phase", "slots", "running", "types")}
    return WorkerFacts(**{**fields, "running": worker.slots, **changes})


def told(job: RawJob, *others: RawJob, workers: tuple[WorkerFacts, ...] = (WORKER,), **conditions: Any) -> Explanation:
    return explain(
        job,
        others=[Waiting.of(other, wall=NOW) for other in others],
        conditions=Conditions(**{"leader": "operator-0", "broker": None, "workers": workers, **conditions}),
        wall=NOW,
    )


def status(phase: str, **fields: Any) -> RawJobStatus:
    made: RawJobStatus = {"phase": phase, "epoch": 7}
    made.update(fields)  # type: ignore[typeddict-item]  # keyword arguments of a test
    return made


# --- the order -----------------------------------------------------------------------------------------------------

BATCH = st.lists(
    st.tuples(st.sampled_from([*Priority]), st.integers(0, 3), st.integers(0, 50)), min_size=0, max_size=12
)


def served(backlog: Backlog) -> Iterator[str]:
    """The order in which one worker that has all queues in view is granted jobs."""
    out = {priority: [job.uid for job in out] for priority, out in OUT.items()}
    jobs = {job.uid: job for tickets in OUT.values() for job in tickets}
    while True:
        for job in backlog.take(slots={}, mono=0.0):
            jobs[job.uid] = job
            out[job.priority].append(job.uid)
        first = next((out[priority].pop(0) for priority in Priority if out[priority]), None)
        if first is None:
            return
        backlog.granted(jobs[first])
        yield first


OUT: dict[Priority, list[Any]] = {}


@given(st.integers(1, 4), BATCH, BATCH)
def test_positions_are_the_order_of_the_backlog(room: int, first: list[Any], second: list[Any]) -> None:
    backlog = Backlog(RunwaySettings(least=room))
    backlog.add_pool("default")
    resources: dict[str, RawJob] = {}
    versions = count(1)
    OUT.update({priority: [] for priority in Priority})

    def arrive(batch: list[Any]) -> None:
        for priority, value, age in batch:
            version = next(versions)
            resource = raw_job(
                f"j{version}", version=version, created=WALL - 100 - age, priority=priority.value, priorityValue=value
            )
            resources[resource["metadata"]["uid"]] = resource
            backlog.wait(read_job(resource, wall=WALL))

    arrive(first)
    for place, job in enumerate(backlog.take(slots={}, mono=0.0)):
        resources[job.uid]["status"] = status("Queued", queuedTime=microtime(WALL + place))
        OUT[job.priority].append(job)
    arrive(second)  # better ones may come while tickets are out
    positions = {uid: told(resource, *resources.values()).position for uid, resource in resources.items()}
    assert sorted(positions, key=lambda uid: positions[uid] or 0) == list(served(backlog))
    assert sorted(position or 0 for position in positions.values()) == list(range(1, len(resources) + 1))


def test_only_jobs_of_the_pool_that_may_start_come_first() -> None:
    mine = raw_job("mine", version=90)
    ahead = [
        raw_job("older"),
        raw_job("retried", status=status("Retrying", nextAttemptTime=whole_seconds(NOW - 1))),
        raw_job("due", startAfter=whole_seconds(NOW - 1)),
    ]
    aside = [
        raw_job("elsewhere", poolName="gpu"),
        raw_job("suspended", suspend=True),
        raw_job("cancelled", cancel=True),
        raw_job("later", startAfter=whole_seconds(NOW + 60)),
        raw_job("resting", status=status("Retrying", nextAttemptTime=whole_seconds(NOW + 60))),
        raw_job("over", status=status("Succeeded")),
        raw_job("runs", status=status("Running")),
        raw_job("low", priority="Low", priorityValue=100),
    ]
    said = told(mine, mine, *aside, *ahead)
    assert (said.blocker, said.position, said.ahead) == (Blocker.BEHIND_OTHERS, 4, 3)
    assert told(mine, *aside).position == 1


def test_a_job_that_is_not_created_yet_comes_last_of_its_value() -> None:
    planned: RawJob = {"metadata": {"name": "new"}, "spec": {"type": "email"}}
    others = [raw_job("a", created=NOW), raw_job("low", priority="Low")]
    assert told(planned, *others).position == 2
    planned["metadata"]["uid"] = "uid-of-a-dry-run"
    assert told(planned, *others).position == 2


# --- blockers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "blocker", "todo"),
    [
        (raw_job(created=NOW), Blocker.NONE, "4 of 4 slots are free"),
        (raw_job(suspend=True), Blocker.SUSPENDED, "kubectl djobs resume a"),
        (raw_job(startAfter=whole_seconds(NOW + 90)), Blocker.START_AFTER, "(in 1 min 30 s)"),
        (raw_job(status=status("Retrying", attempt=2, nextAttemptTime=whole_seconds(NOW + 5))), Blocker.BACKOFF, "2"),
        (raw_job(cancel=True), Blocker.CANCELLING, "about to write"),
        (raw_job(cancel=True, status=status("Running")), Blocker.CANCELLING, "being stopped"),
        (raw_job(status=status("Running", attempt=1, worker="w")), Blocker.RUNNING, "kubectl djobs logs a"),
        (raw_job(status=status("Dead")), Blocker.FINISHED, "kubectl djobs retry a"),
        (raw_job(cancel=True, status=status("Cancelled")), Blocker.FINISHED, "create a new one"),
        (raw_job(status=status("Dead"), retryGeneration=1), Blocker.NOT_YET_SEEN, "retry is asked for"),
        (raw_job(status=status("Dead", retryGeneration=1), retryGeneration=1), Blocker.FINISHED, "Dead"),
        (raw_job(created=NOW - 60), Blocker.NOT_YET_SEEN, "watches the namespace 'default'"),
        (raw_job(created=NOW - 60, status=status("Pending")), Blocker.NONE, "next"),
        (raw_job(type="x"), Blocker.NOT_YET_SEEN, "no leader has taken it up"),
    ],
)
def test_a_job_says_itself_what_it_waits_for(job: RawJob, blocker: Blocker, todo: str) -> None:
    said = told(job)
    assert said.blocker is blocker
    assert todo in said.sentence


def test_a_payload_that_is_not_there() -> None:
    condition = {"type": "PayloadReady", "status": "False", "message": "create the ConfigMap 'big'"}
    said = told(raw_job(status=status("Queued", conditions=[condition])))
    assert (said.blocker, said.position) == (Blocker.NO_PAYLOAD, None)
    assert "create the ConfigMap 'big'" in said.sentence


def test_of_two_times_the_later_one_counts() -> None:
    job = raw_job(
        startAfter=whole_seconds(NOW + 60), status=status("Retrying", nextAttemptTime=whole_seconds(NOW + 20))
    )
    said = told(job)
    assert (said.blocker, said.until, said.earliest, said.latest) == (Blocker.START_AFTER, NOW + 60, 60, None)


def test_what_is_broken_for_all_is_said_before_what_is_so_for_one() -> None:
    job = raw_job(suspend=True)
    assert told(job, leader=None).blocker is Blocker.NO_LEADER
    assert told(job, leader=None, broker=False).blocker is Blocker.BROKER_UNREACHABLE
    assert told(job, leader=None, leader_known=False).blocker is Blocker.SUSPENDED
    assert told(raw_job(status=status("Running")), leader=None).blocker is Blocker.RUNNING, "it goes on"
    assert told(raw_job(status=status("Dead")), leader=None).blocker is Blocker.FINISHED


def test_without_a_worker_of_the_pool() -> None:
    away = [full(phase="Offline"), full(phase="Draining", running=2), full(name="g", pool="gpu", running=0)]
    said = told(raw_job(), workers=tuple(away))
    assert (said.blocker, said.slots, said.running, said.latest) == (Blocker.NO_WORKER, 0, 2, None)
    assert "DISTRIQUEUE_WORKER_POOL=default" in said.sentence
    assert "pools that have some: gpu" in said.sentence
    assert said.position == 1, "its place is known all the same"


def test_a_type_that_nobody_knows_does_not_wait() -> None:
    narrow = full(types=("email",), running=0)
    said = told(raw_job(type="resize", created=NOW), workers=(narrow,))
    assert said.blocker is Blocker.NO_WORKER_FOR_TYPE
    assert "fails with UnknownType" in said.sentence
    assert "kubectl djobs suspend a" in said.sentence
    other = full(name="broad", running=0)
    said = told(raw_job(type="resize", created=NOW), workers=(narrow, other))
    assert said.blocker is Blocker.NONE
    assert "w has no handler for the type 'resize'" in said.sentence
    assert "UnknownType" not in told(raw_job(type="email", created=NOW), workers=(narrow, other)).sentence


def test_full_workers() -> None:
    said = told(raw_job(), workers=(full(),))
    assert (said.blocker, said.position, said.running, said.slots) == (Blocker.WORKERS_FULL, 1, 4, 4)
    running = [raw_job(f"r{number}", status=status("Running")) for number in range(4)]
    said = told(raw_job(), *running)
    assert said.blocker is Blocker.WORKERS_FULL, "a status that is 5 s old must not hide what the jobs say"


def test_higher_priorities_are_counted() -> None:
    said = told(raw_job("a", version=50), raw_job("b"), raw_job("c", priority="High"), raw_job("d", priority="High"))
    assert "3 jobs of pool 'default' come first, 2 of them for their higher priority" in said.sentence


def test_what_cannot_be_seen_is_said() -> None:
    assert "may not see" in told(raw_job(), everyone=False).sentence
    assert "may not see" not in told(raw_job()).sentence


def test_workers_that_cannot_be_seen_are_not_said_to_be_missing() -> None:
    said = told(raw_job(), workers=(), workers_known=False)
    assert said.blocker is Blocker.NONE
    assert "as soon as a worker of it has a free slot. You may not see the workers" in said.sentence
    said = told(raw_job("z", version=99), raw_job("b"), workers=(), workers_known=False)
    assert (said.blocker, said.position, said.latest) == (Blocker.BEHIND_OTHERS, 2, None)


# --- when it starts ------------------------------------------------------------------------------------------------


def waiting(number: int) -> list[RawJob]:
    return [raw_job(f"o{each}", timeoutSeconds=100) for each in range(number)]


def test_with_a_free_slot_it_starts_now() -> None:
    said = told(raw_job("z", version=99), *waiting(3))
    assert (said.earliest, said.latest) == (0.0, 2.0)
    assert said.sentence.endswith("It should start within moments.")


def test_measured_starts_give_a_range_that_holds_their_mean() -> None:
    said = told(raw_job("z", version=99), *waiting(39), workers=(full(),), recent=Drain(starts=100, seconds=50.0))
    assert said.earliest is not None
    assert said.latest is not None
    assert 10 < said.earliest < 20 < said.latest < 30
    wide = told(raw_job("z", version=99), *waiting(39), workers=(full(),), recent=Drain(starts=4, seconds=2.0))
    assert (wide.latest or 0) > said.latest, "fewer starts, more doubt"


def test_without_starts_the_length_of_attempts_counts() -> None:
    recent = Drain(starts=0, seconds=0.0, run_seconds=10.0)
    said = told(raw_job("z", version=99), *waiting(7), workers=(full(),), recent=recent)
    assert (said.earliest, said.latest) == (5.0, 41.0)


def test_without_anything_measured_the_timeouts_are_the_bound() -> None:
    running = [raw_job(f"r{each}", timeoutSeconds=200, status=status("Running")) for each in range(4)]
    said = told(raw_job("z", version=99), *running, *waiting(4))
    assert (said.earliest, said.latest) == (0.0, (4 * 200 + 4 * 100) / 4)


def test_without_anything_honest_nothing_is_said() -> None:
    said = told(raw_job(), workers=(full(),))
    assert (said.earliest, said.latest) == (None, None)
    assert "should start" not in said.sentence


# --- measuring -----------------------------------------------------------------------------------------------------


def ran(name: str, start: float, end: float | None, **spec: Any) -> RawJob:
    attempt: dict[str, Any] = {"number": 1, "startTime": microtime(start)}
    if end is not None:
        attempt["completionTime"] = microtime(end)
    return raw_job(name, status=status("Running" if end is None else "Succeeded", attempts=[attempt]), **spec)


def test_starts_are_measured_while_jobs_wait() -> None:
    busy = [ran(f"s{each}", NOW - each, NOW - each + 0.5) for each in range(1, 21)]
    elsewhere = [ran("gpu", NOW - 1, NOW, poolName="gpu")]
    drain = measure([*busy, *elsewhere, raw_job("w", created=NOW - 10)], pool="default", wall=NOW)
    assert drain == Drain(starts=10, seconds=10.0, run_seconds=0.5)
    idle = measure(busy, pool="default", wall=NOW)
    assert idle is not None
    assert idle.starts == 0, "nobody waited: it was as slow as people brought it work"
    assert measure(elsewhere, pool="default", wall=NOW) is None


def test_a_job_that_came_back_waits_since_then() -> None:
    condition = {"type": "Suspended", "status": "False", "lastTransitionTime": whole_seconds(NOW - 20)}
    resumed = raw_job("r", created=NOW - 900, status=status("Pending", conditions=[condition]))
    drain = measure([ran("s", NOW - 5, None), resumed], pool="default", wall=NOW)
    assert drain == Drain(starts=1, seconds=20.0, run_seconds=None)


def test_a_worker_is_read_from_its_resource() -> None:
    resource: RawWorker = {
        "metadata": {"name": "w"},
        "status": {"phase": "Online", "poolName": "gpu", "concurrency": 3, "running": 1, "types": ["a"]},
    }
    assert WorkerFacts.of(resource) == WorkerFacts("w", "gpu", "Online", 3, 1, ("a",))
    assert WorkerFacts.of({"metadata": {"name": "w"}}).phase == "Offline"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.26, "0.3 s"), (3, "3 s"), (59.6, "1 min"), (90, "1 min 30 s"), (3700, "1 h 1 min"), (90000, "1 d 1 h")],
)
def test_lengths(seconds: float, text: str) -> None:
    assert length(seconds) == text
