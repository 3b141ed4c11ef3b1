"""Events (events.k8s.io/v1) about jobs and workers: what `kubectl describe` and `kubectl get events` show.

Guarantees: `emit` returns at once and never raises; what it is given is sent by a task of its own, one at a time, at no
more than `EVENTS_A_SECOND` after a burst of `EVENTS_IN_A_BURST`: what is above that, or comes while the API server does
not answer, is dropped and counted. The same sentence about the same object again is no second Event but raises the
series count of the first. Nothing fails because an Event does.

The API server wants of an Event: eventTime with microseconds, reason, action, reportingController (a qualified name)
and reportingInstance, the last of at most 128 characters; a note of at most 1024 bytes; the namespace of what it
regards; a series from the second time on. All but the series is immutable.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import structlog

from distriqueue.api.events import ACTIONS, NORMAL_REASONS, NOTE_LIMIT_BYTES
from distriqueue.core.commands import EmitEvent
from distriqueue.core.times import microtime
from distriqueue.kube.client import MERGE_PATCH, METADATA_ONLY, KubeClient
from distriqueue.kube.errors import NotFound
from distriqueue.kube.resources import EVENTS, JOBS, LEASES, WORKERS

_LOG: Final = structlog.get_logger(__name__)

REPORTING_CONTROLLER: Final = "distriqueue.io/operator"
EVENTS_A_SECOND: Final = 5.0
EVENTS_IN_A_BURST: Final = 50
EVENT_SECONDS: Final = 5.0
"""After so long without an answer an Event has failed."""
SERIES_SECONDS: Final = 1200.0
"""The same again after longer than this is a new Event: the API server forgets old ones after an hour or so."""
SERIES_AT_A_TIME: Final = 1000
_RESOURCES: Final = {resource.kind: resource for resource in (JOBS, WORKERS, LEASES)}
_NAME_LIMIT: Final = 253
_INSTANCE_LIMIT: Final = 128


@dataclass(slots=True)
class _Series:
    """An Event that was made, and how often since."""

    path: str
    begun: float
    count: int = 1


class EventRecorder:
    """See the module; `run` sends what `emit` takes."""

    def __init__(
        self,
        client: KubeClient,
        *,
        namespace: str,
        lease_name: str,
        instance: str,
        count: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare a recorder.

        Args:
            client: Where to send.
            namespace: The operator's own, for Events about workers and the Lease.
            lease_name: What Events regard that are about the whole shard.
            instance: Who says so: the name of this replica.
            count: Is told what became of each: `Created`, `Repeated`, `Dropped`, `Failed`.
            clock: The monotonic clock, in seconds.
        """
        self._client = client
        self._namespace = namespace
        self._lease_name = lease_name
        self._instance = instance[:_INSTANCE_LIMIT]
        self._count = count
        self._clock = clock
        self._tokens = float(EVENTS_IN_A_BURST)
        self._filled_at = clock()
        self._waiting: asyncio.Queue[tuple[EmitEvent, str]] = asyncio.Queue(EVENTS_IN_A_BURST)
        self._series: OrderedDict[EmitEvent, _Series] = OrderedDict()

    def emit(self, event: EmitEvent) -> None:
        """Take an Event to be sent, or drop it when there are too many."""
        now = self._clock()
        self._tokens = min(EVENTS_IN_A_BURST, self._tokens + (now - self._filled_at) * EVENTS_A_SECOND)
        self._filled_at = now
        if self._tokens < 1 or self._waiting.full():
            self._count("Dropped")
            return
        self._tokens -= 1
        self._waiting.put_nowait((event, microtime(time.time())))

    async def run(self) -> None:
        """Send what was taken, for ever."""
        while True:
            event, at = await self._waiting.get()
            try:
                self._count("Repeated" if await self._repeat(event, at) else "Created")
            except Exception as error:  # noqa: BLE001 - whatever it is, the next Event is not to blame
                self._count("Failed")
                _LOG.info(
                    "an Event was not made", about=event.name or event.kind, reason=event.reason, error=str(error)[:500]
                )

    async def _repeat(self, event: EmitEvent, at: str) -> bool:
        """Raise the count of an Event that says the same; if there is none, make it."""
        series = self._series.get(event)
        if series is not None and self._clock() - series.begun < SERIES_SECONDS:
            series.count += 1
            body = {"series": {"count": series.count, "lastObservedTime": at}}
            try:
                await self._client.request(
                    "PATCH", series.path, body=body, content_type=MERGE_PATCH, timeout=EVENT_SECONDS
                )
            except NotFound:
                del self._series[event]
            else:
                return True
        path = await self._create(event, at)
        self._series.pop(event, None)
        self._series[event] = _Series(path, self._clock())
        while len(self._series) > SERIES_AT_A_TIME:
            self._series.popitem(last=False)
        return False

    async def _create(self, event: EmitEvent, at: str) -> str:
        resource = _RESOURCES[event.kind]
        namespace, about = event.namespace or self._namespace, event.name or self._lease_name
        regarding = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "namespace": namespace,
            "name": about,
        }
        uid = event.uid or await self._uid(resource.path(namespace, about))
        if uid:
            regarding["uid"] = uid  # without it, `kubectl describe` does not find the Event
        suffix = f".{uuid4().hex[:16]}"
        name = about[: _NAME_LIMIT - len(suffix)].rstrip(".-") + suffix
        body: dict[str, Any] = {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"namespace": namespace, "name": name},
            "eventTime": at,
            "type": "Normal" if event.reason in NORMAL_REASONS else "Warning",
            "reason": event.reason.value,
            "action": ACTIONS[event.reason],
            "note": short(event.note),
            "regarding": regarding,
            "reportingController": REPORTING_CONTROLLER,
            "reportingInstance": self._instance,
        }
        await self._client.request("POST", EVENTS.collection(namespace), body=body, timeout=EVENT_SECONDS)
        return EVENTS.path(namespace, name)

    async def _uid(self, path: str) -> str:
        """The uid of an object that the leader knows by its name alone; empty when it is gone."""
        try:
            found = await self._client.request("GET", path, accept=METADATA_ONLY, timeout=EVENT_SECONDS)
        except NotFound:
            return ""
        return str(found["metadata"]["uid"])


def short(note: str) -> str:
    """Cut a note to what an Event takes, at a character."""
    whole = note.encode(errors="replace")
    if len(whole) <= NOTE_LIMIT_BYTES:
        return whole.decode()
    return whole[: NOTE_LIMIT_BYTES - 3].decode(errors="ignore") + "..."
