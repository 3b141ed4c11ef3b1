"""Payloads that stand in ConfigMaps and Secrets: when they are read, and what becomes of the claims meanwhile."""

import json
from typing import Any

import pytest

from distriqueue.api.phases import JobPhase
from distriqueue.api.raw import RawCondition, RawJobStatus
from distriqueue.core.commands import Command, EmitEvent, PublishTicket, ResolvePayload, SendToWorker, WriteStatus
from distriqueue.core.payloads import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Obstacle
from distriqueue_protocol.messages import Answer, Refusal
from tests.unit.core.desk import Desk, Worker, held, introduced, raw_job

CONFIG_MAP = {"configMapKeyRef": {"name": "settings", "key": "payload.json"}}
SECRET = {"secretKeyRef": {"name": "smtp", "key": "payload.json"}}
PAYLOAD = {"to": "you"}


def asked(desk: Desk) -> ResolvePayload:
    """The one read that the leader wants."""
    (command,) = desk.of(ResolvePayload)
    return command


def found(desk: Desk, read: ResolvePayload, content: Any = PAYLOAD) -> None:
    """A read ends."""
    text = content if isinstance(content, str) else json.dumps(content)
    desk.leader.on_payload_read(read.uid, read.number, text, desk.now)


def only(worker: Worker) -> Answer:
    """The one answer that is under way to a worker."""
    (answer,) = worker.answers()
    return answer


def condition(status: RawJobStatus, kind: str = "PayloadReady") -> RawCondition | None:
    return next((one for one in status["conditions"] if one["type"] == kind), None)


def started(**spec: Any) -> tuple[Desk, Worker]:
    """A leader with job a, whose payload stands in a ConfigMap, and its worker."""
    desk = Desk([raw_job("a", payloadFrom=CONFIG_MAP, **spec)]).lead()
    return desk, introduced(desk)


def test_a_claim_waits_for_the_payload_and_the_answer_brings_it() -> None:
    desk, worker = started()
    claim = worker.ask("a")
    read = asked(desk)
    assert (read.namespace, read.config_map, read.key) == ("default", "settings", "payload.json")
    assert worker.answers() == []
    assert desk.leader.held == 0
    found(desk, read)
    answer = only(worker)
    assert (answer.claim, answer.payload) == (claim, PAYLOAD)
    assert answer.grant is not None


def test_a_slow_read_holds_up_nobody_else() -> None:
    desk = Desk([raw_job("a", payloadFrom=CONFIG_MAP), raw_job("b")]).lead()
    worker = introduced(desk)
    waiting = worker.ask("a")
    read = asked(desk)
    worker.granted("b")
    desk.idle(10)
    worker.beat()
    assert worker.answers() == []
    found(desk, read)
    assert only(worker).claim == waiting


def test_the_ticket_carries_nothing_of_it() -> None:
    desk = Desk([raw_job("a", payloadFrom=CONFIG_MAP), raw_job("b", payloadFrom=SECRET), raw_job("c", payload=PAYLOAD)])
    desk.lead()
    tickets = {command.ticket.name: command.ticket for command in desk.of(PublishTicket)}
    assert tickets["a"].payload == tickets["b"].payload == {}
    assert tickets["a"].payload_secret is None
    secret = tickets["b"].payload_secret
    assert secret is not None
    assert (secret.name, secret.key) == ("smtp", "payload.json")
    assert (tickets["c"].payload, tickets["c"].payload_secret) == (PAYLOAD, None)


def test_a_secret_is_never_read() -> None:
    desk = Desk([raw_job("a", payloadFrom=SECRET)]).lead()
    worker = introduced(desk)
    worker.granted("a")
    assert desk.of(ResolvePayload) == []


def test_jobs_without_a_reference_cost_nothing_more() -> None:
    def commands(**spec: Any) -> list[type[Command]]:
        desk = Desk([raw_job("a", **spec)]).lead()
        worker = introduced(desk)
        desk.report(worker, "a", worker.granted("a"))
        desk.land(desk.write())
        return [type(command) for command in desk.take()]

    assert ResolvePayload not in commands()
    assert commands() == commands(payload=PAYLOAD)
    desk = Desk([raw_job("a", payload=PAYLOAD)]).lead()
    worker = introduced(desk)
    worker.ask("a")
    (message,) = desk.of(SendToWorker)
    assert b"payload" not in message.message.encode()


def test_it_is_read_once_however_often_it_is_asked_for() -> None:
    desk, worker = started()
    other = introduced(desk, "other")
    first = worker.ask("a")
    read = asked(desk)
    worker.beat()
    worker.beat()
    second = other.ask("a")
    desk.idle(4)
    assert desk.of(ResolvePayload) == []
    found(desk, read)
    answers = {message.incarnation: message.message.answers for message in desk.of(SendToWorker)}
    (granted,), (refused,) = answers[worker.incarnation], answers[other.incarnation]
    assert (granted.claim, granted.payload) == (first, PAYLOAD)
    assert (refused.claim, refused.refusal) == (second, Refusal.TAKEN)
    worker.beat()
    assert only(worker) == granted, "the same answer, with the payload"
    found(desk, read, {"of": "yesterday"})
    assert worker.answers() == []


def test_each_attempt_gets_what_stands_there_then() -> None:
    desk, worker = started(backoff={"initialSeconds": 0, "maxSeconds": 1})
    claim = worker.ask("a")
    found(desk, asked(desk), {"version": 1})
    first = only(worker)
    assert (first.claim, first.payload) == (claim, {"version": 1})
    del worker.open[claim]
    assert first.grant is not None
    desk.report(worker, "a", first.grant, outcome="Failed")
    desk.land(desk.write())
    worker.ask("a", attempt=2)
    found(desk, asked(desk), {"version": 2})
    assert only(worker).payload == {"version": 2}


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"cancel": True}, Refusal.FINISHED),
        ({"suspend": True}, Refusal.SUSPENDED),
        ({"retryGeneration": 1}, Refusal.NOT_NOW),
        ({"startAfter": "2033-01-01T00:00:00Z"}, Refusal.OLD_ATTEMPT),
    ],
)
def test_what_a_person_wants_meanwhile_counts(change: dict[str, Any], refusal: Refusal) -> None:
    desk, worker = started()
    worker.ask("a")
    read = asked(desk)
    desk.show("a", {"phase": "Pending"}, version=20, payloadFrom=CONFIG_MAP, **change)
    for write in desk.of(WriteStatus) if "cancel" in change else ():
        desk.land(write)
    found(desk, read)
    answer = only(worker)
    assert (answer.refusal, answer.payload, answer.grant) == (refusal, None, None)
    assert desk.leader.held == 0


def test_a_job_that_is_deleted_meanwhile() -> None:
    desk, worker = started()
    worker.ask("a")
    read = asked(desk)
    desk.leader.on_job_deleted("uid-a", desk.now)
    found(desk, read)
    assert only(worker).refusal is Refusal.DELETED


def test_a_worker_that_closed_its_claim_is_granted_nothing() -> None:
    desk, worker = started()
    other = introduced(desk, "other")
    worker.ask("a")
    read = asked(desk)
    worker.open.clear()
    worker.beat()
    found(desk, read)
    assert worker.answers() == []
    assert desk.leader.held == 0
    other.ask("a")
    found(desk, asked(desk))
    assert only(other).grant is not None


def test_a_worker_that_left_meanwhile_is_granted_nothing() -> None:
    desk, worker = started()
    worker.ask("a")
    read = asked(desk)
    worker.open.clear()
    worker.beat(leaving=True)
    desk.markers_back()
    desk.wait(1)
    found(desk, read)
    assert worker.answers() == []
    assert desk.leader.held == 0


def test_a_worker_whose_resource_vanished_waits_for_it_and_asks_again() -> None:
    desk, worker = started()
    worker.ask("a")
    read = asked(desk)
    desk.leader.on_worker_vanished("w", desk.now)
    found(desk, read)
    assert worker.answers() == []
    desk.idle(2)  # its resource is written again
    found(desk, asked(desk))
    assert only(worker).payload == PAYLOAD


def test_what_is_missing_is_waited_for_without_using_up_an_attempt() -> None:
    desk, worker = started(maxAttempts=1)
    claim = worker.ask("a")
    read = asked(desk)
    desk.leader.on_payload_read(read.uid, read.number, Obstacle.NO_CONFIG_MAP, desk.now)
    assert only(worker).refusal is Refusal.NOT_NOW
    del worker.open[claim]
    (event,) = desk.of(EmitEvent)
    assert event.reason == "PayloadNotReady"
    status = desk.land(desk.write())
    said = condition(status)
    assert said is not None
    assert (said["status"], said["reason"]) == ("False", "ConfigMapNotFound")
    assert said["message"] == (
        'there is no ConfigMap "settings" in namespace "default": create it, with the key "payload.json"; the job goes '
        "on by itself"
    )
    assert status["phase"] == "Pending"
    assert "attempt" not in status
    desk.of(PublishTicket)
    worker.ask("a")
    assert only(worker).refusal is Refusal.NOT_NOW, "an old ticket"
    worker.open.clear()
    assert desk.of(ResolvePayload) == []
    desk.idle(FIRST_PAUSE_SECONDS + 0.5)
    assert [command.ticket.attempt for command in desk.of(PublishTicket)] == [1]
    worker.ask("a")
    found(desk, asked(desk))
    grant = only(worker).grant
    assert grant is not None
    worker.open.clear()
    assert desk.of(EmitEvent) == []
    desk.report(worker, "a", grant)
    status = desk.land(desk.write())
    said = condition(status)
    assert said is not None
    assert (status["phase"], said["status"], said["reason"]) == ("Succeeded", "True", "PayloadResolved")


def test_what_is_missing_is_said_once_and_looked_for_ever_more_seldom() -> None:
    desk, worker = started()
    reads, writes, events, seconds = 0, 0, 0, 0.0
    worker.ask("a")
    for _ in range(400):
        if desk.of(PublishTicket):
            worker.ask("a")
        for read in desk.of(ResolvePayload):
            reads += 1
            desk.leader.on_payload_read(read.uid, read.number, Obstacle.NO_KEY, desk.now)
            worker.open.clear()
        for write in desk.of(WriteStatus):
            writes += 1
            desk.land(write)
        events += len(desk.of(EmitEvent))
        worker.beat()
        desk.idle(0.5)
        seconds += 0.5
    assert (writes, events) == (1, 1)
    assert seconds / LONGEST_PAUSE_SECONDS - 1 < reads < 5 + seconds / LONGEST_PAUSE_SECONDS


def test_an_api_server_that_does_not_answer_once_is_nothing_to_write_about() -> None:
    desk, worker = started()
    writes: list[WriteStatus] = []
    for number in range(2):
        worker.ask("a")
        read = asked(desk)
        desk.leader.on_payload_read(read.uid, read.number, Obstacle.UNREAD, desk.now)
        assert only(worker).refusal is Refusal.NOT_NOW
        worker.open.clear()
        writes = desk.of(WriteStatus)
        assert len(writes) == number
        desk.idle(3)
    said = condition(writes[0].status)
    assert said is not None
    assert said["reason"] == "ConfigMapUnread"


def test_a_missing_right_is_named() -> None:
    desk, worker = started()
    worker.ask("a")
    read = asked(desk)
    desk.leader.on_payload_read(read.uid, read.number, Obstacle.FORBIDDEN, desk.now)
    said = condition(desk.write().status)
    assert said is not None
    assert said["reason"] == "ConfigMapForbidden"
    assert 'add the rule {apiGroups: [""], resources: [configmaps], verbs: [get]}' in said["message"]


@pytest.mark.parametrize(
    ("text", "reason", "words"),
    [
        ("[1]", "InvalidPayload", 'key "payload.json" of ConfigMap "settings" is JSON and no object'),
        ("{", "InvalidPayload", "is not JSON (at line 1 column 1): write a JSON object there"),
        (json.dumps({"x": "y" * 65536}), "PayloadTooLarge", "has 65544 bytes, the limit is 65536: store the data"),
    ],
)
def test_what_can_never_be_a_payload_ends_the_job(text: str, reason: str, words: str) -> None:
    desk, worker = started()
    worker.ask("a")
    found(desk, asked(desk), text)
    assert only(worker).refusal is Refusal.FINISHED
    write = desk.write()
    desk.land(write)
    failed, accepted = condition(write.status, "Failed"), condition(write.status, "Accepted")
    assert write.status["phase"] == JobPhase.FAILED
    assert failed is not None
    assert accepted is not None
    assert (failed["reason"], accepted["status"]) == (reason, "False")
    assert words in failed["message"]
    # Somebody mends it, and has it run again.
    desk.show("a", write.status, version=3000, payloadFrom=CONFIG_MAP, retryGeneration=1)
    reopened = desk.land(desk.write())
    accepted = condition(reopened, "Accepted")
    assert accepted is not None
    assert (reopened["phase"], accepted["status"]) == ("Pending", "True")
    worker.open.clear()
    worker.ask("a")
    found(desk, asked(desk))
    assert only(worker).payload == PAYLOAD


def test_the_words_about_size_are_those_of_a_payload_in_the_job() -> None:
    large = {"x": "y" * 65536}
    desk, worker = started()
    worker.ask("a")
    found(desk, asked(desk), large)
    message = desk.write().status["error"]
    desk = Desk([raw_job("b", payload=large)]).lead()
    inline = desk.write().status["error"]
    assert inline.removeprefix("spec.payload") in message


def test_a_retry_by_hand_looks_at_once() -> None:
    desk, worker = started()
    worker.ask("a")
    read = asked(desk)
    desk.leader.on_payload_read(read.uid, read.number, Obstacle.NO_CONFIG_MAP, desk.now)
    status = desk.land(desk.write())
    worker.open.clear()
    desk.of(PublishTicket)
    desk.show("a", status, version=3000, payloadFrom=CONFIG_MAP, retryGeneration=1)
    desk.land(desk.write())
    assert len(desk.of(PublishTicket)) == 1


def test_a_new_leader_keeps_what_an_old_one_said_until_it_knows_better() -> None:
    said: RawCondition = {
        "type": "PayloadReady",
        "status": "False",
        "reason": "ConfigMapNotFound",
        "message": "x",
        "lastTransitionTime": "2023-11-14T22:13:20Z",
    }
    accepted: RawCondition = {**said, "type": "Accepted", "status": "True", "reason": "Accepted"}
    status: RawJobStatus = {"phase": "Pending", "epoch": 50, "conditions": [accepted, said]}
    desk = Desk([raw_job("a", status=status, payloadFrom=CONFIG_MAP)]).lead()
    worker = introduced(desk)
    assert desk.of(WriteStatus) == []
    worker.ask("a")
    read = asked(desk)
    desk.leader.on_payload_read(read.uid, read.number, Obstacle.NO_KEY, desk.now)
    now_said = condition(desk.write().status)
    assert now_said is not None
    assert now_said["reason"] == "ConfigMapKeyNotFound"
    assert now_said["lastTransitionTime"] == said["lastTransitionTime"], "it was False all the time"


@pytest.mark.parametrize("source", [CONFIG_MAP, SECRET])
def test_a_worker_of_an_earlier_version_is_granted_no_such_job(source: dict[str, Any]) -> None:
    desk = Desk([raw_job("a", payloadFrom=source), raw_job("b")]).lead()
    old = introduced(desk, "old", payload_references=False)
    old.ask("a")
    assert only(old).refusal is Refusal.NOT_NOW
    old.open.clear()
    said = condition(desk.write().status)
    assert said is not None
    assert said["reason"] == "WorkerTooOld"
    assert desk.of(ResolvePayload) == []
    old.granted("b")
    new = introduced(desk, "new")
    desk.idle(FIRST_PAUSE_SECONDS + 0.5)
    claim = new.ask("a")
    if source is CONFIG_MAP:
        found(desk, asked(desk))
    answer = only(new)
    assert (answer.claim, answer.refusal) == (claim, None)


@pytest.mark.parametrize(
    "source",
    [
        {},
        {**CONFIG_MAP, **SECRET},
        {"configMapKeyRef": {"name": "../a", "key": "b"}},
        {"configMapKeyRef": {"name": "a", "key": "../b"}},
        {"configMapKeyRef": {"name": "a", "key": ".."}},
        {"secretKeyRef": {"name": "a"}},
    ],
)
def test_a_reference_that_no_schema_lets_in_is_refused(source: dict[str, Any]) -> None:
    desk = Desk([raw_job("a", payloadFrom=source)]).lead()
    failed = condition(desk.write().status, "Failed")
    assert failed is not None
    assert failed["reason"] == "InvalidSpec"
    assert "spec.payloadFrom" in failed["message"]


def test_both_payload_and_reference_are_refused() -> None:
    desk = Desk([raw_job("a", payload=PAYLOAD, payloadFrom=CONFIG_MAP)]).lead()
    failed = condition(desk.write().status, "Failed")
    assert failed is not None
    assert "either payload or payloadFrom" in failed["message"]


def test_answers_with_payloads_travel_one_by_one() -> None:
    desk = Desk([raw_job(name, payloadFrom=CONFIG_MAP) for name in "abc"]).lead()
    worker = introduced(desk)
    for name in "abc":
        worker.ask(name)
    for read in desk.of(ResolvePayload):
        found(desk, read)
    messages = [message.message for message in desk.of(SendToWorker)]
    assert [len(message.answers) for message in messages if message.answers] == [1, 1, 1]
    grants = [answer.grant for message in messages for answer in message.answers]
    worker.beat(grants=[held(grant, name) for grant, name in zip(grants, "abc", strict=True) if grant])
    assert desk.leader.held == 3
