"""A world by a seed: an API server, a broker, replicas of the operator, workers, jobs, and what goes wrong.

`World(seed).run()` raises `ViolationError` as soon as a sentence of `histories` is not true, and at the end when a job
has not reached a final phase or when somebody still holds something that is over. The same seed replays exactly.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random

from distriqueue.api.phases import FINAL_JOB_PHASES
from distriqueue.api.raw import RawJobSpec, RawWorker
from distriqueue.core.times import microtime
from tests.simulation.api_server import ApiServer
from tests.simulation.broker import Broker
from tests.simulation.histories import History, ViolationError
from tests.simulation.replicas import Replica
from tests.simulation.scheduling import Scheduler
from tests.simulation.workers import SimulatedWorker

CALM_SECONDS = 400.0
"""How long a world may take to finish its jobs once nothing goes wrong any more."""


@dataclass(frozen=True)
class Climate:
    """How bad it gets.

    Attributes:
        seconds: How long there are faults.
        between: Mean seconds between two faults; 0 for none.
        requests: Share of requests to the API server that are lost, and of answers, and of late ones.
        crashes: Chance of a crash before a command of the leader.
    """

    seconds: float = 60.0
    between: float = 4.0
    requests: float = 0.02
    crashes: float = 0.002


PEACE = Climate(seconds=1.0, between=0.0, requests=0.0, crashes=0.0)


class World:
    """See the module."""

    def __init__(self, seed: int, climate: Climate | None = None) -> None:
        self.rng = rng = Random(seed)  # noqa: S311 - the same numbers again is what is wanted
        self.climate = climate or Climate(
            seconds=rng.choice([20.0, 60.0, 120.0]),
            between=rng.choice([1.0, 3.0, 8.0]),
            requests=rng.choice([0.0, 0.02, 0.1]),
            crashes=rng.choice([0.0, 0.001, 0.01]),
        )
        self.faults = self.climate.between > 0
        self.scheduler = Scheduler()
        self.api = ApiServer(self.scheduler, rng)
        self.broker = Broker(self.scheduler, rng)
        self.history = History(self.api)
        self.broker.on_ack = self.history.acknowledged
        self.api.on_worker_deleted = self._worker_deleted
        self.replicas: list[Replica] = []
        self.workers: list[SimulatedWorker] = []
        self.ended_pods: list[str] = []
        self.deleted_workers: dict[str, RawWorker] = {}
        self.jobs = 0
        self._made = 0
        self._incarnations = 0
        for number in range(2):
            self._start_replica(f"operator-{number}")
        for number in range(rng.randint(1, 4)):
            self._start_worker(f"worker-{number}", slots=rng.randint(1, 3))
        self._submit(rng.randint(4, 25))
        if self.faults:
            weather = self.api.weather
            weather.lost = weather.answer_lost = weather.late = self.climate.requests
            self.broker.weather.late = True
            self.broker.weather.slow = rng.choice([0.0, 0.01, 0.1])
            self._next_fault()

    # --- its inhabitants ---------------------------------------------------------------------------------------

    def _start_replica(self, name: str) -> None:
        self._made += 1
        self.replicas.append(
            Replica(
                name=f"{name}-{self._made}",
                api=self.api,
                broker=self.broker,
                rng=self.rng,
                skew=self.rng.choice([0.0, 0.0, 30.0, -30.0]),
                crash=lambda: self.faults and self.rng.random() < self.climate.crashes,
                ended_pods=self.ended_pods,
                deleted_workers=self.deleted_workers,
            )
        )

    def _start_worker(self, name: str, *, slots: int, pod: str | None = None) -> None:
        self._made += 1
        self.workers.append(
            SimulatedWorker(
                name=name,
                pod=pod or f"pod-{self._made}",
                slots=slots,
                broker=self.broker,
                history=self.history,
                rng=self.rng,
                clock=lambda: microtime(1.7e9 + self.scheduler.now),
                incarnations=self._new_incarnation,
                ended=self._worker_ended,
            )
        )

    def _new_incarnation(self) -> str:
        self._incarnations += 1
        return f"incarnation-{self._incarnations}"

    def _worker_ended(self, worker: SimulatedWorker) -> None:
        self.workers.remove(worker)
        slots = worker.custody.slots
        if self.rng.random() < 0.5:
            # The kubelet starts the container again, in the same pod.
            delay = self.rng.uniform(0.1, 10)
            self.scheduler.after(delay, lambda: self._start_worker(worker.name, slots=slots, pod=worker.pod))
            return
        if self.rng.random() < 0.7:
            self.scheduler.after(self.rng.uniform(0.1, 5), lambda: self._pod_ended(worker.pod))
        name = worker.name if self.rng.random() < 0.3 else f"worker-{self._made + 100}"
        self.scheduler.after(self.rng.uniform(0.1, 10), lambda: self._start_worker(name, slots=slots))

    def _pod_ended(self, pod: str) -> None:
        self.ended_pods.append(pod)
        for replica in self.replicas:
            replica.post(partial(self._tell, replica, pod))

    @staticmethod
    def _tell(replica: Replica, pod: str) -> None:
        if replica.term is not None:
            replica.term.tell(lambda leader, now: leader.on_pod_ended(pod, now))

    def _worker_deleted(self, name: str) -> None:
        for replica in self.replicas:
            if replica.term is not None:
                replica.term.tell(lambda leader, now: leader.on_worker_vanished(name, now))

    def _submit(self, number: int) -> None:
        rng = self.rng
        for _ in range(number):
            self.jobs += 1
            name = f"job-{self.jobs}"
            plan = [rng.choice(["ok", "ok", "ok", "ok", "fail", "permanent"]) for _ in range(3)]
            spec: RawJobSpec = {
                "type": "any",
                "payload": {"plan": plan, "seconds": rng.choice([0.0, 0.1, 1.0, rng.uniform(0, 20)])},
                "priority": rng.choice(["High", "Medium", "Low"]),
                "maxAttempts": rng.randint(1, 8),
                "backoff": {"initialSeconds": rng.choice([0, 1, 5]), "maxSeconds": 10},
            }
            moment = rng.uniform(0, 0.5 * self.climate.seconds)
            created = microtime(1.7e9 + moment)
            self.scheduler.after(moment, partial(self.api.create_job, name, f"uid-{name}", spec, created=created))

    # --- what goes wrong ---------------------------------------------------------------------------------------

    def _next_fault(self) -> None:
        delay = self.rng.expovariate(1 / self.climate.between)
        if self.scheduler.now + delay > self.climate.seconds:
            self.scheduler.at(self.climate.seconds, self._calm_down)
            return

        def strike() -> None:
            if self.faults:
                fault = self.rng.choice(self._faults())
                self.scheduler.say("fault:", fault.__name__)
                fault()
                self._next_fault()

        self.scheduler.after(delay, strike)

    def _faults(self) -> list[Callable[[], None]]:
        return [
            self._kill_leader,
            self._freeze_leader,
            self._stop_leader,
            self._kill_worker,
            self._freeze_worker,
            self._freeze_worker,
            self._drain_worker,
            self._cut_connection,
            self._cut_connection,
            self._stall_channel,
            self._silence_api_server,
            self._reset_broker,
            self._delete_something,
            self._install_again,
        ]

    def _calm_down(self) -> None:
        self.faults = False
        self.scheduler.say("calm")
        weather = self.api.weather
        weather.lost = weather.answer_lost = weather.late = 0.0
        weather.down = False
        self.broker.weather.late = False
        self.broker.weather.slow = 0.0

    def _leading(self) -> Replica | None:
        leading = [replica for replica in self.replicas if replica.alive and replica.term is not None]
        return self.rng.choice(leading) if leading else None

    def _kill_leader(self) -> None:
        replica = self._leading()
        if replica is not None:
            replica.kill()

    def _freeze_leader(self) -> None:
        replica = self._leading()
        if replica is not None:
            replica.freeze(self.rng.choice([0.5, 3.0, 8.0, 25.0]))

    def _stop_leader(self) -> None:
        replica = self._leading()
        if replica is not None and replica.term is not None and not replica.frozen:
            replica.term.end("stopped", release=True)
            replica.kill()

    def _worker(self) -> SimulatedWorker | None:
        return self.rng.choice(self.workers) if self.workers else None

    def _kill_worker(self) -> None:
        worker = self._worker()
        if worker is not None:
            worker.kill()

    def _freeze_worker(self) -> None:
        worker = self._worker()
        if worker is not None:
            worker.freeze(self.rng.choice([1.0, 8.0, 13.0, 16.0, 20.0, 40.0]))

    def _drain_worker(self) -> None:
        worker = self._worker()
        if worker is not None:
            worker.shut_down(self.rng.choice([0.0, 2.0, 10.0]))

    def _cut_connection(self) -> None:
        if self.broker.connections:
            connection = self.rng.choice(self.broker.connections)
            connection.sever(here=self.rng.choice([0.01, 5.0, 15.0]), there=self.rng.choice([0.01, 5.0, 12.0]))

    def _stall_channel(self) -> None:
        if self.broker.connections:
            connection = self.rng.choice(self.broker.connections)
            connection.stall(self.rng.choice(["inbox", "reports", "tickets", ""]), self.rng.choice([1.0, 5.0, 18.0]))

    def _silence_api_server(self) -> None:
        weather = self.api.weather
        weather.down = True
        self.scheduler.after(self.rng.choice([1.0, 5.0, 20.0]), lambda: setattr(weather, "down", False))

    def _reset_broker(self) -> None:
        if self.rng.random() < 0.3:
            self.broker.reset()

    def _delete_something(self) -> None:
        draw = self.rng.random()
        if draw < 0.4 and self.api.jobs:
            name = self.rng.choice(sorted(self.api.jobs))
            self.history.deleted.add(self.api.jobs[name]["metadata"]["uid"])
            self.api.delete_job(name)
        elif draw < 0.7 and self.api.workers:
            name = self.rng.choice(sorted(self.api.workers))
            self.deleted_workers[name] = self.api.workers[name]
            self.api.delete_worker(name)
        else:
            self.api.lease = None

    def _install_again(self) -> None:
        """The operator goes with its Lease and the workers' resources, and comes again; the workers stay."""
        if self.rng.random() < 0.5:
            for replica in self.replicas:
                replica.kill()
            self.api.lease = None
            self.api.workers.clear()
            self.deleted_workers.clear()

    # --- its course --------------------------------------------------------------------------------------------

    def run(self) -> "World":
        """Let it run until everything is done.

        Raises:
            ViolationError: One of the sentences was not true.
        """
        self.scheduler.after(1.0, self._keep_house)
        end = self.climate.seconds + CALM_SECONDS
        while self.scheduler.step():
            for worker in self.workers:
                if worker.frozen:
                    worker.mark_overdue()
            if self.scheduler.now > end:
                raise ViolationError(f"not done {CALM_SECONDS:.0f} s after the last fault: {self._undone()}")
            if not self.faults and self.scheduler.now > self.climate.seconds and self._done():
                break
        return self

    def _keep_house(self) -> None:
        """What Kubernetes does: two replicas and at least one worker."""
        self.replicas = [replica for replica in self.replicas if replica.alive]
        while len(self.replicas) < 2:  # one leads, one is warm
            self._start_replica("operator")
        self.scheduler.after(1.0, self._keep_house)

    def _undone(self) -> list[str]:
        undone = [name for name, job in self.api.jobs.items() if job["status"]["phase"] not in FINAL_JOB_PHASES]
        undone += [worker.name for worker in self.workers if not worker.idle or worker.frozen]
        if self.broker.reports or any(connection.reports for connection in self.broker.connections):
            undone.append("reports")
        leading = [replica.term.leader for replica in self.replicas if replica.alive and replica.term is not None]
        for leader in leading:
            if leader is not None and (leader.held or leader.writing() or leader.roster.unsettled):
                undone.append("the leader's books")
        if not leading:
            undone.append("nobody leads")
        return undone

    def _done(self) -> bool:
        if self.jobs > len(self.api.jobs) + len(self.history.deleted):
            return False
        return not self._undone()
