"""Gateways and HTTP workers of a world, in some of the worlds, and what goes wrong with them alone."""

from random import Random
from typing import TYPE_CHECKING

from distriqueue.core.times import microtime
from tests.simulation.gateways import Gateway
from tests.simulation.remote_workers import RemoteWorker
from tests.simulation.scheduling import Pace
from tests.simulation.statuses import EPOCH_OF_TIME

if TYPE_CHECKING:
    from tests.simulation.worlds import World

SHARE = 0.4
"""Of the worlds that have them."""
GATEWAYS = 2


class Doors:
    """See the module. Has random numbers of its own: a world without them is the same as ever.

    Args:
        world: Where they are.
        seed: Of that world.
    """

    def __init__(self, world: "World", seed: int) -> None:
        self._world = world
        self._rng = rng = Random(f"doors {seed}")  # noqa: S311 - the same numbers again is what is wanted
        self.gateways: list[Gateway] = []
        self.workers: list[RemoteWorker] = []
        self._made = 0
        trouble = rng.choice([0.0, 0.02, 0.2])
        self._trouble = trouble if world.climate.between else 0.0  # in peace, HTTP has none
        self.open = rng.random() < SHARE
        if not self.open:
            return
        for _ in range(GATEWAYS):
            self._start_gateway()
        for _ in range(rng.randint(1, 4)):
            self._start_worker()
        self._strikes = {
            "kill gateway": self._kill_gateway,
            "freeze gateway": self._freeze_gateway,
            "cut off gateway": self._cut_off_gateway,
            "kill HTTP worker": self._kill_worker,
            "freeze HTTP worker": self._freeze_worker,
            "drain HTTP worker": self._drain_worker,
            "cut off HTTP worker": self._cut_off_worker,
        }
        if world.climate.between:
            self._wait()

    def keep_house(self) -> None:
        """What Kubernetes does: two gateways."""
        if self.open:
            self.gateways[:] = [gateway for gateway in self.gateways if gateway.alive]
            while len(self.gateways) < GATEWAYS:
                self._start_gateway()

    def mark_overdue(self) -> None:
        """Whose worker is frozen past its lease is counted apart."""
        for worker in self.workers:
            worker.mark_overdue()

    def undone(self) -> list[str]:
        """Who still holds something."""
        return [worker.name for worker in self.workers if not worker.idle or worker.frozen]

    def _start_gateway(self) -> None:
        self._made += 1
        self.gateways.append(
            Gateway(
                name=f"gateway-{self._made}",
                broker=self._world.broker,
                rng=self._rng,
                pace=Pace.draw(self._rng),
                clock=self._clock,
            )
        )

    def _start_worker(self) -> None:
        self._made += 1
        self.workers.append(
            RemoteWorker(
                name=f"http-{self._made}",
                slots=self._rng.randint(1, 3),
                gateways=self.gateways,
                history=self._world.history,
                rng=self._rng,
                pace=Pace.draw(self._rng),
                clock=self._clock,
                incarnations=self._new_incarnation,
                trouble=lambda: 0.0 if self._world.scheduler.calm else self._trouble,
                ended=self._worker_ended,
            )
        )

    def _worker_ended(self, worker: RemoteWorker) -> None:
        self.workers.remove(worker)
        self._world.scheduler.after(self._rng.uniform(0.1, 10), self._start_worker)

    def _clock(self) -> str:
        return microtime(EPOCH_OF_TIME + self._world.scheduler.now)

    def _new_incarnation(self) -> str:
        self._made += 1
        return f"incarnation-http-{self._made}"

    # --- what goes wrong ---------------------------------------------------------------------------------------

    def _wait(self) -> None:
        climate, scheduler = self._world.climate, self._world.scheduler
        delay = self._rng.expovariate(1 / climate.between)
        if scheduler.now + delay > climate.seconds:
            return

        def strike() -> None:
            name = self._rng.choice(list(self._strikes))
            scheduler.say("fault:", name)
            self._strikes[name]()
            self._wait()

        scheduler.after(delay, strike)

    def _gateway(self) -> Gateway | None:
        alive = [gateway for gateway in self.gateways if gateway.alive]
        return self._rng.choice(alive) if alive else None

    def _kill_gateway(self) -> None:
        if (gateway := self._gateway()) is not None:
            gateway.kill()

    def _freeze_gateway(self) -> None:
        if (gateway := self._gateway()) is not None:
            gateway.freeze(self._rng.choice([1.0, 8.0, 13.0, 16.0, 25.0]))

    def _cut_off_gateway(self) -> None:
        if (gateway := self._gateway()) is not None:
            gateway.cut_off_until = self._world.scheduler.now + self._rng.choice([1.0, 5.0, 14.0, 25.0])
            self._world.broker.cut_off(gateway)

    def _kill_worker(self) -> None:
        if self.workers:
            self._rng.choice(self.workers).kill()

    def _freeze_worker(self) -> None:
        if self.workers:
            self._rng.choice(self.workers).freeze(self._rng.choice([1.0, 8.0, 13.0, 16.0, 20.0, 40.0]))

    def _drain_worker(self) -> None:
        if self.workers:
            self._rng.choice(self.workers).drain()

    def _cut_off_worker(self) -> None:
        """It reaches no gateway for a while; its handlers run on until its own clock stops them."""
        if self.workers:
            worker = self._rng.choice(self.workers)
            worker.cut_off_until = self._world.scheduler.now + self._rng.choice([5.0, 14.0, 25.0, 40.0])
            self._world.scheduler.say(worker.name, "cut off")
