"""What the custody of a worker decides: the commands that its surroundings carry out, and the facts they bring back.

Guarantees: plain frozen data, nothing here does anything. A command is carried out in the order in which it was
given. The simulator and the real worker carry out the same ones.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from pydantic import JsonValue

from distriqueue_protocol.messages import GrantId, Outcome, Report, SessionMessage, Ticket

EXIT_DONE: Final = 0
"""Exit code: drained, everything is in the broker's custody."""
EXIT_UNCONFIRMED: Final = 1
"""Exit code: drained, but the broker did not confirm all reports in time; those attempts will be run again."""
EXIT_FENCED: Final = 70
"""Exit code: a handler could not be stopped, so the process had to end with it."""


class OwnStop(StrEnum):
    """Why custody itself stops a handler; a leader's orders have the reasons of the protocol (`StopReason`)."""

    LEASE_LOST = "LeaseLost"
    """The worker cannot prove that it is alive, and somebody else may get the job."""
    SHUTDOWN = "WorkerStopped"
    """The worker leaves and its grace is over."""


@dataclass(frozen=True, slots=True)
class Progressed:
    """A handler says how far it has come."""

    percent: int | None
    message: str


@dataclass(frozen=True, slots=True)
class Checkpointed:
    """A handler leaves what its next attempt would go on from; `size` are the bytes of it as compact JSON."""

    data: JsonValue
    size: int


Word = Progressed | Checkpointed
"""What a handler says while it runs."""


@dataclass(frozen=True, slots=True)
class Tag:
    """A delivery that the broker waits for an answer to; void when its connection is gone."""

    connection: int
    number: int


@dataclass(frozen=True, slots=True)
class Result:
    """How a handler ended by itself (a timeout included)."""

    outcome: Outcome
    value: JsonValue = None
    reason: str = ""
    error: str = ""
    log_tail: str = ""
    permanent: bool = False


@dataclass(frozen=True, slots=True)
class Send:
    """Publish to the sessions exchange, in this order, on one channel."""

    message: SessionMessage


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish a report, mandatory and persistent, and say whether the broker confirmed it."""

    report: Report


@dataclass(frozen=True, slots=True)
class Consume:
    """Consume the ticket queues, High first, each with this prefetch; a running consumer is started anew with it."""

    prefetch: int


@dataclass(frozen=True, slots=True)
class StopConsuming:
    """Cancel the consumers of the ticket queues."""


@dataclass(frozen=True, slots=True)
class Ack:
    """Acknowledge a ticket: its claim was answered."""

    tag: Tag


@dataclass(frozen=True, slots=True)
class HandBack:
    """Give a ticket back to its queue."""

    tag: Tag


@dataclass(frozen=True, slots=True)
class Start:
    """Start the handler of a granted job, with the checkpoint that an earlier attempt left, if one did."""

    grant: GrantId
    ticket: Ticket
    checkpoint: JsonValue = None


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the handler of a grant: ask it, and kill it when it does not stop within its grace, or `at_once`.

    It stays in custody until it is reported dead. A second one for the same grant can only hurry.
    """

    grant: GrantId
    reason: str
    at_once: bool


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Close the connection, if there is one, and open another with queues for the incarnation that is now."""


@dataclass(frozen=True, slots=True)
class Exit:
    """End the process with this code, at once and whatever else runs in it."""

    code: int
    why: str


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something to log and to count; `event` is one of the constants of `Notice`."""

    event: "Notice"
    fields: dict[str, object] = field(default_factory=dict)


class Notice(StrEnum):
    """What custody notices."""

    REGISTERED = "registered"
    """The first heartbeat of an incarnation was confirmed."""
    LEADER_HEARD = "leader heard"
    LEADER_SILENT = "leader silent"
    REFUSED = "claim refused"
    CLAIM_CLOSED = "claim closed without an answer"
    GRANT_IGNORED = "grant ignored"
    OLD_EPOCH_IGNORED = "message of an old epoch ignored"
    HEARTBEAT_CONFIRMED = "heartbeat confirmed"
    SETTLED = "report settled"
    STOP_ORDERED = "leader orders a stop"
    FENCED = "lease lost"
    REBORN = "new incarnation"
    DRAINING = "draining"


Command = Send | Publish | Consume | StopConsuming | Ack | HandBack | Start | Stop | Reconnect | Exit | Noticed
