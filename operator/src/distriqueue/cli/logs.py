"""`logs`: what a job's handler says, from the log of its worker's pod while that is there, and from the status after.

Guarantees: of a pod's log only the lines of this job's attempt are shown, also where many jobs share the worker; with
`--follow` no line comes twice. The last 4096 characters of an attempt that failed are in the job itself
(`status.attempts[].logTail`) and need no pod. Fails with `CliError`, which says where the log is if it is not here.
"""

import asyncio
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson

from distriqueue.cli import jobs, tables
from distriqueue.cli.clusters import OPERATOR_NAMESPACE, Cluster, Item
from distriqueue.cli.errors import CliError
from distriqueue.kube.errors import Forbidden, KubeError, NotFound, Refused
from distriqueue.kube.resources import JOBS, Resource

PODS: Final = Resource("", "v1", "pods")
POLL_SECONDS: Final = 1.0
_ATTEMPT = re.compile(r"\battempt=(\d+)\b")
_STAMP = re.compile(r"(\S+) (.*)", re.DOTALL)
_OWN: Final = {
    "worker", "incarnation", "epoch", "job", "namespace", "type", "attempt", "grant", "level", "event", "timestamp",
    "exception", "logger",
}  # fmt: skip


@dataclass(frozen=True)
class Spoken:
    """Whose lines are wanted: an attempt of a job, by what the worker adds to each line of its handler."""

    job: str
    attempt: int

    def line(self, text: str) -> str | None:
        """A line of the worker's log as it is shown; None when it is not of this attempt."""
        if not text.startswith("{"):
            said = _ATTEMPT.search(text)
            mine = f"job={self.job} " in f"{text} " and said is not None and int(said[1]) == self.attempt
            return text if mine else None
        try:
            record = orjson.loads(text)
        except orjson.JSONDecodeError:
            return None
        if not isinstance(record, dict) or (record.get("job"), record.get("attempt")) != (self.job, self.attempt):
            return None
        return _shown(record)

    def lines(self, log: Iterable[str]) -> Iterator[str]:
        """Those lines of a log."""
        for text in log:
            shown = self.line(text)
            if shown is not None:
                yield shown


def _shown(record: dict[str, Any]) -> str:
    event = record.get("event", "")
    # (a worker's own logger repeats what was said as `message`)
    said = {key: value for key, value in record.items() if key not in _OWN and (key, value) != ("message", event)}
    more = "".join(f" {key}={value}" for key, value in said.items())
    head = (
        f"{str(record.get('timestamp', ''))[:23]} {str(record.get('level', '')).upper():<7} {record.get('event', '')}"
    )
    text = f"{head}{more}"
    return f"{text}\n{record['exception']}" if record.get("exception") else text


@dataclass
class _Position:
    """How far a pod's log was read."""

    stamp: str = ""
    last: frozenset[str] = frozenset()

    def fresh(self, log: str) -> Iterator[str]:
        """The lines that were not read before; each begins with the time at which the kubelet took it."""
        for text in log.splitlines():
            found = _STAMP.fullmatch(text)
            if found is None:
                continue
            stamp, line = found[1], found[2]
            if stamp < self.stamp or (stamp == self.stamp and line in self.last):
                continue
            self.last = self.last | {line} if stamp == self.stamp else frozenset({line})
            self.stamp = stamp
            yield line


async def show(cluster: Cluster, name: str, *, attempt: int | None, follow: bool) -> None:
    """Print the log of a job's attempt, the last one unless another is asked for.

    Raises:
        CliError: There is no such attempt, or its log is nowhere.
    """
    job = (await jobs.chosen(cluster, jobs.Choice(names=(name,))))[0]
    if follow:
        await _follow(cluster, job)
        return
    number = attempt or int(jobs.status(job).get("attempt", 0))
    entry = _entry(job, number)
    if entry is None:
        raise CliError(_nothing(job, number))
    tail = entry.get("logTail")
    if tail and entry.get("outcome"):
        _say(tail.splitlines())
        return
    lines, why = await _from_pod(cluster, job, number, entry, _Position())
    if not lines and why:
        raise CliError(why)
    _say(lines)


def _entry(job: Item, number: int) -> dict[str, Any] | None:
    """The entry of an attempt in the history; the status itself while it runs and has none."""
    found = next((one for one in jobs.status(job).get("attempts", ()) if one.get("number") == number), None)
    status = jobs.status(job)
    if found is None and number and number == status.get("attempt") and status.get("worker"):
        return {"number": number, "worker": status["worker"], "startTime": status.get("startTime")}
    return found


def _nothing(job: Item, number: int) -> str:
    name = job["metadata"]["name"]
    if not jobs.status(job).get("attempts") and not number:
        return f"{name} has not started: kubectl djobs explain {name} says what it waits for; --follow waits with it"
    known = ", ".join(str(one["number"]) for one in jobs.status(job).get("attempts", ())) or "none"
    return f"{name} has no attempt {number} in its history: it has {known}"


async def _from_pod(
    cluster: Cluster, job: Item, number: int, entry: dict[str, Any], position: _Position
) -> tuple[list[str], str]:
    """The lines of an attempt that are new since `position`, from its worker's pod; or why there are none."""
    worker = entry.get("worker") or ""
    try:
        known = await cluster.workers()
        if known is None:
            return (
                [],
                f"the log is with the worker '{worker}', and you may not see workers: {OPERATOR_NAMESPACE} names where",
            )
        home = next((one for one in known if one["metadata"]["name"] == worker), None)
        pod = (home or {}).get("status", {}).get("podName")
        if home is None or not pod:
            gone = "is not known any more" if home is None else "runs in no pod"
            return [], f"the worker '{worker}' {gone}: its log is where its process writes it (standard error)"
        path = PODS.path(home["metadata"]["namespace"], pod, "log")
        params = {"timestamps": "true"}
        since = position.stamp or entry.get("startTime")
        if since:
            params["sinceTime"] = f"{str(since)[:19]}Z"
        text = (await cluster.client.request_raw("GET", path, params=params, timeout=30.0)).decode(errors="replace")
    except NotFound:
        return [], f"the pod of worker '{worker}' is gone, and its log with it: a log collector may have it"
    except Forbidden as error:
        return [], f"{error.message}; ask for get on pods/log there"
    except Refused as error:
        return [], f"the log of worker '{worker}' cannot be read: {error.message}"
    spoken = Spoken(f"{job['metadata']['namespace']}/{job['metadata']['name']}", number)
    return list(spoken.lines(position.fresh(text))), ""


class _Follower:
    """Prints the lines of a job's attempts as they come."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._positions: dict[int, _Position] = {}
        self._said = ""
        self._unread = False

    async def look(self, job: Item) -> None:
        """Print what is new of the attempt that the job is at."""
        number = int(jobs.status(job).get("attempt", 0))
        entry = _entry(job, number)
        if entry is None:
            self._note(f"{job['metadata']['name']} waits ({jobs.phase(job)})")
            return
        if number not in self._positions:
            tables.note(f"attempt {number} on {entry.get('worker') or 'a worker'}")
        position = self._positions.setdefault(number, _Position())
        lines, why = await _from_pod(self._cluster, job, number, entry, position)
        self._unread = bool(why)
        if why:
            self._note(why)
        _say(lines)

    def end(self, job: Item) -> None:
        """The job is over: what no pod could tell is in its history, if it failed."""
        if self._unread:
            _say(jobs.last_attempt(job).get("logTail", "").splitlines())
        tables.note(f"{job['metadata']['name']}: {jobs.phase(job)}")

    def _note(self, text: str) -> None:
        if text != self._said:
            self._said = text
            tables.note(text)


async def _follow(cluster: Cluster, job: Item) -> None:
    """Print lines as they come, over all attempts, until the job is over."""
    path = JOBS.path(job["metadata"]["namespace"], job["metadata"]["name"])
    follower = _Follower(cluster)
    while True:
        await follower.look(job)
        sys.stdout.flush()
        if jobs.is_final(job):
            follower.end(job)
            return
        await asyncio.sleep(POLL_SECONDS)
        try:
            job = await cluster.client.request("GET", path)
        except NotFound as error:
            raise CliError(f"{job['metadata']['name']} was deleted") from error
        except KubeError as error:
            if not error.retryable:
                raise


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        tables.say(tables.plain(line))
