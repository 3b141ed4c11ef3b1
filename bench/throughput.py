"""End-to-end jobs per second and latency, beside the raw rate of the same API server, in one run.

`python -m bench.throughput` starts an API server with etcd, RabbitMQ, two operators and a worker as processes, and
then, in turn: the raw pair (one create and one status write per object, 32 at a time, in a namespace that nobody
watches) and jobs from create to final status. The headline is the ratio of the two, pair by pair; its median is
printed as `ratio: 0.NN`. Nothing but what is installed here is measured: no number of this bench is an assertion.
"""

import argparse
import asyncio
import contextlib
import json
import tempfile
import time
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Any

import uvloop

from bench.measuring import cpu_seconds, many, median, percentile
from distriqueue.kube.client import KubeClient
from distriqueue.kube.resources import JOBS, version_of
from distriqueue.kube.statuses import StatusWriter
from localcluster.control_plane import ControlPlane
from localcluster.programs import Programs
from localcluster.rabbitmq import Broker
from localcluster.resources import install_definitions, make_namespace

RAW, JOBS_NAMESPACE = "raw", "bench"
PATIENCE_SECONDS = 600


def manifest(namespace: str, name: str) -> dict[str, Any]:
    """A small job that its worker ends at once."""
    return {
        "apiVersion": JOBS.api_version,
        "kind": JOBS.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"type": "noop", "payload": {"sleepSeconds": 0, "customer": "c-0042"}},
    }


class FinishLine:
    """Sees jobs reach Succeeded, and when."""

    def __init__(self, client: KubeClient, *, prefix: str, count: int) -> None:
        self._client = client
        self._prefix = prefix
        self._count = count
        self.ready = asyncio.Event()
        self.seen: dict[str, float] = {}
        self.last_status: dict[str, Any] = {}

    async def watch(self) -> None:
        """Return when all of them are there. The API server ends watches when it likes: list, and go on."""
        final = {"fieldSelector": "status.phase=Succeeded"}
        path = JOBS.collection(JOBS_NAMESPACE)
        while len(self.seen) < self._count:
            page = await self._client.request("GET", path, params=final)
            for item in page["items"]:
                self._see(item)
            self.ready.set()
            params = final | {"resourceVersion": page["metadata"]["resourceVersion"]}
            async with aclosing(self._client.stream(path, params, inactivity=120)) as events:
                async for event in events:
                    self._see(event["object"])
                    if len(self.seen) == self._count:
                        return

    def _see(self, item: dict[str, Any]) -> None:
        name = item["metadata"]["name"]
        if name.startswith(self._prefix) and name not in self.seen:
            self.seen[name] = time.perf_counter()
            self.last_status = item["status"]


class Bench:
    """One run against one set of processes."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._writer = StatusWriter(client, JOBS)
        self._round = 0
        self._final_status: dict[str, Any] = {}

    async def raw_pairs(self, count: int) -> float:
        """One create and one status write per object; returns pairs per second."""
        self._round += 1
        status = self._final_status or {"phase": "Succeeded"}

        async def pair(number: int) -> None:
            body = manifest(RAW, f"raw-{self._round}-{number}")
            made = await self._client.request("POST", JOBS.collection(RAW), body=body, accept=None)
            metadata = made["metadata"]
            await self._writer.write(RAW, metadata["name"], metadata["uid"], version_of(made), status)

        return count / await many(count, pair)

    async def jobs(self, count: int) -> tuple[float, list[float]]:
        """Create jobs and wait for all of them; returns jobs per second, and seconds from create to Succeeded."""
        self._round += 1
        prefix = f"job-{self._round}-"
        created: dict[str, float] = {}
        finish = FinishLine(self._client, prefix=prefix, count=count)
        watching = asyncio.create_task(finish.watch())
        await finish.ready.wait()

        async def create(number: int) -> None:
            name = f"{prefix}{number}"
            created[name] = time.perf_counter()
            await self._client.request("POST", JOBS.collection(JOBS_NAMESPACE), body=manifest(JOBS_NAMESPACE, name))

        began = time.perf_counter()
        await many(count, create)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await watching
        self._final_status = finish.last_status
        return count / (max(finish.seen.values()) - began), [finish.seen[name] - created[name] for name in created]

    async def idle(self, count: int) -> tuple[list[float], list[float]]:
        """One job at a time; returns seconds from create to the handler's start, and to Succeeded."""
        starts: list[float] = []
        ends: list[float] = []
        for number in range(count):
            self._round += 1
            name = f"idle-{self._round}-{number}"
            wall, began = time.time(), time.perf_counter()
            made = await self._client.request(
                "POST", JOBS.collection(JOBS_NAMESPACE), body=manifest(JOBS_NAMESPACE, name)
            )
            params = {
                "resourceVersion": made["metadata"]["resourceVersion"],
                "fieldSelector": f"metadata.name={name},status.phase=Succeeded",
            }
            stream = self._client.stream(JOBS.collection(JOBS_NAMESPACE), params, inactivity=60)
            async with aclosing(stream) as events:
                async for event in events:
                    ends.append(time.perf_counter() - began)
                    started = datetime.fromisoformat(event["object"]["status"]["startTime"]).timestamp()
                    starts.append(started - wall)
                    break
        return starts, ends


async def measure(arguments: argparse.Namespace, plane: ControlPlane, pids: dict[str, int]) -> dict[str, Any]:
    """Run all rounds; returns the figures."""
    async with await KubeClient.connect(plane.kubeconfig, pool_size=40, user_agent="bench") as client:
        bench = Bench(client)
        await bench.jobs(min(200, arguments.jobs))  # warms everything up
        await bench.raw_pairs(200)
        raw, rates, ratios, latencies = [], [], [], []
        cpu: dict[str, float] = dict.fromkeys(pids, 0.0)
        for turn in range(arguments.rounds):
            pairs = await bench.raw_pairs(arguments.jobs)
            before = {name: cpu_seconds(pid) for name, pid in pids.items()}
            rate, seconds = await bench.jobs(arguments.jobs)
            for name, pid in pids.items():
                cpu[name] += cpu_seconds(pid) - before[name]
            raw.append(pairs)
            rates.append(rate)
            ratios.append(rate / pairs)
            latencies.extend(seconds)
            print(
                f"round {turn + 1}: raw pairs {pairs:6.0f}/s   jobs {rate:6.0f}/s   ratio {rate / pairs:.2f}",
                flush=True,
            )
        starts, ends = await bench.idle(arguments.idle)
    total = arguments.rounds * arguments.jobs
    return {
        "raw_pairs_per_second": round(median(raw)),
        "jobs_per_second": round(median(rates)),
        "ratio": round(median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "burst_create_to_succeeded_ms": _spread(latencies),
        "idle_create_to_start_ms": _spread(starts),
        "idle_create_to_succeeded_ms": _spread(ends),
        "cpu_ms_per_job": {name: round(1000 * spent / total, 2) for name, spent in cpu.items()},
    }


def _spread(seconds: list[float]) -> dict[str, float]:
    return {"p50": round(1000 * median(seconds), 1), "p99": round(1000 * percentile(seconds, 0.99), 1)}


def main() -> None:
    """Run the bench and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--jobs", type=int, default=2000, help="jobs and raw pairs of each round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, raw and jobs in turn")
    parser.add_argument("--idle", type=int, default=100, help="jobs run one at a time")
    parser.add_argument("--concurrency", type=int, default=32, help="slots of the worker")
    parser.add_argument("--operators", type=int, default=2, help="replicas of the operator")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--keep-logs", type=Path, help="keep the programs' logs in this directory")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="distriqueue-bench-")))
        plane = stack.enter_context(ControlPlane(directory / "plane"))
        broker = stack.enter_context(Broker(directory / "rabbitmq"))
        install_definitions(plane.kubeconfig)
        for namespace in (RAW, JOBS_NAMESPACE):
            make_namespace(plane.kubeconfig, namespace)
        programs = stack.enter_context(
            Programs(
                arguments.keep_logs or directory / "programs",
                kubeconfig=plane.kubeconfig,
                amqp_url=broker.url,
                environment={"DISTRIQUEUE_NAMESPACES": JOBS_NAMESPACE, "DISTRIQUEUE_LOG_LEVEL": "WARNING"},
            )
        )
        operators = [programs.operator(f"operator-{number}") for number in range(arguments.operators)]
        worker = programs.worker(concurrency=arguments.concurrency)
        pids = {operator.name: operator.process.pid for operator in operators} | {"worker": worker.process.pid}
        for name in ("kube-apiserver", "etcd"):
            process = plane.process(name)
            if process is not None:
                pids[name] = process.pid
        if broker.pid is not None:
            pids["rabbitmq"] = broker.pid
        figures = uvloop.run(measure(arguments, plane, pids))
    print(json.dumps(figures, indent=2))
    print(f"ratio: {figures['ratio']:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
