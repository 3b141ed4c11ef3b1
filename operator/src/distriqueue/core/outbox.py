"""What the leader has to tell each worker, gathered into one message per worker and batch of events.

Guarantees: what was put in since the last `take` leaves with the next one, in one message per worker; an answer that
carries a payload has one of its own after that, because the broker limits the size of messages. Nothing is kept:
a message that is lost is made good when the worker's next heartbeat asks again.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from distriqueue.core.commands import SendToWorker
from distriqueue_protocol.messages import Answer, GrantId, LeaderMessage, StopOrder


@dataclass(slots=True, eq=False)
class _Parts:
    answers: list[Answer] = field(default_factory=list)
    large: list[Answer] = field(default_factory=list)
    settled: list[GrantId] = field(default_factory=list)
    stops: list[StopOrder] = field(default_factory=list)


class Outbox:
    """Answers, settlements and orders, by incarnation."""

    def __init__(self, *, epoch: int) -> None:
        self._epoch = epoch
        self._parts: dict[str, _Parts] = {}

    def _of(self, incarnation: str) -> _Parts:
        parts = self._parts.get(incarnation)
        if parts is None:
            parts = self._parts[incarnation] = _Parts()
        return parts

    def greet(self, incarnation: str) -> None:
        """Tell a worker who leads, if there is nothing else to tell it."""
        self._of(incarnation)

    def answer(self, incarnation: str, answer: Answer) -> None:
        """Answer a claim."""
        parts = self._of(incarnation)
        (parts.answers if answer.payload is None else parts.large).append(answer)

    def settle(self, incarnation: str, grant: GrantId) -> None:
        """Tell a worker to forget a report."""
        self._of(incarnation).settled.append(grant)

    def stop(self, incarnation: str, grant: GrantId, reason: str) -> None:
        """Tell a worker to stop a handler."""
        self._of(incarnation).stops.append(StopOrder(grant=grant, reason=reason))

    def take(self) -> Iterator[SendToWorker]:
        """Return the messages, and forget them."""
        parts, self._parts = self._parts, {}
        for incarnation, part in parts.items():
            message = LeaderMessage(
                epoch=self._epoch,
                answers=tuple(part.answers),
                settled=tuple(part.settled),
                stops=tuple(part.stops),
            )
            yield SendToWorker(incarnation, message)
            for answer in part.large:
                yield SendToWorker(incarnation, LeaderMessage(epoch=self._epoch, answers=(answer,)))
