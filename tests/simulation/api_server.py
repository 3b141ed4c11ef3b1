"""A made-up API server: resources with resourceVersions, the CEL fences, watches with a lag, one Lease.

Guarantees what the real one does for a status write: a stale resourceVersion or another uid is a conflict, then the
fences are asked, then it lands; and for what a person patches: the spec's own rules, a new generation. Requests and
answers can be lost or late: the caller cannot tell which. Watches can break, and begin anew with a list.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, TypeVar, cast

from distriqueue.api.fences import Fence
from distriqueue.api.phases import FINAL_JOB_PHASES
from distriqueue.api.raw import RawJob, RawJobSpec, RawJobStatus, RawWorker, RawWorkerStatus
from tests.simulation.scheduling import Action, Pipe, Process, Scheduler

T = TypeVar("T")

LEASE_SECONDS = 6.0
LEASE_MARGIN = 0.5
REQUEST_SECONDS = 4.0


class ConflictError(Exception):
    """409."""


class NotFoundError(Exception):
    """404."""


class UnansweredError(Exception):
    """Nobody knows."""


class ForbiddenError(Exception):
    """403."""


class RefusedError(Exception):
    """422."""

    def __init__(self, fences: frozenset[Fence]) -> None:
        super().__init__(", ".join(sorted(fences)))
        self.fences = fences


@dataclass
class Lease:
    """Who leads.

    Attributes:
        unproven: It was created, and no takeover has come to its end under it since then.
    """

    holder: str
    epoch: int
    renewed: float
    unproven: bool


@dataclass
class Weather:
    """What goes wrong with requests while there are faults.

    Attributes:
        forbidden: Nobody may read ConfigMaps.
    """

    forbidden: bool = False
    lost: float = 0.0
    answer_lost: float = 0.0
    late: float = 0.0
    down: bool = False


@dataclass(eq=False)
class Watch:
    """One watcher."""

    process: Process
    deliver: Callable[[str, RawJob], None]
    broken: Action
    pipe: Pipe
    open: bool = True

    def receive(self, kind: str, job: RawJob) -> None:
        """An event has arrived; of a watch that is closed, none does."""
        if self.open:
            self.deliver(kind, job)


@dataclass
class ApiServer:
    """See the module."""

    scheduler: Scheduler
    rng: Random
    weather: Weather = field(default_factory=Weather)
    version: int = 100
    jobs: dict[str, RawJob] = field(default_factory=dict)
    workers: dict[str, RawWorker] = field(default_factory=dict)
    config_maps: dict[str, dict[str, str]] = field(default_factory=dict)
    lease: Lease | None = None
    watches: list[Watch] = field(default_factory=list)
    on_status: Callable[[RawJob, RawJob, str], None] = lambda _old, _new, _writer: None
    on_deleted: Callable[[RawJob, str], None] = lambda _job, _writer: None
    on_worker_deleted: Callable[[str], None] = lambda _name: None
    status_writes: int = 0

    # --- requests ----------------------------------------------------------------------------------------------

    def request(self, process: Process, do: Callable[[], T], answer: Callable[[T | Exception], None]) -> None:
        """Send a request; the process gets the result, an error of the server, or `UnansweredError`."""
        draw, weather = self.rng.random(), self.weather
        latency = self.rng.uniform(0.001, 0.02)

        def run(*, answered: bool) -> None:
            if not answered and self.weather.down:
                return None
            if self.weather.down or (answered and process.cut_off_until > self.scheduler.now):
                return process.after(REQUEST_SECONDS, lambda: answer(UnansweredError()))
            try:
                result: T | Exception = do()
            except (ConflictError, NotFoundError, ForbiddenError, RefusedError) as error:
                result = error
            if answered:
                process.after(latency, lambda: answer(result))
            return None

        if draw < weather.lost:
            process.after(REQUEST_SECONDS, lambda: answer(UnansweredError()))
        elif draw < weather.lost + weather.answer_lost:
            self.scheduler.after(latency, lambda: run(answered=False))
            process.after(REQUEST_SECONDS, lambda: answer(UnansweredError()))
        elif draw < weather.lost + weather.answer_lost + weather.late:
            self.scheduler.after(self.rng.uniform(1, 20), lambda: run(answered=False))
            process.after(REQUEST_SECONDS, lambda: answer(UnansweredError()))
        else:
            self.scheduler.after(latency, lambda: run(answered=True))

    # --- jobs --------------------------------------------------------------------------------------------------

    def _next(self) -> int:
        self.version += self.rng.randint(1, 3)
        return self.version

    def create_job(self, name: str, uid: str, spec: RawJobSpec, *, created: str) -> None:
        """Kubectl create."""
        job: RawJob = {
            "metadata": {
                "name": name,
                "namespace": "default",
                "uid": uid,
                "resourceVersion": str(self._next()),
                "generation": 1,
                "creationTimestamp": created,
            },
            "spec": spec,
            "status": {"phase": "Pending"},
        }
        self.jobs[name] = job
        self._tell("ADDED", job)

    def delete_job(self, name: str, *, writer: str = "", uid: str | None = None, version: int | None = None) -> None:
        """Kubectl delete, or a leader with preconditions.

        Raises:
            NotFoundError: There is none.
            ConflictError: It is another one, or another version.
        """
        job = self.read_job(name)
        metadata = job["metadata"].copy()
        if uid not in {None, metadata["uid"]} or version not in {None, int(metadata["resourceVersion"])}:
            raise ConflictError
        del self.jobs[name]
        metadata["resourceVersion"] = str(self._next())
        self.scheduler.say(name, "deleted by", writer or "a person")
        self.on_deleted(job, writer)
        self._tell("DELETED", {**job, "metadata": metadata})

    def patch_spec(self, name: str, changes: dict[str, Any]) -> None:
        """Kubectl patch; None removes a field.

        Raises:
            NotFoundError: There is no such job.
            RefusedError: The rules of the spec say no.
        """
        old = self.read_job(name)
        spec = {key: value for key, value in {**old["spec"], **changes}.items() if value is not None}
        before = old["spec"].get("retryGeneration", 0)
        cancelled, retry = bool(spec.get("cancel")), spec.get("retryGeneration", 0)
        if (old["spec"].get("cancel") and not cancelled) or retry < before or (cancelled and retry != before):
            raise RefusedError(frozenset())
        metadata = old["metadata"].copy()
        metadata["resourceVersion"] = str(self._next())
        metadata["generation"] += spec != old["spec"]
        self.scheduler.say("patch of", name, changes)
        self.jobs[name] = {**old, "metadata": metadata, "spec": cast("RawJobSpec", spec)}
        self._tell("MODIFIED", self.jobs[name])

    def read_job(self, name: str) -> RawJob:
        """GET."""
        if name not in self.jobs:
            raise NotFoundError
        return self.jobs[name]

    def read_config_map(self, name: str, key: str) -> str | None:
        """GET of a ConfigMap; None when it has no such key.

        Raises:
            NotFoundError: There is none.
            ForbiddenError: The right to read it was taken away.
        """
        if self.weather.forbidden:
            raise ForbiddenError
        if name not in self.config_maps:
            raise NotFoundError
        return self.config_maps[name].get(key)

    def put_status(self, name: str, uid: str, version: int, status: RawJobStatus, *, writer: str) -> int:
        """PUT status with a resourceVersion; returns the new one.

        Raises:
            NotFoundError: There is no such job.
            ConflictError: It is another one, or another version.
            RefusedError: A fence says no.
        """
        old = self.read_job(name)
        if old["metadata"]["uid"] != uid or not self.is_current(old, version):
            raise ConflictError
        broken = broken_fences(old["status"], status, retry=old["spec"].get("retryGeneration", 0))
        if broken:
            raise RefusedError(broken)
        metadata = old["metadata"].copy()
        metadata["resourceVersion"] = str(self._next())
        new: RawJob = {**old, "metadata": metadata, "status": status}
        self.jobs[name] = new
        self.status_writes += 1
        told = [status.get(key) for key in ("epoch", "phase", "attempt", "lastGrant")]
        self.scheduler.say("status of", name, "by", writer or "a person", *told)
        self.on_status(old, new, writer)
        self._tell("MODIFIED", new)
        return int(metadata["resourceVersion"])

    @staticmethod
    def is_current(job: RawJob, version: int) -> bool:
        """The precondition of a status write."""
        return job["metadata"]["resourceVersion"] == str(version)

    def watch(
        self, process: Process, deliver: Callable[[str, RawJob], None], broken: Action
    ) -> tuple[list[RawJob], Watch]:
        """A consistent list, and what comes after it; `broken` is called when nothing more will come."""
        watch = Watch(process, deliver, broken, Pipe(self.scheduler, self._lag))
        self.watches.append(watch)
        return list(self.jobs.values()), watch

    def _lag(self) -> float:
        slow = not self.weather.down and self.rng.random() < (0.02 if self.weather.late else 0.0)
        return self.rng.uniform(0.5, 5.0) if slow else self.rng.uniform(0.001, 0.05)

    def break_watches(self) -> None:
        """410 Gone: every watcher has to list again."""
        for watch in self.watches:
            watch.open = False
            watch.process.post(watch.broken)
        self.watches = []

    def _tell(self, kind: str, job: RawJob) -> None:
        self.watches = [watch for watch in self.watches if watch.open and watch.process.alive]
        for watch in self.watches:
            watch.pipe.stall(watch.process.cut_off_until - self.scheduler.now)
            watch.pipe.send(partial(watch.process.post, partial(watch.receive, kind, job)))

    # --- workers and the Lease ---------------------------------------------------------------------------------

    def put_worker(self, name: str, status: RawWorkerStatus) -> None:
        """Create or replace."""
        old = self.workers.get(name)
        if old is not None and broken_fences(cast("RawJobStatus", old["status"]), cast("RawJobStatus", status)):
            raise RefusedError(frozenset({Fence.EPOCH}))
        self.scheduler.say("worker resource", name, status.get("phase"), status.get("incarnation"))
        self.workers[name] = {"metadata": {"name": name, "resourceVersion": str(self._next())}, "status": status}

    def delete_worker(self, name: str) -> None:
        """Delete."""
        if self.workers.pop(name, None) is not None:
            self.on_worker_deleted(name)

    def take_lease(self, holder: str) -> tuple[int, bool]:
        """Take the Lease.

        Returns:
            The epoch, and whether the Lease had to be created, by this candidate or by one who got no further.

        Raises:
            ConflictError: Somebody holds it.
        """
        lease = self.lease
        if lease is not None and lease.holder and self.scheduler.now - lease.renewed < LEASE_SECONDS:
            raise ConflictError
        self.lease = Lease(holder, self._next(), self.scheduler.now, unproven=lease is None or lease.unproven)
        return self.lease.epoch, self.lease.unproven

    def renew_lease(self, holder: str, *, proven: bool) -> None:
        """Renew it; `proven` when the takeover is done.

        Raises:
            ConflictError: It is somebody else's.
        """
        self._next()
        if self.lease is None or self.lease.holder != holder:
            raise ConflictError
        self.lease.renewed = self.scheduler.now
        self.lease.unproven = self.lease.unproven and not proven

    def release_lease(self, holder: str) -> None:
        """Give it back."""
        if self.lease is not None and self.lease.holder == holder:
            self.lease.holder = ""


def broken_fences(old: RawJobStatus, new: RawJobStatus, *, retry: int = 0) -> frozenset[Fence]:
    """The rules of `distriqueue.api.fences`, in Python; `retry` is the spec's retryGeneration."""
    broken = set()
    if new.get("epoch", -1) < old.get("epoch", -1):
        broken.add(Fence.EPOCH)
    if new.get("attempt", -1) < old.get("attempt", -1):
        broken.add(Fence.ATTEMPT)
    before, after = old.get("lastGrant"), new.get("lastGrant")
    if before is not None and (
        after is None or (after["epoch"], after["counter"]) < (before["epoch"], before["counter"])
    ):
        broken.add(Fence.LAST_GRANT)
    retried = new.get("retryGeneration", 0) == retry > old.get("retryGeneration", 0)
    if old.get("phase") in FINAL_JOB_PHASES and new.get("phase") != old.get("phase") and not retried:
        broken.add(Fence.PHASE)
    return frozenset(broken)
