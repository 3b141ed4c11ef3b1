"""The Lease object as one candidate sees it: read, observed over time, and turned into the next version of itself.

Guarantees: whatever others wrote into the object (labels, annotations, fields that a later Kubernetes knows) stays.
Every write but the first carries the resourceVersion that it was made from, so it fails with `Conflict` when another
was faster. How long a Lease has stood unchanged is told by the candidate's own clock, from when it first saw it so: no
time that another machine wrote is believed.

Fails with the errors of `errors`, except that a missing Lease is None where it is read.
"""

import copy
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Self

from distriqueue.kube.client import KubeClient
from distriqueue.kube.errors import NotFound
from distriqueue.kube.resources import LEASES

_LOG: Final = logging.getLogger(__name__)

OFFSET_ANNOTATION: Final = "distriqueue.io/epoch-offset"
"""Annotation of the Lease: what is added to its resourceVersion to make an epoch. Raised when resources know a higher
epoch than this etcd has versions (it was restored from a backup, or the resources come from another cluster)."""

TAKEOVER_ANNOTATION: Final = "distriqueue.io/takeover-uid"
"""Annotation of the Lease: its own uid, once a takeover under it has come to its end. From then on the workers'
resources are known to be those of its leaders. A Lease without it, or with the uid of another (a copy, a restored
backup), proves no more than one that is missing; the chart makes an empty one."""

_BOOT_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_clock() -> float:
    """Return seconds that only grow, and that go on while the machine sleeps (where the system has such a clock)."""
    return time.clock_gettime(_BOOT_CLOCK)


def wall_clock() -> datetime:
    """Return the time of day, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Durations:
    """The times of an election, in seconds.

    Attributes:
        lease: After so long without a renewal others may take the Lease. A whole number, as the API wants it.
        renew: After so long without success a leader gives up.
        retry: Pause between renewals, and between tries. Drawn between 80 and 100 % of it.
        margin: A leader counts on its Lease for so much less than `lease`: for clocks of different pace, and for what
            is on its way when it ends.
    """

    lease: int = 6
    renew: float = 4.0
    retry: float = 1.0
    margin: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.retry < self.renew < self.lease or not 0 <= self.margin < self.lease:
            raise ValueError(f"0 < retry < renew < lease and 0 <= margin < lease do not hold: {self}")


@dataclass(frozen=True)
class Candidate:
    """Who stands for election, and by which clocks.

    Attributes:
        identity: Another one for each process start.
        durations: The times of the election; should be the same for all candidates.
        clock: Seconds that only grow; all decisions are made by it.
        wall: What is written into the Lease for people to read.
        rng: Draws the pauses, so that candidates do not all come at once.
    """

    identity: str
    durations: Durations = Durations()
    clock: Callable[[], float] = boot_clock
    wall: Callable[[], datetime] = wall_clock
    rng: random.Random = field(default_factory=random.Random)

    def pause(self) -> float:
        """Return how long to wait before the next try or renewal, in seconds."""
        return self.durations.retry * self.rng.uniform(0.8, 1.0)


@dataclass(frozen=True)
class LeaseRecord:
    """A Lease as it was read.

    Attributes:
        version: Its resourceVersion.
        uid: Tells it from a later Lease of the same name.
        holder: Identity of who holds it; empty when nobody does.
        duration: For how many seconds the holder may count on it; 0 when it does not say.
        transitions: How often it went from one holder to another.
        offset: What makes an epoch of its version.
        proven: A takeover under this very object has come to its end.
        raw: The object itself.
    """

    version: int
    uid: str
    holder: str
    duration: int
    transitions: int
    offset: int
    proven: bool
    raw: dict[str, Any]

    @classmethod
    def parse(cls, raw: dict[str, Any]) -> Self:
        """Read a Lease that the API server sent."""
        metadata = raw["metadata"]
        spec = raw.get("spec") or {}
        annotations = metadata.get("annotations") or {}
        return cls(
            version=int(metadata["resourceVersion"]),
            uid=metadata["uid"],
            holder=spec.get("holderIdentity") or "",
            duration=spec.get("leaseDurationSeconds") or 0,
            transitions=spec.get("leaseTransitions") or 0,
            offset=_offset(annotations),
            proven=annotations.get(TAKEOVER_ANNOTATION) == metadata["uid"],
            raw=raw,
        )

    @property
    def epoch(self) -> int:
        """The epoch of whoever took the Lease by writing this version."""
        return self.version + self.offset

    @property
    def spec(self) -> dict[str, Any]:
        """What changes with every renewal. Observers compare it; a new label is no sign of life."""
        return self.raw.get("spec") or {}

    def taken(self, candidate: Candidate) -> dict[str, Any]:
        """Return the object with which a candidate takes the Lease."""
        return self._next(
            **_holding(candidate), leaseTransitions=self.transitions + (self.holder != candidate.identity)
        )

    def renewed(self, candidate: Candidate, *, proven: bool = False) -> dict[str, Any]:
        """Return the object with which its holder renews it; `proven` when its takeover has come to its end."""
        return self._next(self._proof(proven=proven), renewTime=_micro_time(candidate.wall()))

    def released(self, candidate: Candidate, *, proven: bool = False) -> dict[str, Any]:
        """Return the object with which its holder gives it up."""
        return self._next(self._proof(proven=proven), holderIdentity="", renewTime=_micro_time(candidate.wall()))

    def raised(self, offset: int) -> dict[str, Any]:
        """Return the object with another offset."""
        return self._next({OFFSET_ANNOTATION: str(offset)})

    def _proof(self, *, proven: bool) -> dict[str, str]:
        return {TAKEOVER_ANNOTATION: self.uid} if proven else {}

    def _next(self, annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
        changed = copy.deepcopy(self.raw)
        changed["spec"] = {**(changed.get("spec") or {}), **spec}
        if annotations:
            changed["metadata"]["annotations"] = {**(changed["metadata"].get("annotations") or {}), **annotations}
        return changed


class LeaseView:
    """One Lease on the API server, as one candidate has seen it so far.

    Attributes:
        record: The Lease as it was last seen; None when there was none.
        name: ``namespace/name``, for messages.
    """

    def __init__(self, client: KubeClient, namespace: str, name: str, candidate: Candidate) -> None:
        self.record: LeaseRecord | None = None
        self.name = f"{namespace}/{name}"
        self.collection = LEASES.collection(namespace)
        self._client = client
        self._candidate = candidate
        self._path = LEASES.path(namespace, name)
        self._object_name = name
        self._changed_at = float("-inf")
        self._highest_offset = 0

    def observe(self, record: LeaseRecord | None) -> None:
        """Take in what the Lease looks like now; a change of its spec is a sign of life of its holder."""
        before = self.record
        if record is None or before is None or (record.uid, record.spec) != (before.uid, before.spec):
            self._changed_at = self._candidate.clock()
        self.record = record
        if record is not None:
            self._highest_offset = max(self._highest_offset, record.offset)

    def remaining(self) -> float:
        """Return for how many seconds the Lease, as last seen, is to be left to its holder; 0 when it is free."""
        record = self.record
        if record is None or record.holder in {"", self._candidate.identity}:
            return 0.0
        duration = record.duration or self._candidate.durations.lease  # what its holder counts on, not what we would
        return max(0.0, self._changed_at + duration - self._candidate.clock())

    async def read(self) -> LeaseRecord | None:
        """Read the Lease as etcd has it now."""
        try:
            answer = await self._client.request("GET", self._path, timeout=self._candidate.durations.renew)
        except NotFound:
            record = None
        else:
            record = LeaseRecord.parse(answer)
        self.observe(record)
        return record

    async def create(self) -> LeaseRecord:
        """Create the Lease, held by the candidate; an offset that was seen on an earlier one is carried over."""
        metadata: dict[str, Any] = {"name": self._object_name}
        if self._highest_offset:
            metadata["annotations"] = {OFFSET_ANNOTATION: str(self._highest_offset)}
        lease = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": metadata,
            "spec": {**_holding(self._candidate), "leaseTransitions": 0},
        }
        answer = await self._client.request(
            "POST", self.collection, body=lease, timeout=self._candidate.durations.renew
        )
        record = LeaseRecord.parse(answer)
        self.observe(record)
        return record

    async def replace(self, lease: dict[str, Any]) -> LeaseRecord:
        """Write the Lease if it is still the version that `lease` was made from."""
        answer = await self._client.request("PUT", self._path, body=lease, timeout=self._candidate.durations.renew)
        record = LeaseRecord.parse(answer)
        self.observe(record)
        return record


def _holding(candidate: Candidate) -> dict[str, Any]:
    now = _micro_time(candidate.wall())
    return {
        "holderIdentity": candidate.identity,
        "leaseDurationSeconds": candidate.durations.lease,
        "acquireTime": now,
        "renewTime": now,
    }


def _micro_time(now: datetime) -> str:
    """Return a time as Kubernetes' MicroTime. Only people read it: clocks of different machines are not compared."""
    return now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _offset(annotations: dict[str, str]) -> int:
    text = annotations.get(OFFSET_ANNOTATION, "0")
    try:
        return max(0, int(text))
    except ValueError:
        _LOG.warning("annotation %s is no number: %r; taken as 0", OFFSET_ANNOTATION, text)
        return 0
