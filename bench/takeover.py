"""How long nobody leads when the leader goes, with many jobs waiting; and what that costs in memory and liveness.

`python -m bench.takeover` starts an API server with etcd, RabbitMQ and two operators as processes, creates jobs that
nobody runs, and then, in turn, asks the leader to end (SIGTERM) and kills it (SIGKILL). Each time it prints the seconds
from the signal until the other replica leads and has its tickets out, and of both replicas the memory at its highest
and the longest answer of `/healthz`. No number of this bench is an assertion.
"""

import argparse
import contextlib
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvloop

from bench.measuring import cpu_seconds, many, memory
from distriqueue.kube.client import KubeClient
from distriqueue.kube.resources import JOBS
from localcluster.control_plane import ControlPlane
from localcluster.programs import Program, Programs
from localcluster.rabbitmq import Broker
from localcluster.resources import install_definitions, make_namespace

NAMESPACE = "bench"
PATIENCE_SECONDS = 300.0
POLL_SECONDS = 0.1
PROBE_SECONDS = 0.05


def manifest(name: str) -> dict[str, Any]:
    """A job like many: a payload of a few fields."""
    payload = {"customer": "c-0042", "order": name, "items": [1, 2, 3], "note": "x" * 200}
    return {
        "apiVersion": JOBS.api_version,
        "kind": JOBS.kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"type": "noop", "payload": payload},
    }


@dataclass
class Pulse:
    """Asks an operator for its liveness all the time, as a kubelet with no patience would.

    Attributes:
        longest: The longest answer, in seconds.
        failed: Answers that did not come within a second, or were no answers.
    """

    program: Program
    longest: float = 0.0
    failed: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Begin."""
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _ask(self) -> None:
        while not self._stop.wait(PROBE_SECONDS):
            began = time.perf_counter()
            try:
                self.program.get("/healthz")
            except OSError:
                self.failed += 1
            else:
                took = time.perf_counter() - began
                self.longest = max(self.longest, took)
                self.failed += took > 1


def wait_for(what: str, program: Program, name: str, *, above: float) -> float:
    """Poll a metric until it is above a value; returns when that was seen (monotonic)."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if program.metric(name) > above:
            return time.monotonic()
        time.sleep(POLL_SECONDS)
    raise TimeoutError(f"{what}: {name} of {program.name} is {program.metric(name)}, not above {above}")


class Bench:
    """Two operators, of which one goes again and again."""

    def __init__(self, programs: Programs, *, jobs: int) -> None:
        self._programs = programs
        self._jobs = jobs
        self._started = 0
        self.leader = self._start()
        wait_for("the first leader", self.leader, "distriqueue_takeover_seconds", above=0)
        self.standby = self._start()

    def _start(self) -> Program:
        self._started += 1
        return self._programs.operator(f"operator-{self._started}")

    def settle(self) -> None:
        """Return when the leader's books have all jobs."""
        deadline, waiting = time.monotonic() + PATIENCE_SECONDS, 0.0
        while time.monotonic() < deadline:
            waiting = self.leader.metric("distriqueue_jobs_waiting") + self.leader.metric("distriqueue_tickets_out")
            if waiting >= self._jobs:
                return
            time.sleep(0.2)
        raise TimeoutError(f"the leader has {waiting:.0f} of {self._jobs} jobs")

    def hand_over(self, way: str) -> dict[str, Any]:
        """Let the leader go; returns the figures of one takeover."""
        leader, successor = self.leader, self.standby
        idle = memory(successor.process.pid, "VmRSS")
        leading = memory(leader.process.pid, "VmRSS")
        highest = memory(leader.process.pid, "VmHWM")
        spent = cpu_seconds(successor.process.pid)
        with Pulse(successor) as pulse:
            gone_at = time.monotonic()
            if way == "kill":
                leader.process.signal(9)
            else:
                leader.terminate()
            taken_at = wait_for("the Lease", successor, "distriqueue_leader", above=0)
            led_at = wait_for("the takeover", successor, "distriqueue_takeover_seconds", above=0)
            wait_for("the first tickets", successor, "distriqueue_tickets_out", above=0)
        figures = {
            "way": way,
            "signal_to_lease_seconds": round(taken_at - gone_at, 2),
            "signal_to_leading_seconds": round(led_at - gone_at, 2),
            "takeover_seconds": round(successor.metric("distriqueue_takeover_seconds"), 2),
            "takeover_cpu_seconds": round(cpu_seconds(successor.process.pid) - spent, 2),
            "standby_mib": round(idle),
            "leader_mib": round(leading),
            "leader_highest_mib": round(highest),
            "successor_highest_mib": round(memory(successor.process.pid, "VmHWM")),
            "liveness_longest_ms": round(1000 * pulse.longest),
            "liveness_failed": pulse.failed,
        }
        leader.kill()  # whatever is left of it
        self.leader = successor
        self.standby = self._start()
        self.settle()
        return figures


async def create(plane: ControlPlane, count: int) -> float:
    """Create the jobs; returns how many a second."""
    async with await KubeClient.connect(plane.kubeconfig, pool_size=40, user_agent="bench") as client:

        async def one(number: int) -> None:
            await client.request("POST", JOBS.collection(NAMESPACE), body=manifest(f"waiting-{number:06}"))

        return count / await many(count, one)


@contextlib.contextmanager
def running(keep_logs: Path | None) -> Iterator[tuple[ControlPlane, Programs]]:
    """An API server, RabbitMQ, and what starts operators."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="distriqueue-bench-")))
        plane = stack.enter_context(ControlPlane(directory / "plane"))
        broker = stack.enter_context(Broker(directory / "rabbitmq"))
        install_definitions(plane.kubeconfig)
        make_namespace(plane.kubeconfig, NAMESPACE)
        environment = {"DISTRIQUEUE_NAMESPACES": NAMESPACE, "DISTRIQUEUE_POD_NAMESPACE": NAMESPACE}
        yield (
            plane,
            stack.enter_context(
                Programs(
                    keep_logs or directory / "programs",
                    kubeconfig=plane.kubeconfig,
                    amqp_url=broker.url,
                    environment=environment,
                )
            ),
        )


def main() -> None:
    """Run the bench and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--jobs", type=int, default=20_000, help="jobs that wait")
    parser.add_argument("--rounds", type=int, default=3, help="clean ends and kills, in turn")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--keep-logs", type=Path, help="keep the programs' logs in this directory")
    arguments = parser.parse_args()
    rounds = []
    with running(arguments.keep_logs) as (plane, programs):
        bench = Bench(programs, jobs=arguments.jobs)
        rate = uvloop.run(create(plane, arguments.jobs))
        bench.settle()
        print(f"{arguments.jobs} jobs created, {rate:.0f}/s", flush=True)
        for _ in range(arguments.rounds):
            for way in ("stop", "kill"):
                rounds.append(bench.hand_over(way))
                print(json.dumps(rounds[-1]), flush=True)
    for way in ("stop", "kill"):
        worst = max(figures["signal_to_leading_seconds"] for figures in rounds if figures["way"] == way)
        print(f"{way}: at most {worst:.2f} s until the next leads")
    if arguments.json:
        arguments.json.write_text(json.dumps(rounds, indent=2) + "\n")


if __name__ == "__main__":
    main()
