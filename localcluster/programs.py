"""Operators, gateways and workers as processes on this machine, for integration tests, fault tests and benches.

They are the real programs, run from the checkout against a real API server and a real RabbitMQ; only the pods around
them are missing. Guarantees: `operator`, `gateway` and `worker` return when the program says that it is ready, and
every process ends when this process ends. Fails with `NotReadyError`, with the end of the log.
"""

import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from localcluster.ports import free_port
from localcluster.processes import Children, Process
from localcluster.waiting import wait_until_ready

ROOT = Path(__file__).resolve().parent.parent
STOP_SECONDS = 40.0
SOURCES = ("operator/src", "worker-image/python/src")


class Program:
    """One process: an operator, a gateway or a worker."""

    def __init__(self, name: str, process: Process, *, port: int, log: Path, children: Children) -> None:
        """Keep what is known of it."""
        self.name = name
        self.process = process
        self.port = port
        self.log = log
        self._children = children

    def get(self, path: str) -> str:
        """Return what it serves at a path: ``/metrics``, ``/healthz``, ``/readyz``."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def metric(self, name: str) -> float:
        """Return the sum of a metric over all its labels; 0 when there is no such sample."""
        lines = (line for line in self.get("/metrics").splitlines() if line.split("{")[0].split(" ")[0] == name)
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def ready(self) -> bool:
        """Return whether it says that it is ready."""
        try:
            self.get("/readyz")
        except (OSError, urllib.error.URLError):
            return False
        return True

    def kill(self) -> None:
        """Kill it (SIGKILL), and return when it is gone."""
        self._children.stop(self.name, grace=0)

    def stop(self) -> None:
        """Ask it to end (SIGTERM), and return when it is gone."""
        self._children.stop(self.name, grace=STOP_SECONDS)

    def terminate(self) -> None:
        """Ask it to end (SIGTERM), and return at once."""
        self.process.signal(signal.SIGTERM)

    def freeze(self) -> None:
        """Stop it in its tracks (SIGSTOP)."""
        self.process.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on (SIGCONT)."""
        self.process.signal(signal.SIGCONT)


class Programs:
    """Starts operators, gateways and workers; a context manager that ends them all."""

    def __init__(
        self, directory: Path, *, kubeconfig: Path, amqp_url: str, environment: Mapping[str, str] | None = None
    ) -> None:
        """Name what all of them share.

        Args:
            directory: For logs.
            kubeconfig: Of the API server.
            amqp_url: Of the broker.
            environment: Further variables for all.
        """
        self.directory = directory
        self._children = Children()
        self._shared = {
            "PYTHONPATH": os.pathsep.join([*(str(ROOT / source) for source in SOURCES), str(ROOT)]),
            "PYTHONUNBUFFERED": "1",
            "DISTRIQUEUE_AMQP_URL": amqp_url,
            "DISTRIQUEUE_KUBECONFIG": str(kubeconfig),
            "DISTRIQUEUE_HTTP_HOST": "127.0.0.1",
            **(environment or {}),
        }
        directory.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End all."""
        self.close()

    def close(self) -> None:
        """Kill what still runs."""
        self._children.close()

    def operator(self, name: str = "operator", **environment: str) -> Program:
        """Start an operator and return it when it is ready.

        Args:
            name: Of the process and of the replica.
            environment: Further variables, without the prefix ``DISTRIQUEUE_``: ``LOG_LEVEL="DEBUG"``.
        """
        return self._start(name, "distriqueue.operator", {"POD_NAME": name, **environment})

    def gateway(self, name: str = "gateway", **environment: str) -> Program:
        """Start a gateway and return it when it is ready.

        Args:
            name: Of the process and of the replica.
            environment: Further variables, without the prefix ``DISTRIQUEUE_``; it needs ports of its own.
        """
        return self._start(name, "distriqueue.gateway", {"POD_NAME": name, **environment})

    def worker(self, name: str = "worker", *, concurrency: int = 4, tasks: str = "", **environment: str) -> Program:
        """Start a worker and return it when it is ready.

        Args:
            name: Of the process and of the worker.
            concurrency: Its slots.
            tasks: Modules with tasks of one's own, separated by commas.
            environment: Further variables, without the prefix ``DISTRIQUEUE_``.
        """
        own = {"WORKER_NAME": name, "WORKER_CONCURRENCY": str(concurrency), "WORKER_TASKS": tasks}
        return self._start(name, "distriqueue_worker", {**own, **environment})

    def _start(self, name: str, module: str, environment: Mapping[str, str]) -> Program:
        port = free_port()
        log = self.directory / f"{name}.log"
        variables = {f"DISTRIQUEUE_{key}": value for key, value in environment.items()}
        process = self._children.start(
            name,
            [sys.executable, "-m", module],
            log=log,
            env={**self._shared, **variables, "DISTRIQUEUE_HTTP_PORT": str(port)},
        )
        program = Program(name, process, port=port, log=log, children=self._children)
        wait_until_ready(name, ready=program.ready, alive=process.alive, log=log)
        return program
