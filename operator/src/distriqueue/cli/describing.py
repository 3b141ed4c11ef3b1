"""`describe`: everything about a job for people: times, attempts with their errors and logs, payload, result, events.

Guarantees: one reading of the job and one of its events (which are left out for those who may not see them).
"""

import time
from collections.abc import Iterator
from typing import Any, Final

from distriqueue.cli import durations, jobs, tables
from distriqueue.cli.clusters import Cluster, Item
from distriqueue.cli.tables import Column, Output
from distriqueue.kube.errors import KubeError
from distriqueue.kube.resources import Resource

_EVENTS: Final = Resource("", "v1", "events")
_PAYLOAD_LINES: Final = 40


async def events(cluster: Cluster, job: Item) -> list[Item]:
    """The events about a job, oldest first."""
    fields = f"involvedObject.uid={job['metadata']['uid']}"
    try:
        found, _ = await cluster.read(_EVENTS, job["metadata"]["namespace"], fields=fields)
    except KubeError:
        return []
    return sorted(found, key=_seen)


def _seen(event: Item) -> str:
    series = event.get("series") or {}
    return str(series.get("lastObservedTime") or event.get("eventTime") or event.get("lastTimestamp") or "")


def describe(job: Item, found: list[Item]) -> None:
    """Print it."""
    for line in _lines(job, found):
        tables.say(line)


def _lines(job: Item, found: list[Item]) -> Iterator[str]:
    metadata, spec, status, wall = job["metadata"], job["spec"], jobs.status(job), time.time()
    facts: list[tuple[str, str]] = [
        ("Name", metadata["name"]),
        ("Namespace", metadata["namespace"]),
        ("Labels", ",".join(f"{key}={value}" for key, value in metadata.get("labels", {}).items())),
        ("Type", spec["type"]),
        ("Pool", spec.get("poolName", "")),
        ("Priority", f"{spec.get('priority', '')} ({spec.get('priorityValue', '')})"),
        ("Phase", jobs.phase(job)),
        ("Reason", jobs.reason(job)),
        ("Message", jobs.message(job)),
        ("Worker", status.get("worker", "")),
        ("Attempt", f"{status.get('attempt', 0)} of {spec.get('maxAttempts', '')}"),
        ("Timeout", f"{spec.get('timeoutSeconds', '')} s"),
        ("Progress", _progress(job)),
        ("Wishes", ", ".join(_wishes(spec))),
        ("Created", _moment(metadata.get("creationTimestamp"), wall)),
        ("Queued", _moment(status.get("queuedTime"), wall)),
        ("Started", _moment(status.get("startTime"), wall)),
        ("Next try", _moment(status.get("nextAttemptTime"), wall)),
        ("Finished", _moment(status.get("completionTime"), wall)),
        ("Ran for", jobs.took(status.get("startTime"), status.get("completionTime"), wall=wall)),
    ]
    for head, text in facts:
        if text:
            value = tables.cell(text)
            yield f"{head + ':':<12}{tables.word(value) if head == 'Phase' else value}"
    yield from _attempts(status.get("attempts") or [], wall)
    for head, value in (("Payload", spec.get("payload")), ("Payload from", spec.get("payloadFrom"))):
        if value:
            yield from _json(head, value)
    if "result" in status:
        yield from _json("Result", status["result"])
    if found:
        yield "Events:"
        columns = [
            Column("AGE", lambda event: durations.age(_seen(event), wall=wall)),
            Column("TYPE", lambda event: event.get("type", "")),
            Column("REASON", lambda event: event.get("reason", "")),
            Column("NOTE", lambda event: event.get("message", "")),
        ]
        yield from ("  " + line for line in tables.table(columns, found))


def _progress(job: Item) -> str:
    said = jobs.status(job).get("progress", {})
    return " ".join(filter(None, (f"{said['percent']} %" if "percent" in said else "", said.get("message", ""))))


def _wishes(spec: dict[str, Any]) -> Iterator[str]:
    for key in ("suspend", "cancel"):
        if spec.get(key):
            yield key
    for key in ("startAfter", "deadlineSeconds", "dedupKey", "retryGeneration", "ttlSecondsAfterFinished"):
        if spec.get(key) not in (None, 0):
            yield f"{key}={spec[key]}"


def _moment(text: str | None, wall: float) -> str:
    if not text:
        return ""
    passed = durations.age(text, wall=wall)
    return f"{text} ({passed} ago)" if passed != "0s" else text


def _attempts(attempts: list[dict[str, Any]], wall: float) -> Iterator[str]:
    if not attempts:
        return
    columns = [
        Column("NUMBER", lambda one: str(one["number"])),
        Column("OUTCOME", lambda one: one.get("outcome", "Running")),
        Column("REASON", lambda one: one.get("reason", "")),
        Column("WORKER", lambda one: one.get("worker", "")),
        Column("STARTED", lambda one: one.get("startTime", "")),
        Column("TOOK", lambda one: jobs.took(one.get("startTime"), one.get("completionTime"), wall=wall)),
        Column("ERROR", lambda one: one.get("error", "")),
    ]
    yield "Attempts:"
    yield from ("  " + line for line in tables.table(columns, attempts))
    tail = attempts[-1].get("logTail", "")
    if tail:
        yield f"Log of attempt {attempts[-1]['number']} (its end):"
        yield from ("  " + tables.plain(line) for line in tail.splitlines())


def _json(head: str, value: object) -> Iterator[str]:
    lines = tables.dump(value, Output.JSON).splitlines()
    yield f"{head}:"
    yield from ("  " + tables.plain(line) for line in lines[:_PAYLOAD_LINES])
    if len(lines) > _PAYLOAD_LINES:
        yield f"  … {len(lines) - _PAYLOAD_LINES} more lines: kubectl djobs get NAME -o json has all"
