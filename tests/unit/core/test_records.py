"""The DistributedWorker resources: what is written, when, and under which name."""

from typing import Any

import pytest

from distriqueue.api.raw import RawWorkerStatus
from distriqueue.api.workers import WorkerStatus
from distriqueue.core.commands import DeleteWorker, WriteWorker
from distriqueue.core.jobs import Slot
from distriqueue.core.records import KEEP_OFFLINE_SECONDS, Records, is_pool_name, resource_name
from distriqueue.core.roster import Session
from distriqueue.core.times import Now
from distriqueue_protocol.messages import GrantId, Registration
from tests.unit.core.desk import STARTED, WALL, raw_worker


def now(mono: float) -> Now:
    return Now(mono, WALL + mono)


def session(worker: str = "w", incarnation: str = "incarnation-1", *, since: float = 0.0, **more: Any) -> Session:
    fields: dict[str, Any] = {"worker": worker, "concurrency": 4, "start_time": STARTED, **more}
    registration = Registration(**fields)
    return Session(
        incarnation=incarnation,
        since=since,
        last_heard=since,
        registration=registration,
        pod_uid=registration.pod_uid,
    )


class Table:
    """Records and a clock; writes succeed when the test says so."""

    def __init__(self) -> None:
        self.records = Records(epoch=100)
        self.mono = 0.0

    def introduce(self, one: Session) -> bool:
        known = self.records.introduce(one, mono=self.mono)
        if known:
            self.records.update(one, now=now(self.mono))
        return known

    def due(self) -> list[tuple[str, RawWorkerStatus]]:
        writes = [c for c in self.records.writes(mono=self.mono) if isinstance(c, WriteWorker)]
        for write in writes:
            WorkerStatus.model_validate(write.status)
        return [(write.name, write.status) for write in writes]

    def write(self) -> list[str | None]:
        return [self.records.written(name, mono=self.mono) for name, _ in self.due()]

    def offline(self, one: Session, reason: str = "HeartbeatMissed") -> None:
        self.records.offline(one, reason=reason, now=now(self.mono))


def test_a_worker_is_written_once_and_again_on_change() -> None:
    table, one = Table(), session()
    assert table.introduce(one)
    assert table.write() == ["incarnation-1"]
    for _ in range(20):
        table.mono += 1
        table.records.update(one, now=now(table.mono))
        assert table.due() == [], "a heartbeat is no change"
    one.draining = True
    table.records.update(one, now=now(table.mono))
    ((_, status),) = table.due()
    assert (status["phase"], status["conditions"][0]["reason"]) == ("Draining", "Draining")


def test_one_write_at_a_time_and_what_changed_meanwhile_after_it() -> None:
    table, one = Table(), session()
    table.introduce(one)
    assert len(table.due()) == 1
    one.draining = True
    table.records.update(one, now=now(1.0))
    table.mono = 1.0
    assert table.due() == []
    table.records.written("w", mono=1.0)
    assert [status["phase"] for _, status in table.due()] == ["Draining"]


def test_the_load_is_written_now_and_then() -> None:
    table, one = Table(), session()
    table.introduce(one)
    table.write()
    written = []
    slot = Slot(GrantId(100, 1), 1, "incarnation-1", "w", 1, WALL)
    for step in range(60):
        table.mono = step / 2
        one.slots = {str(number): slot for number in range(1 + step % 3)}
        table.records.update(one, now=now(table.mono))
        written += table.write()
    assert 3 <= len(written) <= 7


def test_a_failed_write_is_tried_again_after_a_moment() -> None:
    table, one = Table(), session()
    table.introduce(one)
    assert len(table.due()) == 1
    table.records.failed("w", mono=0.0)
    assert table.due() == []
    table.mono = 1.1
    assert len(table.due()) == 1


@pytest.mark.parametrize(
    ("reason", "written"),
    [
        ("HeartbeatMissed", "HeartbeatMissed"),
        ("PodGone", "PodGone"),
        ("Left", "Stopped"),
        ("Replaced", "HeartbeatMissed"),
    ],
)
def test_offline_says_why_and_is_deleted_after_ten_minutes(reason: str, written: str) -> None:
    table, one = Table(), session()
    table.introduce(one)
    table.write()
    table.offline(one, reason)
    ((_, status),) = table.due()
    assert (status["phase"], status["conditions"][0]["reason"]) == ("Offline", written)
    assert table.records.written("w", mono=1.0) is None, "it names nobody to grant to"
    table.mono = KEEP_OFFLINE_SECONDS - 1
    assert list(table.records.writes(mono=table.mono)) == []
    table.mono += 2
    assert list(table.records.writes(mono=table.mono)) == [DeleteWorker("w")]
    assert list(table.records) == []


def test_an_offline_name_is_free_for_the_next() -> None:
    table, one = Table(), session()
    table.introduce(one)
    table.write()
    table.offline(one)
    other = session(incarnation="incarnation-2")
    assert table.introduce(other)
    assert (other.record, table.write()) == ("w", ["incarnation-2"])


def test_the_same_incarnation_is_written_again_after_it_was_offline() -> None:
    table, one = Table(), session()
    table.introduce(one)
    table.write()
    table.offline(one)
    table.write()
    again = session()
    assert table.introduce(again)
    table.mono = 1.0
    assert table.write() == ["incarnation-1"]


def test_two_workers_that_call_themselves_the_same() -> None:
    table, one, two = Table(), session(), session(incarnation="incarnation-2")
    assert table.introduce(one)
    assert table.introduce(two)
    assert (one.record, two.record) == ("w", "w-incarnation-2")
    assert table.write() == ["incarnation-1", "incarnation-2"]


def test_a_process_that_begins_anew_waits_for_the_end_of_its_last_incarnation() -> None:
    table, one = Table(), session()
    table.introduce(one)
    other = session(incarnation="incarnation-2", supersedes="incarnation-1")
    assert not table.introduce(other)
    table.mono = 100.0
    assert not table.introduce(other)
    table.offline(one, "Replaced")
    assert table.introduce(other)
    assert other.record == "w"


def test_another_process_of_the_same_pod_waits_for_a_while() -> None:
    table, one = Table(), session(pod_uid="pod")
    table.introduce(one)
    other = session(incarnation="incarnation-2", pod_uid="pod", since=0.0)
    assert not table.introduce(other)
    table.mono = 21.0
    assert table.introduce(other)
    assert other.record == "w-incarnation-2"


def test_a_resource_that_was_deleted_is_written_again() -> None:
    table, one = Table(), session()
    table.introduce(one)
    table.write()
    table.mono = 1.0
    assert table.records.vanished("w") == "incarnation-1"
    assert table.write() == ["incarnation-1"]


def test_one_that_was_deleted_while_it_was_written_is_written_again_before_it_counts() -> None:
    table, one = Table(), session()
    table.introduce(one)
    assert len(table.due()) == 1
    assert table.records.vanished("w") == "incarnation-1"
    assert table.records.written("w", mono=0.0) is None
    table.mono = 0.1
    assert table.write() == ["incarnation-1"]


def test_one_that_was_deleted_while_a_write_failed_is_written_again() -> None:
    table, one = Table(), session()
    table.introduce(one)
    table.write()
    table.mono = 10.0
    one.draining = True
    table.records.update(one, now=now(10.0))
    assert len(table.due()) == 1
    assert table.records.vanished("w") == "incarnation-1"
    table.records.failed("w", mono=10.0)
    one.draining = False
    table.records.update(one, now=now(10.0))
    table.mono = 12.0
    assert table.write() == ["incarnation-1"], "what was written before the deletion is gone with it"


def test_an_offline_resource_that_was_deleted_stays_so() -> None:
    table, one = Table(), session()
    table.introduce(one)
    table.write()
    table.offline(one)
    table.write()
    assert table.records.vanished("w") is None
    assert list(table.records) == []


def test_what_a_takeover_finds() -> None:
    records = Records(epoch=100)
    here = records.adopt(raw_worker("w", "incarnation-1"), now=now(0.0))
    assert here is not None
    assert here.incarnation == "incarnation-1"
    assert records.adopt(raw_worker("gone", "incarnation-2", phase="Offline"), now=now(0.0)) is None
    assert records.adopt({"metadata": {"name": "empty", "resourceVersion": "1"}}, now=now(0.0)) is None
    assert list(records.writes(mono=1.0)) == []
    assert {c.name for c in records.writes(mono=KEEP_OFFLINE_SECONDS + 1)} == {"gone", "empty"}


@pytest.mark.parametrize(
    ("worker", "name"),
    [
        ("worker-0", "worker-0"),
        ("My Worker_1", "my-worker-1"),
        ("a..b", "a.b"),
        ("-a-.-b-", "a.b"),
        ("é", "worker"),
        ("...", "worker"),
        ("x" * 252 + "-y", "x" * 252),
    ],
)
def test_names_are_dns_subdomains(worker: str, name: str) -> None:
    assert resource_name(worker) == name


@pytest.mark.parametrize("pool", ["", "*", "a.b", "#", "Pool", "-a", "a" * 41, "a\n"])
def test_what_is_no_pool(pool: str) -> None:
    assert not is_pool_name(pool)
    assert is_pool_name("gpu-large")


def test_what_the_schema_would_not_take_is_left_out() -> None:
    table = Table()
    one = session(types=("email", "x" * 64, *("t" + str(number) for number in range(254))), start_time="yesterday")
    table.introduce(one)
    ((_, status),) = table.due()
    assert len(status["types"]) == 255
    assert "startTime" not in status
