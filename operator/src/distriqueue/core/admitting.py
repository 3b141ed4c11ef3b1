"""Jobs as the API server shows them: which enter the books, what changes there, and which leave.

Guarantees: what a resource says is the truth, also against a slot that is held; a job is read from versions that only
grow, so that what was late revives nothing; whoever stored a spec that no schema would let in gets an answer in the
status.
"""

from typing import cast

from distriqueue.api.conditions import AttemptReason, JobReason
from distriqueue.api.phases import JobPhase
from distriqueue.api.raw import RawJob, RawJobSpec, RawJobStatus
from distriqueue.core.books import Books
from distriqueue.core.jobs import InvalidSpecError, Job, Loss, Slot, Stage, is_over, json_bytes, read_job
from distriqueue.core.lifecycle import Lifecycle
from distriqueue.core.reaping import Finished
from distriqueue.core.times import Now, seconds
from distriqueue.core.writing import Writing
from distriqueue_protocol.messages import GrantId, StopReason
from distriqueue_protocol.payloads import is_too_deep, too_deep, too_large


class Admission:
    """See the module."""

    def __init__(self, books: Books, writing: Writing, lifecycle: Lifecycle) -> None:
        self._books = books
        self._writing = writing
        self._lifecycle = lifecycle

    def shown(self, resource: RawJob, now: Now) -> None:
        """A job was created or changed, or is named by a list."""
        metadata = resource["metadata"]
        if metadata.get("deletionTimestamp"):
            self.deleted(metadata["uid"])
            return
        over = is_over(resource)
        if over:
            self._books.reaper.expect(Finished.of(resource), now)
        else:
            self._books.reaper.forget(metadata["uid"])
        job = self._books.jobs.get(metadata["uid"])
        if job is None:
            if not over:
                self._enter(resource, now)
            return
        version = int(metadata["resourceVersion"])
        job.seen = max(job.seen, version)
        if version > job.resource_version and not job.gone:
            if job.write is not None:
                # Ours, most often: its answer is on the way. If it is somebody else's, it is read after that answer.
                job.skipped = resource
                return
            if job.stage is Stage.FINAL and not over:
                # A person wants a retry; or a fence had said that it is over, and it is not.
                del self._books.jobs[job.uid]
                self._enter(resource, now)
                return
            self.read_back(job, resource, now)
        self._books.forget(job)

    def _enter(self, resource: RawJob, now: Now) -> None:
        """Take a job into the books."""
        books = self._books
        epoch = resource.get("status", {}).get("epoch", 0)
        if epoch > books.epoch:
            books.step_down(f"a status has epoch {epoch}", minimum_epoch=epoch)
            return
        try:
            job = read_job(resource, wall=now.wall)
        except InvalidSpecError as error:
            # What a person wants of it still counts: a retry that no status answers would be refused again and again.
            unread = ("type", "priority", "payloadFrom")
            spec = {key: value for key, value in resource.get("spec", {}).items() if key not in unread}
            job = read_job(cast("RawJob", {**resource, "spec": {**spec, "type": "invalid"}}), wall=now.wall)
            books.jobs[job.uid] = job
            books.add_pool(job.pool)
            self._writing.refuse(job, JobReason.INVALID_SPEC, str(error), now)
            return
        books.jobs[job.uid] = job
        books.add_pool(job.pool)
        if is_too_deep(job.payload):
            # No worker could read its ticket, and below some depth nobody can measure it either.
            self._writing.refuse(job, JobReason.INVALID_PAYLOAD, too_deep("spec.payload"), now)
            return
        size = json_bytes(job.payload)
        limit = books.settings.payload_limit
        if size > limit:
            why = too_large("spec.payload", size=size, limit=limit)
            self._writing.refuse(job, JobReason.PAYLOAD_TOO_LARGE, why, now)
            return
        if books.leading:
            # Nobody but a leader writes Running: somebody edited the status by hand.
            self.miss(job, now)
        self._lifecycle.follow(job, now, moved=True)

    def read_back(self, job: Job, resource: RawJob, now: Now) -> None:
        """A resource was changed by somebody else, or read again: what it says now is the truth."""
        books = self._books
        metadata, status = resource["metadata"], resource.get("status", cast("RawJobStatus", {}))
        if status.get("epoch", 0) > books.epoch:
            books.step_down(f"a leader of epoch {status['epoch']} writes", minimum_epoch=status["epoch"])
            return
        job.resource_version = int(metadata["resourceVersion"])
        job.generation = metadata.get("generation", job.generation)
        number = job.next_attempt
        job.read_status(status)
        if not job.wants_retry:
            job.reopens_at = None
        if is_over(resource):
            books.finish(job, StopReason.OVER)
            books.forget(job)
            return
        slot = job.slot
        if slot is not None and slot.grant <= job.last_grant:
            # A leader before this one has written how this grant ended: its last write was late.
            books.free(job, slot, StopReason.OVER)
            books.place(job, now)
        elif slot is None and job.next_attempt != number and job.stage is not Stage.FINAL:
            books.place(job, now)
        self._lifecycle.reread(job, resource.get("spec", cast("RawJobSpec", {})), now)

    def read_again(self, resource: RawJob, now: Now) -> None:
        """A job was read because of a write that met a conflict, or got no answer."""
        job, over = self._books.jobs.get(resource["metadata"]["uid"]), is_over(resource)
        if job is not None and (over or job.stage is not Stage.FINAL):
            self.read_back(job, resource, now)
        elif not over:
            # Our write ended it, and by now a person wants a retry.
            self._books.jobs.pop(resource["metadata"]["uid"], None)
            self._enter(resource, now)

    def deleted(self, uid: str) -> None:
        """A job is gone: whoever runs it is told to stop, and its reports are settled."""
        self._books.reaper.forget(uid)
        job = self._books.jobs.pop(uid, None)
        if job is None:
            return
        write, job.write = job.write, None
        if write is not None and write.slot is not None and write.slot is not job.slot:
            self._books.settle(write.slot)
        self._books.finish(job, StopReason.DELETED)

    def miss(self, job: Job, now: Now) -> None:
        """If a status says Running and nobody answers for it: a lost attempt, and the next number follows."""
        if job.phase != JobPhase.RUNNING or job.slot is not None or job.stage is Stage.FINAL:
            return
        worker, started = job.status.get("worker", ""), job.status.get("startTime")
        entries = [entry for entry in job.status.get("attempts", []) if entry.get("number") == job.attempt]
        slot = Slot(
            grant=GrantId(self._books.epoch, 0),
            claim=0,
            incarnation=entries[-1].get("incarnation", "") if entries else "",
            worker=worker,
            attempt=job.attempt,
            granted_at=seconds(started) or now.wall,
            start_time=started,
            lost=Loss(AttemptReason.WORKER_LOST, f"worker {worker or 'unknown'} was lost"),
            announced=True,
        )
        self._books.backlog.leave(job)
        self._books.hold(job, slot, None)
        self._writing.advance(job, now)
