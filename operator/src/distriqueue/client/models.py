"""What the client takes and gives: jobs as the gateway shows them, and the options of a submission.

The models are those that the gateway's OpenAPI document is made of (`distriqueue.gateway.views`, which needs pydantic
and nothing else), so there is no second list of fields to keep in step. Guarantees: fields that a newer gateway adds
are left out, on every level. Fails with `pydantic.ValidationError` on what is no such document.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, TypedDict

from pydantic import Field

from distriqueue.api.jobs import Backoff, KeyReference, PayloadSource, RetryBudget
from distriqueue.gateway.views import ExplanationView, JobAttempt, JobProgress, JobStatus, JobView, View

__all__ = [
    "FINAL",
    "Backoff",
    "Change",
    "ChangeKind",
    "Explanation",
    "Filter",
    "Job",
    "JobAttempt",
    "JobPage",
    "JobProgress",
    "JobStatus",
    "KeyReference",
    "Options",
    "PayloadSource",
    "RetryBudget",
]

FINAL: Final = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.DEAD, JobStatus.CANCELLED})
"""A job with one of these is over, until somebody asks for a retry."""

Explanation = ExplanationView
"""What a job waits for."""


class Job(JobView):
    """A job, with what became of it, as of one moment."""

    @property
    def finished(self) -> bool:
        """Whether it is over."""
        return self.status in FINAL


class JobPage(View):
    """A page of jobs."""

    items: list[Job]
    """The jobs."""
    total: Annotated[int, Field(ge=0)]
    """How many there are, on all pages."""
    next: str | None = None
    """The cursor of the next page."""


class ChangeKind(StrEnum):
    """What a stream says."""

    JOB = "job"
    """A job was created or changed, and is as shown."""
    DELETED = "deleted"
    """A job is gone; shown is its last state."""
    RESET = "reset"
    """Nothing that was heard before counts any more: all jobs follow."""
    SYNCED = "synced"
    """All that was there has been said; what follows happens now."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that a stream says.

    Attributes:
        kind: What.
        job: The job; None for `reset` and `synced`.
        position: Where to go on after it.
    """

    kind: ChangeKind
    job: Job | None
    position: str


class Filter(TypedDict, total=False):
    """Which jobs; all that is given must hold."""

    status: list[str] | str
    """Statuses or phases, any of them."""
    type: str
    """Job type."""
    pool: str
    """Pool."""
    labels: str
    """Label selector, as kubectl takes it."""
    created_after: datetime
    """Created then or later."""
    created_before: datetime
    """Created before."""
    completed_after: datetime
    """Over then or later."""
    completed_before: datetime
    """Over before."""


class Options(TypedDict, total=False):
    """What may be said of a job besides its type and payload; see docs/jobs.md for each."""

    labels: Mapping[str, str]
    """Labels of the resource."""
    priority: Literal["High", "Medium", "Low"]
    """Which waiting jobs go first. Default Medium."""
    priority_value: int
    """The order inside of it, 0 to 100. Default 50."""
    pool_name: str
    """The pool whose workers may run it."""
    max_attempts: int
    """How many times it is tried in all. Default 3."""
    retry_budget: RetryBudget
    """Budgets of their own for classes of failure."""
    backoff: Backoff
    """How long to wait between attempts."""
    timeout_seconds: int
    """How long one attempt may run. Default 3600."""
    deadline_seconds: int
    """How long the whole job may take."""
    start_after: datetime
    """The moment before which it does not start; with a zone."""
    ttl_seconds_after_finished: int
    """How long it is kept after its end."""
    dedup_key: str
    """Of unfinished jobs with the same key only one runs."""
    suspend: bool
    """Nobody starts it until it is resumed."""
    payload_from: PayloadSource
    """Where the payload stands, instead of in the job."""


def parameters(namespace: str | None, filter_: Mapping[str, Any]) -> dict[str, Any]:
    """Return a filter as the query of a request."""
    found: dict[str, Any] = {} if namespace is None else {"namespace": namespace}
    for key, value in filter_.items():
        name = "".join(part if not index else part.capitalize() for index, part in enumerate(key.split("_")))
        found[name] = value.isoformat() if isinstance(value, datetime) else value
    return found
