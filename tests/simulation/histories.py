"""What really happened in a world, and the sentences that must be true of it after every step.

Of attempts:
- At most one is alive for each job. A worker that was frozen past its lease and woke is counted apart, with how long:
  until it has looked at its clock nobody can keep it from running. That may take `WOKEN_SECONDS` and no more.
- A grant starts at most once, and the grants of a job grow.
- None starts once a final phase is written, nor long after a person has forbidden it (`statuses.forbids`).
- A handler gets the payload of its job, wherever that stands.
- A job whose success the broker has confirmed is not run again, unless its worker was silent beyond its lease before
  that, or somebody asked for a retry, or the broker lost its disk.

Of reports:
- One that stood in the queue before the marker that proves its worker's loss is never judged lost.
- One that is acknowledged is written, or refused for a reason.

Of statuses: see `statuses`. The leader's books: see `auditing`.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from distriqueue.api.phases import FINAL_JOB_PHASES, JobPhase
from distriqueue.api.raw import RawJob
from distriqueue_protocol.messages import NO_GRANT, GrantId, Marker, Outcome, Report, Ticket
from tests.simulation import statuses
from tests.simulation.api_server import ApiServer
from tests.simulation.statuses import ViolationError

WOKEN_SECONDS = 1.5
"""A worker that wakes past its lease stops its handlers, or is gone, after that."""


@dataclass(eq=False)
class Run:
    """A handler that was started.

    Attributes:
        overdue: Its worker was frozen past its lease.
        woken_at: And woke then.
        disowned: While it ran, a person wrote by hand that its job is over. Nobody waits for its end then, so it may
            still be stopping when a retry by hand begins (docs/reliability.md names this).
    """

    uid: str
    name: str
    grant: GrantId
    worker: str
    incarnation: str
    started_at: float
    overdue: bool = False
    woken_at: float | None = None
    disowned: bool = False


@dataclass
class History:
    """See the module.

    Attributes:
        mark_overdue: Marks the runs whose workers are frozen past their leases.
        overlaps: Seconds for which two attempts of a job were alive at once, for each time it happened.
        tampered: Jobs whose status was edited by hand: what it says proves nothing.
        payloads: What the handlers of a job are to get, by uid.
        forgiven: By how many seconds the wall clocks of leaders may be wrong.
    """

    api: ApiServer
    mark_overdue: Callable[[], None] = lambda: None
    live: dict[str, list[Run]] = field(default_factory=dict)
    starts: Counter[str] = field(default_factory=Counter)
    granted: dict[str, GrantId] = field(default_factory=dict)
    started: set[GrantId] = field(default_factory=set)
    overlaps: list[float] = field(default_factory=list)
    deleted: set[str] = field(default_factory=set)
    tampered: set[str] = field(default_factory=set)
    accepted: Counter[tuple[str, int]] = field(default_factory=Counter)
    payloads: dict[str, dict[str, Any]] = field(default_factory=dict)
    forgiven: float = 0.0
    _safe: dict[str, GrantId] = field(default_factory=dict)
    _over: dict[str, GrantId] = field(default_factory=dict)
    _places: dict[GrantId, int] = field(default_factory=dict)
    _markers: dict[tuple[int, int], int] = field(default_factory=dict)
    _changed: dict[str, float] = field(default_factory=dict)

    # --- attempts ----------------------------------------------------------------------------------------------

    def begin(self, ticket: Ticket, grant: GrantId, *, worker: str, incarnation: str) -> Run:
        """A handler starts."""
        scheduler, uid, name = self.api.scheduler, ticket.uid, ticket.name
        run = Run(uid, name, grant, worker, incarnation, scheduler.now)
        scheduler.say(name, "starts on", worker, incarnation, "by", grant)
        if grant in self.started:
            raise ViolationError("started twice", f"grant {grant} of {name}")
        self.started.add(grant)
        if grant <= self.granted.get(uid, NO_GRANT):
            raise ViolationError("grants grow", f"{name}: {grant} starts after {self.granted[uid]}")
        self.granted[uid] = grant
        self.starts[uid] += 1
        self.mark_overdue()
        others = self.live.setdefault(uid, [])
        for other in others:
            if not other.overdue and not other.disowned:
                raise ViolationError(
                    "one live attempt", f"{name}: {grant} on {worker}, {other.grant} on {other.worker}"
                )
        others.append(run)
        if uid in self._safe and uid not in self.tampered:
            raise ViolationError("confirmed success", f"{name}: {grant} starts, {self._safe[uid]} has succeeded")
        job = self.api.jobs.get(name)
        if job is not None and job["metadata"]["uid"] == uid and uid not in self.tampered:
            why = statuses.forbids(
                job, scheduler.now, changed=self._changed.get(uid, float("-inf")), forgiven=self.forgiven
            )
            if why:
                raise ViolationError("must not start", f"{name}: {grant} starts on {worker}: {why}")
        return run

    def handed(self, run: Run, payload: object, checkpoint: object) -> None:
        """A handler gets its payload, and what an earlier attempt has left, if it has left anything."""
        if payload != self.payloads[run.uid]:
            raise ViolationError("the payload", f"{run.name}: {run.grant} gets {payload}")
        if checkpoint is None:
            return
        left = checkpoint if isinstance(checkpoint, dict) else {}
        if left.get("uid") != run.uid or GrantId(*left["grant"]) >= run.grant:
            raise ViolationError("checkpoints", f"{run.name}: {run.grant} gets {checkpoint}")

    def end(self, run: Run) -> None:
        """A handler is dead."""
        now, others = self.api.scheduler.now, self.live[run.uid]
        others.remove(run)
        self.api.scheduler.say(run.name, "ends on", run.worker, "by", run.grant)
        for other in others:
            late, early = (run, other) if run.started_at > other.started_at else (other, run)
            if early.woken_at is None:
                continue  # frozen all the time
            self.overlaps.append(now - max(late.started_at, early.woken_at))
        if run.overdue and run.woken_at is not None and now - run.woken_at > WOKEN_SECONDS:
            took = now - run.woken_at
            raise ViolationError(
                "self-fencing", f"{run.worker} woke past its lease and ran {run.name} for {took:.3f} s"
            )

    # --- reports -----------------------------------------------------------------------------------------------

    def arrived(self, message: Report | Marker, place: int) -> None:
        """Something stands in the report queue; what the broker has confirmed is there by then."""
        if isinstance(message, Marker):
            self._markers.setdefault((message.epoch, message.id), place)
            return
        grant, uid = message.grant, message.uid
        self._places.setdefault(grant, place)
        job = self.api.jobs.get(message.name)
        if message.outcome is not Outcome.SUCCEEDED or job is None or job["metadata"]["uid"] != uid:
            return
        over = max(statuses.last_grant(job), self._over.get(uid, NO_GRANT)) >= grant
        status, spec = job["status"], job["spec"]
        retried = spec.get("retryGeneration", 0) != status.get("retryGeneration", 0)
        newer = self.granted.get(uid, NO_GRANT) > grant
        if not (over or newer or retried or status.get("phase") in FINAL_JOB_PHASES):
            self._safe[uid] = grant

    def judged_lost(self, slots: Iterable[tuple[str, GrantId]], *, epoch: int, proof: int | None) -> None:
        """A leader takes these attempts for lost, by the markers of a proof (or without any)."""
        marker = self._markers.get((epoch, proof)) if proof is not None else None
        for uid, grant in slots:
            place = self._places.get(grant)
            if place is not None and (marker is None or place < marker):
                raise ViolationError("confirmed report", f"{grant} of {uid} is judged lost, and its report is there")
            self._give_up(uid, grant)

    def missed(self, uid: str, grant: GrantId) -> None:
        """Nobody answers for an attempt at a takeover; `grant` is above all that it may have had."""
        first = min((place for (epoch, _), place in self._markers.items() if epoch == grant.epoch), default=0)
        safe = self._safe.get(uid)
        if safe is not None and self._places.get(safe, first) < first:
            raise ViolationError("confirmed report", f"{uid} is missed, and {safe} has succeeded")
        self._give_up(uid, grant)

    def _give_up(self, uid: str, grant: GrantId) -> None:
        self._over[uid] = max(grant, self._over.get(uid, NO_GRANT))
        if self._safe.get(uid, grant) <= grant:
            self._safe.pop(uid, None)

    def broker_reset(self) -> None:
        """What the broker had confirmed is gone."""
        self._safe.clear()
        self._places.clear()
        self._markers.clear()

    def acknowledged(self, report: Report) -> None:
        """A leader has acknowledged a report."""
        job = self.api.jobs.get(report.name)
        if job is None or job["metadata"]["uid"] != report.uid or report.uid in self.tampered:
            return
        if job["status"].get("phase") in {JobPhase.CANCELLED, JobPhase.FAILED}:
            return  # closed, and the report refused
        # One that comes after its attempt was judged lost is refused, whether that is written yet or not.
        over = max(statuses.last_grant(job), self._over.get(report.uid, NO_GRANT))
        if over < report.grant and self.granted.get(report.uid, NO_GRANT) <= report.grant:
            raise ViolationError("ack after write", f"{report.name}: {report.grant} acked, not written; over: {over}")

    # --- statuses ----------------------------------------------------------------------------------------------

    def patched(self, uid: str) -> None:
        """A person has changed the spec: what it forbids from here on takes a while to be known."""
        self._changed[uid] = self.api.scheduler.now

    def retried(self, uid: str) -> None:
        """A person wants the job to be run again."""
        self._safe.pop(uid, None)

    def wrote(self, old: RawJob, new: RawJob, writer: str) -> None:
        """A status write has landed."""
        uid, status = new["metadata"]["uid"], new["status"]
        if not writer:
            self.tampered.add(uid)
            if status.get("phase") in FINAL_JOB_PHASES:
                for run in self.live.get(uid, []):
                    run.disowned = True
        statuses.check_growth(old, new, by_hand=not writer)
        if uid in self.tampered:
            return
        statuses.check_endings(old, new)
        self.mark_overdue()
        over, final = statuses.last_grant(new), status.get("phase") in FINAL_JOB_PHASES
        for run in self.live.get(uid, []):
            if not run.overdue and (final or run.grant <= over):
                raise ViolationError(
                    "written while it runs", f"{run.name}: {status.get('phase')}, and {run.grant} runs"
                )
        if final and old["status"].get("phase") != status.get("phase"):
            generation = uid, status.get("retryGeneration", 0)
            self.accepted[generation] += 1
            if self.accepted[generation] > 1:
                raise ViolationError("one result", f"{new['metadata']['name']} has ended twice")
            # A job that is closed while nobody has it may have had an attempt that died before anybody heard of it.
            if statuses.last_grant(old) < over < self.granted.get(uid, NO_GRANT):
                raise ViolationError("one result", f"{new['metadata']['name']}: {self.granted[uid]} is not over")

    def removed(self, job: RawJob, writer: str) -> None:
        """A job was deleted, by a person or by a leader whose writer's name it is."""
        self.deleted.add(job["metadata"]["uid"])
        if writer and job["metadata"]["uid"] not in self.tampered:
            statuses.check_removal(job, self.api.scheduler.now, forgiven=self.forgiven)
