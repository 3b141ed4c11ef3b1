"""The messages between leader and workers, version 1: the only source of docs/asyncapi.yaml and of the test vectors.

Guarantees: what is decoded has been validated (unknown fields are ignored, so that a newer peer may add one), what is
encoded carries camelCase keys and leaves out what is at its default. Fails with `pydantic.ValidationError` on a body
that is no such message; the reader rejects it to the dead-letter exchange.

The words (ticket, claim, grant, report, incarnation) are those of docs/architecture.md.
"""

from enum import StrEnum
from typing import Annotated, Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel

from distriqueue_protocol.names import DEFAULT_POOL, DEFAULT_SHARD, Priority

Name = Annotated[str, Field(min_length=1, max_length=253)]
Incarnation = Annotated[str, Field(min_length=8, max_length=64, pattern=r"^[a-z0-9-]+$")]
Text = Annotated[str, Field(max_length=4096)]


EPOCH_LIMIT = 2**62
"""No epoch is above it: numbers are 64 bits wide everywhere, and whoever hears of a higher epoch goes above that."""
Number = Annotated[int, Field(le=EPOCH_LIMIT)]


class GrantId(NamedTuple):
    """The fencing token of an attempt: grows for ever, across leaders, and is compared as a pair.

    Attributes:
        epoch: The epoch of the leader that granted.
        counter: The number of the grant under that leader, from 1. `(E, 0)` is below every grant of epoch E.
    """

    epoch: Number
    counter: Number

    def __str__(self) -> str:
        """`epoch-counter`, the form of logs and of the handler's fencing token."""
        return f"{self.epoch}-{self.counter}"


NO_GRANT = GrantId(0, 0)
"""Lower than every grant that was ever given."""


class Message(BaseModel):
    """What all messages share: frozen, camelCase on the wire, defaults left out."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore")

    def encode(self) -> bytes:
        """The body of the AMQP message."""
        return self.model_dump_json(by_alias=True, exclude_defaults=True).encode()

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Read a body.

        Raises:
            pydantic.ValidationError: The body is no such message.
        """
        return cls.model_validate_json(body)


class SecretReference(Message):
    """A key of a Secret that is mounted into workers; its value is in no message."""

    name: str = Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    key: str = Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")


class Ticket(Message):
    """Permission to ask for a job, not to run it: a lost or doubled ticket does no harm."""

    namespace: Name
    name: Name
    uid: Name
    type: Name
    attempt: int = Field(ge=1, description="The number this attempt will have in the history.")
    max_attempts: int = Field(default=1, ge=1)
    priority: Priority = Priority.MEDIUM
    shard: int = DEFAULT_SHARD
    epoch: Number = Field(ge=1, description="The epoch of the leader that published the ticket.")
    payload: dict[str, JsonValue] = Field(
        default_factory=dict, description="Empty where the answer brings it, or a Secret holds it."
    )
    payload_secret: SecretReference | None = Field(
        default=None, description="The payload stands in this Secret, mounted into the worker for the job's namespace."
    )
    timeout_seconds: int | None = Field(default=None, ge=1)
    traceparent: str | None = Field(default=None, max_length=64, description="W3C trace context of the submission.")


class Claim(Message):
    """A worker asks for the job of a ticket, with a slot that is free now."""

    id: int = Field(ge=1, description="Grows by one within an incarnation; a claim is answered by this number.")
    uid: Name
    attempt: int = Field(ge=1)
    ticket_epoch: Number = Field(ge=1)


class HeldGrant(Message):
    """A grant that a worker holds: its handler runs, or its report is not settled yet."""

    grant: GrantId
    uid: Name
    attempt: int = Field(ge=1)
    claim: int = Field(default=0, ge=0, description="The claim that the grant answered.")
    start_time: str | None = Field(default=None, max_length=40, description="RFC 3339 with microseconds, UTC.")


class Registration(Message):
    """Who a worker is; travels in every heartbeat, so that a new leader knows it at once."""

    worker: Name
    pool: Name = DEFAULT_POOL
    concurrency: int = Field(ge=1, le=10_000)
    types: tuple[Name, ...] = Field(default=(), max_length=256)
    version: str = Field(default="", max_length=64)
    start_time: str = Field(max_length=40, description="When the process started: RFC 3339, UTC.")
    hostname: str = Field(default="", max_length=253)
    pod_namespace: str = Field(default="", max_length=63)
    pod_name: str = Field(default="", max_length=253)
    pod_uid: str = Field(default="", max_length=64)
    payload_references: bool = Field(
        default=False,
        description="Takes payloads from answers and from mounted Secrets. Jobs with payloadFrom are granted to no "
        "other worker: one of an earlier version would run them with an empty payload.",
    )
    supersedes: str | None = Field(
        default=None,
        max_length=64,
        description="The incarnation that this same process ended before it began this one.",
    )


class Heartbeat(Message):
    """All that a worker has. The leader's book of that worker is replaced by it."""

    registration: Registration
    claims: tuple[Claim, ...] = Field(default=(), description="Open claims: asked, not yet answered.")
    grants: tuple[HeldGrant, ...] = Field(default=(), description="Grants whose handlers run.")
    reports: tuple[HeldGrant, ...] = Field(default=(), description="Grants whose reports are not settled yet.")
    hears_leader: bool = Field(default=True, description="False: heard no leader for 12 s, and has closed its claims.")
    draining: bool = Field(default=False, description="Takes no more jobs.")
    leaving: bool = Field(default=False, description="The last word of this incarnation: it holds nothing and ends.")


class Progress(Message):
    """How far a handler has come, and what its next attempt would go on from; the last word of a grant counts."""

    grant: GrantId
    percent: int | None = Field(default=None, ge=0, le=100)
    message: str = Field(default="", max_length=256)
    checkpoint: JsonValue = Field(default=None, description="At most 16 KiB of JSON; None: there is none.")


class SessionMessage(Message):
    """From worker to leader: claims, and now and then the full state, all in one sequence."""

    incarnation: Incarnation
    sequence: int = Field(ge=1, description="Grows within an incarnation; what is not higher than the last is ignored.")
    epoch: Number = Field(default=0, ge=0, description="The highest epoch that the worker has heard.")
    claims: tuple[Claim, ...] = Field(default=(), description="Claims made since the last message.")
    progress: tuple[Progress, ...] = Field(
        default=(),
        description="Of the grants that said something new; of all that ever did, to a leader of a new epoch.",
    )
    heartbeat: Heartbeat | None = None


class Refusal(StrEnum):
    """Why a claim is not granted; the worker acks the ticket in each case."""

    DELETED = "Deleted"
    """No such job (any more)."""
    FINISHED = "Finished"
    """The job is in a final phase."""
    TAKEN = "Taken"
    """The slot of the job is held, or this attempt was claimed before."""
    OLD_ATTEMPT = "OldAttempt"
    """The ticket names an attempt that is over, or one that is not due."""
    CANCELLED = "Cancelled"
    """A person cancelled the job."""
    SUSPENDED = "Suspended"
    """A person suspended the job."""
    NOT_NOW = "NotNow"
    """The leader cannot grant at this moment; it will send another ticket."""


class Answer(Message):
    """The leader's answer to one claim: a grant, or a refusal."""

    claim: int = Field(ge=1)
    grant: GrantId | None = None
    refusal: Refusal | None = None
    payload: dict[str, JsonValue] | None = Field(
        default=None, description="With a grant, where the payload stands in a ConfigMap: it replaces the ticket's."
    )
    checkpoint: JsonValue = Field(default=None, description="With a grant: what an earlier attempt left for this one.")


class StopReason(StrEnum):
    """Why a handler has to stop."""

    OVER = "Over"
    """The grant is over: another has the job, or the job has ended. The report will be refused."""
    DELETED = "Deleted"
    """The job was deleted. The report will be refused."""
    CANCELLED = "Cancelled"
    """A person cancelled the job; the slot is free once the worker has reported."""
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    """The time of the whole job is over; the slot is free once the worker has reported."""
    RETRIED = "Retried"
    """A person asked for the job to be run anew; the slot is free once the worker has reported."""
    TIMEOUT = "Timeout"
    """The attempt runs far beyond its timeout and its worker did not stop it."""


class StopOrder(Message):
    """The leader tells a worker to stop the handler of a grant.

    The handler is asked first and killed when it does not stop; the worker then reports as always, a result that the
    handler returned nevertheless included. Orders are repeated with the answers to heartbeats that list the grant.
    """

    grant: GrantId
    reason: str = Field(max_length=64)


class LeaderMessage(Message):
    """From leader to one worker, in batches."""

    epoch: Number = Field(ge=1)
    answers: tuple[Answer, ...] = ()
    settled: tuple[GrantId, ...] = Field(default=(), description="Reports written or refused: forget them.")
    stops: tuple[StopOrder, ...] = ()


class EpochCall(Message):
    """`epoch E leads`, repeated every 4 s; only the highest epoch counts as hearing from a leader."""

    epoch: Number = Field(ge=1)
    shard: int = DEFAULT_SHARD


class Outcome(StrEnum):
    """How an attempt ended, by the word of its worker."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    INTERRUPTED = "Interrupted"
    """The worker left or stopped the handler by an order: nobody's failure."""


class Report(Message):
    """The result of an attempt, published until the broker confirms it and repeated until it is settled."""

    namespace: Name
    name: Name
    uid: Name
    attempt: int = Field(ge=1)
    grant: GrantId
    worker: Name
    incarnation: Incarnation
    outcome: Outcome
    result: JsonValue = None
    reason: str = Field(default="", max_length=64, description="CamelCase: `Timeout`, or the exception's class.")
    error: Text = ""
    log_tail: Text = Field(default="", description="The last 4 KiB that the handler logged, of an attempt that failed.")
    checkpoint: JsonValue = Field(default=None, description="The handler's last checkpoint, unless it succeeded.")
    permanent: bool = Field(default=False, description="The handler says that another attempt cannot help.")
    start_time: str = Field(max_length=40)
    completion_time: str = Field(max_length=40)


class Marker(Message):
    """Sent by a leader to itself: when it is back, all that stood before it in that queue has been read."""

    epoch: Number = Field(ge=1)
    id: int = Field(ge=1)


def json_schema() -> dict[str, Any]:
    """The JSON Schemas of all messages, by name: what other languages are tested against."""
    models: tuple[type[Message], ...] = (Ticket, SessionMessage, LeaderMessage, EpochCall, Report, Marker)
    return {model.__name__: model.model_json_schema(by_alias=True) for model in models}
