"""The desk of one replica: the sessions of HTTP workers that it keeps, and the way to those that others keep.

Guarantees: a session belongs to the caller that registered it, and to nobody else: its text is sealed for that caller,
another one gets 404, like for a text that no replica ever gave. A session lives in one replica, which its text names;
every other one hands requests on to that one, in one hop. What a worker may run is asked for each job again
(`Access` remembers for seconds): the verb `run` on distributedjobs in the job's namespace, or in all of them for a
worker that named none. When the API server cannot say, the job goes to others.

See `sessions` for what happens when something is lost on the way.
"""

import asyncio
import contextlib
import secrets
import ssl
from collections.abc import Callable
from typing import Final, TypeVar

from pydantic import BaseModel

from distriqueue.gateway.http_workers.forwarding import OWNER_GONE, Forwarder
from distriqueue.gateway.http_workers.messages import (
    HeartbeatAnswer,
    HeartbeatRequest,
    JobReportRequest,
    NextAnswer,
    NextRequest,
    Registered,
    RegisterRequest,
    ReportAnswer,
    ReportRequest,
)
from distriqueue.gateway.http_workers.passages import DIRECT, Passage
from distriqueue.gateway.http_workers.seals import BrokenSealError, ReceiptSeal, SealKey, SessionSeal, caller_mark
from distriqueue.gateway.http_workers.sessions import WorkerSession
from distriqueue.gateway.identities import RUN, Access, Identity
from distriqueue.gateway.problems import (
    Conflict,
    FieldError,
    Gone,
    Internal,
    NotFound,
    Problem,
    TooManyRequests,
    Unavailable,
    Unprocessable,
)
from distriqueue.gateway.services import JobRef
from distriqueue.gateway.settings import GatewaySettings
from distriqueue_protocol.messages import Registration, Ticket
from distriqueue_worker.clocks import utc_text

TICK_SECONDS: Final = 0.25
"""How often the sessions look at the clock."""
SESSIONS_MOST: Final = 1000
"""Sessions that a replica keeps: each has a connection to the broker."""
_ALL_TYPES: Final = "*"
"""The type under which all workers announce that they run any; to name none would say that they run none."""

AnswerT = TypeVar("AnswerT", bound=BaseModel)


class HttpWorkers:
    """The HTTP workers of this replica. Start it with the program, and stop it before the listeners close.

    Args:
        broker_url: Where RabbitMQ is, with user and password; all replicas have the same.
        access: Says what callers may do.
        own_address: `host:port` at which the other replicas reach the REST interface of this one.
        settings: The gateway's.
        peer_context: With TLS: what the other replicas' certificate is checked by (`tls.Certificates.peer_context`).
    """

    def __init__(
        self,
        broker_url: str,
        *,
        access: Access,
        own_address: str,
        settings: GatewaySettings,
        peer_context: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self.own_address = own_address
        self._broker_url = broker_url
        self._access = access
        self._settings = settings
        self._key = SealKey(broker_url)
        self._sessions: dict[str, WorkerSession] = {}
        self._forwarder = Forwarder(peer_context)
        self._ticking: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def sessions(self) -> int:
        """How many sessions this replica keeps now."""
        return len(self._sessions)

    async def start(self) -> None:
        """Begin to keep sessions."""
        await self._forwarder.start()
        self._ticking = asyncio.create_task(self._tick())

    async def stop(self) -> None:
        """Close claims and let go of the sessions, without a word on behalf of the workers: they register elsewhere."""
        self._stopping = True
        await asyncio.gather(*(session.close() for session in list(self._sessions.values())))
        if self._ticking is not None:
            self._ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticking
        await self._forwarder.stop()

    async def register(self, caller: Identity, request: RegisterRequest) -> Registered:
        """Begin a session; returns when the broker has confirmed its first heartbeat.

        Raises:
            Forbidden: The caller may not run jobs of a namespace that it names.
            Unprocessable: `supersedes` or a receipt was not given to this caller.
            Unavailable: The broker does not answer.
            TooManyRequests: This replica keeps as many sessions as it can.
        """
        if self._stopping:
            raise Unavailable("this replica ends: register again", retry_after=1.0)
        for namespace in request.namespaces or (None,):
            await self._access.require(caller, RUN, namespace=namespace)
        before = self._superseded(caller, request)
        jobs = self._held(caller, request)
        replaced = self._sessions.get(before.incarnation) if before is not None else None
        if replaced is not None:
            replaced.end("the worker has registered again")
        if len(self._sessions) >= SESSIONS_MOST:
            raise TooManyRequests(f"this replica keeps {SESSIONS_MOST} sessions already", retry_after=5.0)
        incarnation = f"http-{request.name.replace('.', '-')[:40].strip('-')}-{secrets.token_hex(6)}"
        session = WorkerSession(
            caller=caller,
            registration=_registration(request, before),
            incarnation=incarnation,
            broker_url=self._broker_url,
            key=self._key,
            may_run=_Filter(self._access, caller, request).may_run,
            ended=lambda: self._forget(incarnation),
        )
        self._sessions[incarnation] = session
        await session.open(jobs)
        seal = SessionSeal(caller=caller_mark(caller), incarnation=incarnation, owner=self.own_address)
        return Registered(session=seal.sealed(self._key), incarnation=incarnation)

    async def heartbeat(
        self, caller: Identity, session: str, request: HeartbeatRequest, *, passage: Passage = DIRECT
    ) -> HeartbeatAnswer:
        """Take the full state of a worker; returns when the broker has confirmed the heartbeat.

        Raises:
            NotFound: The caller has no such session.
            Gone: The session is over: register again, with the jobs that are held.
            Unavailable: The broker does not answer.
        """
        found = self._find(caller, session, passage)
        if isinstance(found, WorkerSession):
            return await found.heartbeat(request)
        return await self._hand_on(found, "heartbeat", session, request, HeartbeatAnswer, passage)

    async def next(
        self, caller: Identity, session: str, request: NextRequest, *, wait: float = 0.0, passage: Passage = DIRECT
    ) -> NextAnswer:
        """Claim jobs while the caller waits, for `wait` seconds at most (at least one).

        Cancel it when the caller is gone: nothing is claimed for it from then on.

        Raises:
            NotFound: The caller has no such session.
            Gone: The session is over.
        """
        found = self._find(caller, session, passage)
        if isinstance(found, WorkerSession):
            return await found.next(request, wait)
        return await self._hand_on(found, f"jobs/next?wait={wait:g}", session, request, NextAnswer, passage, wait=wait)

    async def report(
        self, caller: Identity, session: str, request: ReportRequest, *, passage: Passage = DIRECT
    ) -> ReportAnswer:
        """Take a report; returns when the broker has it.

        Raises:
            NotFound: The caller has no such session.
            Gone: The session is over.
            Conflict: The session does not hold that grant, or nobody wants its report any more.
            Unprocessable: The result or the checkpoint is too large.
            Unavailable: The broker does not answer; send it again.
        """
        found = self._find(caller, session, passage)
        if isinstance(found, WorkerSession):
            return await found.report(request)
        return await self._hand_on(found, "jobs/report", session, request, ReportAnswer, passage)

    async def report_job(
        self, caller: Identity, ref: JobRef, request: JobReportRequest, *, passage: Passage = DIRECT
    ) -> ReportAnswer:
        """Take a report that is sent to its job, with the session and the grant of that attempt.

        Raises:
            Conflict: There is no session, or it does not hold that grant, or the grant is of another job.
            Gone: The session is over.
            Unprocessable: The result or the checkpoint is too large.
            Unavailable: The broker does not answer; send it again.
        """
        if request.session is None:
            raise Conflict("only who holds an attempt may report it: send its grant, and the session that it came by")
        try:
            found = self._find(caller, request.session, passage)
        except NotFound as error:
            raise Conflict(error.detail) from None
        if isinstance(found, WorkerSession):
            return await found.report(request, is_of=lambda ticket: _names(ref, ticket))
        path = f"/api/jobs/{ref.uid or f'{ref.namespace}/{ref.name}'}/status"
        answer = await self._forwarder.send(found, "PUT", path, request, answer=ReportAnswer, passage=passage)
        return _present(answer)

    async def leave(self, caller: Identity, session: str, *, passage: Passage = DIRECT) -> None:
        """End a session: the worker runs nothing any more. What it has not reported is reported as interrupted.

        Raises:
            NotFound: The caller has no such session.
            Unavailable: The broker does not answer.
        """
        try:
            found = self._find(caller, session, passage)
            if isinstance(found, WorkerSession):
                await found.leave()
            else:
                path = f"/api/workers/{session}/leave"
                await self._forwarder.send(found, "POST", path, None, answer=None, passage=passage)
        except Gone:
            return  # it has left already, or its lease was lost: there is nothing to end

    # --- sessions ----------------------------------------------------------------------------------------------

    def _find(self, caller: Identity, text: str, passage: Passage) -> "WorkerSession | str":
        """The session, or the address of the replica that keeps it."""
        try:
            seal = SessionSeal.opened(text, self._key, caller=caller)
        except BrokenSealError:
            raise NotFound("you have no such session: register, and use the session of the answer") from None
        session = self._sessions.get(seal.incarnation)
        if session is not None:
            return session
        if seal.owner == self.own_address or passage.forwarded:
            raise Gone("this session is over, or its replica is gone: register again, with the jobs that are held")
        if self._stopping:
            raise Gone(OWNER_GONE)
        return seal.owner

    async def _hand_on(
        self,
        owner: str,
        what: str,
        session: str,
        request: BaseModel,
        answer: type[AnswerT],
        passage: Passage,
        *,
        wait: float = 0.0,
    ) -> AnswerT:
        path = f"/api/workers/{session}/{what}"
        return _present(
            await self._forwarder.send(owner, "POST", path, request, answer=answer, passage=passage, wait=wait)
        )

    def _superseded(self, caller: Identity, request: RegisterRequest) -> SessionSeal | None:
        if request.supersedes is None:
            return None
        try:
            return SessionSeal.opened(request.supersedes, self._key, caller=caller)
        except BrokenSealError:
            raise _not_given("/supersedes", "session") from None

    def _held(self, caller: Identity, request: RegisterRequest) -> list[ReceiptSeal]:
        jobs: dict[object, ReceiptSeal] = {}
        for index, job in enumerate(request.jobs):
            try:
                seal = ReceiptSeal.opened(job.receipt, self._key, caller=caller)
            except BrokenSealError:
                raise _not_given(f"/jobs/{index}/receipt", "receipt") from None
            jobs[seal.grant] = seal
        return list(jobs.values())

    def _forget(self, incarnation: str) -> None:
        self._sessions.pop(incarnation, None)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            for session in list(self._sessions.values()):
                with contextlib.suppress(Gone):
                    session.tick()


class _Filter:
    """Which jobs a worker may run."""

    def __init__(self, access: Access, caller: Identity, request: RegisterRequest) -> None:
        self._access = access
        self._caller = caller
        self._types = frozenset() if _ALL_TYPES in request.types else frozenset(request.types)
        self._namespaces = frozenset(request.namespaces)

    async def may_run(self, ticket: Ticket) -> bool:
        """Whether this one may be claimed for it now."""
        if self._types and ticket.type not in self._types:
            return False
        if self._namespaces and ticket.namespace not in self._namespaces:
            return False
        if ticket.payload_secret is not None:
            return False  # it stands in a Secret, which is mounted into pods
        try:
            return await self._access.permits(
                self._caller, RUN, namespace=ticket.namespace if self._namespaces else None
            )
        except Problem:
            return False


def _registration(request: RegisterRequest, before: SessionSeal | None) -> Registration:
    return Registration(
        worker=request.name,
        pool=request.pool,
        concurrency=request.capacity,
        types=request.types or (_ALL_TYPES,),
        version=request.version,
        start_time=utc_text(),
        hostname=request.hostname,
        payload_references=True,
        supersedes=before.incarnation if before is not None else None,
    )


def _names(ref: JobRef, ticket: Ticket) -> bool:
    return ref.uid == ticket.uid if ref.uid else (ref.namespace, ref.name) == (ticket.namespace, ticket.name)


def _not_given(pointer: str, what: str) -> Unprocessable:
    why = f"this {what} was not given to you; with a new password of the broker, old ones are void: leave it out"
    return Unprocessable(f"{pointer}: {why}", errors=(FieldError(pointer, why),))


def _present(answer: AnswerT | None) -> AnswerT:
    if answer is None:
        raise Internal("another replica of the gateway gave no answer")
    return answer
