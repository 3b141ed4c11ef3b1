"""An HTTP worker that a test plays by hand, and the shell worker of examples/http-worker as a process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final, Self

import httpx

from tests.support.gateways import Gateway, bearer
from tests.support.recording_tasks import RECORDS_VARIABLE
from tests.support.stages import Stage

ROOT: Final = Path(__file__).resolve().parents[2]
SHELL_WORKER: Final = ROOT / "examples" / "http-worker" / "worker.sh"
RECORDING_HANDLER: Final = ROOT / "tests" / "support" / "recording_handler.py"
WAIT_SECONDS: Final = 10.0


class HandWorker:
    """Keeps the rules of docs/http-workers.md as far as its test wants; use it as a context manager.

    Attributes:
        session: Of the last registration.
        jobs: What it holds, by grant: as `jobs/next` brought it.
        received: The highest number that it took note of.
    """

    def __init__(self, gateway: Gateway, token: str, stage: Stage, name: str, **fields: Any) -> None:
        self.fields = {"name": name, "namespaces": [stage.namespace], **fields}
        self.session = ""
        self.jobs: dict[str, dict[str, Any]] = {}
        self.received = 0
        self.requests = 0
        self._token = token
        self._client = self._at(gateway)

    def _at(self, gateway: Gateway) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=gateway.url, headers=bearer(self._token), timeout=30)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def move(self, gateway: Gateway) -> None:
        """Speak to another replica from here on."""
        await self._client.aclose()
        self._client = self._at(gateway)

    async def post(self, path: str, body: dict[str, Any] | None = None, **more: Any) -> httpx.Response:
        """Any request."""
        return await self._client.post(f"/api/workers/{path}", json=body or {}, **more)

    async def register(self) -> httpx.Response:
        """Register, again if it has a session, with what it holds."""
        body = {**self.fields, "jobs": [{"receipt": job["receipt"]} for job in self.jobs.values()]}
        if self.session:
            body["supersedes"] = self.session
        answer = await self.post("register", body)
        if answer.status_code == 200:
            self.session = answer.json()["session"]
            self.received = 0
        return answer

    async def beat(self, **more: Any) -> httpx.Response:
        """Send the full state; `more` goes with each job."""
        jobs = [{"grant": grant, **more} for grant in self.jobs]
        return await self.post(f"{self.session}/heartbeat", {"received": self.received, "jobs": jobs})

    async def ask(self, most: int = 1, *, wait: float = WAIT_SECONDS) -> list[dict[str, Any]]:
        """Ask for jobs, and forget the answer."""
        self.requests += 1
        body = {"request": self.requests, "received": self.received, "max": most}
        answer = await self.post(f"{self.session}/jobs/next", body, params={"wait": wait})
        assert answer.status_code == 200, answer.text
        jobs: list[dict[str, Any]] = answer.json()["jobs"]
        return jobs

    async def take(self, most: int = 1, *, wait: float = WAIT_SECONDS) -> list[dict[str, Any]]:
        """Ask for jobs, and take note of the answer."""
        jobs = await self.ask(most, wait=wait)
        for job in jobs:
            self.jobs[job["grant"]] = job
            self.received = max(self.received, job["number"])
        return jobs

    async def report(self, grant: str, **fields: Any) -> httpx.Response:
        """Report an attempt; a success that tells its grant unless said otherwise."""
        body = {"grant": grant, "outcome": "succeeded", "result": {"grant": grant}, **fields}
        if body["outcome"] != "succeeded":
            del body["result"]
        answer = await self.post(f"{self.session}/jobs/report", body)
        if answer.status_code in {200, 409}:
            self.jobs.pop(grant, None)
        return answer


class ShellWorker:
    """The example worker as a process group of its own, with a handler that writes records."""

    def __init__(
        self, stage: Stage, name: str, *, urls: str, token: str, capacity: int = 4, **environment: str
    ) -> None:
        self.name = name
        self.log = stage.programs.directory / f"{name}.log"
        variables = {
            "URL": urls,
            "TOKEN": token,
            "WORKER_NAME": name,
            "WORKER_CAPACITY": str(capacity),
            "WORKER_NAMESPACES": stage.namespace,
            "WORKER_GRACE_SECONDS": "2",
            **environment,
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(SHELL_WORKER), sys.executable, str(RECORDING_HANDLER)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={
                    **os.environ,
                    "PYTHONPATH": "",
                    RECORDS_VARIABLE: str(stage.records.path),
                    **{f"DISTRIQUEUE_{key}": value for key, value in variables.items()},
                },
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()

    def kill(self) -> float:
        """Kill -9, as when its container dies; returns when (monotonic)."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return time.monotonic()

    def terminate(self, *, seconds: float = 60.0) -> int:
        """Ask it to leave, by a signal to the whole group as a supervisor sends it; returns its exit status."""
        os.killpg(self.process.pid, signal.SIGTERM)
        return self.process.wait(timeout=seconds)
