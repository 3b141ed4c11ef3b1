"""The jobs that are not over, as the watch shows them: every replica keeps them warm, only the leader acts on them.

Guarantees: after `Feed.catch_up` the store holds exactly the jobs that were not over at that moment, or later. What
nobody reads is left out (managedFields, annotations), so 20,000 waiting jobs stay small; of those that are over it
keeps what their deletion needs.
"""

from collections.abc import Iterable, Mapping
from typing import Final, Protocol, cast

from distriqueue.api.phases import FINAL_JOB_PHASES
from distriqueue.api.raw import RawJob
from distriqueue.core.jobs import is_over
from distriqueue.core.reaping import Finished
from distriqueue.kube.feeds import FeedEvent, FeedType

UNFINISHED: Final = ",".join(f"status.phase!={phase}" for phase in sorted(FINAL_JOB_PHASES))
"""Field selector for the jobs that matter to a takeover. One that is to run again after its end is in a final phase
until the leader has written otherwise: nobody holds it, and the watch brings it in its own time."""


class JobListener(Protocol):
    """Whoever acts on jobs: the term of a leader."""

    def job_changed(self, job: RawJob) -> None:
        """A job was created or changed."""

    def job_deleted(self, uid: str) -> None:
        """A job is gone."""


class JobStore:
    """See the module; `deliver` is the feed's callback."""

    def __init__(self) -> None:
        self._jobs: dict[str, RawJob] = {}
        self._finished: dict[str, Finished] = {}
        self.listener: JobListener | None = None

    @property
    def shown(self) -> Mapping[str, RawJob]:
        """The jobs that are not over, by uid; not to be changed, and as they are at the time of looking."""
        return self._jobs

    def __len__(self) -> int:
        """How many jobs are not over."""
        return len(self._jobs)

    def uids(self) -> list[str]:
        """The uids of all jobs that are not over."""
        return list(self._jobs)

    def get(self, uid: str) -> RawJob | None:
        """A job that is not over; None if it is, or is gone."""
        return self._jobs.get(uid)

    def finished(self) -> Iterable[Finished]:
        """The jobs that are over."""
        return list(self._finished.values())

    def deliver(self, event: FeedEvent) -> None:
        """Take in what the feed shows."""
        if event.type is FeedType.SYNCED:
            return
        job = cast("RawJob", event.object)
        uid = job["metadata"]["uid"]
        if event.type is FeedType.DELETED:
            self._jobs.pop(uid, None)
            self._finished.pop(uid, None)
            if self.listener is not None:
                self.listener.job_deleted(uid)
            return
        if is_over(job):
            self._jobs.pop(uid, None)
            self._finished[uid] = Finished.of(job)
        else:
            self._finished.pop(uid, None)
            metadata = job["metadata"]
            metadata.pop("managedFields", None)  # type: ignore[typeddict-item]  # a key that we never read
            metadata.pop("annotations", None)
            self._jobs[uid] = job
        if self.listener is not None:
            self.listener.job_changed(job)
