"""`status`, `workers`, `queues` and `top`: the cluster at a glance, from three lists.

Guarantees: counts are of one moment each (jobs, workers, Leases), over all namespaces for those who may see them; what
was not seen is said.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from distriqueue.api import limits
from distriqueue.api.phases import FINAL_JOB_PHASES, JobPhase, WorkerPhase
from distriqueue.api.raw import RawJob
from distriqueue.cli import durations, explanations, jobs, tables
from distriqueue.cli.clusters import OPERATOR_NAMESPACE, Cluster, Item
from distriqueue.cli.errors import CliError, Exit
from distriqueue.cli.explanations import Surroundings
from distriqueue.cli.tables import Column, Output
from distriqueue.core import times
from distriqueue.core.explaining import gate, length, measure
from distriqueue_protocol.names import Priority

_BAR: Final = 20
_UNSEEN: Final = (
    "the workers are not yours to see, or in another namespace: name the operator's with "
    f"{OPERATOR_NAMESPACE}, and ask for the role 'view' there"
)
_OVER: Final = ",".join(f"status.phase!={phase}" for phase in sorted(FINAL_JOB_PHASES))


@dataclass
class Queue:
    """One pool and priority, counted.

    Attributes:
        waiting: Jobs that wait for their turn with the leader.
        out: Jobs whose ticket is with RabbitMQ, as far as that is written (after 3 s).
        running: Jobs that a worker has.
        resting: Jobs that wait for a time, a person or a write.
    """

    pool: str
    priority: str
    waiting: int = 0
    out: int = 0
    running: int = 0
    resting: int = 0


def queues(found: Iterable[Item], pools: Iterable[str] = ()) -> list[Queue]:
    """Count jobs by pool and priority, with a row for each priority of each pool."""
    wall = time.time()
    counted: dict[tuple[str, str], Queue] = {}
    for pool in sorted({*pools, *(_pool(job) for job in found)}):
        for priority in Priority:
            counted[pool, priority.value] = Queue(pool, priority.value)
    for job in found:
        if jobs.is_final(job):
            continue
        queue = counted.get((_pool(job), job["spec"].get("priority", limits.DEFAULT_PRIORITY)))
        if queue is None:
            continue  # stored by other means than the schema
        if jobs.phase(job) == JobPhase.RUNNING:
            queue.running += 1
        elif gate(cast("RawJob", job), wall=wall) is not None:
            queue.resting += 1
        elif jobs.phase(job) == JobPhase.QUEUED:
            queue.out += 1
        else:
            queue.waiting += 1
    return list(counted.values())


def _pool(job: Item) -> str:
    return str(job["spec"].get("poolName", limits.DEFAULT_POOL_NAME))


def _slots(workers: Sequence[Item] | None, pool: str | None = None) -> tuple[int, int]:
    """Slots in use and slots in all, of the workers that are online."""
    online = [worker["status"] for worker in workers or () if _phase(worker) == WorkerPhase.ONLINE]
    mine = [status for status in online if pool is None or status.get("poolName") == pool]
    return sum(one.get("running", 0) for one in mine), sum(one.get("concurrency", 0) for one in mine)


def _phase(worker: Item) -> str:
    return str(worker.get("status", {}).get("phase", WorkerPhase.OFFLINE))


def _said(around: Surroundings, cluster: Cluster) -> None:
    if around.workers is None:
        tables.note(_UNSEEN)
    if not around.everyone:
        tables.note(f"only the namespace '{cluster.namespace}': you may not list jobs in all of them")


# --- workers -------------------------------------------------------------------------------------------------------


def worker_columns() -> list[Column]:
    """The columns of a table of workers."""
    wall = time.time()

    def of(key: str) -> Any:
        return lambda worker: str(worker.get("status", {}).get(key, ""))

    return [
        Column("NAME", lambda worker: worker["metadata"]["name"]),
        Column("PHASE", _phase),
        Column("POOL", of("poolName")),
        Column("LOAD", _load),
        Column("TYPES", lambda worker: ",".join(worker.get("status", {}).get("types", ()))),
        Column("VERSION", of("version")),
        Column("AGE", lambda worker: durations.age(worker.get("status", {}).get("startTime"), wall=wall)),
        Column("POD", of("podName"), wide=True),
        Column("HOST", of("hostname"), wide=True),
        Column("INCARNATION", of("incarnation"), wide=True),
    ]


def _load(worker: Item) -> str:
    status = worker.get("status", {})
    return f"{status.get('running', 0)}/{status.get('concurrency', 0)}"


async def show_workers(cluster: Cluster, *, pool: str | None, output: Output) -> None:
    """Print the workers."""
    known = await cluster.workers()
    if known is None:
        raise CliError(_UNSEEN, Exit.NO_ACCESS)
    found = [one for one in known if pool in {None, one.get("status", {}).get("poolName")}]
    found.sort(key=lambda one: (one.get("status", {}).get("poolName", ""), one["metadata"]["name"]))
    if not found and output in {Output.TABLE, Output.WIDE}:
        tables.note(
            "no workers are known: start one, or name the operator's namespace (DISTRIQUEUE_OPERATOR_NAMESPACE)"
        )
        return
    tables.show(found, worker_columns(), output)


# --- queues --------------------------------------------------------------------------------------------------------


async def show_queues(cluster: Cluster, output: Output) -> None:
    """Print what waits, by pool and priority."""
    around = await explanations.look(cluster, fields=_OVER)
    _said(around, cluster)
    pools = {str(one["status"]["poolName"]) for one in around.workers or () if one.get("status", {}).get("poolName")}
    rows = queues(around.jobs, pools)
    if output in {Output.JSON, Output.YAML}:
        tables.say(tables.dump([vars(row) for row in rows], output))
        return
    columns = [
        Column("POOL", lambda row: row.pool),
        Column("PRIORITY", lambda row: row.priority),
        Column("WAITING", lambda row: str(row.waiting)),
        Column("OUT", lambda row: str(row.out)),
        Column("RUNNING", lambda row: str(row.running)),
        Column("RESTING", lambda row: str(row.resting)),
    ]
    for line in tables.table(columns, rows):
        tables.say(line)


# --- top -----------------------------------------------------------------------------------------------------------


async def top(cluster: Cluster, output: Output) -> None:
    """Print the load of workers and pools."""
    around = await explanations.look(cluster)
    _said(around, cluster)
    pools = list(_pools(around))
    if output in {Output.JSON, Output.YAML}:
        workers = [{"name": one["metadata"]["name"], **one.get("status", {})} for one in around.workers or ()]
        tables.say(tables.dump({"pools": pools, "workers": workers}, output))
        return
    for line in top_lines(around, pools):
        tables.say(line)


def _pools(around: Surroundings) -> Iterator[dict[str, Any]]:
    wall = time.time()
    named = {str(one["status"]["poolName"]) for one in around.workers or () if one.get("status", {}).get("poolName")}
    rows = queues(around.jobs, named)
    for pool in dict.fromkeys(row.pool for row in rows):
        mine = [row for row in rows if row.pool == pool]
        busy, slots = _slots(around.workers, pool)
        backlog = sum(row.waiting + row.out for row in mine)
        recent = measure([cast("RawJob", job) for job in around.jobs], pool=pool, wall=wall)
        rate = recent.starts / recent.seconds if recent is not None and recent.starts else None
        yield {
            "pool": pool,
            "slots": slots,
            "running": max(busy, sum(row.running for row in mine)),
            "waiting": {row.priority: row.waiting + row.out for row in mine},
            "startsPerSecond": None if rate is None else round(rate, 2),
            "attemptSeconds": None if recent is None or recent.run_seconds is None else round(recent.run_seconds, 3),
            "clearInSeconds": None if rate is None else round(backlog / rate, 1),
        }


def top_lines(around: Surroundings, pools: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The lines of `top`."""
    columns = [
        Column("POOL", lambda one: one["pool"]),
        Column("LOAD", lambda one: _bar(one["running"], one["slots"])),
        Column("HIGH", lambda one: str(one["waiting"][Priority.HIGH.value])),
        Column("MEDIUM", lambda one: str(one["waiting"][Priority.MEDIUM.value])),
        Column("LOW", lambda one: str(one["waiting"][Priority.LOW.value])),
        Column("STARTS/S", lambda one: "" if one["startsPerSecond"] is None else f"{one['startsPerSecond']:.1f}"),
        Column("ATTEMPT", lambda one: "" if one["attemptSeconds"] is None else length(one["attemptSeconds"])),
        Column("CLEAR-IN", lambda one: "" if one["clearInSeconds"] is None else length(one["clearInSeconds"])),
    ]
    yield from tables.table(columns, pools)
    yield ""
    workers = [
        Column("WORKER", lambda one: one["metadata"]["name"]),
        Column("PHASE", _phase),
        Column("POOL", lambda one: one.get("status", {}).get("poolName", "")),
        Column("LOAD", lambda one: _bar(one["status"].get("running", 0), one["status"].get("concurrency", 0))),
    ]
    known = [one for one in around.workers or () if _phase(one) != WorkerPhase.OFFLINE]
    yield from tables.table(workers, sorted(known, key=lambda one: str(one["metadata"]["name"])))


def _bar(used: int, whole: int) -> str:
    filled = min(_BAR, round(_BAR * used / whole)) if whole else 0
    return f"{'#' * filled}{'.' * (_BAR - filled)} {used}/{whole}"


# --- status --------------------------------------------------------------------------------------------------------


async def show_status(cluster: Cluster, output: Output) -> None:
    """Print who leads, which workers there are, and how many jobs in which phase."""
    around = await explanations.look(cluster)
    _said(around, cluster)
    found = document(around)
    if output in {Output.JSON, Output.YAML}:
        tables.say(tables.dump(found, output))
        return
    for lease in found["leases"] or ():
        holder = lease["holder"] if lease["held"] else "nobody"
        tables.say(f"{'Leader:':<10}{tables.cell(holder)}  (Lease {lease['namespace']}/{lease['name']})")
        renewed = "never" if lease["ageSeconds"] is None else f"renewed {length(lease['ageSeconds'])} ago"
        tables.say(f"{'Lease:':<10}{renewed}, {lease['transitions']} transitions")
    if found["leases"] is None:
        tables.say(f"{'Leader:':<10}unknown: you may not read Leases there")
    elif not found["leases"]:
        tables.say(f"{'Leader:':<10}none: there is no Lease of an operator; is one installed?")
    tables.say(f"{'Epoch:':<10}{found['epoch'] or '-'}")
    counts = ", ".join(f"{count} {phase}" for phase, count in found["workers"].items()) or "none"
    tables.say(f"{'Workers:':<10}{counts}; {found['running']} of {found['slots']} slots in use")
    counts = ", ".join(f"{count} {phase}" for phase, count in found["jobs"].items()) or "none"
    tables.say(f"{'Jobs:':<10}{counts}")


def document(around: Surroundings) -> dict[str, Any]:
    """What `status` says, for programs."""
    wall = time.time()
    used, slots = _slots(around.workers)
    phases = Counter(map(jobs.phase, around.jobs))
    epochs = [one.get("status", {}).get("epoch", 0) for one in (*(around.workers or ()), *around.jobs)]
    return {
        "leases": None if around.leases is None else [_lease(lease, wall) for lease in around.leases],
        "epoch": max(epochs, default=0),
        "workers": dict(Counter(map(_phase, around.workers or ()))),
        "slots": slots,
        "running": used,
        "jobs": {phase.value: phases[phase] for phase in JobPhase if phases[phase]},
    }


def _lease(lease: Item, wall: float) -> dict[str, Any]:
    spec = lease.get("spec") or {}
    renewed = times.seconds(spec.get("renewTime"))
    return {
        "namespace": lease["metadata"]["namespace"],
        "name": lease["metadata"]["name"],
        "holder": spec.get("holderIdentity") or None,
        "held": explanations.is_held(lease, wall=wall),
        "ageSeconds": None if renewed is None else max(0.0, round(wall - renewed, 1)),
        "transitions": spec.get("leaseTransitions", 0),
    }
