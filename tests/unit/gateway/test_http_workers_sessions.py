"""What the word of an HTTP worker does to the custody of its session. There is no broker: nothing is confirmed."""

import asyncio

import pytest

from distriqueue.gateway.http_workers import desks
from distriqueue.gateway.http_workers.keepers import Handler
from distriqueue.gateway.http_workers.messages import HeartbeatRequest, HeldJob, NextRequest, RegisterRequest
from distriqueue.gateway.http_workers.seals import SealKey
from distriqueue.gateway.http_workers.sessions import WorkerSession
from distriqueue.gateway.identities import Identity
from distriqueue_protocol.messages import GrantId, HeldGrant, Outcome, Registration, Ticket
from distriqueue_protocol.names import Priority
from distriqueue_worker.clocks import monotonic

BROKER = "amqp://somebody:secret@127.0.0.1:1/"
GRANT = GrantId(7, 1)
TICKET = Ticket(namespace="default", name="a", uid="uid-a", type="any", attempt=1, priority=Priority.MEDIUM, epoch=7)


async def _anything(_ticket: Ticket) -> bool:
    return True


@pytest.fixture(name="session")
async def session_fixture() -> WorkerSession:
    return WorkerSession(
        caller=Identity("worker"),
        registration=Registration(worker="w", concurrency=2, start_time="2026-01-01T00:00:00.000000Z"),
        incarnation="http-w-1",
        broker_url=BROKER,
        key=SealKey(BROKER),
        may_run=_anything,
        ended=lambda: None,
    )


async def say(session: WorkerSession, request: HeartbeatRequest) -> None:
    """A heartbeat whose caller goes away before the broker has confirmed it."""
    waiting = asyncio.create_task(session.heartbeat(request))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_grant_that_has_just_come_is_not_taken_for_dead(session: WorkerSession) -> None:
    keeper = session._keeper
    held = HeldGrant(grant=GRANT, uid=TICKET.uid, attempt=1, claim=1)
    keeper.custody.adopt(TICKET, held, 0.0)
    await say(session, HeartbeatRequest(received=0))
    assert GRANT in keeper.custody.running
    # Nobody was handed it: to list it is no sign of a handler either.
    await say(session, HeartbeatRequest(jobs=(HeldJob(grant=str(GRANT)),)))
    assert keeper.over is None


@pytest.mark.parametrize("request_", [0, 2], ids=["never sent", "sent and not received"])
async def test_what_is_given_back_before_it_started_is_reported_as_that(session: WorkerSession, request_: int) -> None:
    keeper = session._keeper
    keeper.custody.adopt(TICKET, HeldGrant(grant=GRANT, uid=TICKET.uid, attempt=1, claim=1), monotonic())
    keeper.handlers[GRANT] = Handler(TICKET)
    keeper.deliveries.add(GRANT)
    if request_:
        keeper.deliveries.send(1)
    await session.next(NextRequest(request=request_, received=0, max=0), 0.0)
    assert GRANT not in keeper.custody.running
    (report,) = keeper.custody.ledger.take_fresh()
    assert (report.outcome, report.reason) == (Outcome.INTERRUPTED, "NotStarted")


async def test_what_was_adopted_and_is_not_listed_is_dead(session: WorkerSession) -> None:
    keeper = session._keeper
    keeper.adopt(GRANT, TICKET, claim=1, start_time=None)
    await say(session, HeartbeatRequest(jobs=(HeldJob(grant=str(GRANT)),)))
    assert GRANT in keeper.custody.running
    await say(session, HeartbeatRequest())
    assert GRANT not in keeper.custody.running


@pytest.mark.parametrize(("named", "announced"), [((), ("*",)), (("email",), ("email",)), (("*",), ("*",))])
def test_a_worker_that_names_no_type_is_known_to_run_all(named: tuple[str, ...], announced: tuple[str, ...]) -> None:
    assert desks._registration(RegisterRequest(name="w", types=named), None).types == announced
