"""`python -m distriqueue.operator.smoke`: one job from creation to its result, the way a user would see it.

Creates a small `calculate` job under a generated name, watches it until it is Complete, prints its result and deletes
it. It needs no more than rights on DistributedJobs in one namespace, and says nothing about load. `helm test` runs it.

Exit status: 0 when the job completed with the right result, 1 when it did not in time, and says how far it came. The
job is deleted in any case; only an API server that is away can keep it from that.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from distriqueue.api.conditions import JobCondition
from distriqueue.kube.client import KubeClient
from distriqueue.kube.errors import KubeError
from distriqueue.kube.resources import JOBS

OPERANDS: Final = (19, 23)
EXPECTED: Final = {"result": 42.0}
"""What `calculate` returns for the sum of them."""

PAUSE_SECONDS: Final = 1.0
"""Between two tries to watch, when the API server ended a watch or did not answer."""


class SmokeError(Exception):
    """The job did not complete as it should; the message says how far it came."""


def manifest(*, namespace: str, pool: str) -> dict[str, Any]:
    """Return the job that is created."""
    return {
        "apiVersion": JOBS.api_version,
        "kind": JOBS.kind,
        "metadata": {"generateName": "smoke-", "namespace": namespace},
        "spec": {
            "type": "calculate",
            "payload": {"operation": "add", "operands": list(OPERANDS)},
            "poolName": pool,
            "priority": "High",
        },
    }


async def run(client: KubeClient, *, namespace: str, pool: str, seconds: float) -> str:
    """Create the job, wait for it, delete it.

    Args:
        client: Whoever may create, watch and delete jobs in the namespace.
        namespace: Where the job is created.
        pool: The pool whose workers are to run it.
        seconds: How long it may take.

    Returns:
        A sentence with the job's name and result.

    Raises:
        SmokeError: It did not complete in time, failed, or has another result.
        KubeError: The API server refused to create it.
    """
    job = await client.request("POST", JOBS.collection(namespace), body=manifest(namespace=namespace, pool=pool))
    name = job["metadata"]["name"]
    sys.stdout.write(f"created {name} in {namespace}\n")
    try:
        job = await _finished(client, job, deadline=time.monotonic() + seconds)
        status = job["status"]
        if status.get("result") != EXPECTED:
            raise SmokeError(f"{name}: expected the result {EXPECTED}: {json.dumps(status)}")
        return f"{name}: {status['phase']} on {status.get('worker')}, result {json.dumps(status['result'])}"
    finally:
        with contextlib.suppress(KubeError):
            await client.request("DELETE", JOBS.path(namespace, name))


async def _finished(client: KubeClient, job: dict[str, Any], *, deadline: float) -> dict[str, Any]:
    """Return the job when it is Complete; watching again and again bridges whatever ends a watch."""
    namespace, name = job["metadata"]["namespace"], job["metadata"]["name"]
    trouble = ""
    while (left := deadline - time.monotonic()) > 0:
        try:
            job = await client.request("GET", JOBS.path(namespace, name))
            if _is_complete(job):
                return job
            params = {
                "fieldSelector": f"metadata.name={name}",
                "resourceVersion": job["metadata"]["resourceVersion"],
                "timeoutSeconds": str(int(left) + 1),
            }
            async with contextlib.aclosing(
                client.stream(JOBS.collection(namespace), params, inactivity=left)
            ) as events:
                async for event in events:
                    job = event["object"]
                    if event["type"] == "DELETED":
                        raise SmokeError(f"{name} was deleted by somebody else")
                    if _is_complete(job):
                        return job
        except KubeError as error:
            trouble = f"; {error}"
            await asyncio.sleep(PAUSE_SECONDS)
    raise SmokeError(f"{name} did not complete in time: {json.dumps(job.get('status', {}))}{trouble}")


def _is_complete(job: dict[str, Any]) -> bool:
    conditions = {entry["type"]: entry for entry in job.get("status", {}).get("conditions", [])}
    failed = conditions.get(JobCondition.FAILED, {})
    if failed.get("status") == "True":
        raise SmokeError(f"{job['metadata']['name']} failed: {failed.get('reason')}: {failed.get('message')}")
    return bool(conditions.get(JobCondition.COMPLETE, {}).get("status") == "True")


async def _main(options: argparse.Namespace) -> int:
    try:
        async with await KubeClient.connect(options.kubeconfig, user_agent="distriqueue-smoke") as client:
            sentence = await run(client, namespace=options.namespace, pool=options.pool, seconds=options.timeout)
    except (SmokeError, KubeError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{sentence}\n")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one job and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m distriqueue.operator.smoke", description="Run one small job and wait for its result."
    )
    parser.add_argument("--namespace", default="default", help="where the job is created (default: default)")
    parser.add_argument("--pool", default="default", help="the pool that is to run it (default: default)")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS", help="how long it may take")
    parser.add_argument("--kubeconfig", type=Path, help="a kubeconfig; in a pod its service account is used")
    return asyncio.run(_main(parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
