"""Jobs that are over, until their time to live is over too.

Guarantees: a job is deleted at the version at which it was seen to be over, or not at all, so a retry by hand that
comes at the last moment is not lost; what is not gone after a while is tried again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from distriqueue.api.raw import RawJob
from distriqueue.core import times
from distriqueue.core.commands import DeleteJob
from distriqueue.core.timers import Timers
from distriqueue.core.times import Now

AT_A_TIME: Final = 60
"""Deletions that one tick begins: more than jobs that can end in that time, and yet no storm."""
AGAIN_SECONDS: Final = 30.0
"""After so long a deletion that showed no effect is tried again."""


@dataclass(frozen=True, slots=True)
class Finished:
    """What is kept of a job that is over.

    Attributes:
        version: The resourceVersion at which it was over.
        ended_at: Wall clock; None when its status does not say.
        ttl: Its own time to live in seconds; None when it names none.
    """

    uid: str
    namespace: str
    name: str
    version: str
    ended_at: float | None
    ttl: int | None

    @classmethod
    def of(cls, resource: RawJob) -> "Finished":
        """Take from a resource what is kept."""
        metadata = resource["metadata"]
        return cls(
            uid=metadata["uid"],
            namespace=metadata["namespace"],
            name=metadata["name"],
            version=metadata["resourceVersion"],
            ended_at=times.seconds(resource["status"].get("completionTime")),
            ttl=resource["spec"].get("ttlSecondsAfterFinished") if "spec" in resource else None,
        )


class Reaper:
    """See the module.

    Args:
        default_ttl: Seconds, for jobs that name none; None keeps them.
    """

    def __init__(self, *, default_ttl: int | None) -> None:
        self._default_ttl = default_ttl
        self._finished: dict[str, Finished] = {}
        self._timers = Timers()

    def __len__(self) -> int:
        """How many jobs wait for their end."""
        return len(self._finished)

    def expect(self, job: Finished, now: Now) -> None:
        """A job is over: it is deleted when its time has come."""
        ttl = self._default_ttl if job.ttl is None else job.ttl
        if ttl is None:
            self.forget(job.uid)
            return
        ended = now.wall if job.ended_at is None else job.ended_at
        self._finished[job.uid] = job
        self._timers.set(job.uid, now.mono + max(0.0, ended + ttl - now.wall))

    def forget(self, uid: str) -> None:
        """A job is gone, or not over any more."""
        if self._finished.pop(uid, None) is not None:
            self._timers.clear(uid)

    def due(self, now: Now) -> Iterator[DeleteJob]:
        """Yield the deletions that are due, some at a time."""
        for uid in list(self._timers.due(now.mono, most=AT_A_TIME)):
            job = self._finished[uid]
            self._timers.set(uid, now.mono + AGAIN_SECONDS)
            yield DeleteJob(namespace=job.namespace, name=job.name, uid=uid, resource_version=job.version)
