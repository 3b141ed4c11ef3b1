"""A worker goes with jobs in hand, killed or asked: the jobs finish elsewhere, and the history says what happened."""

import json
import signal
from typing import Any

import pytest

from localcluster.installing import NAMESPACE
from tests.e2e.systems import CONCURRENCY, WORKERS, System
from tests.support.jobs import Job, manifest, phase
from tests.support.records import Record

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300, func_only=True)]


class Held:
    """Jobs that run on workers until a gate is opened.

    They fill half of all slots, so that every worker but one has room for all of them.

    Args:
        system: Where.
        namespace: Theirs.
        prefix: Of their names, and the gate's name.
    """

    def __init__(self, system: System, namespace: str, prefix: str) -> None:
        self.system = system
        self.namespace = namespace
        self.prefix = prefix
        self.names = [f"{prefix}-{number}" for number in range(CONCURRENCY * (WORKERS - 1))]
        system.until_whole()
        _create(system, namespace, *self.names, type="hold", payload={"until": prefix}, maxAttempts=9)
        self.first = {start.name: start for start in system.until(self.starts, self._all_started)}

    def _all_started(self, starts: list[Record]) -> bool:
        return {start.name for start in starts} == set(self.names)

    def starts(self) -> list[Record]:
        """The starts of their handlers."""
        return self.system.records().started(prefix=f"{self.prefix}-")

    def busiest(self) -> str:
        """The worker that has most of them."""
        workers = [start.worker for start in self.first.values()]
        return max(sorted(set(workers)), key=workers.count)

    def on(self, worker: str) -> set[str]:
        """Those that started on a worker at first."""
        return {name for name, start in self.first.items() if start.worker == worker}

    def running(self) -> dict[str, str]:
        """Where each was started last."""
        return {start.name: start.worker for start in self.starts()}

    def finish(self) -> dict[str, Job]:
        """Open the gate and wait until all are over."""
        self.system.open_gate(self.prefix)
        return self.system.until_over(self.names, namespace=self.namespace)


def _create(system: System, namespace: str, *names: str, **spec: Any) -> None:
    items = [manifest(namespace, name, **spec) for name in names]
    system.kubectl("create", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))


def _worker(system: System, name: str) -> dict[str, Any]:
    found: dict[str, Any] = system.get("dworker", name).get("status", {})
    return found


def _not_ready_because(worker: dict[str, Any]) -> str:
    (ready,) = (condition for condition in worker["conditions"] if condition["type"] == "Ready")
    assert ready["status"] == "False"
    return str(ready["reason"])


def test_jobs_of_a_worker_that_is_killed_finish_on_another_one(system: System, namespace: str) -> None:
    held = Held(system, namespace, "killed")
    victim = held.busiest()
    moving = held.on(victim)
    incarnation = _worker(system, victim)["incarnation"]

    def running() -> dict[str, str]:
        # The kubelet starts the container again. It is killed each time, or it might get its own jobs once more.
        process = system.process(victim)
        if process is not None:
            process.signal(signal.SIGKILL)
        return held.running()

    system.until(running, lambda where: victim not in where.values())
    ended = held.finish()

    assert {phase(job) for job in ended.values()} == {"Succeeded"}
    for name, job in ended.items():
        attempts = job["status"]["attempts"]
        if name not in moving:
            assert [attempt["outcome"] for attempt in attempts] == ["Succeeded"]
            continue
        assert attempts[0]["incarnation"] == incarnation
        *lost, last = attempts
        assert {(attempt["worker"], attempt["outcome"], attempt["reason"]) for attempt in lost} == {
            (victim, "Lost", "WorkerLost")
        }
        assert last["outcome"] == "Succeeded"
        assert last["worker"] != victim
    _each_returned_once(held)
    system.kubectl("delete", "pod", victim, f"--namespace={NAMESPACE}", "--wait=false")  # it would restart ever later
    system.until_whole()


def test_a_worker_that_is_asked_to_go_finishes_what_it_can_and_the_rest_moves_on(
    system: System, namespace: str
) -> None:
    held = Held(system, namespace, "asked")
    victim = held.busiest()
    short = [f"short-{number}" for number in range(WORKERS * CONCURRENCY - len(held.names))]
    _create(system, namespace, *short, type="record.slow", payload={"seconds": 2})
    system.until(lambda: system.records().starts_by_job(prefix="short-"), lambda starts: len(starts) == len(short))
    system.kubectl("delete", "pod", victim, f"--namespace={NAMESPACE}")

    # What ends within the grace ends where it began.
    done = system.until_over(short, namespace=namespace)
    assert {(phase(job), len(job["status"]["attempts"])) for job in done.values()} == {("Succeeded", 1)}
    assert system.records().starts_by_job(prefix="short-") == dict.fromkeys(short, 1)

    # Its own word or the kubelet's, not 15 s of silence.
    status = system.until(lambda: _worker(system, victim), _is_offline)
    assert _not_ready_because(status) in {"Stopped", "PodGone"}

    system.until(held.running, lambda where: victim not in where.values())
    ended = held.finish()
    for name in held.on(victim):
        first, last = ended[name]["status"]["attempts"]
        assert (first["worker"], first["outcome"], first["reason"]) == (victim, "Lost", "WorkerStopped")
        assert (last["outcome"], phase(ended[name])) == ("Succeeded", "Succeeded")
        assert last["worker"] != victim
    _each_returned_once(held)
    system.until_whole()


def test_a_worker_whose_pod_is_gone_is_offline_at_once(system: System, namespace: str) -> None:
    held = Held(system, namespace, "gone")
    victim = held.busiest()
    process = system.until(lambda: system.process(victim))
    system.kubectl("delete", "pod", victim, f"--namespace={NAMESPACE}", "--wait=false")
    assert process is not None
    process.signal(signal.SIGKILL)  # no time for a goodbye

    status = system.until(lambda: _worker(system, victim), _is_offline)
    assert _not_ready_because(status) == "PodGone"
    system.until(held.running, lambda where: victim not in where.values())
    ended = held.finish()
    for name in held.on(victim):
        first, last = ended[name]["status"]["attempts"]
        assert (first["worker"], first["outcome"], first["reason"]) == (victim, "Lost", "WorkerLost")
        assert (last["outcome"], phase(ended[name])) == ("Succeeded", "Succeeded")
        assert last["worker"] != victim
    _each_returned_once(held)
    system.until_whole()


def _is_offline(worker: dict[str, Any]) -> bool:
    return worker.get("phase") == "Offline"


def _each_returned_once(held: Held) -> None:
    returned = [record.name for record in held.system.records().events("returned", prefix=f"{held.prefix}-")]
    assert sorted(returned) == sorted(held.names)
