"""`explain`: what a job waits for, from three lists (jobs of its pool, workers, Leases) and `core.explaining`.

Guarantees: asks nobody but the API server; what the caller may not see is said in the answer. Whether RabbitMQ answers
is not known here: a leader that loses it stops leading, and that shows.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, cast

from distriqueue.api import limits
from distriqueue.api.raw import RawJob, RawWorker
from distriqueue.cli import tables
from distriqueue.cli.clusters import Cluster, Item
from distriqueue.cli.tables import Output
from distriqueue.core import times
from distriqueue.core.explaining import Conditions, Explanation, Waiting, WorkerFacts, explain, length, measure

_DOUBT_SECONDS: Final = 15.0
"""By so much the clocks of leader and caller may differ before a Lease is called expired."""


@dataclass(frozen=True)
class Surroundings:
    """What stands around a job.

    Attributes:
        jobs: The jobs of its pool.
        everyone: Whether these are all, or those that the caller may see.
        workers: Of the operator that runs the namespace, as far as that can be told; None when the caller may not see
            them.
        leases: Likewise.
    """

    jobs: Sequence[Item]
    everyone: bool
    workers: Sequence[Item] | None
    leases: Sequence[Item] | None


async def look(cluster: Cluster, *, fields: str = "") -> Surroundings:
    """Read all that an explanation needs, or an overview."""
    (jobs, everyone), workers, leases = await asyncio.gather(
        cluster.everywhere(fields=fields), cluster.workers(), cluster.leases()
    )
    nearby = _nearby(leases, cluster.namespace) if leases is not None else None
    home = {lease["metadata"]["namespace"] for lease in nearby or ()}
    if workers is not None:
        near = [worker for worker in workers if worker["metadata"]["namespace"] in home]
        workers = near or [*_nearby(workers, cluster.namespace)]
    return Surroundings(jobs, everyone, workers, nearby)


def _nearby(items: Sequence[Item], namespace: str) -> Sequence[Item]:
    """Of several operators, the one in the namespace itself if there is one."""
    return [item for item in items if item["metadata"]["namespace"] == namespace] or items


def holder(leases: Sequence[Item], *, wall: float) -> str | None:
    """Who leads by one of these Leases."""
    for lease in leases:
        if is_held(lease, wall=wall):
            return str(lease["spec"]["holderIdentity"])
    return None


def is_held(lease: Item, *, wall: float) -> bool:
    """Whether somebody holds a Lease, going by its own times."""
    spec = lease.get("spec") or {}
    renewed = times.seconds(spec.get("renewTime"))
    if not spec.get("holderIdentity") or renewed is None:
        return False
    return bool(wall < renewed + float(spec.get("leaseDurationSeconds") or 0) + _DOUBT_SECONDS)


def explained(job: Item, around: Surroundings) -> Explanation:
    """Explain a job with what was read."""
    wall = time.time()
    pool = job["spec"].get("poolName", limits.DEFAULT_POOL_NAME)
    mates = [cast("RawJob", other) for other in around.jobs]
    conditions = Conditions(
        leader=holder(around.leases or (), wall=wall),
        broker=None,
        workers=[WorkerFacts.of(cast("RawWorker", worker)) for worker in around.workers or ()],
        recent=measure(mates, pool=pool, wall=wall),
        leader_known=around.leases is not None,
        workers_known=around.workers is not None,
        everyone=around.everyone,
    )
    others = [Waiting.of(mate, wall=wall) for mate in mates]
    return explain(cast("RawJob", job), others=others, conditions=conditions, wall=wall)


async def explanation(cluster: Cluster, job: Item) -> Explanation:
    """Read what is needed, and explain a job, created or not."""
    pool = job["spec"].get("poolName", limits.DEFAULT_POOL_NAME)
    return explained(job, await look(cluster, fields=f"spec.poolName={pool}"))


def print_explanation(job: Item, found: Explanation, output: Output) -> None:
    """Print an explanation."""
    if output in {Output.JSON, Output.YAML}:
        tables.say(tables.dump(document(job, found), output))
        return
    lines = [
        ("Job", f"{job['metadata'].get('namespace', '')}/{job['metadata'].get('name') or '(not created)'}"),
        ("Phase", str(job.get("status", {}).get("phase", "Pending"))),
        ("Waits for", str(found.blocker)),
    ]
    if found.position is not None:
        lines.append(("Position", f"{found.position} (of the jobs that wait for the pool)"))
    if found.slots or found.running:
        lines.append(("Pool", f"{found.running} running, {found.slots} slots"))
    if found.earliest is not None:
        last = f" to {length(found.latest)}" if found.latest is not None else " or later"
        lines.append(("Starts in", f"{length(found.earliest)}{last}"))
    for head, text in lines:
        tables.say(f"{head + ':':<11}{tables.cell(text)}")
    tables.say()
    tables.say(tables.plain(found.sentence))


def document(job: Item, found: Explanation) -> dict[str, Any]:
    """An explanation for programs: keys in camelCase, times in seconds from now, `until` as a time."""
    named = asdict(found)
    until = named.pop("until")
    return {
        "name": job["metadata"].get("name"),
        "namespace": job["metadata"].get("namespace"),
        **{key: value for key, value in named.items() if key not in {"earliest", "latest"}},
        "earliestSeconds": found.earliest,
        "latestSeconds": found.latest,
        "until": None if until is None else times.whole_seconds(until),
    }
