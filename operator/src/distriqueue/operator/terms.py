"""One term of leadership: drives `core.Leader` with what the watch and the broker say, and carries out its commands.

Guarantees: events are handed over one at a time in the order in which they came; what follows from all events of one
turn of the loop is carried out together, so answers, tickets and acknowledgements travel in batches. Before every
publish and every write the Lease is checked by the clock. A term ends by itself when the Lease or the broker is lost,
or when somebody with a higher epoch is seen; it never repairs itself: the next term begins with a takeover.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, cast

import structlog
from pydantic import ValidationError

from distriqueue.api.events import NORMAL_REASONS
from distriqueue.api.fences import violated_fences
from distriqueue.api.raw import RawJob, RawWorker
from distriqueue.broker.errors import BrokerError, NoConfirmError, QueueReplacedError
from distriqueue.broker.links import LeaderLink
from distriqueue.core.commands import (
    AckReports,
    BrokerCommand,
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
from distriqueue.core.leader import Leader, LeaderSettings, Step
from distriqueue.core.payloads import Obstacle
from distriqueue.core.times import Now, microtime
from distriqueue.kube.config_maps import ConfigMapReader
from distriqueue.kube.deletions import Deleter
from distriqueue.kube.election import Leadership
from distriqueue.kube.errors import Conflict, Forbidden, KubeError, NotFound, NotLeading, Refused
from distriqueue.kube.statuses import StatusWriter
from distriqueue.kube.workers import WorkerResources
from distriqueue.operator.stores import JobStore
from distriqueue.telemetry import failpoints
from distriqueue.telemetry.metrics import OperatorMetrics
from distriqueue_protocol.messages import Marker, Report, SessionMessage
from distriqueue_protocol.names import MessageType

_LOG: Final = structlog.get_logger(__name__)

TICK_SECONDS: Final = 0.2
JOBS_IN_A_ROW: Final = 100
"""Jobs that a takeover reads before others get their turn: some milliseconds."""
REREAD_PAUSE_SECONDS: Final = (0.1, 2.0)
PAYLOADS_AT_A_TIME: Final = 8
"""ConfigMaps that are read at once: an API server that is slow about them must not hold up the status writes."""
_HTTP_FORBIDDEN: Final = 403
LAST_WRITES_SECONDS: Final = 1.0
"""How long a term that ends cleanly waits for writes that are under way."""


def now() -> Now:
    """The moment, on both clocks."""
    return Now(time.monotonic(), time.time())


@dataclass(frozen=True, slots=True)
class TermEnd:
    """Why a term ended.

    Attributes:
        cause: One word, for metrics: `Stopped`, `LeaseLost`, `BrokerLost`, `SteppedDown`, `Crashed`.
        reason: A sentence.
        minimum_epoch: The next epoch has to be above it.
    """

    cause: str
    reason: str
    minimum_epoch: int = 0


@dataclass(frozen=True, slots=True)
class Writers:
    """What a term works on the API server with.

    Attributes:
        statuses: Of jobs.
        jobs: Deletes those whose time to live is over.
        workers: The DistributedWorkers.
        config_maps: Reads those in which payloads stand.
    """

    statuses: StatusWriter
    jobs: Deleter
    workers: WorkerResources
    config_maps: ConfigMapReader


class Term:
    """See the module; made for one `Leadership`, run once."""

    def __init__(
        self,
        *,
        leadership: Leadership,
        link: LeaderLink,
        store: JobStore,
        writers: Writers,
        emit: Callable[[EmitEvent], None],
        metrics: OperatorMetrics,
        settings: LeaderSettings,
        write_concurrency: int,
    ) -> None:
        self._leadership = leadership
        self._link = link
        self._store = store
        self._writer = writers.statuses
        self._deleter = writers.jobs
        self._workers = writers.workers
        self._config_maps = writers.config_maps
        self._resolving = asyncio.Semaphore(PAYLOADS_AT_A_TIME)
        self._reads: set[asyncio.Task[None]] = set()
        self._emit = emit
        self._metrics = metrics
        self._settings = settings
        self._write_concurrency = write_concurrency
        self._leader: Leader | None = None
        self._begun = False
        self._began_at = time.monotonic()
        self._ended: asyncio.Future[TermEnd] = asyncio.get_running_loop().create_future()
        self._scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: deque[WriteStatus] = deque()
        self._writes: deque[WriteStatus] = deque()
        self._writers = 0
        self._pools: dict[str, asyncio.Task[None]] = {}
        self._repairs: dict[str, asyncio.Task[None]] = {}
        self._log = _LOG.bind(epoch=leadership.epoch)

    @property
    def leader(self) -> Leader | None:
        """The state machine, once the takeover has begun."""
        return self._leader

    @property
    def blocked(self) -> bool:
        """RabbitMQ has an alarm and takes no messages."""
        return self._link.blocked

    # --- the course of a term ------------------------------------------------------------------------------------

    async def run(
        self,
        *,
        catch_up: Callable[[], Coroutine[Any, Any, None]],
        ended_pods: Callable[[], list[str]],
        deleted_workers: Callable[[], list[RawWorker]],
        stop: asyncio.Event,
    ) -> TermEnd:
        """Take over, lead, and return why it ended.

        Args:
            catch_up: Brings the store up to this moment.
            ended_pods: The uids of the pods that were seen to end; later ones come through `pod_ended`.
            deleted_workers: The DistributedWorkers that somebody deleted while they were not Offline; later ones come
                through `worker_vanished`.
            stop: Set when the program is to end.
        """
        watchers = [
            asyncio.create_task(self._end_when(stop, "Stopped", lambda: "the program ends")),
            asyncio.create_task(self._end_when(self._leadership.lost, "LeaseLost", lambda: "the Lease is lost")),
            asyncio.create_task(self._end_when(self._link.lost, "BrokerLost", lambda: self._link.lost_reason)),
            asyncio.create_task(self._lead(catch_up, ended_pods, deleted_workers)),
        ]
        try:
            end = await asyncio.shield(self._ended)
        finally:
            self._store.listener = None
            for task in watchers:
                task.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)
            await self._come_to_rest()
        return end

    async def _end_when(self, event: asyncio.Event, cause: str, reason: Callable[[], str]) -> None:
        await event.wait()
        self._end(TermEnd(cause, reason()))

    def _end(self, end: TermEnd) -> None:
        if not self._ended.done():
            self._ended.set_result(end)

    async def _lead(
        self,
        catch_up: Callable[[], Coroutine[Any, Any, None]],
        ended_pods: Callable[[], list[str]],
        deleted_workers: Callable[[], list[RawWorker]],
    ) -> None:
        try:
            if self._leadership.created:
                await self._outwait_unknown_leader(catch_up)
            await self._link.bind_inbox(self._leadership.epoch)
            failpoints.passing("inbox-bound")
            # Workers answer while the resources are read; what they say waits in the inbox.
            await self._link.call_roll()
            bound_at = now()
            leader = Leader(
                epoch=self._leadership.epoch,
                now=bound_at,
                observer=self._metrics,
                draw=random.random,
                settings=self._settings,
            )
            self._leader = leader
            self._store.listener = self
            # What the watch has brought so far enters the books while the API server says what differs from it.
            workers, _, _ = await asyncio.gather(self._list_workers(), catch_up(), self._enter(leader))
            deleted = deleted_workers()
            listed = {worker["metadata"]["name"] for worker in workers}
            missed = [worker for worker in deleted if worker["metadata"]["name"] not in listed]
            leader.begin(
                jobs=(),  # they are in the books
                finished=self._store.finished(),
                workers=workers + missed,
                lease_created=self._leadership.created,
                now=now(),
            )
            self._begun = True
            leader.auditor.shown = self._store.shown
            for worker in deleted:
                leader.on_worker_vanished(worker["metadata"]["name"], now())
            for uid in ended_pods():
                leader.on_pod_ended(uid, now())
            self._drain()
            failpoints.passing("takeover-begun")
            await self._link.consume(inbox=self._on_inbox, reports=self._on_report)
            leading = False
            while True:
                leader.tick(now())
                self._drain()
                if not leading and leader.step is Step.LEADING:
                    leading = True
                    took = time.monotonic() - self._began_at
                    failpoints.passing("takeover-done")
                    self._leadership.takeover_ended()
                    self._metrics.took_over(took)
                    self._log.info("takeover done", seconds=round(took, 3), jobs=len(self._store))
                await asyncio.sleep(TICK_SECONDS)
        except QueueReplacedError as error:
            self._metrics.queue_replaced()
            self._end(TermEnd("BrokerLost", str(error)))
        except (BrokerError, KubeError) as error:
            self._end(TermEnd("BrokerLost" if isinstance(error, BrokerError) else "KubeLost", str(error)))
        except Exception as error:  # noqa: BLE001 - whatever it is, the term ends and the Lease is released
            self._log.exception("the leader crashed")
            self._end(TermEnd("Crashed", f"{type(error).__name__}: {error}"))

    async def _list_workers(self) -> list[RawWorker]:
        workers = await self._workers.list()
        failpoints.passing("workers-listed")
        return cast("list[RawWorker]", workers)

    async def _enter(self, leader: Leader) -> None:
        """Let the leader read the jobs, some at a time: the Lease has to be renewed and probes answered meanwhile.

        What changes in between comes through `job_changed` and `job_deleted`; so each is read as the store has it then.
        """
        for number, uid in enumerate(self._store.uids(), start=1):
            job = self._store.get(uid)
            if job is not None:
                leader.on_job(job, now())
            if number % JOBS_IN_A_ROW == 0:
                await asyncio.sleep(0)

    async def _outwait_unknown_leader(self, catch_up: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Wait until whoever led by a Lease that is gone must have noticed, if there is anything that it may grant.

        No jobs and no workers mean that nothing was ever granted, as after an install.
        """
        workers = await self._workers.list()
        await catch_up()
        if workers or len(self._store):
            self._log.warning("the Lease is new: waiting for one lease duration", seconds=self._leadership.duration)
            await asyncio.sleep(self._leadership.duration)

    async def _come_to_rest(self) -> None:
        """Nothing new is begun; what is under way gets a moment to end, so that the next leader finds it done."""
        for task in self._reads:
            task.cancel()  # nobody waits for what is read
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LAST_WRITES_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- events --------------------------------------------------------------------------------------------------

    def job_changed(self, job: RawJob) -> None:
        """The watch shows a job."""
        if self._leader is not None:
            self._leader.on_job(job, now())
            self._schedule()

    def job_deleted(self, uid: str) -> None:
        """The watch shows that a job is gone."""
        if self._leader is not None:
            self._leader.on_job_deleted(uid, now())
            self._schedule()

    def pod_ended(self, uid: str) -> None:
        """The kubelet says that a pod's containers have ended."""
        if self._leader is not None:
            self._leader.on_pod_ended(uid, now())
            self._schedule()

    def worker_vanished(self, name: str) -> None:
        """Somebody deleted a DistributedWorker."""
        if self._leader is not None:
            self._leader.on_worker_vanished(name, now())
            self._schedule()

    def _on_inbox(self, kind: str, body: bytes) -> None:
        if self._leader is None or self._ended.done():
            return
        try:
            if kind == MessageType.SESSION:
                self._leader.on_session(SessionMessage.decode(body), now())
            elif kind == MessageType.MARKER:
                self._leader.on_marker(Marker.decode(body), through_reports=False, now=now())
            else:
                self._metrics.message_ignored("UnknownType")
        except ValidationError as error:
            self._metrics.message_ignored("Garbage")
            self._log.warning("a message of a worker cannot be read", error=str(error)[:500])
        self._schedule()

    def _on_report(self, kind: str, body: bytes, tag: int) -> None:
        if self._leader is None or self._ended.done():
            return
        try:
            if kind == MessageType.REPORT:
                self._leader.on_report(Report.decode(body), tag, now())
            else:
                if kind == MessageType.MARKER:
                    self._leader.on_marker(Marker.decode(body), through_reports=True, now=now())
                self._spawn(self._link.ack_reports((tag,)))
        except ValidationError as error:
            # Nobody could ever read it, and nothing is known of its job: whoever holds the slot will report again.
            self._metrics.message_ignored("Garbage")
            self._log.warning("a report cannot be read", error=str(error)[:500])
            self._spawn(self._link.ack_reports((tag,)))
        self._schedule()

    # --- commands ------------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        """Carry out what follows once this turn of the loop has brought all its events."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._drain)

    def _drain(self) -> None:
        self._scheduled = False
        if self._leader is None or not self._begun or self._ended.done() or not self._leadership.valid():
            return
        if not self._link.blocked:
            self._leader.publish(now())
        for command in self._leader.take():
            self._carry_out(command)

    def _carry_out(self, command: Command) -> None:
        match command:
            case WriteStatus():
                (self._ends if command.settles else self._writes).append(command)
                if self._writers < self._write_concurrency:
                    self._writers += 1
                    self._spawn(self._write_all())
            case ResolvePayload():
                task = self._spawn(self._resolve(command))
                self._reads.add(task)
                task.add_done_callback(self._reads.discard)
            case WriteWorker():
                self._spawn(self._write_worker(command))
            case DeleteJob():
                self._spawn(self._delete_job(command))
            case DeleteWorker():
                self._spawn(self._delete_worker(command.name))
            case EmitEvent():
                say = self._log.info if command.reason in NORMAL_REASONS else self._log.warning
                say(
                    command.note,
                    reason=command.reason.value,
                    about=f"{command.kind} {command.namespace}/{command.name}",
                )
                self._emit(command)
            case StepDown():
                self._end(TermEnd("SteppedDown", command.reason, command.minimum_epoch))
            case _:
                self._tell_broker(command)

    def _tell_broker(self, command: BrokerCommand) -> None:
        match command:
            case SendToWorker():
                self._spawn(self._link.send(command.incarnation, command.message))
            case PublishTicket():
                self._spawn(self._publish(command))
            case AckReports():
                self._spawn(self._link.ack_reports(command.tags))
            case SendMarker():
                self._spawn(self._link.send_marker(command.id))
            case CallRoll():
                self._spawn(self._link.call_roll())
            case DeclarePool():
                self._pools[command.pool] = self._spawn(self._declare(command.pool))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("the leader crashed", exc_info=error)
            self._end(TermEnd("Crashed", f"{type(error).__name__}: {error}"))

    async def _declare(self, pool: str) -> None:
        try:
            await self._link.declare_pool(pool)
        except BrokerError as error:
            self._end(TermEnd("BrokerLost", str(error)))

    async def _publish(self, command: PublishTicket) -> None:
        leader = self._leader
        declared = self._pools.get(command.pool)
        if leader is None:
            return
        if declared is not None and not declared.done():
            await asyncio.wait([declared])
        try:
            if not self._leadership.valid():
                return
            failpoints.passing("ticket-publish")
            await self._link.publish_ticket(command.ticket, pool=command.pool, priority=command.priority)
        except BrokerError as error:
            self._log.warning("a ticket was not taken", job=command.ticket.name, error=str(error))
            if isinstance(error, NoConfirmError):
                await asyncio.wait([self._repairing(command.pool)])
            leader.on_ticket_failed(command.uid, command.number)
            self._schedule()
        else:
            failpoints.passing("ticket-confirmed")
            leader.on_ticket_confirmed(command.uid, command.number, queued_time=microtime(time.time()))

    def _repairing(self, pool: str) -> asyncio.Task[None]:
        """The repair of a pool's queues that is under way, or a new one."""
        task = self._repairs.get(pool)
        if task is None or task.done():
            task = self._repairs[pool] = self._spawn(self._repair(pool))
        return task

    async def _repair(self, pool: str) -> None:
        try:
            lost = await self._link.repair_pool(pool)
        except BrokerError as error:
            self._end(TermEnd("BrokerLost", str(error)))
            return
        leader = cast("Leader", self._leader)
        for priority in lost:
            self._metrics.queue_replaced()
            self._log.error("a queue was lost: its tickets are sent again", pool=pool, priority=priority.value)
            leader.on_queue_lost(pool, priority)
        self._schedule()

    # --- writes --------------------------------------------------------------------------------------------------

    async def _write_all(self) -> None:
        """One of the writers: takes writes until there are none."""
        try:
            while (self._ends or self._writes) and not self._ended.done():
                await self._write((self._ends or self._writes).popleft())
        finally:
            self._writers -= 1

    async def _write(self, command: WriteStatus) -> None:
        leader = cast("Leader", self._leader)
        try:
            failpoints.passing("status-write")
            version = await self._writer.write(
                command.namespace,
                command.name,
                command.uid,
                command.resource_version,
                command.status,
                check=self._leadership.valid,
            )
        except NotLeading:
            return
        except Refused as error:
            fences = violated_fences(error.message)
            self._log.warning("a status was refused", job=command.name, namespace=command.namespace, error=str(error))
            leader.on_write_refused(command.id, fences, error.message, now())
        except KubeError as error:
            self._log.debug("reading a job again", job=command.name, error=f"{type(error).__name__}: {error}")
            leader.on_reread(command.id, await self._reread(command), now())
        else:
            failpoints.passing("status-written")
            self._metrics.status_written()
            leader.on_written(command.id, version, now())
        self._schedule()

    async def _reread(self, command: WriteStatus) -> RawJob | None:
        """A write without an answer is still under way: read until there is an answer."""
        pause, longest = REREAD_PAUSE_SECONDS
        while True:
            try:
                return cast("RawJob", await self._writer.read(command.namespace, command.name))
            except NotFound:
                return None
            except KubeError as error:
                self._log.warning("a job cannot be read", job=command.name, error=f"{type(error).__name__}: {error}")
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, no secret
                pause = min(2 * pause, longest)

    async def _resolve(self, command: ResolvePayload) -> None:
        """Read the ConfigMap of a payload. Nothing of what it holds is logged."""
        leader = cast("Leader", self._leader)
        async with self._resolving:
            content: str | bytes | Obstacle
            try:
                found = await self._config_maps.read(command.namespace, command.config_map, command.key)
                content = Obstacle.NO_KEY if found is None else found
            except NotFound:
                content = Obstacle.NO_CONFIG_MAP
            except KubeError as error:
                content = Obstacle.UNREAD
                if isinstance(error, Forbidden) and error.code == _HTTP_FORBIDDEN:
                    content = Obstacle.FORBIDDEN
                why = f"{type(error).__name__}: {error}"
                self._log.warning("a ConfigMap cannot be read", job=command.name, name=command.config_map, error=why)
        leader.on_payload_read(command.uid, command.number, content, now())
        self._schedule()

    async def _write_worker(self, command: WriteWorker) -> None:
        leader = cast("Leader", self._leader)
        try:
            failpoints.passing("worker-write")
            await self._workers.put(command.name, command.status, check=self._leadership.valid)
        except NotLeading:
            return
        except KubeError as error:
            self._log.warning("a worker cannot be written", worker=command.name, error=str(error))
            leader.on_worker_failed(command.name, now())
        else:
            failpoints.passing("worker-written")
            leader.on_worker_written(command.name, now())
        self._schedule()

    async def _delete_job(self, command: DeleteJob) -> None:
        try:
            await self._deleter.delete(
                command.namespace,
                command.name,
                uid=command.uid,
                resource_version=command.resource_version,
                check=self._leadership.valid,
            )
        except (NotLeading, Conflict):
            return  # another leader sees to it; or it has changed, and the watch will show how
        except KubeError as error:
            self._log.warning("a job cannot be deleted", job=command.name, error=str(error))

    async def _delete_worker(self, name: str) -> None:
        try:
            await self._workers.delete(name, check=self._leadership.valid)
        except NotLeading:
            return
        except KubeError as error:
            self._log.warning("a worker cannot be deleted", worker=name, error=str(error))
