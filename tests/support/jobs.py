"""DistributedJobs of one namespace, as a test makes and watches them: through the API server, like everybody else."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from distriqueue.api.phases import FINAL_JOB_PHASES
from distriqueue.kube.client import MERGE_PATCH, KubeClient
from distriqueue.kube.errors import KubeError, NotFound
from distriqueue.kube.resources import JOBS, WORKERS
from tests.support.waiting import PATIENCE_SECONDS, until

CREATES_AT_A_TIME = 16

Job = dict[str, Any]


def manifest(namespace: str, name: str, **spec: Any) -> Job:
    """A manifest; the fields of the spec as in YAML, the type is `record` unless given."""
    return {
        "apiVersion": JOBS.api_version,
        "kind": JOBS.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"type": "record", **spec},
    }


def phase(job: Job) -> str:
    """The phase of a job."""
    return str(job["status"]["phase"])


def is_final(job: Job) -> bool:
    """Whether a job is over."""
    return phase(job) in FINAL_JOB_PHASES


def condition(job: Job, kind: str) -> dict[str, Any]:
    """A condition of a job; empty when it has none of that type."""
    found = (item for item in job["status"].get("conditions", []) if item["type"] == kind)
    return next(found, {})


class Jobs:
    """The jobs, and the workers, of one namespace.

    An API server that is down for a moment is waited for: some tests take it down.
    """

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self.client = client
        self.namespace = namespace

    async def create(self, name: str, **spec: Any) -> Job:
        """Create a job."""
        body = manifest(self.namespace, name, **spec)
        return await self.client.request("POST", JOBS.collection(self.namespace), body=body)

    async def burst(self, prefix: str, count: int, **spec: Any) -> list[str]:
        """Create many jobs, some at a time; returns their names."""
        names = [f"{prefix}-{number:04}" for number in range(count)]
        gate = asyncio.Semaphore(CREATES_AT_A_TIME)

        async def one(name: str) -> None:
            async with gate:
                await self.create(name, **spec)

        await asyncio.gather(*(one(name) for name in names))
        return names

    async def get(self, name: str) -> Job:
        """Read a job."""
        return await self.client.request("GET", JOBS.path(self.namespace, name))

    async def patch(self, name: str, **spec: Any) -> Job:
        """Change the spec of a job, as `kubectl patch --type=merge` does."""
        path = JOBS.path(self.namespace, name)
        return await self.client.request("PATCH", path, body={"spec": spec}, content_type=MERGE_PATCH)

    async def patch_all(self, names: Iterable[str], **spec: Any) -> None:
        """Change the specs of many jobs, some at a time."""
        gate = asyncio.Semaphore(CREATES_AT_A_TIME)

        async def one(name: str) -> None:
            async with gate:
                await self.patch(name, **spec)

        await asyncio.gather(*(one(name) for name in names))

    async def delete(self, name: str) -> None:
        """Delete a job."""
        await self.client.request("DELETE", JOBS.path(self.namespace, name))

    async def named(self, names: Iterable[str]) -> list[Job]:
        """Read many jobs at once, in this order; those that are not there are left out."""
        answer = await self.client.request("GET", JOBS.collection(self.namespace))
        found = {item["metadata"]["name"]: item for item in answer["items"]}
        return [found[name] for name in names if name in found]

    async def until(self, name: str, holds: Callable[[Job], object], *, seconds: float = PATIENCE_SECONDS) -> Job:
        """Wait until something holds of a job; returns the job as it was then."""
        last: Job = {}

        async def ask() -> bool:
            nonlocal last
            try:
                last = await self.get(name)
            except NotFound:
                raise
            except KubeError:
                return False
            return bool(holds(last))

        await until(ask, seconds=seconds, otherwise=lambda: last)
        return last

    async def ended(self, name: str, *, seconds: float = PATIENCE_SECONDS) -> Job:
        """Wait until a job is over."""
        return await self.until(name, is_final, seconds=seconds)

    async def all_ended(self, names: Iterable[str], *, seconds: float = PATIENCE_SECONDS) -> list[Job]:
        """Wait until all of these jobs are over."""
        wanted = list(names)
        last: list[Job] = []

        async def ask() -> bool:
            nonlocal last
            try:
                last = await self.named(wanted)
            except KubeError:
                return False
            return len(last) == len(wanted) and all(map(is_final, last))

        def seen() -> object:
            return Counter(map(phase, last)), [job for job in last if not is_final(job)][:3]

        await until(ask, seconds=seconds, pause=0.2, otherwise=seen)
        return last

    async def worker(self, name: str) -> dict[str, Any]:
        """Read a DistributedWorker; empty while there is none."""
        try:
            return await self.client.request("GET", WORKERS.path(self.namespace, name))
        except NotFound:
            return {}

    async def worker_until(
        self, name: str, wanted: str, *, incarnation_not: str = "", seconds: float = PATIENCE_SECONDS
    ) -> dict[str, Any]:
        """Wait until a DistributedWorker is in a phase, and names another incarnation than the one given.

        Returns:
            Its status.
        """
        last: dict[str, Any] = {}

        async def ask() -> bool:
            nonlocal last
            try:
                last = (await self.worker(name)).get("status", {})
            except KubeError:
                return False
            return last.get("phase") == wanted and last.get("incarnation") != incarnation_not

        await until(ask, seconds=seconds, otherwise=lambda: last)
        return last
