"""A world by a seed: an API server, a broker, replicas of the operator, workers, jobs, and what goes wrong.

`World(seed).run()` raises `ViolationError` as soon as a sentence of `histories` is not true, and at the end when a job
has not reached a final phase or when somebody still holds something that is over. The same seed replays exactly.
"""

import json
from functools import partial
from random import Random

from distriqueue.api.raw import RawJobSpec, RawKeyReference, RawWorker
from distriqueue.core.times import microtime, whole_seconds
from tests.simulation.api_server import ApiServer
from tests.simulation.broker import Broker
from tests.simulation.climates import Climate
from tests.simulation.doors import Doors
from tests.simulation.faults import Faults
from tests.simulation.histories import History
from tests.simulation.people import RESUMED_SECONDS, People
from tests.simulation.replicas import Replica
from tests.simulation.scheduling import Pace, Scheduler
from tests.simulation.statuses import EPOCH_OF_TIME, ViolationError, is_undone
from tests.simulation.workers import SimulatedWorker

_PLANS = ["ok", "ok", "ok", "ok", "ok", "fail", "fail", "permanent", "timeout", "memory"]
CALM_SECONDS = 1200.0
"""How long a world may take to finish its jobs once nothing goes wrong any more."""


class World:
    """See the module.

    Args:
        seed: Decides everything.
        climate: How bad it gets; drawn if it is left out.
    """

    def __init__(self, seed: int, climate: Climate | None = None) -> None:
        self.rng = rng = Random(seed)  # noqa: S311 - the same numbers again is what is wanted
        self.climate = climate or Climate.draw(rng)
        self.scheduler = Scheduler()
        self.api = ApiServer(self.scheduler, rng)
        self.broker = Broker(self.scheduler, rng)
        self.history = history = History(self.api, forgiven=self.climate.skew, mark_overdue=self._mark_overdue)
        self.api.on_status = history.wrote
        self.api.on_deleted = history.removed
        self.api.on_worker_deleted = self._worker_deleted
        self.broker.on_ack = history.acknowledged
        self.broker.on_arrival = history.arrived
        self.broker.on_reset = history.broker_reset
        self.people = People(self.api, history, rng, busy=self.climate.busy)
        self.replicas: list[Replica] = []
        self.workers: list[SimulatedWorker] = []
        self.ended_pods: list[str] = []
        self.deleted_workers: dict[str, RawWorker] = {}
        self.jobs = 0
        self._made = 0
        self._incarnations = 0
        self._over = False
        self.faults = Faults(self)
        for number in range(2):
            self._start_replica(f"operator-{number}")
        for number in range(rng.randint(1, 4)):
            self._start_worker(f"worker-{number}", slots=rng.randint(1, 3))
        self._submit(rng.randint(4, self.climate.jobs))
        self.doors = Doors(self, seed)
        self.faults.begin()
        if self.climate.busy:
            self.scheduler.after(1.0, self._live)
            self.scheduler.at(self.climate.seconds + RESUMED_SECONDS, self.people.resume_all)

    def _live(self) -> None:
        """People do something every now and then."""
        if self.scheduler.now < self.climate.seconds:
            self.people.act()
            self.scheduler.after(self.rng.expovariate(self.climate.busy), self._live)

    # --- its inhabitants ---------------------------------------------------------------------------------------

    def _start_replica(self, name: str) -> None:
        self._made += 1
        self.replicas.append(
            Replica(
                name=f"{name}-{self._made}",
                api=self.api,
                broker=self.broker,
                history=self.history,
                rng=self.rng,
                pace=Pace.draw(self.rng),
                skew=self.rng.uniform(-self.climate.skew, self.climate.skew),
                crash=lambda: self.faults.active and self.rng.random() < self.climate.crashes,
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
                pace=Pace.draw(self.rng),
                clock=lambda: microtime(EPOCH_OF_TIME + self.scheduler.now),
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
            plan = [rng.choice(_PLANS) for _ in range(3)]
            seconds = rng.choice([0.0, 0.1, 1.0, rng.uniform(0, 20)])
            if rng.random() < self.climate.long:
                seconds = rng.uniform(10, 30)
            spec: RawJobSpec = {
                "type": "any",
                "payload": {"plan": plan, "seconds": seconds},
                "priority": rng.choice(["High", "Medium", "Low"]),
                "maxAttempts": rng.randint(1, 5),
                "backoff": {"initialSeconds": rng.choice([0, 1, 5]), "maxSeconds": 8},
            }
            moment = rng.uniform(0, 0.5 * self.climate.seconds)
            spec.update(self.people.unusual(moment))
            self._place_payload(name, spec)
            created = whole_seconds(EPOCH_OF_TIME + moment)
            self.scheduler.after(moment, partial(self.api.create_job, name, f"uid-{name}", spec, created=created))

    def _place_payload(self, name: str, spec: RawJobSpec) -> None:
        """Let the payload of some jobs stand elsewhere: there before the job or after it, and now and then no JSON."""
        rng, payload = self.rng, spec["payload"]
        self.history.payloads[f"uid-{name}"] = payload
        if rng.random() < 1 - self.climate.referred:
            return
        spec["payload"] = {}
        reference: RawKeyReference = {"name": f"payload-of-{name}", "key": "payload.json"}
        if rng.random() < 0.3:
            spec["payloadFrom"] = {"secretKeyRef": reference}
            return
        spec["payloadFrom"] = {"configMapKeyRef": reference}
        text = rng.choice(["[1]", "{", json.dumps({"large": "x" * 66_000})]) if rng.random() < 0.1 else ""
        placed = {reference["name"]: {reference["key"]: text or json.dumps(payload)}}
        delay = rng.choice([0.0, 0.0, rng.uniform(0, self.climate.seconds)])
        self.scheduler.after(delay, lambda: self.api.config_maps.update(placed))

    # --- its course --------------------------------------------------------------------------------------------

    def run(self) -> "World":
        """Let it run until everything is done.

        Raises:
            ViolationError: One of the sentences was not true.
        """
        self.scheduler.after(1.0, self._keep_house)
        while not self._over and self.scheduler.step():
            pass
        return self

    def _mark_overdue(self) -> None:
        """Whose worker is frozen past its lease is counted apart."""
        for worker in self.workers:
            worker.mark_overdue()
        self.doors.mark_overdue()

    def _keep_house(self) -> None:
        """What Kubernetes does: two replicas and at least one worker."""
        self.replicas = [replica for replica in self.replicas if replica.alive]
        while len(self.replicas) < 2:  # one leads, one is warm
            self._start_replica("operator")
        self.doors.keep_house()
        calm = self.scheduler.now - self.climate.seconds - RESUMED_SECONDS
        if calm > CALM_SECONDS:
            raise ViolationError("liveness", f"not done {CALM_SECONDS:.0f} s after the last fault: {self._undone()}")
        self._over = calm > 0 and self._done()
        self.scheduler.after(1.0, self._keep_house)

    def _undone(self) -> list[str]:
        undone = [name for name, job in self.api.jobs.items() if is_undone(job, self.scheduler.now, self.climate.skew)]
        undone += [worker.name for worker in self.workers if not worker.idle or worker.frozen]
        undone += self.doors.undone()
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
