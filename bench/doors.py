"""Submissions a second through REST and gRPC, beside raw creates on the same API server; and many open streams.

`python -m bench.doors` starts an API server with etcd, RabbitMQ and a gateway as processes, and then, in turn,
creates jobs directly, by REST and by gRPC, 32 at a time. Nobody runs them: a submission needs no leader. For each door
it prints the submissions per second beside those of the raw creates before and after it (the ratio), and latencies.
Then it opens streams, changes jobs, and prints what the gateway's memory came to and how long it took until all had
seen every change. No number of this bench is an assertion.
"""

import argparse
import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import aiohttp
import grpc
import orjson
import uvloop

from bench.measuring import cpu_seconds, many, median, memory, percentile
from distriqueue.gateway.rpc.methods import call
from distriqueue.gateway.rpc.stubs import jobs_pb2
from distriqueue.kube.client import KubeClient
from distriqueue.kube.resources import JOBS
from localcluster.control_plane import ControlPlane
from localcluster.programs import Programs
from localcluster.rabbitmq import Broker
from localcluster.resources import install_definitions, make_namespace
from tests.support import gateways

RAW, SERVED = "raw", "bench"
PAYLOAD: Final = {"customer": "c-0042", "sleepSeconds": 0}
AT_ONCE = 32
WARM_UP = 200
JOB_EVENT = b"event: job\n"
STREAMED = {"namespace": SERVED, "type": "streamed"}

Create = Callable[[int], Awaitable[None]]


class Doors:
    """The three ways to create a job; each returns when the job is stored."""

    def __init__(self, kube: KubeClient, session: aiohttp.ClientSession, channel: grpc.aio.Channel, token: str) -> None:
        """Keep the connections, made before."""
        self._kube = kube
        self._session = session
        self._submit = call(channel, "Submit")
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._body = orjson.dumps({"namespace": SERVED, "type": "noop", "payload": PAYLOAD})

    async def raw(self, _: int) -> None:
        """A create by the API server's own interface, in a namespace that the gateway does not watch."""
        body = {
            "apiVersion": JOBS.api_version,
            "kind": JOBS.kind,
            "metadata": {"generateName": "noop-", "namespace": RAW},
            "spec": {"type": "noop", "payload": PAYLOAD},
        }
        await self._kube.request("POST", JOBS.collection(RAW), body=body)

    async def rest(self, _: int) -> None:
        """A submission by REST."""
        async with self._session.post("/api/jobs", data=self._body) as answer:
            text = await answer.read()
            if answer.status != 201:  # noqa: PLR2004 - Created
                raise RuntimeError(f"REST answered {answer.status}: {text.decode()}")

    async def grpc(self, _: int) -> None:
        """A submission by gRPC."""
        request = jobs_pb2.SubmitRequest(
            namespace=SERVED, job=jobs_pb2.JobSubmission(type="noop", payload_json=orjson.dumps(PAYLOAD).decode())
        )
        await self._submit(request, metadata=self._metadata)


async def measured(count: int, create: Create) -> tuple[float, list[float]]:
    """Creations per second, and the seconds of each."""
    seconds: list[float] = []

    async def one(number: int) -> None:
        began = time.perf_counter()
        await create(number)
        seconds.append(time.perf_counter() - began)

    return count / await many(count, one, at_once=AT_ONCE), seconds


async def submissions(doors: Doors, arguments: argparse.Namespace, pid: int) -> dict[str, Any]:
    """Both doors beside raw creates, in turn."""
    ways: dict[str, Create] = {"rest": doors.rest, "grpc": doors.grpc}
    for create in (doors.raw, *ways.values()):
        await measured(WARM_UP, create)
    raw_rates: list[float] = []
    raw_seconds: list[float] = []
    figures: dict[str, dict[str, list[float]]] = {name: {"rates": [], "ratios": [], "seconds": []} for name in ways}
    cpu = dict.fromkeys(ways, 0.0)
    for turn in range(arguments.rounds):
        before, seconds = await measured(arguments.jobs, doors.raw)
        raw_seconds += seconds
        for name, create in ways.items():
            spent = cpu_seconds(pid)
            rate, seconds = await measured(arguments.jobs, create)
            cpu[name] += cpu_seconds(pid) - spent
            after, more = await measured(arguments.jobs, doors.raw)
            raw_seconds += more
            raw_rates.append((before + after) / 2)
            figures[name]["rates"].append(rate)
            figures[name]["ratios"].append(rate / raw_rates[-1])
            figures[name]["seconds"] += seconds
            print(f"round {turn + 1}: {name} {rate:5.0f}/s beside raw {raw_rates[-1]:5.0f}/s", flush=True)
            before = after
    return {
        "raw_creates_per_second": round(median(raw_rates)),
        "raw_p99_ms": round(1000 * percentile(raw_seconds, 0.99), 1),
    } | {
        name: {
            "per_second": round(median(of["rates"])),
            "ratio": round(median(of["ratios"]), 2),
            "p50_ms": round(1000 * median(of["seconds"]), 1),
            "p99_ms": round(1000 * percentile(of["seconds"], 0.99), 1),
            "gateway_cpu_ms": round(1000 * cpu[name] / (arguments.jobs * arguments.rounds), 2),
        }
        for name, of in figures.items()
    }


class Reader:
    """One open stream, and how many changes it has seen since it was up to date."""

    def __init__(self) -> None:
        """Nothing was read yet."""
        self.synced = asyncio.Event()
        self.seen = 0
        self.changed = asyncio.Event()

    async def read(self, session: aiohttp.ClientSession) -> None:
        """Read until cancelled."""
        timeout = aiohttp.ClientTimeout(total=None)
        async with session.get(
            "/api/jobs/stream", params={"namespace": SERVED, "type": "streamed"}, timeout=timeout
        ) as answer:
            answer.raise_for_status()
            async for line in answer.content:
                if line == b"event: synced\n":
                    self.synced.set()
                elif line == JOB_EVENT:
                    self.seen += 1
                    self.changed.set()


async def streams(
    session: aiohttp.ClientSession, kube: KubeClient, count: int, changes: int, pid: int
) -> dict[str, Any]:
    """Open streams, change jobs, and see what becomes of the gateway's memory."""
    idle = memory(pid, "VmRSS")
    readers = [Reader() for _ in range(count)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(reader.read(session)) for reader in readers]
        for reader in readers:
            await reader.synced.wait()
        opened = memory(pid, "VmRSS")
        spent, began = cpu_seconds(pid), time.perf_counter()
        body = {"apiVersion": JOBS.api_version, "kind": JOBS.kind, "spec": {"type": "streamed", "payload": PAYLOAD}}

        async def change(number: int) -> None:
            metadata = {"name": f"streamed-{number}", "namespace": SERVED}
            await kube.request("POST", JOBS.collection(SERVED), body={**body, "metadata": metadata})

        await many(changes, change, at_once=AT_ONCE)
        created = time.perf_counter()
        for reader in readers:
            while reader.seen < changes:
                reader.changed.clear()
                await reader.changed.wait()
        reached = time.perf_counter()
        after = memory(pid, "VmRSS")
        for task in tasks:
            task.cancel()
    return {
        "streams": count,
        "changes": changes,
        "memory_mib": {"before": round(idle), "open": round(opened), "after_changes": round(after)},
        "changes_delivered_per_second": round(count * changes / (reached - began)),
        "last_reader_after_last_create_s": round(reached - created, 2),
        "gateway_cpu_us_per_delivery": round(1e6 * (cpu_seconds(pid) - spent) / (count * changes)),
    }


async def measure(arguments: argparse.Namespace, plane: ControlPlane, gateway: gateways.Gateway) -> dict[str, Any]:
    """Run all; returns the figures."""
    pid = gateway.program.process.pid
    async with contextlib.AsyncExitStack() as stack:
        kube = await stack.enter_async_context(
            await KubeClient.connect(plane.kubeconfig, pool_size=40, user_agent="bench")
        )
        token = await gateways.make_caller(kube, SERVED, "bench")
        headers = gateways.bearer(token) | {"Content-Type": "application/json"}
        session = await stack.enter_async_context(
            aiohttp.ClientSession(gateway.url, headers=headers, connector=aiohttp.TCPConnector(limit=0))
        )
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(gateway.target))
        doors = Doors(kube, session, channel, token)
        figures: dict[str, Any] = {"submissions": await submissions(doors, arguments, pid)}
        if arguments.streams:
            figures["streams"] = await streams(session, kube, arguments.streams, arguments.changes, pid)
    return figures


def main() -> None:
    """Run the bench and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--jobs", type=int, default=1000, help="submissions of each round and door")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, raw and both doors in turn")
    parser.add_argument("--streams", type=int, default=1000, help="streams that are open at once; 0 for none")
    parser.add_argument("--changes", type=int, default=50, help="changes that all streams see")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--keep-logs", type=Path, help="keep the programs' logs in this directory")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="distriqueue-bench-")))
        plane = stack.enter_context(ControlPlane(directory / "plane"))
        broker = stack.enter_context(Broker(directory / "rabbitmq"))
        install_definitions(plane.kubeconfig)
        for namespace in (RAW, SERVED):
            make_namespace(plane.kubeconfig, namespace)
        programs = stack.enter_context(
            Programs(
                arguments.keep_logs or directory / "programs",
                kubeconfig=plane.kubeconfig,
                amqp_url=broker.url,
                environment={"DISTRIQUEUE_NAMESPACES": SERVED, "DISTRIQUEUE_POD_NAMESPACE": SERVED},
            )
        )
        gateway = gateways.start(
            programs, ACCESS_LOG="false", REQUESTS_PER_SECOND="0", STREAMS_PER_CALLER="100000", LOG_LEVEL="WARNING"
        )
        figures = uvloop.run(measure(arguments, plane, gateway))
    print(json.dumps(figures, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
