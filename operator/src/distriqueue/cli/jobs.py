"""Jobs as the command line shows and chooses them: columns, filters, names.

Guarantees: a job is read from its resource alone; what a selector cannot say on the API server is looked at here.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from distriqueue.api.names import JOB_KIND, JOB_PLURAL, JOB_SHORT_NAMES, JOB_SINGULAR
from distriqueue.api.phases import FINAL_JOB_PHASES, JobPhase
from distriqueue.cli import durations
from distriqueue.cli.clusters import Cluster, Item, selector
from distriqueue.cli.errors import CliError, usage
from distriqueue.cli.tables import Column
from distriqueue.core import times
from distriqueue.core.explaining import length

_KINDS: Final = {JOB_KIND.lower(), JOB_PLURAL, JOB_SINGULAR, *JOB_SHORT_NAMES}
_LABEL = re.compile(r"([A-Za-z0-9./_-]+)=([A-Za-z0-9._-]*)")


def status(job: Item) -> dict[str, Any]:
    """The status of a job; empty before it has one."""
    found: dict[str, Any] = job.get("status") or {}
    return found


def phase(job: Item) -> str:
    """The phase of a job."""
    return str(status(job).get("phase", JobPhase.PENDING))


def is_final(job: Item) -> bool:
    """Whether a job is over."""
    return phase(job) in FINAL_JOB_PHASES


def reason(job: Item) -> str:
    """Why a job ended without success, or does not start."""
    for condition in status(job).get("conditions", ()):
        if condition["type"] in {"Failed", "Suspended"} and condition["status"] == "True":
            return str(condition.get("reason", ""))
    return ""


def message(job: Item) -> str:
    """The words to that reason."""
    for condition in status(job).get("conditions", ()):
        if condition["type"] == "Failed" and condition["status"] == "True":
            return str(condition.get("message", ""))
    return ""


def last_attempt(job: Item) -> dict[str, Any]:
    """The last entry of the history; empty when there is none."""
    attempts = status(job).get("attempts") or [{}]
    found: dict[str, Any] = attempts[-1]
    return found


def percent(job: Item) -> int | None:
    """How far the handler says it is; all of it when the job has succeeded."""
    if phase(job) == JobPhase.SUCCEEDED:
        return 100
    found = status(job).get("progress", {}).get("percent")
    return found if isinstance(found, int) else None


def took(start: str | None, end: str | None, *, wall: float) -> str:
    """The time between two moments, the second one now if it is missing; empty without the first."""
    begin = times.seconds(start)
    if begin is None:
        return ""
    return length(max(0.0, (times.seconds(end) or wall) - begin))


def _progress(job: Item) -> str:
    done = percent(job)
    return "" if done is None else f"{done}%"


def _attempt(job: Item) -> str:
    number = status(job).get("attempt", 0)
    return f"{number}/{job['spec'].get('maxAttempts', 3)}" if number else ""


def columns(*, namespaced: bool) -> list[Column]:
    """The columns of a table of jobs, with the namespace if there may be several."""
    wall = time.time()
    shown = [
        Column("NAME", lambda job: job["metadata"]["name"]),
        Column("TYPE", lambda job: job["spec"]["type"]),
        Column("PRIORITY", lambda job: job["spec"].get("priority", "")),
        Column("PHASE", phase),
        Column("ATTEMPT", _attempt),
        Column("PROGRESS", _progress),
        Column("WORKER", lambda job: status(job).get("worker", "")),
        Column("AGE", lambda job: durations.age(job["metadata"].get("creationTimestamp"), wall=wall)),
        Column("POOL", lambda job: job["spec"].get("poolName", ""), wide=True),
        Column("VALUE", lambda job: str(job["spec"].get("priorityValue", "")), wide=True),
        Column("RAN", lambda job: _ran(job, wall), wide=True),
        Column("REASON", reason, wide=True),
        Column("LAST-ATTEMPT", lambda job: last_attempt(job).get("reason", ""), wide=True),
        Column("MESSAGE", lambda job: message(job) or status(job).get("progress", {}).get("message", ""), wide=True),
    ]
    if namespaced:
        shown.insert(0, Column("NAMESPACE", lambda job: job["metadata"]["namespace"]))
    return shown


def _ran(job: Item, wall: float) -> str:
    found = status(job)
    return took(found.get("startTime"), found.get("completionTime"), wall=wall)


@dataclass(frozen=True)
class Choice:
    """Which jobs a command is about.

    Attributes:
        names: By name; the rest narrows it down.
        labels: A label selector of Kubernetes.
        phases: Any of these.
        type: The job type.
        pool: The pool.
        priority: The class of priority.
        everywhere: In all namespaces.
        all: All of the namespace, where nothing else is chosen.
        reason: The reason of the last attempt.
    """

    names: Sequence[str] = ()
    labels: str = ""
    phases: Sequence[JobPhase] = field(default=())
    type: str | None = None
    pool: str | None = None
    priority: str | None = None
    everywhere: bool = False
    all: bool = False
    reason: str | None = None

    @property
    def anything(self) -> bool:
        """Whether it chooses at all."""
        return bool(self.names or self.labels or self.phases or self.type or self.pool or self.priority or self.reason)

    def fields(self) -> str:
        """As much of it as a field selector of the API server can say."""
        return selector(
            {
                "metadata.name": bare(self.names[0]) if len(self.names) == 1 else None,
                "spec.type": self.type,
                "spec.poolName": self.pool,
                "status.phase": self.phases[0] if len(self.phases) == 1 else None,
            }
        )

    def takes(self, job: Item) -> bool:
        """Whether a job is one of them."""
        names = {bare(name) for name in self.names}
        return (
            (not names or job["metadata"]["name"] in names)
            and (not self.phases or phase(job) in self.phases)
            and (self.type is None or job["spec"].get("type") == self.type)
            and (self.pool is None or job["spec"].get("poolName") == self.pool)
            and (self.priority is None or job["spec"].get("priority") == self.priority)
            and (self.reason is None or last_attempt(job).get("reason") == self.reason)
        )


def bare(name: str) -> str:
    """A name without the kind that ``-o name`` puts before it.

    Raises:
        CliError: It names another kind.
    """
    kind, slash, rest = name.rpartition("/")
    if slash and kind.removesuffix(".distriqueue.io") not in _KINDS:
        raise usage(f"'{name}' is no job: write its name, or djob/NAME")
    return rest


async def chosen(cluster: Cluster, choice: Choice) -> list[Item]:
    """Read the jobs that were chosen, with one list, and with a second one if any that was named is not in it.

    Raises:
        CliError: One that was named is not there, or names are to be looked for in all namespaces.
    """
    if choice.names and choice.everywhere:
        raise usage("names are looked for in one namespace: leave out -A, and name it with -n")
    namespace = None if choice.everywhere else cluster.namespace
    fields = choice.fields()
    found = [job for job in await cluster.jobs(namespace, fields=fields, labels=choice.labels) if choice.takes(job)]
    there = {job["metadata"]["name"] for job in found}
    missing = [name for name in map(bare, choice.names) if name not in there]
    named = Choice(names=choice.names)
    if missing and choice != named:
        # The rest narrows the names down; a name that nobody has is a mistake all the same.
        there = {job["metadata"]["name"] for job in await cluster.jobs(namespace, fields=named.fields())}
        missing = [name for name in missing if name not in there]
    if missing:
        where = f"the namespace '{cluster.namespace}'"
        raise CliError(
            f"there is no job {', '.join(missing)} in {where}: see kubectl djobs list, or name another with -n"
        )
    if choice.names:
        order = {bare(name): place for place, name in enumerate(choice.names)}
        found.sort(key=lambda job: order[job["metadata"]["name"]])
    return found


def labels(texts: Sequence[str]) -> dict[str, str]:
    """Labels as they are written on a command line, `key=value`."""
    found = {}
    for text in texts:
        matched = _LABEL.fullmatch(text)
        if matched is None:
            raise usage(f"--label: '{text}' is no label; write key=value")
        found[matched[1]] = matched[2]
    return found


def sorted_by(jobs: list[Item], key: str) -> list[Item]:
    """Jobs in an order that was asked for.

    Raises:
        CliError: There is no such order.
    """
    orders: dict[str, Callable[[Item], Any]] = {
        "name": lambda job: (job["metadata"]["namespace"], job["metadata"]["name"]),
        "age": lambda job: (job["metadata"]["creationTimestamp"], job["metadata"]["name"]),
        "start": lambda job: status(job).get("startTime", "~"),
        "end": lambda job: status(job).get("completionTime", "~"),
        "phase": lambda job: (phase(job), job["metadata"]["name"]),
    }
    if key not in orders:
        raise usage(f"--sort-by: '{key}' is none of {', '.join(orders)}")
    return sorted(jobs, key=orders[key])
