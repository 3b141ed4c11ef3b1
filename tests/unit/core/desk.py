"""A leader at its desk: a clock that a test turns, and short words for what comes in and what goes out."""

from collections.abc import Iterable
from typing import Any, TypeVar

from distriqueue.api.raw import RawJob, RawJobSpec, RawJobStatus, RawWorker
from distriqueue.core.commands import (
    AckReports,
    Command,
    SendMarker,
    SendToWorker,
    StepDown,
    WriteStatus,
    WriteWorker,
)
from distriqueue.core.leader import Leader, LeaderSettings, Step
from distriqueue.core.observing import SilentObserver
from distriqueue.core.times import Now, microtime
from distriqueue_protocol.messages import (
    Answer,
    Claim,
    GrantId,
    Heartbeat,
    HeldGrant,
    Marker,
    Outcome,
    Registration,
    Report,
    SessionMessage,
    StopOrder,
)

EPOCH = 100
WALL = 1.7e9
STARTED = microtime(WALL)
C = TypeVar("C")


def raw_job(
    name: str = "a", *, version: int = 10, status: RawJobStatus | None = None, created: float = WALL, **spec: Any
) -> RawJob:
    """A resource as the API server shows it; its uid is `uid-<name>`."""
    whole: RawJobSpec = {"type": "any", "payload": {}}
    whole.update(spec)  # type: ignore[typeddict-item]  # keyword arguments of a test
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "generation": 1,
            "creationTimestamp": microtime(created)[:19] + "Z",
        },
        "spec": whole,
        "status": status if status is not None else {"phase": "Pending"},
    }


def raw_worker(name: str, incarnation: str, *, phase: str = "Online", pod: str = "", epoch: int = 50) -> RawWorker:
    """A DistributedWorker."""
    return {
        "metadata": {"name": name, "resourceVersion": "5"},
        "status": {"phase": phase, "incarnation": incarnation, "podUID": pod, "epoch": epoch},
    }


class Observed(SilentObserver):
    """Keeps the words that the leader says to whoever counts."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def claim_answered(self, answer: str) -> None:
        self.words.append(answer)

    def report_refused(self, reason: str) -> None:
        self.words.append(f"refused {reason}")

    def message_ignored(self, reason: str) -> None:
        self.words.append(f"ignored {reason}")

    def incarnation_lost(self, reason: str) -> None:
        self.words.append(f"lost {reason}")

    def slot_returned(self) -> None:
        self.words.append("returned")


class Desk:
    """One term, from its beginning; `lead` takes it through the takeover."""

    def __init__(
        self,
        jobs: Iterable[RawJob] = (),
        workers: Iterable[RawWorker] = (),
        *,
        lease_created: bool = False,
        settings: LeaderSettings | None = None,
        epoch: int = EPOCH,
    ) -> None:
        self.now = Now(5000.0, WALL)
        self.observed = Observed()
        self.leader = Leader(
            epoch=epoch, now=self.now, observer=self.observed, draw=lambda: 0.5, settings=settings or LeaderSettings()
        )
        self.markers: list[int] = []
        self._wanted: list[Command] = []
        self.written: dict[str, int] = {}
        self._tags = 0
        self._versions = 1000
        self.leader.begin(jobs=jobs, workers=workers, lease_created=lease_created, now=self.now)

    # --- what the leader wants ---------------------------------------------------------------------------------

    def collect(self) -> None:
        """Ask the leader; worker resources are written at once, markers are kept for `markers_back`."""
        self.leader.publish(self.now)
        commands = self.leader.take()
        while commands:
            self._wanted += commands
            self.markers += [command.id for command in commands if isinstance(command, SendMarker)]
            written = [command.name for command in commands if isinstance(command, WriteWorker)]
            for name in written:
                self.leader.on_worker_written(name, self.now)
            commands = self.leader.take() if written else []

    def take(self) -> list[Command]:
        """Everything that nobody has looked at yet."""
        self.collect()
        commands, self._wanted = self._wanted, []
        return commands

    def of(self, kind: type[C]) -> list[C]:
        """The commands of a kind that nobody has looked at yet; the others stay."""
        commands = self.take()
        self._wanted = [command for command in commands if not isinstance(command, kind)]
        return [command for command in commands if isinstance(command, kind)]

    def write(self) -> WriteStatus:
        """The one status write that it wants now."""
        (command,) = self.of(WriteStatus)
        return command

    def step(self) -> Step:
        """Where the takeover is."""
        return self.leader.step

    # --- time --------------------------------------------------------------------------------------------------

    def wait(self, seconds: float) -> list[Command]:
        """Let time go by; returns all that nobody has looked at yet."""
        self.idle(seconds)
        return self.take()

    def idle(self, seconds: float) -> None:
        """Let time go by, with a tick each half second."""
        while seconds > 0:
            step = min(0.5, seconds)
            seconds -= step
            self.now = Now(self.now.mono + step, self.now.wall + step)
            self.leader.tick(self.now)
            self.collect()

    # --- what comes in -----------------------------------------------------------------------------------------

    def lead(self) -> "Desk":
        """Let the takeover end: every marker comes back."""
        self.markers_back()
        self.collect()
        return self

    def markers_back(self, *, inbox: bool = True, reports: bool = True) -> None:
        """All markers that were sent come back."""
        self.collect()
        markers, self.markers = self.markers, [] if inbox and reports else self.markers
        for number in markers:
            if inbox:
                self.leader.on_marker(Marker(epoch=self.leader.epoch, id=number), through_reports=False, now=self.now)
            if reports:
                self.leader.on_marker(Marker(epoch=self.leader.epoch, id=number), through_reports=True, now=self.now)

    def land(self, write: WriteStatus) -> RawJobStatus:
        """A status write succeeds."""
        self._versions += 1
        self.leader.on_written(write.id, self._versions, self.now)
        self.written[write.name] = self._versions
        return write.status

    def show(self, name: str, status: RawJobStatus, *, version: int | None = None, **spec: Any) -> None:
        """The watch shows a job."""
        shown = raw_job(name, version=version or self.written.get(name, 10), status=status, **spec)
        self.leader.on_job(shown, self.now)

    def report(
        self, worker: "Worker", name: str, grant: GrantId, *, attempt: int = 1, outcome: str = "Succeeded", **more: Any
    ) -> int:
        """A report comes through the report queue; returns its tag."""
        self._tags += 1
        report = Report(
            namespace="default",
            name=name,
            uid=f"uid-{name}",
            attempt=attempt,
            grant=grant,
            worker=worker.name,
            incarnation=worker.incarnation,
            outcome=Outcome(outcome),
            start_time=STARTED,
            completion_time=microtime(WALL + 1),
            **more,
        )
        self.leader.on_report(report, self._tags, self.now)
        return self._tags


class Worker:
    """What a worker says to the leader."""

    def __init__(
        self,
        desk: Desk,
        name: str = "w",
        *,
        incarnation: str = "",
        pod: str = "",
        slots: int = 4,
        payload_references: bool = True,
    ) -> None:
        self.desk = desk
        self.name = name
        self.incarnation = incarnation or f"incarnation-of-{name}"
        self.sequence = 0
        self.epoch = desk.leader.epoch
        self.open: dict[int, Claim] = {}
        self._claims = 0
        self.registration = Registration(
            worker=name,
            concurrency=slots,
            start_time=STARTED,
            pod_uid=pod,
            pod_name=name if pod else "",
            payload_references=payload_references,
        )

    def beat(
        self,
        *,
        grants: Iterable[HeldGrant] = (),
        reports: Iterable[HeldGrant] = (),
        hears: bool = True,
        leaving: bool = False,
        draining: bool = False,
        supersedes: str | None = None,
    ) -> None:
        """A heartbeat with these grants and the claims that are open."""
        self.sequence += 1
        heartbeat = Heartbeat(
            registration=self.registration.model_copy(update={"supersedes": supersedes}),
            claims=tuple(self.open.values()),
            grants=tuple(grants),
            reports=tuple(reports),
            hears_leader=hears,
            leaving=leaving,
            draining=draining or leaving,
        )
        self.say(SessionMessage(**self._head(), heartbeat=heartbeat))

    def _head(self) -> dict[str, Any]:
        return {"incarnation": self.incarnation, "sequence": self.sequence, "epoch": self.epoch}

    def say(self, message: SessionMessage) -> None:
        self.desk.leader.on_session(message, self.desk.now)

    def ask(self, name: str, *, attempt: int = 1) -> int:
        """Open a claim and send it; returns its number."""
        self.sequence += 1
        self._claims += 1
        claim = Claim(id=self._claims, uid=f"uid-{name}", attempt=attempt, ticket_epoch=self.desk.leader.epoch)
        self.open[claim.id] = claim
        self.say(SessionMessage(**self._head(), claims=(claim,)))
        return claim.id

    def answers(self) -> list[Answer]:
        """The answers that are under way to this worker."""
        return [answer for message in self._messages() for answer in message.message.answers]

    def _messages(self) -> list[SendToWorker]:
        return [message for message in self.desk.of(SendToWorker) if message.incarnation == self.incarnation]

    def orders(self) -> tuple[list[StopOrder], list[GrantId]]:
        """The stop orders and settlements that are under way to this worker."""
        messages = [message.message for message in self._messages()]
        return [order for one in messages for order in one.stops], [grant for one in messages for grant in one.settled]

    def granted(self, name: str, *, attempt: int = 1) -> GrantId:
        """Claim a job and be granted it; the claim is closed by the answer."""
        number = self.ask(name, attempt=attempt)
        (answer,) = [answer for answer in self.answers() if answer.claim == number]
        assert answer.grant is not None, answer
        del self.open[number]
        return answer.grant


def introduced(desk: Desk, name: str = "w", **more: Any) -> Worker:
    """A worker that has spoken and whose resource is written; what was wanted until then counts as seen."""
    worker = Worker(desk, name, **more)
    worker.beat()
    desk.wait(0.5)
    return worker


def held(grant: GrantId, name: str, *, attempt: int = 1, claim: int = 0) -> HeldGrant:
    """A grant as a heartbeat lists it."""
    return HeldGrant(grant=grant, uid=f"uid-{name}", attempt=attempt, claim=claim, start_time=STARTED)


def acked(commands: Iterable[Command]) -> list[int]:
    """The deliveries of reports that are acknowledged."""
    return [tag for command in commands if isinstance(command, AckReports) for tag in command.tags]


def stepped_down(commands: Iterable[Command]) -> list[StepDown]:
    """The orders to lead no longer."""
    return [command for command in commands if isinstance(command, StepDown)]
