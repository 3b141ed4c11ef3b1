"""A replica of the operator around the real `Leader`: stands for the Lease, drives one term after another.

It does what `distriqueue.operator.terms` does, with made-up I/O. A crash may fall between any two commands.
"""

from collections.abc import Callable
from functools import partial
from random import Random

from distriqueue.api.raw import RawJob, RawWorker
from distriqueue.core.commands import (
    AckReports,
    CallRoll,
    Command,
    DeclarePool,
    DeleteJob,
    DeleteWorker,
    EmitEvent,
    PublishTicket,
    ResolvePayload,
    SendMarker,
    SendToWorker,
    StepDown,
    WriteStatus,
    WriteWorker,
)
from distriqueue.core.findings import Finding
from distriqueue.core.jobs import is_over
from distriqueue.core.leader import Leader, LeaderSettings, Step
from distriqueue.core.observing import SilentObserver
from distriqueue.core.payloads import Obstacle
from distriqueue.core.reaping import Finished
from distriqueue.core.roster import Session
from distriqueue.core.times import Now, microtime
from distriqueue_protocol.messages import EpochCall, Marker, Report, SessionMessage
from tests.simulation.api_server import (
    LEASE_MARGIN,
    LEASE_SECONDS,
    ApiServer,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    RefusedError,
    Watch,
)
from tests.simulation.bookkeeping import check_books, check_custody
from tests.simulation.broker import Broker, Connection
from tests.simulation.histories import History
from tests.simulation.scheduling import Pace, Process
from tests.simulation.statuses import EPOCH_OF_TIME, ViolationError

TICK_SECONDS = 0.25
STAND_SECONDS = 0.5
RENEW_SECONDS = 1.0


class Listener(SilentObserver):
    """What the auditor of a leader finds is a bug of the leader."""

    def custody_found(self, finding: str, *, lost: bool) -> None:
        """Fail, unless the API server is just away."""
        if finding != Finding.WRITE_OVERDUE:
            raise ViolationError("the auditor", f"finds {finding}{', and nobody had the job' if lost else ''}")


_OBSTACLES: dict[type, Obstacle] = {
    type(None): Obstacle.NO_KEY,
    NotFoundError: Obstacle.NO_CONFIG_MAP,
    ForbiddenError: Obstacle.FORBIDDEN,
}


def _delete(uid: str, leader: Leader, now: Now) -> None:
    leader.on_job_deleted(uid, now)


class Replica(Process):
    """One process of the operator."""

    def __init__(  # noqa: PLR0913 - all that is made up around it
        self,
        *,
        name: str,
        api: ApiServer,
        broker: Broker,
        history: History,
        rng: Random,
        pace: Pace,
        skew: float,
        crash: Callable[[], bool],
        ended_pods: list[str],
        deleted_workers: dict[str, RawWorker],
    ) -> None:
        super().__init__(api.scheduler, name, pace)
        self.api = api
        self.broker = broker
        self.history = history
        self.rng = rng
        self.term: Term | None = None
        self.minimum_epoch = 0
        self.ended_pods = ended_pods
        self.deleted_workers = deleted_workers
        self.crash = crash
        self._skew = skew
        self._terms = 0
        self._stand()

    def now(self) -> Now:
        """Both clocks of this process; the wall clock may be wrong."""
        return Now(self.mono(), EPOCH_OF_TIME + self.scheduler.now + self._skew)

    def _stand(self) -> None:
        self.after(self.turn_seconds(STAND_SECONDS * self.rng.uniform(0.5, 1.5)), self._stand)
        if self.term is not None:
            return
        self._terms += 1
        holder = f"{self.name}-{self._terms}"
        self.api.request(self, lambda: self.api.take_lease(holder), lambda answer: self._taken(holder, answer))

    def _taken(self, holder: str, answer: "tuple[int, bool] | Exception") -> None:
        if isinstance(answer, Exception) or self.term is not None:
            return
        epoch, created = answer
        # The difference to what is known from elsewhere is written to the Lease; here it is simply added.
        if epoch <= self.minimum_epoch:
            self.api.version = self.minimum_epoch + 1
            return
        self.term = Term(self, holder=holder, epoch=epoch, created=created)

    def kill(self) -> None:
        """SIGKILL: its connections close, what it has sent goes on."""
        super().kill()
        if self.term is not None:
            self.term.link.close()

    def freeze(self, seconds: float) -> None:
        """SIGSTOP: after a while the broker closes its connections."""
        super().freeze(seconds)
        if self.term is not None and seconds > 6:
            self.scheduler.after(self.rng.uniform(5, 10), self.term.link.drop)


class Term:
    """One term of a replica."""

    def __init__(self, replica: Replica, *, holder: str, epoch: int, created: bool) -> None:
        self.replica = replica
        self.holder = holder
        self.epoch = epoch
        self.over = False
        self.leader: Leader | None = None
        self._api = replica.api
        self._broker = replica.broker
        self._created = created
        self._watch: Watch | None = None
        self._store: dict[str, RawJob] = {}
        self._unfinished: dict[str, RawJob] = {}
        self._led = False
        self._reading: set[str] = set()
        self._scheduled = False
        self._valid_until = replica.now().mono + LEASE_SECONDS - LEASE_MARGIN
        self.link: Connection = self._broker.connect(replica, lambda: self.end("broker lost"))
        # Whoever had to create the Lease waits for one lease duration first.
        self._after(LEASE_SECONDS if created else 0.0, self._bind)
        self._renew()

    def _after(self, delay: float, action: Callable[[], None]) -> None:
        self.replica.after(delay, lambda: None if self.over else action())

    def valid(self) -> bool:
        """Whether nobody else can lead."""
        if not self.over and self.replica.now().mono >= self._valid_until:
            self.end("lease lost")
        return not self.over

    def end(self, why: str, *, minimum_epoch: int = 0, release: bool = False) -> None:
        """The term is over; nothing is done any more."""
        if self.over:
            return
        self.over = True
        self.replica.scheduler.say(self.replica.name, "epoch", self.epoch, "over:", why)
        self.link.close()
        if self._watch is not None:
            self._watch.open = False
        if release:
            self._api.request(self.replica, lambda: self._api.release_lease(self.holder), lambda _answer: None)
        self.replica.minimum_epoch = max(self.replica.minimum_epoch, minimum_epoch)
        self.replica.term = None

    def _renew(self) -> None:
        sent_at = self.replica.now().mono

        def answered(answer: object) -> None:
            if isinstance(answer, Exception):
                if isinstance(answer, ConflictError):
                    self.end("lease lost")
            else:
                self._valid_until = max(self._valid_until, sent_at + LEASE_SECONDS - LEASE_MARGIN)

        if self.valid():
            proven = self.leader is not None and self.leader.step is Step.LEADING
            self._api.request(self.replica, lambda: self._api.renew_lease(self.holder, proven=proven), answered)
            self._after(RENEW_SECONDS, self._renew)

    # --- takeover ----------------------------------------------------------------------------------------------

    def _bind(self) -> None:
        self.link.up(lambda: self._broker.bind_inbox(self.link, self.epoch), confirmed=self._bound)

    def _bound(self) -> None:
        if not self.valid():
            return
        bound_at = self.replica.now()
        self._carry_out(CallRoll())
        workers = list(self._api.workers.values())
        listed_names = {worker["metadata"]["name"] for worker in workers}

        def listed() -> None:
            if not self.valid():
                return
            jobs, self._watch = self._api.watch(self.replica, self._on_watch, self._watch_again)
            self._store = {job["metadata"]["uid"]: job for job in jobs}
            unfinished = [job for job in jobs if not is_over(job)]
            self._unfinished = {job["metadata"]["uid"]: job for job in unfinished}
            self.leader = Leader(
                epoch=self.epoch,
                now=bound_at,
                observer=Listener(),
                draw=self.replica.rng.random,
                settings=LeaderSettings(),
            )
            self.leader.auditor.shown = self._unfinished
            self._listen_to(self.leader)
            # A replica watches DistributedWorkers all the time: what somebody deleted while nobody led is remembered.
            missed = [
                self.replica.deleted_workers[name]
                for name in sorted(self.replica.deleted_workers)
                if name not in listed_names
            ]
            self.leader.begin(
                jobs=unfinished,
                workers=workers + missed,
                finished=[Finished.of(job) for job in jobs if is_over(job)],
                lease_created=self._created,
                now=self.replica.now(),
            )
            for worker in missed:
                self.leader.on_worker_vanished(worker["metadata"]["name"], self.replica.now())
            self.replica.scheduler.say(self.replica.name, "takes over with epoch", self.epoch)
            for pod in self.replica.ended_pods:
                self.leader.on_pod_ended(pod, self.replica.now())
            self._drain()
            self.link.up(lambda: self._broker.read_inbox(self.epoch, self._on_inbox))
            self.link.up(lambda: self._broker.consume_reports(self.link, self._on_report))
            self._tick()

        self._after(self.replica.rng.uniform(0.01, 0.5), listed)

    def _tick(self) -> None:
        if self.leader is not None and self.valid():
            self.leader.tick(self.replica.now())
            self._drain()
            check_custody(self.leader)
            self._after(self.replica.turn_seconds(TICK_SECONDS), self._tick)

    def _note_missed(self, leader: Leader) -> None:
        """Attempts that nobody answers for when the takeover is done are over from here on."""
        if self._led or leader.step is not Step.LEADING:
            return
        self._led = True
        for job in leader._books.jobs.values():
            if job.slot is not None and job.slot.grant.counter == 0:
                self.replica.history.missed(job.uid, job.slot.grant)

    def _listen_to(self, leader: Leader) -> None:
        """Whatever this leader takes for lost is held against what really happened."""
        roster, history = leader.roster, self.replica.history
        really_proven = roster.proven

        def proven() -> list[Session]:
            proofs = {name: session.proof for name, session in roster.sessions.items() if session.proof is not None}
            lost = really_proven()
            for session in lost:
                proof = proofs.get(session.incarnation)
                slots = [(uid, slot.grant) for uid, slot in session.slots.items() if slot.report is None]
                history.judged_lost(slots, epoch=self.epoch, proof=proof.id if proof is not None else None)
            return lost

        setattr(roster, "proven", proven)  # noqa: B010 - a method of this one object is listened to

    # --- events ------------------------------------------------------------------------------------------------

    def tell(self, event: Callable[[Leader, Now], None]) -> None:
        """Hand an event over; what follows from a batch of them is carried out together."""
        if self.over or self.leader is None:
            return
        event(self.leader, self.replica.now())
        if not self._scheduled:
            self._scheduled = True
            self._after(0.0005, self._drain)

    def _on_watch(self, kind: str, job: RawJob) -> None:
        uid = job["metadata"]["uid"]
        self._unfinished.pop(uid, None)
        if kind == "DELETED":
            self._store.pop(uid, None)
            self.tell(partial(_delete, uid))
        else:
            self._store[uid] = job
            if not is_over(job):
                self._unfinished[uid] = job
            self.tell(lambda leader, now: leader.on_job(job, now))

    def _watch_again(self) -> None:
        """The watch is gone: list, tell what has changed, and watch from there."""

        def listed(answer: object) -> None:
            if isinstance(answer, Exception):
                self._watch_again()
                return
            jobs, self._watch = self._api.watch(self.replica, self._on_watch, self._watch_again)
            uids = {job["metadata"]["uid"] for job in jobs}
            for uid in sorted(self._store.keys() - uids):
                self._on_watch("DELETED", self._store[uid])
            for job in jobs:
                self._on_watch("MODIFIED", job)

        self._after(self.replica.rng.uniform(0.1, 2.0), lambda: self._api.request(self.replica, lambda: None, listed))

    def _on_inbox(self, message: SessionMessage | Marker) -> None:
        if isinstance(message, Marker):
            self.tell(lambda leader, now: leader.on_marker(message, through_reports=False, now=now))
        else:
            self.tell(lambda leader, now: leader.on_session(message, now))

    def _on_report(self, message: Report | Marker, tag: int) -> None:
        if isinstance(message, Marker):
            self.tell(lambda leader, now: leader.on_marker(message, through_reports=True, now=now))
            self._carry_out(AckReports((tag,)))
        else:
            self.tell(lambda leader, now: leader.on_report(message, tag, now))

    # --- commands ----------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        self._scheduled = False
        if self.leader is None or not self.valid():
            return
        self.leader.publish(self.replica.now())
        check_books(self.leader._books)
        self._note_missed(self.leader)
        for command in self.leader.take():
            if self.over or not self.replica.alive:
                return
            if self.replica.crash():
                self.replica.kill()
                return
            self._carry_out(command)

    def _carry_out(self, command: Command) -> None:
        broker, link, epoch = self._broker, self.link, self.epoch
        match command:
            case SendToWorker(incarnation, message):
                link.publish(lambda: broker.send(incarnation, message))
            case PublishTicket():
                self._publish(command)
            case AckReports(tags):
                link.up(lambda: broker.ack_reports(link, tags))
            case SendMarker(number):
                marker = Marker(epoch=epoch, id=number)
                link.publish(lambda: broker.publish_inbox(epoch, marker))
                link.publish(lambda: broker.publish_report(marker))
            case CallRoll():
                link.publish(lambda: broker.call_roll(EpochCall(epoch=epoch)))
            case DeclarePool(pool):
                link.up(lambda: broker.declare_pool(pool))
            case StepDown(reason, minimum):
                self.end(reason, minimum_epoch=minimum)
            case _:
                self._write(command)

    def _publish(self, command: PublishTicket) -> None:
        queued = microtime(self.replica.now().wall)
        queue = (command.pool, command.priority)
        taken = False

        def arrive() -> None:
            nonlocal taken
            taken = self._broker.publish_ticket(queue, command.ticket)

        def confirmed(leader: Leader) -> None:
            if taken:
                leader.on_ticket_confirmed(command.uid, command.number, queued_time=queued)
            else:
                leader.on_ticket_failed(command.uid, command.number)

        self.link.publish(arrive, confirmed=lambda: self.tell(lambda leader, _now: confirmed(leader)))

    def _write(self, command: Command) -> None:
        api, replica = self._api, self.replica
        match command:
            case WriteStatus():
                api.request(
                    replica,
                    lambda: api.put_status(
                        command.name, command.uid, command.resource_version, command.status, writer=self.replica.name
                    ),
                    lambda answer: self._written(command, answer),
                )
            case ResolvePayload():
                self._resolve(command)
            case DeleteJob(_, name, uid, version):
                api.request(
                    replica,
                    lambda: api.delete_job(name, writer=replica.name, uid=uid, version=int(version)),
                    lambda _answer: None,
                )
            case EmitEvent(_, _, name, _, reason, note):
                replica.scheduler.say("event of", name, reason, note)
            case WriteWorker(name, status):
                api.request(
                    replica,
                    lambda: api.put_worker(name, status),
                    lambda answer: self.tell(
                        lambda leader, now: (
                            leader.on_worker_failed(name, now)
                            if isinstance(answer, Exception)
                            else leader.on_worker_written(name, now)
                        )
                    ),
                )
            case DeleteWorker(name):
                api.request(replica, lambda: api.delete_worker(name), lambda _answer: None)

    def _resolve(self, command: ResolvePayload) -> None:
        """Read a ConfigMap: the answer may take long, and much may happen before it comes."""
        if command.uid in self._reading:
            raise ViolationError("one read at a time", f"two for {command.name}")
        self._reading.add(command.uid)

        def read(answer: str | Exception | None) -> None:
            self._reading.discard(command.uid)
            content = answer if isinstance(answer, str) else _OBSTACLES.get(type(answer), Obstacle.UNREAD)
            self.tell(lambda leader, now: leader.on_payload_read(command.uid, command.number, content, now))

        api, replica = self._api, self.replica
        delay = replica.rng.choice([0.0, 0.0, 0.1, 1.0, 3.0])
        self._after(
            delay,
            lambda: api.request(replica, lambda: api.read_config_map(command.config_map, command.key), read),
        )

    def _written(self, command: WriteStatus, answer: int | Exception) -> None:
        if isinstance(answer, int):
            self.tell(lambda leader, now: leader.on_written(command.id, answer, now))
        elif isinstance(answer, RefusedError):
            self.tell(lambda leader, now: leader.on_write_refused(command.id, answer.fences, "refused", now))
        else:
            self._reread(command)

    def _reread(self, command: WriteStatus) -> None:
        def read(answer: RawJob | Exception) -> None:
            if isinstance(answer, NotFoundError):
                self.tell(lambda leader, now: leader.on_reread(command.id, None, now))
            elif isinstance(answer, Exception):
                self._after(0.5, lambda: self._reread(command))
            else:
                self.tell(lambda leader, now: leader.on_reread(command.id, answer, now))

        self._api.request(self.replica, lambda: self._api.read_job(command.name), read)
