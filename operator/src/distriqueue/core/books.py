"""The books of one term: jobs, sessions, reports, and what the leader wants done.

Everything that decides (`admitting`, `granting`, `staffing`, `writing`, `takeovers`) works on the one `Books` of its
term; here stands only what has to be true whoever decides. Guarantees: a slot is with its job and with the session that
lists it, or with neither; a job that is over stays until nothing older than its end can arrive; a term that is to end
wants nothing else.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from distriqueue.api.conditions import JobReason
from distriqueue.api.limits import DEFAULT_TTL_SECONDS, PAYLOAD_LIMIT_BYTES
from distriqueue.api.phases import JobPhase
from distriqueue.core.backlog import Backlog, RunwaySettings
from distriqueue.core.commands import AckReports, Command, DeclarePool, StepDown
from distriqueue.core.jobs import Job, Slot, Stage, Write, WriteKind
from distriqueue.core.observing import Observer
from distriqueue.core.outbox import Outbox
from distriqueue.core.reaping import Reaper
from distriqueue.core.records import Records
from distriqueue.core.roster import Roster, Session
from distriqueue.core.timers import Timers
from distriqueue.core.times import Now, seconds
from distriqueue_protocol.messages import GrantId, StopReason

_ORDERS: Final = {
    JobReason.CANCELLED: StopReason.CANCELLED,
    JobReason.DEADLINE_EXCEEDED: StopReason.DEADLINE_EXCEEDED,
}
"""What the worker of a job is told that is to be closed; one that is refused for its spec goes on to its end."""


@dataclass(frozen=True, slots=True)
class LeaderSettings:
    """What may be tuned of a term.

    Attributes:
        running_after: Seconds after which a held job is written as Running; a shorter one never is.
        queued_after: Seconds after which a ticket that is out is written as Queued.
        resend_after: Seconds after which a ticket that nobody claimed, though slots are free, is sent again.
        payload_limit: Bytes of JSON that a payload may have.
        quiet_writes: Writes of Queued wait while more writes than this are under way.
        progress_every: Seconds between two writes of one job's progress.
        default_ttl: Seconds for which a finished job is kept that does not say; None for ever.
        reopened_per_second: Finished jobs that are run again by hand, in a second.
    """

    running_after: float = 1.0
    queued_after: float = 3.0
    resend_after: float = 15.0
    payload_limit: int = PAYLOAD_LIMIT_BYTES
    quiet_writes: int = 8
    progress_every: float = 5.0
    default_ttl: int | None = DEFAULT_TTL_SECONDS
    reopened_per_second: float = 50.0
    runway: RunwaySettings = field(default_factory=RunwaySettings)


class Books:
    """See the module.

    Attributes:
        leading: The takeover is done: grants and tickets are allowed.
        held: Jobs whose slot is taken.
        writes: Status writes under way, by number.
        stopped: Grants that were counted as stopped because they are lower than another one, or over: each counts once.
        granted: The number of the last grant of this term.
        deadlines: When jobs have to be over, by uid.
        reaper: Deletes what has been over for long.
    """

    def __init__(self, *, epoch: int, now: Now, observer: Observer, settings: LeaderSettings) -> None:
        self.epoch = epoch
        self.observer = observer
        self.settings = settings
        self.leading = False
        self.held = 0
        self.granted = 0
        self.deadlines = Timers()
        self.reaper = Reaper(default_ttl=settings.default_ttl)
        self.jobs: dict[str, Job] = {}
        self.writes: dict[int, Write] = {}
        self.stopped: dict[GrantId, None] = {}
        self.backlog = Backlog(settings.runway)
        self.roster = Roster(epoch=epoch, mono=now.mono)
        self.records = Records(epoch=epoch)
        self.outbox = Outbox(epoch=epoch)
        self._commands: list[Command] = []
        self._acks: list[int] = []
        self._down: StepDown | None = None
        self._keepers: dict[tuple[str, str], Job] = {}

    # --- what is to be done ------------------------------------------------------------------------------------

    def want(self, command: Command) -> None:
        """Have something done."""
        self._commands.append(command)

    def take(self) -> list[Command]:
        """Return what is to be done, and forget it. A leader that steps down wants nothing else."""
        if self._down is not None:
            return [self._down]
        self._commands.extend(self.outbox.take())
        if self._acks:
            self._commands.append(AckReports(tuple(self._acks)))
            self._acks = []
        commands, self._commands = self._commands, []
        return commands

    def step_down(self, reason: str, *, minimum_epoch: int) -> None:
        """End the term."""
        if self._down is None or self._down.minimum_epoch < minimum_epoch:
            self._down = StepDown(reason, minimum_epoch)

    def acknowledge(self, tags: Iterable[int]) -> None:
        """These deliveries of the report queue are judged and written: they leave with the next commands."""
        self._acks.extend(tags)
        self.roster.settled(tags)

    def add_pool(self, pool: str) -> None:
        """See to it that a pool has queues."""
        if self.backlog.is_new_pool(pool):
            self.backlog.add_pool(pool)
            self.want(DeclarePool(pool))

    # --- slots -------------------------------------------------------------------------------------------------

    def hold(self, job: Job, slot: Slot, session: Session | None) -> None:
        """A grant takes the slot of a job that is free."""
        job.slot = slot
        job.stage = Stage.HELD
        self.held += 1
        if session is not None:
            session.slots[job.uid] = slot

    def entrust(self, job: Job, slot: Slot, session: Session) -> None:
        """Another session answers for a slot from here on."""
        self._detach(job, slot)
        slot.incarnation = session.incarnation
        session.slots[job.uid] = slot

    def release(self, job: Job, slot: Slot) -> None:
        """The slot is free again; what becomes of the job is the caller's."""
        self._detach(job, slot)
        job.slot = None
        self.held -= 1

    def _detach(self, job: Job, slot: Slot) -> None:
        session = self.roster.sessions.get(slot.incarnation)
        if session is not None and session.slots.get(job.uid) is slot:
            del session.slots[job.uid]

    def free(self, job: Job, slot: Slot, why: str) -> None:
        """Free a slot whose grant is over: its report is refused, or its handler stopped."""
        self.release(job, slot)
        if slot.report is None:
            if slot.incarnation:
                self.outbox.stop(slot.incarnation, slot.grant, why)
                if slot.lost is None and slot.grant not in self.stopped:
                    self.observer.attempt_orphaned(why)
        elif job.write is None or job.write.kind is not WriteKind.END or job.write.slot is not slot:
            # Else its end is being written: whether it is accepted after all is seen by the answer.
            self.refuse_report(slot)

    def order_stop(self, job: Job) -> None:
        """Tell whoever holds a job to stop if it is to be closed or run anew; the slot is theirs until they answer."""
        slot = job.slot
        if slot is None or not self.leading:
            return
        if job.closing is not None:
            slot.stop = _ORDERS.get(job.closing.reason, slot.stop)
        elif job.wants_retry:
            slot.stop = StopReason.RETRIED
        if slot.stop and slot.incarnation and slot.report is None:
            self.outbox.stop(slot.incarnation, slot.grant, slot.stop)

    def refuse_report(self, slot: Slot) -> None:
        """The report of a slot comes too late."""
        self.observer.report_refused("Stale")
        self.settle(slot)

    def settle(self, slot: Slot) -> None:
        """Acknowledge the deliveries of a slot's report and tell its worker to forget it."""
        if slot.tags:
            self.acknowledge(slot.tags)
            slot.tags = []
        if slot.report is not None:
            self.outbox.settle(slot.report.incarnation, slot.grant)

    # --- jobs --------------------------------------------------------------------------------------------------

    def place(self, job: Job, now: Now) -> None:
        """Let a job that nobody holds wait: for a person or a write, for its time, or for its turn."""
        if job.halted:
            self.backlog.leave(job)
            job.stage = Stage.HALTED
            return
        due = seconds(job.status.get("nextAttemptTime")) if job.phase == JobPhase.RETRYING else None
        # The wall clock of the leader that wrote the time may have been wrong by any amount.
        wait = min(due - now.wall, 2.0 * job.backoff.max_seconds) if due is not None else 0.0
        if job.start_after is not None:
            wait = max(wait, job.start_after - now.wall)
        if job.source is not None:
            wait = max(wait, job.source.not_before - now.mono)
        if wait > 0:
            self.backlog.wait_until(job, due=now.mono + wait)
        else:
            self.backlog.wait(job)

    def limit_time(self, job: Job, now: Now) -> bool:
        """Keep the time of a job's deadline in view.

        Returns:
            Whether it has passed.
        """
        deadline = job.deadline()
        if deadline is None:
            self.deadlines.clear(job.uid)
            return False
        if deadline <= now.wall:
            return True
        self.deadlines.set(job.uid, now.mono + deadline - now.wall)
        return False

    def keep_key(self, job: Job) -> Job | None:
        """Let a job be the only one with its dedupKey.

        Returns:
            The job that is so already; None when this one is, or nobody can say before the takeover is done.
        """
        if job.dedup_key is None or not self.leading:
            return None
        keeper = self._keepers.setdefault((job.namespace, job.dedup_key), job)
        return keeper if keeper is not job else None

    def _let_go(self, job: Job) -> None:
        self.deadlines.clear(job.uid)
        if job.dedup_key is not None and self._keepers.get((job.namespace, job.dedup_key)) is job:
            del self._keepers[job.namespace, job.dedup_key]

    def finish(self, job: Job, why: str) -> None:
        """Close the books of a job that is over. Whoever still runs it is told to stop, what it reports is settled."""
        self._let_go(job)
        self.backlog.leave(job)
        job.stage = Stage.FINAL
        job.payload = {}
        job.status = {"phase": job.phase}
        if job.slot is not None:
            self.free(job, job.slot, why)

    def forget(self, job: Job) -> None:
        """Let go of a job that is over, once the watch has shown it so: nothing older can come after that."""
        if job.stage is Stage.FINAL and job.write is None and job.seen >= job.resource_version and not job.gone:
            self.jobs.pop(job.uid, None)
