"""What really happened in a world, and the sentences that must be true of it after every step.

- At most one live attempt of a job. A worker that was frozen past its lease and woke is counted apart: until it has
  looked at its clock nobody can keep it from running.
- A grant starts at most once, and grants of a job grow.
- An attempt that has ended in a status never changes again; each write that ends one raises `lastGrant`; the result of
  a job is the word of the very grant that `lastGrant` names. With the fences (which the API server holds) exactly one
  result is accepted.
- A report that is acknowledged is written, or refused for a reason.
"""

from collections import Counter
from dataclasses import dataclass, field

from distriqueue.api.phases import FINAL_JOB_PHASES
from distriqueue.api.raw import RawAttempt, RawJob
from distriqueue_protocol.messages import NO_GRANT, GrantId, Report, Ticket
from tests.simulation.api_server import ApiServer


class ViolationError(AssertionError):
    """One of the sentences is not true."""


@dataclass(eq=False)
class Run:
    """A handler that was started."""

    uid: str
    grant: GrantId
    worker: str
    incarnation: str
    overdue: bool = False


@dataclass
class History:
    """See the module."""

    api: ApiServer
    live: dict[str, list[Run]] = field(default_factory=dict)
    starts: Counter[str] = field(default_factory=Counter)
    granted: dict[str, GrantId] = field(default_factory=dict)
    started: set[GrantId] = field(default_factory=set)
    overlaps: int = 0
    deleted: set[str] = field(default_factory=set)
    accepted: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.api.on_status = self.wrote

    def begin(self, ticket: Ticket, grant: GrantId, *, worker: str, incarnation: str) -> Run:
        """A handler starts."""
        run = Run(ticket.uid, grant, worker, incarnation)
        self.api.scheduler.say(ticket.name, "starts on", worker, incarnation, "by", grant)
        if grant in self.started:
            raise ViolationError(f"grant {grant} of {ticket.name} started twice")
        self.started.add(grant)
        if grant <= self.granted.get(ticket.uid, NO_GRANT):
            raise ViolationError(f"{ticket.name}: grant {grant} starts after {self.granted[ticket.uid]}")
        self.granted[ticket.uid] = grant
        self.starts[ticket.uid] += 1
        others = self.live.setdefault(ticket.uid, [])
        for other in others:
            if not other.overdue:
                raise ViolationError(
                    f"{ticket.name}: {grant} starts on {worker} while {other.grant} runs on {other.worker}"
                )
            self.overlaps += 1
        others.append(run)
        return run

    def end(self, run: Run) -> None:
        """A handler is dead."""
        self.live[run.uid].remove(run)
        self.api.scheduler.say(run.uid, "ends on", run.worker, "by", run.grant)

    def wrote(self, old: RawJob, new: RawJob) -> None:
        """A status write has landed."""
        name = new["metadata"]["name"]
        before, after = old["status"], new["status"]
        was, now = _ended(before.get("attempts", [])), _ended(after.get("attempts", []))
        raised = before.get("lastGrant") != after.get("lastGrant")
        for number, attempt in was.items():
            if number in now and now[number] != attempt:
                raise ViolationError(f"{name}: attempt {number} had ended and was written again")
        fresh = now.keys() - was.keys()
        if raised and fresh != {after.get("attempt")}:
            raise ViolationError(f"{name}: lastGrant rose, and {fresh} ended at attempt {after.get('attempt')}")
        if fresh and not raised:
            raise ViolationError(f"{name}: attempts {fresh} ended, and lastGrant did not rise")
        if after.get("phase") in FINAL_JOB_PHASES and before.get("phase") != after.get("phase"):
            self.accepted[new["metadata"]["uid"]] += 1
            grant = after.get("lastGrant")
            told = after["result"]["grant"] if after["phase"] == "Succeeded" else None
            if told is not None and (grant is None or told != str(GrantId(grant["epoch"], grant["counter"]))):
                raise ViolationError(f"{name}: the result is of {told}, lastGrant is {grant}")

    def acknowledged(self, report: Report) -> None:
        """A leader has acknowledged a report."""
        job = self.api.jobs.get(report.name)
        if job is None or job["metadata"]["uid"] != report.uid or job["status"].get("phase") in FINAL_JOB_PHASES:
            return
        grant = job["status"].get("lastGrant", {"epoch": 0, "counter": 0})
        over = GrantId(grant["epoch"], grant["counter"])
        if over < report.grant and self.granted.get(report.uid, NO_GRANT) <= report.grant:
            raise ViolationError(
                f"{report.name}: report of {report.grant} acked, neither written nor refused; over: {over}"
            )


def _ended(attempts: list[RawAttempt]) -> dict[int, RawAttempt]:
    return {attempt["number"]: attempt for attempt in attempts if "outcome" in attempt}
