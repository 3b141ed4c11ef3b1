"""HTTP workers: processes that know nothing of AMQP, keep the rules of docs/http-workers.md, and meet all faults."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from distriqueue_protocol.messages import GrantId, Outcome, Registration
from distriqueue_protocol.names import WORKER_DEAD_SECONDS, WORKER_FENCE_SECONDS
from distriqueue_worker.commands import Result
from tests.simulation.gateways import CONFLICT, GONE, OK, Gateway, Handed, Held, Reply
from tests.simulation.histories import History, Run
from tests.simulation.scheduling import Pace, Process

BEAT_SECONDS = 4.5
BEAT_TIMEOUT = 4.0
REPORT_TIMEOUT = 8.0
WAIT_SECONDS = 10.0
_REASONS = {"fail": "ValueError", "permanent": "ValueError", "timeout": "Timeout", "memory": "OutOfMemory"}


@dataclass(eq=False)
class Job:
    """What a worker holds: a handler that runs, or a result that is not reported."""

    handed: Handed
    run: Run | None
    result: Result | None = None
    stopped: bool = False


class RemoteWorker(Process):
    """One process of an HTTP worker; `ended` is called with it when it has gone."""

    def __init__(  # noqa: PLR0913 - all that is made up around it
        self,
        *,
        name: str,
        slots: int,
        gateways: list[Gateway],
        history: History,
        rng: Random,
        pace: Pace,
        clock: Callable[[], str],
        incarnations: Callable[[], str],
        trouble: Callable[[], float],
        ended: Callable[["RemoteWorker"], None],
    ) -> None:
        super().__init__(history.api.scheduler, name, pace)
        self.slots = slots
        self.jobs: dict[GrantId, Job] = {}
        self.leaving = False
        self._gateways = gateways
        self._history = history
        self._rng = rng
        self._clock = clock
        self._incarnations = incarnations
        self._trouble = trouble
        self._ended = ended
        self._session: tuple[Gateway, str] | None = None
        self._incarnation: str | None = None
        self._received = 0
        self._requests = 0
        self._asking = False
        self._registering = False
        self._lease_from = float("-inf")
        self._beat_again()
        self._look_again()
        self._ask_again()

    @property
    def idle(self) -> bool:
        """Whether it holds nothing."""
        return not self.jobs

    # --- life --------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """The process ends, and its handlers with it."""
        if not self.alive:
            return
        super().kill()
        for job in self.jobs.values():
            if job.run is not None:
                self._history.end(job.run)
        self.jobs = {}
        self._ended(self)

    def freeze(self, seconds: float) -> None:
        """Stop it, and its handlers, for a while."""
        super().freeze(seconds)
        for job in self.jobs.values():
            if job.run is not None:
                job.run.woken_at = None

    def overdue(self) -> bool:
        """Whether its lease is over by its own clock."""
        return self.mono() - self._lease_from >= WORKER_DEAD_SECONDS

    def mark_overdue(self) -> None:
        """While it is frozen past its lease, its handlers are counted apart."""
        if self.frozen and self.overdue():
            for job in self.jobs.values():
                if job.run is not None:
                    job.run.overdue = True

    def woken(self) -> None:
        """Nobody can keep its handlers from running before it looks at its clock."""
        for job in self.jobs.values():
            if job.run is not None:
                job.run.overdue = job.run.overdue or self.overdue()
                if job.run.overdue:
                    job.run.woken_at = self.scheduler.now
        self._look()

    def drain(self) -> None:
        """SIGTERM."""
        self.leaving = True
        if self._session is not None:
            self._ask(0)

    def _look_again(self) -> None:
        self._look()
        self.after(self.turn_seconds(0.5), self._look_again)

    def _look(self) -> None:
        """The guard: 12 s after the last word that counts was sent, handlers are killed."""
        if self.mono() - self._lease_from >= WORKER_FENCE_SECONDS:
            for grant, job in list(self.jobs.items()):
                if job.result is None and not job.stopped:
                    job.stopped = True
                    self.scheduler.after(self._rng.uniform(0, 1.0), partial(self._die, grant))

    def _die(self, grant: GrantId) -> None:
        """A handler is killed: nothing is reported of it, and it is listed no more."""
        if not self.alive:
            return
        if self.frozen:
            self.post(lambda: self._die(grant))
            return
        job = self.jobs.get(grant)
        if job is not None and job.result is None:
            if job.run is not None:
                self._history.end(job.run)
            del self.jobs[grant]

    # --- HTTP --------------------------------------------------------------------------------------------------

    def _call(self, gateway: Gateway, request: Callable[[Reply], None], answered: Reply, *, timeout: float) -> None:
        """One request: lost, late or doubled, answered once; 0 for no answer."""
        rng, scheduler = self._rng, self.scheduler
        done = False

        def answer(status: int, body: object) -> None:
            nonlocal done
            if not done:
                done = True
                answered(status, body)

        def cut_off() -> bool:
            return scheduler.now < self.cut_off_until

        def reply(status: int, body: object) -> None:
            if gateway.alive and not cut_off() and rng.random() >= self._trouble():
                scheduler.after(self._latency(), lambda: self.post(lambda: answer(status, body)))

        def arrive() -> None:
            if gateway.alive:
                gateway.post(lambda: request(reply))
            else:
                scheduler.after(0.01, lambda: self.post(lambda: answer(0, None)))

        if rng.random() >= self._trouble() and not cut_off():
            scheduler.after(self._latency(), arrive)
        if rng.random() < self._trouble():
            scheduler.after(rng.uniform(0.1, 20.0), arrive)  # it was stuck in a proxy, or sent twice
        self.after(timeout, lambda: answer(0, None))

    def _latency(self) -> float:
        late = self._rng.random() < self._trouble()
        return self._rng.uniform(0.1, 6.0) if late else self._rng.uniform(0.001, 0.01)

    # --- session -----------------------------------------------------------------------------------------------

    def _beat_again(self) -> None:
        if self._session is None:
            self._register()
        else:
            self._beat()

    def _register(self) -> None:
        """With all that is held; nothing starts until it is answered."""
        self._look()
        if any(job.stopped and job.result is None for job in self.jobs.values()) or not self._gateways:
            self.after(0.3, self._beat_again)
            return
        self._session = None
        gateway = self._rng.choice(self._gateways)
        registration = Registration(
            worker=self.name,
            concurrency=self.slots,
            start_time=self._clock(),
            supersedes=self._incarnation,
            payload_references=True,
        )
        incarnation = self._incarnations()
        jobs = [Held(grant, job.handed.ticket, job.handed.claim) for grant, job in self.jobs.items()]
        since = self.mono()

        def answered(status: int, body: Any) -> None:
            if status == OK:
                self._session, self._incarnation = body, body[1]
                self._received = 0
                self._lease_from = since
                self.after(BEAT_SECONDS, self._beat_again)
                if self.leaving:
                    self._ask(0)
            else:
                self.after(1.0, self._beat_again)

        def request(reply: Reply) -> None:
            # One that comes a second time makes another session, under a name of its own.
            name = incarnation if incarnation not in used else self._incarnations()
            used.add(name)
            gateway.register(registration, name, jobs, reply)

        used: set[str] = set()
        self._call(gateway, request, answered, timeout=8.0)

    def _beat(self) -> None:
        if self._session is None:
            self._register()
            return
        gateway, incarnation = self._session
        received = self._received
        listed = frozenset(self.jobs)
        since = self.mono()

        def answered(status: int, body: Any) -> None:
            if self._session != (gateway, incarnation):
                return
            if status == OK:
                self._lease_from = since
                for grant in body:
                    self._stop(grant)
                self.after(BEAT_SECONDS, self._beat_again)
            elif status == GONE or not gateway.alive:
                self._register()
            else:
                self.after(1.0, self._beat_again)

        def request(reply: Reply) -> None:
            session = gateway.sessions.get(incarnation)
            if session is None:
                reply(GONE, None)
            else:
                session.beat(reply, received=received, listed=listed)

        self._call(gateway, request, answered, timeout=BEAT_TIMEOUT)

    def _stop(self, grant: GrantId) -> None:
        job = self.jobs.get(grant)
        if job is not None and job.result is None and not job.stopped:
            job.stopped = True
            self.scheduler.after(self._rng.uniform(0, 1.0), lambda: self._die(grant))

    # --- jobs --------------------------------------------------------------------------------------------------

    def _ask_again(self) -> None:
        free = self.slots - len(self.jobs)
        if not self.leaving and free > 0 and self._session is not None and not self._asking:
            self._ask(free)
        if self.leaving and not self.jobs:
            self._leave()
            return
        self.after(self.turn_seconds(0.2), self._ask_again)

    def _ask(self, most: int) -> None:
        assert self._session is not None
        gateway, incarnation = session = self._session
        self._requests += 1
        number, received = self._requests, self._received
        self._asking = True

        def answered(status: int, body: Any) -> None:
            if number != self._requests:
                return
            self._asking = False
            fresh = self.mono() - self._lease_from < WORKER_FENCE_SECONDS
            if status == OK and self._session == session and fresh:
                for handed in body:
                    self._start(handed, incarnation)

        def request(reply: Reply) -> None:
            there = gateway.sessions.get(incarnation)
            if there is None:
                reply(GONE, None)
            else:
                there.next(reply, request=number, received=received, most=most, wait=WAIT_SECONDS)

        self._call(gateway, request, answered, timeout=WAIT_SECONDS + 8.0)

    def _start(self, handed: Handed, incarnation: str) -> None:
        if handed.number <= self._received:
            return
        self._received = handed.number
        ticket, grant = handed.ticket, handed.grant
        run = self._history.begin(ticket, grant, worker=self.name, incarnation=incarnation)
        self._history.handed(run, ticket.payload, handed.checkpoint)
        self.jobs[grant] = Job(handed, run)
        plan = ticket.payload["plan"]
        outcome = plan[min(ticket.attempt, len(plan)) - 1] if isinstance(plan, list) else "ok"
        result = Result(Outcome.SUCCEEDED, value={"grant": str(grant)})
        if outcome != "ok":
            result = Result(
                Outcome.FAILED, reason=_REASONS[str(outcome)], error="it failed", permanent=outcome == "permanent"
            )
        seconds = ticket.payload["seconds"]
        self.scheduler.after(seconds if isinstance(seconds, float) else 0.0, lambda: self._finish(grant, result))

    def _finish(self, grant: GrantId, result: Result) -> None:
        """A handler ends by itself."""
        if not self.alive:
            return
        if self.frozen:
            self.post(lambda: self._finish(grant, result))
            return
        job = self.jobs.get(grant)
        if job is None or job.run is None:
            return
        self._history.end(job.run)
        job.run, job.result = None, result
        self._report(job)

    def _report(self, job: Job) -> None:
        """Until it is answered; the job is held meanwhile."""
        grant, result = job.handed.grant, job.result
        if self.jobs.get(grant) is not job or result is None:
            return
        if self._session is None:
            self.after(0.5, lambda: self._report(job))
            return
        gateway, incarnation = self._session

        def answered(status: int, _: object) -> None:
            if status in {OK, CONFLICT}:
                if self.jobs.get(grant) is job:
                    del self.jobs[grant]
            else:
                self.after(1.0, lambda: self._report(job))

        def request(reply: Reply) -> None:
            session = gateway.sessions.get(incarnation)
            if session is None:
                reply(GONE, None)
            else:
                session.report(reply, grant=grant, result=result)

        self._call(gateway, request, answered, timeout=REPORT_TIMEOUT)

    def _leave(self) -> None:
        if self._session is None:
            self.kill()
            return
        gateway, incarnation = self._session

        def request(reply: Reply) -> None:
            session = gateway.sessions.get(incarnation)
            if session is None:
                reply(GONE, None)
            else:
                session.leave(reply)

        self._call(gateway, request, lambda _status, _body: self.kill(), timeout=10.0)
