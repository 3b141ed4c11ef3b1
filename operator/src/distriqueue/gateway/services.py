"""What every door does: submit, read, change and watch jobs, and look at the cluster, for a caller with rights."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Self

from distriqueue.gateway.caches import ClusterCache, JobCache
from distriqueue.gateway.changes import Change
from distriqueue.gateway.identities import Access, Identity
from distriqueue.gateway.problems import Problem
from distriqueue.gateway.queries import JobQuery
from distriqueue.gateway.views import (
    ClusterStatus,
    Election,
    ExplanationView,
    Health,
    JobPage,
    JobSubmission,
    JobView,
    Leader,
    Statistics,
    WorkerList,
    WorkerView,
)
from distriqueue.kube.client import KubeClient


@dataclass(frozen=True, slots=True)
class JobRef:
    """Which job: by uid, or by namespace and name."""

    uid: str = ""
    namespace: str = ""
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``UID`` or ``NAMESPACE/NAME``.

        Raises:
            NotFound: It is neither, so there is no such job.
        """
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of a submission.

    Attributes:
        job: The job.
        created: False when the Idempotency-Key found the job of an earlier request, and for a dry run.
        explanation: What it would wait for; of a dry run only.
    """

    job: JobView
    created: bool
    explanation: ExplanationView | None = None


class JobService:
    """Jobs, for callers with rights. Every method raises `Problem`s only."""

    def __init__(
        self,
        client: KubeClient,
        *,
        jobs: JobCache,
        cluster: ClusterCache,
        access: Access,
        default_namespace: str = "default",
    ) -> None:
        """Join the parts.

        Args:
            client: With the gateway's own account.
            jobs: Filled by `JobCache.run`.
            cluster: Filled by `ClusterCache.run`.
            access: Asked by every method first.
            default_namespace: For submissions that name none.
        """
        raise NotImplementedError

    async def submit(
        self,
        caller: Identity,
        namespace: str | None,
        submission: JobSubmission,
        *,
        idempotency_key: str | None = None,
        dry_run: bool = False,
    ) -> Submitted:
        """Create a job.

        Args:
            caller: Needs `create`.
            namespace: Where; None: the submission's own, or the default.
            submission: What.
            idempotency_key: 1 to 255 characters; with the same key the caller gets the same job.
            dry_run: Only look whether it would be taken, and what it would wait for (needs `list` too, for that).
        """
        raise NotImplementedError

    async def submit_many(
        self, caller: Identity, namespace: str | None, submissions: Sequence[JobSubmission]
    ) -> list[Submitted | Problem]:
        """Create up to 1000 jobs; the answers are in the order of the submissions."""
        raise NotImplementedError

    async def get(self, caller: Identity, ref: JobRef) -> JobView:
        """Return a job. Needs `get`."""
        raise NotImplementedError

    async def list(self, caller: Identity, query: JobQuery) -> JobPage:
        """Return a page of jobs. Needs `list`, for all namespaces if the query names none."""
        raise NotImplementedError

    async def statistics(self, caller: Identity, query: JobQuery) -> Statistics:
        """Count jobs. Needs `list`."""
        raise NotImplementedError

    async def cancel(self, caller: Identity, ref: JobRef) -> JobView:
        """Ask for the end of a job. Needs `patch`."""
        raise NotImplementedError

    async def retry(self, caller: Identity, ref: JobRef) -> JobView:
        """Have a job run again. Needs `patch`."""
        raise NotImplementedError

    async def suspend(self, caller: Identity, ref: JobRef) -> JobView:
        """Let no attempt start. Needs `patch`."""
        raise NotImplementedError

    async def resume(self, caller: Identity, ref: JobRef) -> JobView:
        """Let attempts start again. Needs `patch`."""
        raise NotImplementedError

    async def delete(self, caller: Identity, ref: JobRef) -> None:
        """Delete a job. Needs `delete`."""
        raise NotImplementedError

    async def explain(self, caller: Identity, ref: JobRef) -> ExplanationView:
        """Say what a job waits for. Needs `get`."""
        raise NotImplementedError

    def watch(self, caller: Identity, query: JobQuery, *, since: str | None = None) -> AsyncIterator[Change]:
        """Follow jobs: those that are there, `synced`, and then every change. Needs `watch`.

        Args:
            caller: Looked at again every minute; the stream ends with `Forbidden` when the right is gone.
            query: Namespace, type, pool, labels, status and times; the rest of it does not matter. A job that ceases to
                match is not announced.
            since: Position of the last change that was read (`Change.id`).
        """
        raise NotImplementedError


class ClusterService:
    """The cluster, for everybody with a valid token, and its workers, for those who may list them."""

    def __init__(self, *, jobs: JobCache, cluster: ClusterCache, access: Access) -> None:
        raise NotImplementedError

    async def workers(self, caller: Identity) -> WorkerList:
        """Return all workers. Needs `list` on distributedworkers in the operator's namespace."""
        raise NotImplementedError

    async def worker(self, caller: Identity, name: str) -> WorkerView:
        """Return a worker. Needs `get` on it."""
        raise NotImplementedError

    def election(self) -> Election:
        """Return the state of the election, as the Lease says it."""
        raise NotImplementedError

    def leader(self) -> Leader:
        """Return who leads.

        Raises:
            Unavailable: Nobody does.
        """
        raise NotImplementedError

    def cluster_status(self) -> ClusterStatus:
        """Return the system in short."""
        raise NotImplementedError

    def health(self) -> Health:
        """Return whether jobs get done."""
        raise NotImplementedError

    def metrics(self) -> dict[str, float]:
        """Return figures of this replica by name."""
        raise NotImplementedError
