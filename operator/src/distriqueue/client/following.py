"""Following jobs: an event stream that is opened again whenever it is cut, where it was cut.

Guarantees: every change that matches is delivered in its latest state, through any number of cuts and whichever replica
answers; after a `reset` everything is delivered anew. Fails with the refusal of the gateway when that is not one which
passes (`ProblemError.retryable`), and with `UnexpectedAnswer`.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pydantic

from distriqueue.client.errors import ClientError, UnexpectedAnswer, from_problem
from distriqueue.client.models import Change, ChangeKind, Job
from distriqueue.client.streams import Event, EventReader
from distriqueue.client.transport import Transport

STREAM_PATH: Final = "/api/jobs/stream"
PAUSES_SECONDS: Final = (0.2, 5.0)
"""Before the first attempt to connect again, and at most."""

_KINDS: Final = frozenset(ChangeKind)


@dataclass(frozen=True, slots=True)
class Cut:
    """A stream was cut, and will be opened again; for whoever wants to look elsewhere meanwhile."""


async def follow(
    transport: Transport, parameters: Mapping[str, Any], *, position: str | None = None
) -> AsyncGenerator[Change | Cut]:
    """Follow jobs for ever.

    Args:
        transport: To the gateway.
        parameters: The filter, as a query.
        position: Where to go on; None to begin with everything.

    Yields:
        Changes, and a `Cut` before each pause.

    Raises:
        ProblemError: The gateway refused, and asking again would not help.
        UnexpectedAnswer: What answered does not speak as a gateway does.
    """
    reader = EventReader(position or "")
    shortest, longest = PAUSES_SECONDS
    pause = shortest
    while True:
        headers = {"Last-Event-ID": reader.last_id} if reader.last_id else {}
        try:
            async with transport.stream(STREAM_PATH, params=parameters, headers=headers) as lines:
                async for line in lines:
                    event = reader.feed(line)
                    if event is None:
                        continue
                    if event.name in _KINDS:
                        pause = shortest
                        yield _change(event)
                    elif event.name == "problem":
                        raise _last_words(event)
        except ClientError as error:
            if not error.retryable:
                raise
        reader.abandon()
        yield Cut()
        await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - spreads readers, no secret
        pause = min(longest, 2 * pause)


def _change(event: Event) -> Change:
    kind = ChangeKind(event.name)
    if kind in (ChangeKind.RESET, ChangeKind.SYNCED):
        return Change(kind, None, event.id)
    return Change(kind, parse_job(event.data), event.id)


def parse_job(text: str | bytes) -> Job:
    """Read a job.

    Raises:
        UnexpectedAnswer: It is none.
    """
    try:
        return Job.model_validate_json(text, extra="ignore")
    except pydantic.ValidationError as error:
        raise UnexpectedAnswer(f"the gateway sent a job that this version does not understand: {error}") from error


def _last_words(event: Event) -> ClientError:
    try:
        document: dict[str, Any] = pydantic.TypeAdapter(dict[str, Any]).validate_json(event.data)
    except pydantic.ValidationError as error:
        return UnexpectedAnswer(f"the stream ended with a problem that cannot be read: {error}")
    status = document.get("status")
    return from_problem(status if isinstance(status, int) else 500, document)
