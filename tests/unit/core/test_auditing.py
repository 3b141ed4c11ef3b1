"""The auditor: finds each kind of disagreement in books that a test has spoilt, repairs it, and is silent otherwise."""

from collections.abc import Callable

import pytest

from distriqueue.api.events import EventReason
from distriqueue.core.auditing import AuditSettings
from distriqueue.core.books import Books, LeaderSettings
from distriqueue.core.commands import EmitEvent, WriteStatus
from distriqueue.core.findings import LOST, Finding
from distriqueue.core.jobs import Job, Stage
from distriqueue_protocol.messages import GrantId
from tests.unit.core.desk import WALL, Desk, Worker, held, introduced, raw_job

REST = 1.0
HELD, REPORTED, WAITING, TICKETED, RETRYING, SUSPENDED = (
    "held",
    "reported",
    "z-waiting",
    "a-ticketed",
    "later",
    "halted",
)


class Scene:
    """A leader with jobs in every place, each as it should be."""

    def __init__(self, *, slice_: int = 3) -> None:
        jobs = [raw_job(name) for name in (HELD, REPORTED)]
        self.desk = desk = Desk(jobs, settings=LeaderSettings(running_after=1e9, queued_after=1e9)).lead()
        desk.leader.auditor._settings = AuditSettings(slice=slice_, rest=REST)
        self.worker = introduced(desk)
        self.grant = self.worker.granted(HELD)
        self.reported = self.worker.granted(REPORTED)
        self.shown = {f"uid-{job['metadata']['name']}": job for job in jobs}
        retrying = {"phase": "Retrying", "attempt": 1, "nextAttemptTime": "2030-01-01T00:00:00Z"}
        more = [
            raw_job(RETRYING, status=retrying, backoff={"maxSeconds": 3600}),  # type: ignore[arg-type]
            raw_job(SUSPENDED, suspend=True),
            raw_job(TICKETED, created=WALL - 100),
            *(raw_job(f"filler-{number}", created=WALL - 50) for number in range(10)),
            raw_job(WAITING),
        ]
        for job in more:
            desk.leader.on_job(job, desk.now)
            self.shown[job["metadata"]["uid"]] = job
        desk.leader.auditor.shown = self.shown
        desk.collect()
        for write in desk.of(WriteStatus):  # that the suspended one is told so
            self.shown[write.uid]["metadata"]["resourceVersion"] = str(desk._versions + 1)
            desk.land(write)
        desk.report(self.worker, REPORTED, self.reported)
        desk.take()

    @property
    def books(self) -> Books:
        return self.desk.leader._books

    def job(self, name: str) -> Job:
        return self.books.jobs[f"uid-{name}"]

    def settle(self) -> None:
        """The write that is under way succeeds."""
        write = self.job(REPORTED).write
        assert write is not None
        del self.shown[f"uid-{REPORTED}"]
        self.desk.leader.on_written(write.id, 900, self.desk.now)

    def audit(self) -> dict[Finding, int]:
        """Let a whole round go by; returns what was found since the term began."""
        auditor = self.desk.leader.auditor
        for _ in range(2):  # one that may have begun before
            before = auditor.audited_at
            while auditor.audited_at == before:
                self.desk.idle(0.5)
        return dict(auditor.findings)


def test_every_place_is_there_and_nothing_is_found() -> None:
    scene = Scene()
    stages = {scene.job(name).stage for name in (HELD, WAITING, TICKETED, RETRYING, SUSPENDED)}
    assert stages == {Stage.HELD, Stage.WAITING, Stage.TICKETED, Stage.BACKOFF, Stage.HALTED}
    assert scene.job(REPORTED).write is not None
    assert scene.audit() == {}
    scene.settle()
    for _ in range(5):
        assert scene.audit() == {}
    assert scene.desk.of(EmitEvent) == []


# What a test does to the books, what is found then, and of which job it is said.

Spoil = Callable[[Scene], None]
CASES: list[tuple[Finding, str, Spoil]] = []


def case(finding: Finding, name: str) -> Callable[[Spoil], Spoil]:
    def register(spoil: Spoil) -> Spoil:
        CASES.append((finding, name, spoil))
        return spoil

    return register


@case(Finding.NOT_QUEUED, WAITING)
def entry_gone(scene: Scene) -> None:
    lane = scene.books.backlog._lanes[scene.job(WAITING).queue]
    lane.heap[:] = [entry for entry in lane.heap if entry[-1] is not scene.job(WAITING)]


@case(Finding.NOT_QUEUED, RETRYING)
def wait_without_an_end(scene: Scene) -> None:
    scene.books.backlog._backoff.clear()


@case(Finding.NOT_QUEUED, WAITING)
def halted_for_no_reason(scene: Scene) -> None:
    scene.books.backlog.leave(scene.job(WAITING))
    scene.job(WAITING).stage = Stage.HALTED


@case(Finding.WISH_IGNORED, WAITING)
def suspended_in_a_queue(scene: Scene) -> None:
    scene.job(WAITING).suspend = True


@case(Finding.TICKET_FORGOTTEN, TICKETED)
def ticket_unwatched(scene: Scene) -> None:
    backlog = scene.books.backlog
    for out in (backlog._out_since, backlog._out_long):
        kept = [entry for entry in out if entry[2] is not scene.job(TICKETED)]
        out.clear()
        out.extend(kept)


@case(Finding.SLOT_MISSING, HELD)
def held_without_a_slot(scene: Scene) -> None:
    slot = scene.job(HELD).slot
    assert slot is not None
    scene.books.release(scene.job(HELD), slot)
    scene.books.held += 1


@case(Finding.SLOT_MISPLACED, HELD)
def slot_of_a_job_that_waits(scene: Scene) -> None:
    scene.job(HELD).stage = Stage.WAITING


@case(Finding.SLOT_MISPLACED, HELD)
def slot_of_a_job_that_is_over(scene: Scene) -> None:
    scene.job(HELD).stage = Stage.FINAL


@case(Finding.SLOT_UNLISTED, HELD)
def slot_not_with_its_session(scene: Scene) -> None:
    del scene.books.roster.sessions[scene.worker.incarnation].slots[f"uid-{HELD}"]


@case(Finding.SLOT_UNANSWERED, HELD)
def slot_of_nobody(scene: Scene) -> None:
    slot_not_with_its_session(scene)
    slot = scene.job(HELD).slot
    assert slot is not None
    slot.incarnation = ""


@case(Finding.WRITE_OWED, REPORTED)
def end_not_written(scene: Scene) -> None:
    scene.books.writes.clear()
    scene.job(REPORTED).write = None


@case(Finding.WRITE_FORGOTTEN, REPORTED)
def answer_awaited_by_nobody(scene: Scene) -> None:
    scene.books.writes.clear()


@case(Finding.NOT_ENTERED, WAITING)
def not_in_the_books(scene: Scene) -> None:
    scene.books.backlog.leave(scene.job(WAITING))
    scene.job(WAITING).stage = Stage.FINAL
    del scene.books.jobs[f"uid-{WAITING}"]


@case(Finding.OUTDATED, WAITING)
def a_change_was_missed(scene: Scene) -> None:
    scene.shown[f"uid-{WAITING}"] = raw_job(WAITING, version=5000)


@case(Finding.NOT_SHOWN, WAITING)
def not_in_the_watch(scene: Scene) -> None:
    del scene.shown[f"uid-{WAITING}"]


@pytest.mark.parametrize(("finding", "name", "spoil"), CASES, ids=[spoil.__name__ for *_, spoil in CASES])
def test_what_is_wrong_is_found_once_and_repaired(finding: Finding, name: str, spoil: Spoil) -> None:
    scene = Scene()
    spoil(scene)
    found = scene.audit()
    assert found.pop(finding) == 1
    assert set(found) <= {Finding.COUNTER_WRONG}  # where the counters were wrong by it, too
    said = [event for event in scene.desk.of(EmitEvent) if event.kind == "DistributedJob"]
    assert [(event.uid, event.note.split(":")[0]) for event in said] == [(f"uid-{name}", finding.value)]
    repaired = finding is not Finding.NOT_SHOWN
    assert said[0].reason == (EventReason.CUSTODY_REPAIRED if repaired else EventReason.CUSTODY_FOUND)
    before = dict(scene.desk.leader.auditor.findings)
    assert scene.audit() == before  # a second round finds nothing more


def test_a_word_of_a_lost_job_is_told_apart() -> None:
    scene = Scene()
    words: list[tuple[str, bool]] = []
    scene.books.observer.custody_found = lambda finding, *, lost: words.append((finding, lost))  # type: ignore[method-assign]
    entry_gone(scene)
    not_in_the_watch(scene)
    scene.audit()
    assert sorted(words) == [("NotQueued", True), ("NotShown", False)]
    assert Finding.NOT_QUEUED in LOST


@pytest.mark.parametrize("which", ["waiting", "out", "retrying", "held"])
def test_counters_are_corrected(which: str) -> None:
    scene = Scene()
    books = scene.books
    lane = books.backlog._lanes[scene.job(WAITING).queue]
    owner = {"waiting": lane, "out": lane, "retrying": books.backlog, "held": books}[which]
    right = getattr(owner, which)
    setattr(owner, which, right + 1)
    assert scene.audit() == {Finding.COUNTER_WRONG: 1}
    assert getattr(owner, which) == right
    (event,) = scene.desk.of(EmitEvent)
    assert (event.kind, event.reason) == ("Lease", EventReason.CUSTODY_REPAIRED)
    assert scene.audit() == {Finding.COUNTER_WRONG: 1}


def test_two_sessions_do_not_have_one_job() -> None:
    scene = Scene()
    other = introduced(scene.desk, "other")
    session = scene.books.roster.sessions[other.incarnation]
    slot = scene.job(HELD).slot
    assert slot is not None
    session.slots[f"uid-{HELD}"] = slot
    assert scene.audit() == {Finding.SLOT_ELSEWHERE: 1}
    assert session.slots == {}
    assert scene.books.roster.sessions[scene.worker.incarnation].slots[f"uid-{HELD}"] is slot
    (event,) = scene.desk.of(EmitEvent)
    assert (event.kind, event.name) == ("DistributedWorker", "other")


def test_a_write_without_an_answer_is_reported_once_and_still_awaited() -> None:
    scene = Scene(slice_=50)
    write = scene.job(REPORTED).write
    scene.desk.idle(40)
    assert scene.audit() == {}
    scene.desk.idle(25)
    assert scene.audit() == {Finding.WRITE_OVERDUE: 1}
    assert scene.audit() == {Finding.WRITE_OVERDUE: 1}
    assert scene.job(REPORTED).write is write


def test_a_slot_of_nobody_is_a_lost_attempt_once_its_loss_is_proven() -> None:
    scene = Scene()
    scene.settle()
    slot_of_nobody(scene)
    scene.audit()
    scene.desk.idle(16)
    assert scene.job(HELD).slot is not None
    scene.desk.markers_back()
    writes = [write for write in scene.desk.of(WriteStatus) if write.name == HELD]
    assert writes[-1].status["attempts"][-1]["outcome"] == "Lost"


def test_a_forgotten_write_that_is_answered_after_all_does_no_harm() -> None:
    scene = Scene()
    number = scene.job(REPORTED).write.id  # type: ignore[union-attr]
    answer_awaited_by_nobody(scene)
    scene.audit()
    scene.desk.leader.on_written(number, 900, scene.desk.now)
    (write,) = [write for write in scene.desk.of(WriteStatus) if write.name == REPORTED]
    assert write.id != number
    scene.desk.leader.on_reread(write.id, raw_job(REPORTED, version=901, status=write.status), scene.desk.now)
    assert scene.job(REPORTED).stage is Stage.FINAL


def test_what_changes_while_it_looks_is_no_finding() -> None:
    scene = Scene(slice_=1)
    scene.settle()
    for number in range(40):
        name = f"new-{number}"
        job = raw_job(name, created=WALL + number)
        scene.shown[f"uid-{name}"] = job
        scene.desk.leader.on_job(job, scene.desk.now)
        scene.desk.idle(0.5)
        if number % 3 == 0 and scene.job(name).stage is Stage.TICKETED:
            grant = scene.worker.granted(name)
            assert isinstance(grant, GrantId)
        if number % 4 == 0:
            del scene.shown[f"uid-{name}"]
            scene.desk.leader.on_job_deleted(f"uid-{name}", scene.desk.now)
    assert scene.audit() == {}


def test_orphans_and_doubles_are_counted_once() -> None:
    desk = Desk([raw_job("a"), raw_job("b")])
    words: list[str] = []
    observer = desk.leader._books.observer
    observer.attempt_duplicate = lambda: words.append("double")  # type: ignore[method-assign]
    observer.attempt_orphaned = words.append  # type: ignore[method-assign,assignment]
    one, two = Worker(desk, "one"), Worker(desk, "two")
    for _ in range(2):
        one.beat(grants=[held(GrantId(50, 1), "a")])
        two.beat(grants=[held(GrantId(50, 2), "a"), held(GrantId(50, 3), "unheard-of")])
    assert words == ["double", "Unknown"]
    assert [event.reason for event in desk.of(EmitEvent)] == [EventReason.ATTEMPT_DUPLICATE]
    desk.leader.on_job_deleted("uid-a", desk.now)
    assert words == ["double", "Unknown", "Deleted"]
