"""How many jobs a second the leader's decisions take on one core: events in, commands out, no I/O.

Run with `python -m bench.core [--jobs N] [--waiting N] [--workers N] [--profile]`. Only the CPU time of the leader's
calls counts; what a worker, the broker and the API server would say is made outside of that clock. Prints one line of
figures, and with `--profile` where the time goes.
"""

import argparse
import cProfile
import pstats
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from distriqueue.api.raw import RawJob
from distriqueue.core.commands import Command, PublishTicket, SendMarker, SendToWorker, WriteStatus, WriteWorker
from distriqueue.core.leader import Leader, LeaderSettings, Step
from distriqueue.core.observing import SilentObserver
from distriqueue.core.times import Now, microtime
from distriqueue_protocol.messages import (
    Claim,
    GrantId,
    Heartbeat,
    Marker,
    Outcome,
    Registration,
    Report,
    SessionMessage,
    Ticket,
)

EPOCH = 1000
WALL = 1.7e9
BATCH = 64
"""Events that a turn of the loop brings together."""


class Bench:
    """A leader, the world around it, and a clock that runs only while the leader works."""

    def __init__(self, *, waiting: int, workers: int, slots: int, profile: cProfile.Profile | None) -> None:
        self.spent = 0.0
        self.now = Now(1000.0, WALL)
        self._profile = profile
        self._numbers = count(1)
        self._versions = count(100)
        self._commands: list[Command] = []
        self.tickets: list[Ticket] = []
        self.finished = 0
        self._sequences: dict[str, Iterator[int]] = {}
        self._claims = count(1)
        self._asked: dict[tuple[str, int], Ticket] = {}
        self._text = microtime(WALL)
        self._resources: dict[str, RawJob] = {}
        self.leader = Leader(
            epoch=EPOCH, now=self.now, observer=SilentObserver(), draw=lambda: 0.5, settings=LeaderSettings()
        )
        self.leader.begin(
            jobs=[self._resource() for _ in range(waiting)], workers=[], lease_created=False, now=self.now
        )
        for number in range(workers):
            name = f"worker-{number:05}"
            self._sequences[name] = count(1)
            registration = Registration(worker=name, concurrency=slots, start_time=self._text)
            self._tell(self.leader.on_session, self._message(name, heartbeat=Heartbeat(registration=registration)))
        while self.leader.step is not Step.LEADING:
            self.tick()
        self.tick()
        self.spent = 0.0

    def _resource(self) -> RawJob:
        number = next(self._numbers)
        job: RawJob = {
            "metadata": {
                "name": f"job-{number}",
                "namespace": "default",
                "uid": f"00000000-0000-0000-0000-{number:012}",
                "resourceVersion": str(next(self._versions)),
                "generation": 1,
                "creationTimestamp": self._text[:19] + "Z",
            },
            "spec": {"type": "email", "payload": {"to": "a@example.com"}, "priority": "Medium", "priorityValue": 50},
            "status": {"phase": "Pending"},
        }
        self._resources[job["metadata"]["uid"]] = job
        return job

    def _message(self, name: str, **more: Any) -> SessionMessage:
        return SessionMessage(
            incarnation=f"{name}-incarnation", sequence=next(self._sequences[name]), epoch=EPOCH, **more
        )

    # --- the leader, timed -------------------------------------------------------------------------------------

    def _tell(self, event: Callable[..., None], *arguments: Any, **named: Any) -> None:
        began = time.process_time()
        if self._profile is not None:
            self._profile.enable()
        event(*arguments, **named, now=self.now)
        if self._profile is not None:
            self._profile.disable()
        self.spent += time.process_time() - began

    def _drain(self) -> list[Command]:
        began = time.process_time()
        if self._profile is not None:
            self._profile.enable()
        self.leader.publish(self.now)
        commands = self.leader.take()
        if self._profile is not None:
            self._profile.disable()
        self.spent += time.process_time() - began
        return commands

    # --- the world ---------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """A tick, and what follows from it."""
        self.now = Now(self.now.mono + 0.2, self.now.wall + 0.2)
        self._tell(self.leader.tick)
        self.carry_out()

    def submit(self, number: int) -> None:
        """Jobs are created."""
        for resource in [self._resource() for _ in range(number)]:
            self._tell(self.leader.on_job, resource)

    def ask(self) -> None:
        """Workers claim what the broker has, in turns."""
        tickets, self.tickets = self.tickets, []
        names = list(self._sequences)
        for index, ticket in enumerate(tickets):
            name = names[index % len(names)]
            claim = Claim(id=next(self._claims), uid=ticket.uid, attempt=ticket.attempt, ticket_epoch=EPOCH)
            self._asked[f"{name}-incarnation", claim.id] = ticket
            self._tell(self.leader.on_session, self._message(name, claims=(claim,)))
            if index % BATCH == BATCH - 1:
                self.carry_out()
        self.carry_out()

    def carry_out(self) -> None:
        """Do what the leader wants, and bring back what follows, until it wants nothing."""
        commands = self._drain()
        while commands:
            reports: list[Report] = []
            for command in commands:
                match command:
                    case PublishTicket():
                        self.tickets.append(command.ticket)
                        self.leader.on_ticket_confirmed(command.uid, command.number, queued_time=self._text)
                    case SendToWorker():
                        reports += self._reports(command)
                    case WriteStatus():
                        self._land(command)
                    case WriteWorker(name):
                        self._tell(self.leader.on_worker_written, name)
                    case SendMarker(number):
                        for through in (False, True):
                            self._tell(self.leader.on_marker, Marker(epoch=EPOCH, id=number), through_reports=through)
            for report in reports:
                self._tell(self.leader.on_report, report, next(self._versions))
            commands = self._drain()

    def _reports(self, sent: SendToWorker) -> list[Report]:
        """A worker ends at once what it was granted."""
        return [
            self._report(self._asked.pop((sent.incarnation, answer.claim)), answer.grant, sent.incarnation)
            for answer in sent.message.answers
            if answer.grant is not None
        ]

    def _report(self, ticket: Ticket, grant: GrantId, incarnation: str) -> Report:
        return Report(
            namespace=ticket.namespace,
            name=ticket.name,
            uid=ticket.uid,
            attempt=ticket.attempt,
            grant=grant,
            worker=incarnation.removesuffix("-incarnation"),
            incarnation=incarnation,
            outcome=Outcome.SUCCEEDED,
            result={"sent": True},
            start_time=self._text,
            completion_time=self._text,
        )

    def _land(self, write: WriteStatus) -> None:
        version = next(self._versions)
        job = self._resources.pop(write.uid)
        metadata = job["metadata"].copy()
        metadata["resourceVersion"] = str(version)
        shown: RawJob = {**job, "metadata": metadata, "status": write.status}
        self._tell(self.leader.on_job, shown)  # the watch is faster than the answer, as a rule
        self._tell(self.leader.on_written, write.id, version)
        self.finished += 1


def main(arguments: list[str]) -> int:
    """Measure once and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000, help="jobs to run through")
    parser.add_argument("--waiting", type=int, default=20_000, help="jobs that wait all the time")
    parser.add_argument("--workers", type=int, default=500)
    parser.add_argument("--slots", type=int, default=4, help="slots of each worker")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    asked = parser.parse_args(arguments)
    profile = cProfile.Profile() if asked.profile else None
    bench = Bench(waiting=asked.waiting, workers=asked.workers, slots=asked.slots, profile=profile)
    rates: list[float] = []
    while bench.finished < asked.jobs:
        before, spent = bench.finished, bench.spent
        bench.ask()
        bench.submit(bench.finished - before)
        bench.tick()
        rates.append((bench.finished - before) / (bench.spent - spent))
    print(
        f"core: {bench.finished / bench.spent:.0f} jobs/s, in the best of {len(rates)} rounds {max(rates):.0f}; "
        f"{asked.waiting} waiting, {asked.workers} workers with {asked.slots} slots"
    )
    if profile is not None:
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
