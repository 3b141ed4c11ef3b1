"""A drill: some hundred jobs in flight, a fault in the middle, and the history of it all held against what is promised.

Guarantees: a drill has a stage of its own (namespace, virtual host, processes); what dies is started again under its
name, as a kubelet would, unless it was retired. Fails with AssertionError when a promise was broken. A drill that kept
all of them leaves a row for the table in docs/reliability.md.
"""

import asyncio
import contextlib
import json
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from distriqueue.kube.client import KubeClient
from localcluster.errors import LocalClusterError
from localcluster.paths import cache_directory
from localcluster.programs import Program
from localcluster.resources import make_namespace
from tests.faults.histories import History, check, runs
from tests.faults.watching import Obituaries, Outcomes
from tests.integration.tcp_relay import Relay
from tests.support.jobs import Jobs, phase
from tests.support.stages import Stage, Stages
from tests.support.waiting import until

QUICK: Final = bool(os.environ.get("DISTRIQUEUE_FAULTS_QUICK"))
"""Fewer jobs and shorter outages, for every change; the table is of full runs."""
JOBS: Final = 60 if QUICK else 300
OUTAGE_SECONDS: Final = 15.0 if QUICK else 60.0
DONE_BEFORE: Final = 0.15
"""So much of the jobs is done when the fault comes."""
LONG_EVERY: Final = 12
LONG_SECONDS: Final = 6.0
LEASE_SECONDS: Final = 18.0
SHORT_SECONDS: Final = 0.2
SUPERVISION_SECONDS: Final = 0.25
CREATES_AT_A_TIME: Final = 16
RECOVERY_SECONDS: Final = 240.0
"""After so long jobs count as lost."""

Spec = dict[str, Any]


def results() -> Path:
    """Where rows are kept."""
    return cache_directory() / ("faults-quick" if QUICK else "faults")


def kinds(*types: str, seconds: float) -> Callable[[int], Spec]:
    """Make specs: most jobs are short; every twelfth takes so many seconds, and is of these types in turn.

    Priorities are mixed among both, so that some of each are in flight at any time.
    """

    def spec(number: int) -> Spec:
        turn, rest = divmod(number, LONG_EVERY)
        priority = ("High", "Medium", "Low")[number // 5 % 3]
        if rest:
            return {"type": "record.slow", "payload": {"seconds": SHORT_SECONDS}, "priority": priority}
        return {"type": types[turn % len(types)], "payload": {"seconds": seconds}, "priority": priority}

    return spec


mixed: Final = kinds("record.slow", seconds=LONG_SECONDS)
"""What most trials run."""
stopped: Final = kinds("record.slow", "record.process", seconds=LEASE_SECONDS)
"""Handlers that run for longer than a worker's lease, so that one that loses it has to stop them."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A fault and what is promised under it.

    Attributes:
        name: Of the row.
        family: Under which heading it stands.
        fault: What is done, for the table.
        promise: What holds then, for the table.
        why: Why an attempt that was repeated was repeated rightly.
        overlap: Two attempts may be live at once: a worker was frozen past its lease and woke.
        ends: The final phases that jobs may have.
        spec: Makes the spec of a job of its number.
        jobs: How many.
        operators: Replicas.
        workers: Processes.
        concurrency: Slots of each.
        once: Every handler ran exactly once.
        relays: Every program reaches broker and API server through relays of its own; see `Drill.links`.
        extra_namespace: The operators run the jobs of a second namespace, too; see `Drill.extra`.
        environment: For all programs of the stage.
        prepare: Called before anything starts; returns further variables of the operators.
    """

    name: str
    family: str
    fault: str
    promise: str
    why: str = ""
    overlap: bool = False
    ends: frozenset[str] = frozenset({"Succeeded"})
    spec: Callable[[int], Spec] = mixed
    jobs: int = JOBS
    operators: int = 2
    workers: int = 2
    concurrency: int = 8
    once: bool = False
    relays: bool = False
    extra_namespace: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    prepare: "Callable[[Drill], Awaitable[dict[str, str]]] | None" = None


@dataclass(frozen=True, slots=True)
class Links:
    """The relays of one program."""

    broker: Relay
    server: Relay


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table; see `tests.faults.table`."""

    name: str
    family: str
    fault: str
    promise: str
    why: str
    jobs: int
    lost: int
    accepted: str
    at_once: int
    overlap_ms: float
    repeated: int
    first_start_seconds: float | None
    all_final_seconds: float
    note: str


class Drill:
    """A trial under way; made by `drill`.

    Attributes:
        names: Of the jobs that were made and not deleted by the test.
        note: Further words for the table.
        history: What came of it, once it is over.
        links: The relays of each program, by its name.
    """

    def __init__(self, trial: Trial, stage: Stage, client: KubeClient, outcomes: Outcomes, deaths: Obituaries) -> None:
        self.trial = trial
        self.stage = stage
        self.client = client
        self.jobs = Jobs(client, stage.namespace)
        self.outcomes = outcomes
        self.names: list[str] = []
        self.note = ""
        self.history: History | None = None
        self.links: dict[str, Links] = {}
        self._closing = contextlib.AsyncExitStack()
        self._obituaries = deaths
        self._frozen: dict[int, list[tuple[float, float]]] = {}
        self._silences: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._environments: dict[str, dict[str, str]] = {}
        self._retired: set[str] = set()
        self._restarting: dict[str, asyncio.Task[None]] = {}
        self._fault_end: float | None = None
        self._operators_have: dict[str, str] = {}
        self.restarts = 0

    # --- programs ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start what the trial asks for; the jobs are there before the workers, so that the load is a load."""
        trial = self.trial
        if trial.extra_namespace:
            await asyncio.to_thread(make_namespace, self.stage.plane.kubeconfig, self.extra)
        if trial.prepare is not None:
            self._operators_have = await trial.prepare(self)
        if trial.relays:
            names = (f"operator-{number}" for number in range(trial.operators))
            for name in (*names, *(f"worker-{number}" for number in range(trial.workers))):
                self.links[name] = Links(
                    broker=await self._closing.enter_async_context(Relay.to(self.stage.broker.url)),
                    server=await self._closing.enter_async_context(Relay.to(self.stage.plane.server)),
                )
        await asyncio.gather(*(self.operator(f"operator-{number}") for number in range(trial.operators)))
        await self.leader()
        await self.create(trial.jobs)
        await asyncio.gather(*(self.worker(f"worker-{number}") for number in range(trial.workers)))

    async def close(self) -> None:
        """Close the relays."""
        await self._closing.aclose()

    @property
    def extra(self) -> str:
        """The second namespace, of a trial that has one."""
        return f"{self.stage.namespace}-extra"

    def _ways(self, name: str) -> dict[str, str]:
        """The variables by which a program goes through its relays."""
        ways = {"NAMESPACES": f"{self.stage.namespace},{self.extra}"} if self.trial.extra_namespace else {}
        links = self.links.get(name)
        if links is not None:
            ways["AMQP_URL"] = f"amqp://guest:guest@127.0.0.1:{links.broker.port}/{self.stage.namespace}"
            ways["KUBECONFIG"] = str(links.server.kubeconfig(self.stage.plane.kubeconfig))
        return ways

    async def operator(self, name: str, **environment: str) -> Program:
        """Start an operator, or start one anew."""
        self._environments[name] = environment
        variables = {**self._ways(name), **self._operators_have, **environment}
        program = await asyncio.to_thread(self.stage.operator, name, **variables)
        self.stage.operators = [*(other for other in self.stage.operators if other.name != name), program]
        return program

    async def worker(self, name: str, **environment: str) -> Program:
        """Start a worker, or start one anew."""
        self._environments[name] = environment
        variables = {**self._ways(name), **environment}
        return await asyncio.to_thread(self.stage.worker, name, concurrency=self.trial.concurrency, **variables)

    @property
    def workers(self) -> list[Program]:
        """All workers, by name."""
        return [worker for _, worker in sorted(self.stage.workers.items())]

    async def leads(self) -> Program | None:
        """The operator that leads now, if one does. Asking one that does not answer takes seconds: not in the loop."""
        return await asyncio.to_thread(self.stage.leader)

    async def leader(self) -> Program:
        """The operator that leads, when one does."""
        leader: Program | None = None

        async def found() -> bool:
            nonlocal leader
            leader = await self.leads()
            return leader is not None

        await until(found, otherwise=self.stage.last_words)
        assert leader is not None
        return leader

    async def standby(self) -> Program:
        """An operator that does not lead."""
        leader = await self.leader()
        return next(operator for operator in self.stage.operators if operator is not leader)

    def held_by(self, worker: str) -> int:
        """How many long handlers run on a worker."""
        held: set[tuple[str, str]] = set()
        for record in self.stage.records.all():
            if record.worker == worker and int(record.name.rpartition("-")[2]) % LONG_EVERY == 0:
                (held.add if record.event == "started" else held.discard)((record.uid, record.grant))
        return len(held)

    async def busiest(self) -> Program:
        """The worker that runs most of the long handlers, as soon as one runs any."""
        await until(lambda: any(self.held_by(worker.name) for worker in self.workers), otherwise=self.stage.last_words)
        return max(self.workers, key=lambda worker: self.held_by(worker.name))

    async def kill(self, *programs: Program) -> None:
        """Kill -9, all at once."""
        for program in programs:
            program.process.signal(9)
        await asyncio.gather(*(asyncio.to_thread(program.kill) for program in programs))

    def retire(self, *programs: Program) -> None:
        """They are not started again when they end."""
        self._retired.update(program.name for program in programs)

    @contextlib.asynccontextmanager
    async def frozen(self, *programs: Program) -> AsyncIterator[None]:
        """SIGSTOP, and SIGCONT in the end."""
        began = time.monotonic()
        for program in programs:
            program.freeze()
        try:
            yield
        finally:
            woke = time.monotonic()
            for program in programs:
                program.thaw()
                self._frozen.setdefault(program.process.pid, []).append((began, woke))
                self._silences[program.name].append((began, woke))

    @contextlib.contextmanager
    def silent(self, *programs: Program) -> Iterator[None]:
        """Say that nothing of these programs can arrive meanwhile; of all workers, without any."""
        began = time.monotonic()
        try:
            yield
        finally:
            for program in programs or self.workers:
                self._silences[program.name].append((began, time.monotonic()))

    async def supervise(self) -> None:
        """Start again what has ended, as a kubelet does."""
        while True:
            for program in (*self.stage.operators, *self.stage.workers.values()):
                idle = program.name not in self._restarting and program.name not in self._retired
                if idle and not program.process.alive():
                    noticed = time.monotonic()
                    self._silences[program.name].append((noticed - 2 * SUPERVISION_SECONDS, noticed))
                    self._restarting[program.name] = asyncio.create_task(self._restart(program))
            await asyncio.sleep(SUPERVISION_SECONDS)

    async def _restart(self, program: Program) -> None:
        await asyncio.to_thread(program.kill)  # it has ended: this only frees its name
        had = self._environments[program.name]
        environment = {name: value for name, value in had.items() if name != "FAILPOINT"}  # it was reached
        self.restarts += 1
        with contextlib.suppress(LocalClusterError):  # it ended again: the next look starts it again
            if program in self.stage.operators:
                await self.operator(program.name, **environment)
            else:
                await self.worker(program.name, **environment)
        del self._restarting[program.name]

    # --- load ----------------------------------------------------------------------------------------------------

    async def create(self, count: int, *, prefix: str = "job", spec: Callable[[int], Spec] | None = None) -> list[str]:
        """Make jobs; returns their names when all are there."""
        made = spec or self.trial.spec
        gate = asyncio.Semaphore(CREATES_AT_A_TIME)
        names = [f"{prefix}-{number:04}" for number in range(count)]

        async def one(number: int, name: str) -> None:
            async with gate:
                await self.jobs.create(name, **{"maxAttempts": 20, "backoff": {"initialSeconds": 1}, **made(number)})

        await asyncio.gather(*(one(number, name) for number, name in enumerate(names)))
        self.names += names
        return names

    def returned(self, *, prefix: str = "") -> int:
        """How many handlers have returned."""
        return len(self.stage.records.events("returned", prefix=prefix))

    async def under_way(self) -> None:
        """Wait until the load is in full swing."""
        done = int(self.trial.jobs * DONE_BEFORE)
        await until(lambda: self.returned() >= done, pause=0.1, otherwise=self.stage.last_words)

    def fault_ended(self) -> None:
        """From here on the time to recover counts; without it, from the end of the injection."""
        self._fault_end = time.monotonic()

    # --- the end -------------------------------------------------------------------------------------------------

    async def conclude(self, *, seconds: float = RECOVERY_SECONDS) -> Row:
        """Wait until all is over, and hold the history against the promises."""
        fault_end = self._fault_end or time.monotonic()
        with contextlib.suppress(AssertionError):  # what is missing then is counted as lost, below
            await self.jobs.all_ended(self.names, seconds=seconds)
        all_final = time.monotonic()
        self._obituaries.look()
        ended = await self.jobs.named(self.names)
        uids = {job["metadata"]["uid"] for job in ended}
        records = [record for record in self.stage.records.all() if record.uid in uids]
        ran = runs(records, deaths=self._obituaries.deaths, frozen=self._frozen, now=time.monotonic())
        history = self.history = check(
            self.names, ended, outcomes=self.outcomes.frozen(), ran=ran, silences=self._silences
        )
        self._hold(history, ended)
        first = history.first_start_after(fault_end)
        least, most = history.least_accepted, history.most_accepted
        return Row(
            name=self.trial.name,
            family=self.trial.family,
            fault=self.trial.fault,
            promise=self.trial.promise,
            why=self.trial.why,
            jobs=history.jobs,
            lost=len(history.lost),
            accepted=str(least) if least == most else f"{least} to {most}",
            at_once=history.at_once,
            overlap_ms=round(history.overlap_seconds * 1000, 1),
            repeated=len(history.repeats),
            first_start_seconds=None if first is None else round(first, 2),
            all_final_seconds=round(all_final - fault_end, 1),
            note=self.note,
        )

    def _hold(self, history: History, ended: list[dict[str, Any]]) -> None:
        stuck = [job for job in ended if job["metadata"]["name"] in set(history.lost)][:3]
        assert not history.lost, f"{len(history.lost)} lost: {history.lost[:5]}, {stuck}"
        doubled = {uid: told for uid, told in history.accepted.items() if len(told) != 1}
        assert not doubled, f"accepted more than once: {dict(list(doubled.items())[:3])}"
        assert not history.baseless, f"results of no handler that returned: {history.baseless[:5]}"
        assert {phase(job) for job in ended} <= self.trial.ends, [j for j in ended if phase(j) not in self.trial.ends][
            :2
        ]
        assert not history.unexplained, f"repeated without a reason: {history.unexplained[:3]}"
        if self.trial.once:
            assert not history.repeats, f"repeated: {history.repeats[:3]}"
        if not self.trial.overlap:
            several = [run for run in history.runs if run.uid in {repeat.run.uid for repeat in history.repeats}]
            assert history.at_once <= 1, f"live at once: {several[:6]}"


Inject = Callable[[Drill], Awaitable[object]]


async def drill(stages: Stages, trial: Trial, inject: Inject, *, check_more: Inject | None = None) -> Row:
    """Run a trial.

    Args:
        stages: Opens the stage.
        trial: What is promised.
        inject: Does the fault; called when the load is in full swing, over when the fault is.
        check_more: Looks at what else must hold, once all jobs are over.

    Raises:
        AssertionError: A promise was broken; the programs' last words are with it.
    """
    directory = results()
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"{trial.name}.json"
    file.unlink(missing_ok=True)  # what was measured once says nothing about a run that fails
    with stages.open(**trial.environment) as stage:
        async with (
            await stage.client() as client,
            Obituaries(stage.records) as deaths,
            Outcomes(client, stage.namespace) as outcomes,
        ):
            run = Drill(trial, stage, client, outcomes, deaths)
            supervision = asyncio.create_task(run.supervise())
            try:
                await run.start()
                if trial.jobs:
                    await run.under_way()
                await inject(run)
                row = await run.conclude()
                if check_more is not None:
                    await check_more(run)
                    row = replace(row, note=run.note)
            except BaseException as error:
                error.add_note(f"logs of the programs: {stage.programs.directory}\n{stage.last_words()[-6000:]}")
                raise
            finally:
                supervision.cancel()
                await asyncio.gather(supervision, return_exceptions=True)
                await run.close()
    file.write_text(json.dumps(asdict(row), indent=1) + "\n")
    print(row)  # noqa: T201 - for whoever looks
    return row
