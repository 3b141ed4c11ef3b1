"""The desk of one replica: which HTTP workers it keeps sessions for, and where the others are."""

from typing import Protocol

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
from distriqueue.gateway.identities import Access, Identity
from distriqueue.gateway.settings import GatewaySettings


class JobName(Protocol):
    """What names a job: a uid, or a namespace and a name (`services.JobRef` is one)."""

    @property
    def uid(self) -> str | None:
        """The UID of the resource."""

    @property
    def namespace(self) -> str | None:
        """Its namespace."""

    @property
    def name(self) -> str | None:
        """Its name."""


class HttpWorkers:
    """The HTTP workers of this replica. Start it with the program, and stop it before the listeners close.

    Args:
        broker_url: Where RabbitMQ is, with user and password; all replicas have the same.
        access: Says what callers may do.
        own_address: `host:port` at which the other replicas reach the REST interface of this one.
        settings: The gateway's.
    """

    def __init__(self, broker_url: str, *, access: Access, own_address: str, settings: GatewaySettings) -> None:
        self.own_address = own_address
        self._broker_url = broker_url
        self._access = access
        self._settings = settings

    async def start(self) -> None:
        """Begin to keep sessions."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Close claims and let go of the sessions, without a word on behalf of the workers: they register elsewhere."""
        raise NotImplementedError

    async def register(self, caller: Identity, request: RegisterRequest) -> Registered:
        """Begin a session; returns when the broker has confirmed its first heartbeat.

        Raises:
            Forbidden: The caller may not run jobs of a namespace that it names.
            Unprocessable: `supersedes` or a receipt was not given to this caller.
            Unavailable: The broker does not answer.
            TooManyRequests: This replica keeps as many sessions as it can.
        """
        raise NotImplementedError

    async def heartbeat(
        self, caller: Identity, session: str, request: HeartbeatRequest, *, passage: Passage = DIRECT
    ) -> HeartbeatAnswer:
        """Take the full state of a worker; returns when the broker has confirmed the heartbeat.

        Raises:
            NotFound: The caller has no such session.
            Gone: The session is over: register again, with the jobs that are held.
            Unavailable: The broker does not answer.
        """
        raise NotImplementedError

    async def next(
        self, caller: Identity, session: str, request: NextRequest, *, wait: float = 0.0, passage: Passage = DIRECT
    ) -> NextAnswer:
        """Claim jobs while the caller waits, for `wait` seconds at most.

        Raises:
            NotFound: The caller has no such session.
            Gone: The session is over.
        """
        raise NotImplementedError

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
        raise NotImplementedError

    async def report_job(
        self, caller: Identity, ref: JobName, request: JobReportRequest, *, passage: Passage = DIRECT
    ) -> ReportAnswer:
        """Take a report that is sent to its job, with the session and the grant of that attempt.

        Raises:
            Conflict: There is no session, or it does not hold that grant, or the grant is of another job.
            Exception: What `report` raises.
        """
        raise NotImplementedError

    async def leave(self, caller: Identity, session: str, *, passage: Passage = DIRECT) -> None:
        """End a session: the worker runs nothing any more. What it has not reported is reported as interrupted.

        Raises:
            NotFound: The caller has no such session.
            Unavailable: The broker does not answer.
        """
        raise NotImplementedError
