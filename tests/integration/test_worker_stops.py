"""A worker process on a real broker: handlers that are told to stop, that say how far they are, and that die."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from distriqueue_protocol.messages import Outcome, StopReason
from localcluster.processes import wait_gone
from localcluster.programs import Program, Programs
from localcluster.rabbitmq import Broker
from tests.integration.scripted_leader import ScriptedLeader
from tests.integration.worker_plane import broker_fixture, last_words, programs_fixture, until, working

__all__ = ["broker_fixture", "programs_fixture"]

pytestmark = pytest.mark.integration

MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")
FENCED = 70


async def begun(leader: ScriptedLeader, kind: str, trace: Path, *, seconds: float = 600, name: str = "runs") -> None:
    await leader.submit(name, type=kind, payload={"file": str(trace), "seconds": seconds})
    await until(trace.exists)


@pytest.mark.parametrize("reason", [StopReason.CANCELLED, StopReason.DEADLINE_EXCEEDED])
async def test_a_handler_is_asked_to_stop_and_says_that_it_was(
    broker: Broker, programs: Programs, tmp_path: Path, reason: StopReason
) -> None:
    # A grace that nobody waits for: what stops here stops because it was asked.
    async with working(broker, programs, pool=f"ask-{reason.lower()}", WORKER_STOP_GRACE_SECONDS="3600") as (leader, _):
        for kind in ("careful", "careful-thread", "careful-process"):
            trace = tmp_path / kind
            await begun(leader, kind, trace, seconds=0, name=kind)
            grant = await leader.grant(kind)
            await leader.stop(grant, reason)
            await leader.stop(grant, reason)
            report = await leader.report(kind)
            assert (report.outcome, report.reason, report.grant) == (Outcome.INTERRUPTED, reason, grant)
            assert [line.split()[2] for line in trace.read_text().splitlines()] == ["begin", "cancelled"]
        await leader.until(lambda heard: heard.heartbeats[-1][1].grants == heard.heartbeats[-1][1].reports == ())


async def test_a_result_that_was_reached_nevertheless_is_reported(
    broker: Broker, programs: Programs, tmp_path: Path
) -> None:
    async with working(broker, programs, pool="nevertheless") as (leader, _):
        await begun(leader, "careful", tmp_path / "trace", seconds=0.2)
        await leader.stop(await leader.grant("runs"))
        report = await leader.report("runs")
        assert (report.outcome, report.result) == (Outcome.SUCCEEDED, "finished all the same")


async def test_a_handler_that_does_not_look_is_killed_after_the_grace(
    broker: Broker, programs: Programs, tmp_path: Path
) -> None:
    async with working(broker, programs, pool="grace", WORKER_STOP_GRACE_SECONDS="1") as (leader, worker):
        for kind in ("inattentive", "inattentive-process"):
            trace = tmp_path / kind
            await begun(leader, kind, trace, name=kind)
            asked = time.monotonic()
            await leader.stop(await leader.grant(kind))
            report = await leader.report(kind)
            assert (report.outcome, report.reason) == (Outcome.INTERRUPTED, "Cancelled")
            assert float(trace.read_text().split()[-1]) - asked > 0.5  # it went on for its grace
        assert worker.process.alive()


async def test_a_thread_that_nothing_can_end_takes_the_worker_with_it_after_the_others_have_finished(
    broker: Broker, programs: Programs, tmp_path: Path
) -> None:
    async with working(broker, programs, pool="deaf-cancel", WORKER_STOP_GRACE_SECONDS="0.5") as (leader, worker):
        await begun(leader, "deaf", tmp_path / "deaf", name="deaf")
        await begun(leader, "trace", tmp_path / "trace", name="neighbour", seconds=6)
        await leader.stop(await leader.grant("deaf"))
        await leader.until(lambda heard: heard.heartbeats[-1][1].draining)
        assert (await leader.report("neighbour")).outcome is Outcome.SUCCEEDED
        worker.terminate()  # the rest of its patience is of no interest here
        worker.terminate()
        assert await asyncio.to_thread(wait_gone, [worker.process], timeout=40)
        assert last_words(worker)["code"] == FENCED
        assert all(report.name != "deaf" for report in leader.heard.reports)


async def test_an_order_that_comes_with_the_grant_starts_nothing(
    broker: Broker, programs: Programs, tmp_path: Path
) -> None:
    async with working(broker, programs, pool="early") as (leader, worker):
        leader.answering = False
        trace = tmp_path / "trace"
        await leader.submit("early", type="trace", payload={"file": str(trace)})
        await leader.until(lambda heard: heard.claims)
        grant = (leader.epoch, 1)
        await leader.tell(
            leader.heard.sessions[-1].incarnation, stops=({"grant": grant, "reason": StopReason.CANCELLED},)
        )
        leader.answering = True
        await leader.answer_waiting()
        await until(lambda: worker.metric("distriqueue_worker_grants_ignored_total") == 1)
        await leader.until(lambda heard: not heard.heartbeats[-1][1].claims)
        assert leader.heard.heartbeats[-1][1].grants == ()
        await leader.submit("next")
        await leader.report("next")
        assert not trace.exists()


@pytest.mark.parametrize("kind", ["pages", "pages-thread", "pages-process"])
async def test_the_next_attempt_goes_on_from_the_checkpoint(broker: Broker, programs: Programs, kind: str) -> None:
    async with working(broker, programs, pool=kind) as (leader, _):
        await leader.submit("torn", type=kind, payload={"pages": 5, "fail": 3})
        report = await leader.report("torn")
        assert (report.outcome, report.reason, report.checkpoint) == (Outcome.FAILED, "ValueError", {"done": 3})
        leader.checkpoint = report.checkpoint
        await leader.submit("mended", type=kind, payload={"pages": 5}, attempt=2)
        report = await leader.report("mended")
        assert (report.outcome, report.result, report.checkpoint) == (Outcome.SUCCEEDED, {"began": 3}, None)


async def test_progress_comes_once_a_second_and_to_a_new_leader_at_once(
    broker: Broker, programs: Programs, tmp_path: Path
) -> None:
    async with working(broker, programs, pool="progress") as (leader, _):
        await begun(leader, "steps", tmp_path / "trace")
        await leader.until(lambda heard: len(heard.progress) >= 3)
        grant = await leader.grant("runs")
        words = leader.heard.progress
        assert {word.grant for word in words} == {grant}
        numbers = [int(word.message.split()[1]) for word in words]
        assert numbers == sorted(set(numbers))
        assert numbers[-1] > 50  # so many more were said than were sent
        assert all(word.percent == number % 101 for word, number in zip(words, numbers, strict=True))
        async with ScriptedLeader.leading(broker.url, epoch=20, pool="progress") as new:
            await new.registered()
            await new.until(lambda heard: heard.progress)
            assert new.heard.progress[0].grant == grant
            await new.stop(grant)
            report = await leader.report("runs")  # its consumer of reports is the active one
            assert (report.outcome, report.reason) == (Outcome.INTERRUPTED, "Cancelled")


@contextlib.contextmanager
def limited(worker: Program, megabytes: int) -> Iterator[None]:
    """Put a worker into a control group with so much memory."""
    group = MEMORY_GROUPS / f"distriqueue-test-{worker.process.pid}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group of version 1 can be made here: {error}")
    try:
        (group / "memory.limit_in_bytes").write_text(str(megabytes * 1024 * 1024))
        (group / "cgroup.procs").write_text(str(worker.process.pid))
        yield
    finally:
        worker.kill()
        group.rmdir()


async def test_a_process_killed_for_want_of_memory_is_named_so(broker: Broker, programs: Programs) -> None:
    async with working(broker, programs, pool="hungry") as (leader, worker):
        with limited(worker, 400):
            await leader.submit("hungry", type="hungry")
            report = await leader.report("hungry", patience=60)
            assert (report.outcome, report.reason, report.permanent) == (Outcome.FAILED, "OutOfMemory", False)
            await leader.submit("next")
            assert (await leader.report("next")).outcome is Outcome.SUCCEEDED
