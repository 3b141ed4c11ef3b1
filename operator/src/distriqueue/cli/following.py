"""Following jobs as they change: a list, then a watch, taken up again when it breaks.

Guarantees: every job that is there is delivered once, then its changes, then `SYNCED` after each complete list; what
vanished while the watch was broken is delivered as deleted. Gives up with the API server's error when it has not
answered for `PATIENCE_SECONDS`.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import Final, NamedTuple

from distriqueue.cli import jobs
from distriqueue.cli.clusters import Cluster, Item
from distriqueue.cli.errors import CliError, Exit
from distriqueue.core.explaining import length
from distriqueue.kube.errors import Gone, Throttled, Unanswered
from distriqueue.kube.resources import JOBS

PATIENCE_SECONDS: Final = 30.0
_WATCH_SECONDS: Final = 240
_PAUSE_SECONDS: Final = 1.0


class Change(NamedTuple):
    """What happened: `ADDED`, `MODIFIED`, `DELETED` with a job; `SYNCED` without one."""

    type: str
    job: Item


async def follow(
    cluster: Cluster, namespace: str | None, *, fields: str = "", labels: str = ""
) -> AsyncGenerator[Change, None]:
    """Deliver jobs and their changes for ever."""
    known: dict[str, Item] = {}
    version: str | None = None
    heard = time.monotonic()
    params = {"allowWatchBookmarks": "true", "timeoutSeconds": str(_WATCH_SECONDS)}
    params |= {"fieldSelector": fields} if fields else {}
    params |= {"labelSelector": labels} if labels else {}
    while True:
        try:
            if version is None:
                items, version = await cluster.read(JOBS, namespace, fields=fields, labels=labels)
                heard = time.monotonic()
                for change in _differences(known, items):
                    yield change
                yield Change("SYNCED", {})
            stream = cluster.client.stream(
                JOBS.collection(namespace), {**params, "resourceVersion": version}, inactivity=_WATCH_SECONDS + 30.0
            )
            async with aclosing(stream) as events:
                async for event in events:
                    heard = time.monotonic()
                    job = event["object"]
                    version = job["metadata"]["resourceVersion"]
                    if event["type"] == "BOOKMARK":
                        continue
                    if event["type"] == "DELETED":
                        known.pop(job["metadata"]["uid"], None)
                    else:
                        known[job["metadata"]["uid"]] = job
                    yield Change(event["type"], job)
            heard = time.monotonic()
        except Gone:
            version = None
        except (Throttled, Unanswered):
            if time.monotonic() - heard > PATIENCE_SECONDS:
                raise
            await asyncio.sleep(_PAUSE_SECONDS)


def _differences(known: dict[str, Item], items: Iterable[Item]) -> list[Change]:
    now = {item["metadata"]["uid"]: item for item in items}
    gone = [Change("DELETED", job) for uid, job in known.items() if uid not in now]
    changed = [
        Change("MODIFIED" if uid in known else "ADDED", job)
        for uid, job in now.items()
        if uid not in known or known[uid]["metadata"]["resourceVersion"] != job["metadata"]["resourceVersion"]
    ]
    known.clear()
    known.update(now)
    return gone + changed


async def until_over(
    cluster: Cluster, wanted: Iterable[Item], *, seconds: float | None, told: Callable[[Item], None]
) -> list[Item]:
    """Wait until all of these jobs are over.

    Args:
        cluster: Where they are.
        wanted: The jobs.
        seconds: How long; None for ever.
        told: Is called with each job whenever its phase has changed.

    Returns:
        The jobs as they were at their ends, in the same order.

    Raises:
        CliError: The time is over, or one of them was deleted.
    """
    latest = {job["metadata"]["uid"]: job for job in wanted}
    first = next(iter(latest.values()))["metadata"]
    fields = f"metadata.name={first['name']}" if len(latest) == 1 else ""
    several = len({job["metadata"]["namespace"] for job in latest.values()}) > 1
    namespace = None if several else first["namespace"]
    try:
        async with asyncio.timeout(seconds), aclosing(follow(cluster, namespace, fields=fields)) as changes:
            there: set[str] = set()
            async for change in changes:
                uid = change.job["metadata"]["uid"] if change.job else ""
                if uid in latest:
                    there.add(uid)
                    before, latest[uid] = latest[uid], change.job
                    if change.type == "DELETED":
                        raise _deleted(change.job)
                    if jobs.phase(before) != jobs.phase(change.job):
                        told(change.job)
                elif change.type == "SYNCED":
                    for missing in [job for uid, job in latest.items() if uid not in there]:
                        raise _deleted(missing)
                if all(map(jobs.is_final, latest.values())):
                    break
    except TimeoutError:
        names = ", ".join(job["metadata"]["name"] for job in latest.values() if not jobs.is_final(job))
        raise CliError(
            f"not over after {length(seconds or 0.0)}: {names}; they go on, and kubectl djobs explain says what "
            "they wait for",
            Exit.TIMED_OUT,
        ) from None
    return list(latest.values())


def _deleted(job: Item) -> CliError:
    return CliError(f"the job {job['metadata']['name']} was deleted while it was waited for")
