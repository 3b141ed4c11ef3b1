"""What goes wrong: processes die, freeze and stutter, networks break, servers forget, and all is made anew."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.simulation.replicas import Replica
from tests.simulation.scheduling import Process
from tests.simulation.workers import SimulatedWorker

if TYPE_CHECKING:
    from tests.simulation.worlds import World


class Faults:
    """Strikes a world now and then, until `stop`."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._rng = world.rng
        self._scheduler = world.scheduler
        self._api = world.api
        self._broker = world.broker
        self.active = world.climate.between > 0
        made: dict[str, Callable[[], None]] = {
            "kill leader": self._kill_leader,
            "freeze leader": self._freeze_leader,
            "block leader": self._block_leader,
            "stop leader": self._stop_leader,
            "cut off leader": self._cut_off_leader,
            "stall leader": self._stall_leader,
            "choke leader": self._choke_leader,
            "kill worker": self._kill_worker,
            "freeze worker": self._freeze_worker,
            "freeze both": self._freeze_both,
            "block worker": self._block_worker,
            "cut off worker": self._cut_off_worker,
            "drain worker": self._drain_worker,
            "cut connection": self._cut_connection,
            "stall channel": self._stall_channel,
            "raise alarm": self._raise_alarm,
            "silence API server": self._silence_api_server,
            "break watches": self._break_watches,
            "reset broker": self._reset_broker,
            "delete job": self._delete_job,
            "delete ConfigMap": self._delete_config_map,
            "forbid ConfigMaps": self._forbid_config_maps,
            "delete worker": self._delete_worker,
            "delete Lease": self._delete_lease,
            "install again": self._install_again,
        }
        self._kinds = [(name, made[name]) for name in world.climate.faults]

    def begin(self) -> None:
        """From here on things go wrong."""
        if not self.active:
            return
        climate, weather = self._world.climate, self._api.weather
        weather.lost = weather.answer_lost = weather.late = climate.requests
        self._broker.weather.late = True
        self._broker.weather.slow = climate.slow
        self._broker.weather.doubled = climate.doubled
        self._wait()

    def stop(self) -> None:
        """Nothing goes wrong any more."""
        self.active = False
        self._scheduler.say("calm")
        self._scheduler.calm = True
        weather = self._api.weather
        weather.lost = weather.answer_lost = weather.late = 0.0
        weather.down = weather.forbidden = False
        self._broker.weather.late = False
        self._broker.weather.slow = self._broker.weather.doubled = 0.0

    def _wait(self) -> None:
        climate = self._world.climate
        delay = self._rng.expovariate(1 / climate.between)
        if self._scheduler.now + delay > climate.seconds:
            self._scheduler.at(climate.seconds, self.stop)
            return

        def strike() -> None:
            if self.active:
                name, fault = self._rng.choice(self._kinds)
                self._scheduler.say("fault:", name)
                fault()
                self._wait()

        self._scheduler.after(delay, strike)

    # --- the operator ------------------------------------------------------------------------------------------

    def _leading(self) -> Replica | None:
        leading = [replica for replica in self._world.replicas if replica.alive and replica.term is not None]
        return self._rng.choice(leading) if leading else None

    def _kill_leader(self) -> None:
        replica = self._leading()
        if replica is not None:
            replica.kill()

    def _freeze_leader(self) -> None:
        replica = self._leading()
        if replica is not None:
            replica.freeze(self._rng.choice([0.5, 3.0, 8.0, 25.0]))

    def _block_leader(self) -> None:
        replica = self._leading()
        if replica is not None:
            replica.block(self._rng.choice([0.5, 2.0, 5.0]))

    def _stop_leader(self) -> None:
        replica = self._leading()
        if replica is not None and replica.term is not None and not replica.frozen:
            replica.term.end("stopped", release=True)
            replica.kill()

    def _cut_off_leader(self) -> None:
        replica = self._leading()
        if replica is not None:
            self._cut_off(replica)

    # --- workers -----------------------------------------------------------------------------------------------

    def _worker(self) -> SimulatedWorker | None:
        return self._rng.choice(self._world.workers) if self._world.workers else None

    def _kill_worker(self) -> None:
        worker = self._worker()
        if worker is not None:
            worker.kill()

    def _freeze_worker(self) -> None:
        worker = self._worker()
        if worker is not None:
            worker.freeze(self._rng.choice([1.0, 8.0, 13.0, 16.0, 20.0, 40.0]))

    def _freeze_both(self) -> None:
        self._freeze_leader()
        self._freeze_worker()

    def _block_worker(self) -> None:
        worker = self._worker()
        if worker is not None:
            worker.block(self._rng.choice([1.0, 5.0, 13.0, 20.0]))

    def _cut_off_worker(self) -> None:
        worker = self._worker()
        if worker is not None:
            self._cut_off(worker)

    def _drain_worker(self) -> None:
        worker = self._worker()
        if worker is not None:
            worker.shut_down(self._rng.choice([0.0, 2.0, 10.0]))

    # --- networks and servers ----------------------------------------------------------------------------------

    def _cut_off(self, process: Process) -> None:
        """A host reaches nobody for a while."""
        seconds = self._rng.choice([1.0, 5.0, 14.0, 25.0, 25.0, 40.0])
        self._scheduler.say(process.name, "cut off for", seconds)
        process.cut_off_until = self._scheduler.now + seconds
        self._broker.cut_off(process)

    def _cut_connection(self) -> None:
        rng = self._rng
        if self._broker.connections:
            connection = rng.choice(self._broker.connections)
            up = rng.random() < 0.8
            down = not up or rng.random() < 0.8
            here, there = rng.choice([0.01, 5.0, 15.0]), rng.choice([0.01, 5.0, 12.0])
            connection.sever(here=here, there=there, up=up, down=down)

    def _stall_channel(self) -> None:
        if self._broker.connections:
            connection = self._rng.choice(self._broker.connections)
            channel = self._rng.choice(["inbox", "reports", "tickets", ""])
            connection.stall(channel, self._rng.choice([1.0, 5.0, 18.0]))

    def _stall_leader(self) -> None:
        """What a leader reads lags behind, by more than a lease sometimes."""
        rng, replica = self._rng, self._leading()
        if replica is not None and replica.term is not None:
            replica.term.link.stall(rng.choice(["inbox", "inbox", "reports"]), rng.choice([5.0, 16.0, 22.0]))

    def _choke_leader(self) -> None:
        """What a leader sends is stuck for a while, and often the leader is gone when it arrives."""
        rng, replica = self._rng, self._leading()
        if replica is not None and replica.term is not None:
            seconds = rng.uniform(0.5, 10.0)
            replica.term.link.stall_up(seconds)
            if rng.random() < 0.7:
                self._scheduler.after(rng.uniform(0.1, seconds), replica.kill)

    def _raise_alarm(self) -> None:
        self._broker.raise_alarm(self._rng.choice([1.0, 4.0, 16.0]))

    def _silence_api_server(self) -> None:
        weather = self._api.weather
        weather.down = True
        self._scheduler.after(self._rng.choice([1.0, 5.0, 20.0, 60.0]), lambda: setattr(weather, "down", False))

    def _break_watches(self) -> None:
        self._api.break_watches()

    def _reset_broker(self) -> None:
        if self._rng.random() < 0.3:
            self._broker.reset()

    def _delete_job(self) -> None:
        if self._api.jobs:
            self._api.delete_job(self._rng.choice(sorted(self._api.jobs)))

    def _delete_config_map(self) -> None:
        """Somebody deletes a ConfigMap that jobs name, or a key in it, and makes it again later."""
        maps, rng = self._api.config_maps, self._rng
        whole = sorted(name for name, keys in maps.items() if "another" not in keys)
        if not whole:
            return
        name = rng.choice(whole)
        before = maps.pop(name)
        if rng.random() < 0.5:
            maps[name] = {"another": "{}"}
        self._scheduler.after(rng.choice([0.5, 5.0, 40.0]), lambda: maps.update({name: before}))

    def _forbid_config_maps(self) -> None:
        weather = self._api.weather
        weather.forbidden = True
        self._scheduler.after(self._rng.choice([1.0, 10.0]), lambda: setattr(weather, "forbidden", False))

    def _delete_worker(self) -> None:
        """Somebody deletes a DistributedWorker."""
        if self._api.workers:
            name = self._rng.choice(sorted(self._api.workers))
            self._world.deleted_workers[name] = self._api.workers[name]
            self._api.delete_worker(name)

    def _delete_lease(self) -> None:
        self._api.lease = None

    def _install_again(self) -> None:
        """The operator goes with its Lease and the workers' resources, and comes again; the workers stay."""
        if self._rng.random() < 0.5:
            for replica in self._world.replicas:
                replica.kill()
            self._api.lease = None
            self._api.workers.clear()
            self._world.deleted_workers.clear()
