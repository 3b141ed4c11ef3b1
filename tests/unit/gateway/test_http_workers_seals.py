"""Sessions and receipts: whose they are, and that nobody makes them up."""

import pytest

from distriqueue.gateway.http_workers.seals import BrokenSealError, ReceiptSeal, SealKey, SessionSeal, caller_mark
from distriqueue.gateway.identities import Identity
from distriqueue_protocol.messages import GrantId, Ticket
from distriqueue_protocol.names import Priority

KEY = SealKey("amqp://gateway:secret@broker/")
ANNA, BERT = Identity("anna", "1"), Identity("bert", "2")
SESSION = SessionSeal(caller=caller_mark(ANNA), incarnation="http-w-1", owner="10.0.0.1:8000")
TICKET = Ticket(
    namespace="shop",
    name="n" * 253,
    uid="u" * 36,
    type="t" * 63,
    attempt=3,
    max_attempts=5,
    priority=Priority.HIGH,
    epoch=2**60,
    payload={"big": "x" * 1000},
)


def test_a_session_is_what_it_was() -> None:
    assert SessionSeal.opened(SESSION.sealed(KEY), KEY, caller=ANNA) == SESSION


def test_replicas_that_reach_the_broker_by_other_ways_know_each_other() -> None:
    other = SealKey("amqps://gateway:secret@10.0.0.1:5671/?heartbeat=5")
    assert SessionSeal.opened(SESSION.sealed(other), KEY, caller=ANNA) == SESSION


def test_another_caller_has_no_such_session() -> None:
    for other in (BERT, Identity("anna", "a-later-one")):
        with pytest.raises(BrokenSealError):
            SessionSeal.opened(SESSION.sealed(KEY), KEY, caller=other)


def test_a_receipt_has_what_a_report_needs_and_no_payload() -> None:
    receipt = ReceiptSeal.of(GrantId(2**60, 2**40), TICKET, claim=9, caller=ANNA, started="2026-11-23T05:00:00.000000Z")
    text = receipt.sealed(KEY)
    assert len(text) <= 2048
    again = ReceiptSeal.opened(text, KEY, caller=ANNA)
    assert again.ticket() == TICKET.model_copy(update={"payload": {}})
    assert (again.grant, again.claim, again.started) == (receipt.grant, 9, receipt.started)


def test_a_receipt_is_no_session() -> None:
    receipt = ReceiptSeal.of(GrantId(1, 1), TICKET, claim=1, caller=ANNA, started=None).sealed(KEY)
    with pytest.raises(BrokenSealError):
        SessionSeal.opened(receipt, KEY, caller=ANNA)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a.b.c",
        "é.é",
        "nothing",
        SESSION.sealed(SealKey("amqp://gateway:other@broker/")),
        SESSION.sealed(KEY)[:-1],
        "A" + SESSION.sealed(KEY)[1:],
    ],
)
def test_what_was_not_sealed_here_is_refused(text: str) -> None:
    with pytest.raises(BrokenSealError):
        SessionSeal.opened(text, KEY, caller=ANNA)
