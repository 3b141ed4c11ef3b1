"""Runs handlers: finds the one for a job, starts it where it belongs, watches its timeout, says how it ended.

Guarantees: for each `start` there is exactly one call of `on_end`, in the loop and never within `start`, when nothing
of the handler runs any more; with a result if it reached one (a timeout is one), without when it was stopped. What a
handler says on the way arrives before its end does. A handler that is to stop is asked, killed when it has not stopped
within the grace, and given up (`on_stuck`) when it has survived that for another one. What a handler logs and prints is
under its job, and the end of it goes with a failed attempt. Fails never.
"""

import asyncio
import contextlib
import copy
import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from pydantic import JsonValue, TypeAdapter

from distriqueue_protocol.messages import GrantId, Ticket
from distriqueue_protocol.payloads import PayloadTextError
from distriqueue_worker.bodies import Body, Ending, LoopBody, ThreadBody
from distriqueue_worker.children import ProcessBody
from distriqueue_worker.clocks import monotonic, utc_text
from distriqueue_worker.commands import Progressed, Result, Word
from distriqueue_worker.logs import SCOPE, Scope, get_logger
from distriqueue_worker.metrics import WorkerMetrics
from distriqueue_worker.mounted_secrets import Mask, SecretNotMountedError, read_secret
from distriqueue_worker.registries import Registry
from distriqueue_worker.results import TIMEOUT, UNKNOWN_TYPE, failure, raised, read_payload, unreadable_payload
from distriqueue_worker.tasks import Task, TaskContext

GIVE_UP_SECONDS: Final = 2.0
"""So long at least a handler that was killed is waited for: a thread dies when it next runs Python code."""
OnEnd = Callable[[GrantId, Result | None, str], None]
"""Called with the grant, the result or None, and the time of completion as reports carry it."""
OnWord = Callable[[GrantId, Word], None]
"""Called with the grant and what its handler said."""
OnStuck = Callable[[GrantId], None]
"""Called with the grant of a handler that cannot be stopped."""


class Words:
    """What a handler said, on its way from any thread into the loop.

    Holds no lock: a thread may be interrupted anywhere, also while it holds one.
    """

    def __init__(self, deliver: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()
        self._deliver = deliver
        self._waiting: deque[Word] = deque()
        self._called = False

    def __call__(self, word: Word) -> None:
        """Take a word."""
        self._waiting.append(word)
        if not self._called:
            self._called = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
                self._loop.call_soon_threadsafe(self._deliver, context=self._context)

    def take(self) -> Iterator[Word]:
        """The words that came since the last call: of several of a kind the last."""
        self._called = False  # before the first look, so that what comes after the last one calls again
        last = {type(word): word for word in (self._waiting.popleft() for _ in range(len(self._waiting)))}
        yield from last.values()


@dataclass(slots=True)
class Attempt:
    """A handler under way."""

    grant: GrantId
    ticket: Ticket
    label: str
    scope: Scope
    started: float
    body: Body | None = None
    timer: asyncio.TimerHandle | None = None
    """Of the timeout, and after that of the next step in stopping it."""
    stopping: bool = False
    killed: bool = False
    timed_out: bool = False
    words: Words | None = field(default=None, repr=False)


class LeaseOverError(Exception):
    """A handler was not begun: the worker could not prove any more that it is alive. Never reported."""


class Runtime:
    """The handlers that run now.

    Args:
        registry: The tasks there are.
        metrics: Where jobs are counted.
        on_end: Told about each end.
        on_word: Told what handlers say.
        on_stuck: Told about handlers that cannot be stopped.
        lives_until: Until when, of the monotonic clock, a handler may live without a further word.
        stop_grace: Seconds from asking a handler to killing it, and from there to giving it up.
        secrets: Where Secrets are mounted that jobs name as their payload.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        metrics: WorkerMetrics,
        on_end: OnEnd,
        on_word: OnWord,
        on_stuck: OnStuck,
        lives_until: Callable[[], float],
        stop_grace: float,
        secrets: Path,
    ) -> None:
        self._registry = registry
        self._metrics = metrics
        self._on_end = on_end
        self._on_word = on_word
        self._on_stuck = on_stuck
        self._stop_grace = stop_grace
        self._secrets = secrets
        self._lives_until = lives_until
        self._attempts: dict[GrantId, Attempt] = {}
        self._log = get_logger()

    def __len__(self) -> int:
        return len(self._attempts)

    def start(self, grant: GrantId, ticket: Ticket, checkpoint: JsonValue = None) -> str:
        """Start the handler of a ticket; return the time of it as reports carry it.

        Args:
            grant: Its fencing token.
            ticket: The job.
            checkpoint: What an earlier attempt left.
        """
        loop = asyncio.get_running_loop()
        begin = datetime.now(UTC)
        fields = {
            "job": f"{ticket.namespace}/{ticket.name}",
            "namespace": ticket.namespace,
            "type": ticket.type,
            "attempt": ticket.attempt,
            "grant": str(grant),
        }
        found = self._registry.find(ticket.type)
        attempt = Attempt(grant, ticket, found[0].name if found else "unknown", Scope(fields), monotonic())
        self._attempts[grant] = attempt
        if found is None:
            known = ", ".join(self._registry.types) or "none"
            text = f"this worker has no handler for the type '{ticket.type}'; it knows: {known}"
            loop.call_soon(self._end, attempt, Ending(failure(UNKNOWN_TYPE, text)))
        else:
            try:
                payload = self._payload(attempt)
                attempt.body = self._begin(attempt, *found, payload=payload, begin=begin, checkpoint=checkpoint)
            except (SecretNotMountedError, PayloadTextError) as error:
                loop.call_soon(self._end, attempt, Ending(unreadable_payload(error)))
                return utc_text(begin)
            except Exception as error:  # noqa: BLE001 - no more threads, for example: this attempt has failed
                loop.call_soon(self._end, attempt, Ending(error=error))
                return utc_text(begin)
            if ticket.timeout_seconds is not None:
                attempt.timer = loop.call_later(ticket.timeout_seconds, self._time_out, attempt)
        return utc_text(begin)

    def stop(self, grant: GrantId, *, at_once: bool) -> None:
        """Stop a handler: ask it, and kill it `at_once` or when its grace is over; nothing happens if it has ended."""
        attempt = self._attempts.get(grant)
        if attempt is not None:
            self._ask(attempt)
            if at_once:
                self._kill(attempt)

    def renew(self) -> None:
        """The lease was renewed; handlers in processes of their own have to hear it."""
        until = self._lives_until()
        for attempt in self._attempts.values():
            if attempt.body is not None:
                attempt.body.renew(until)

    def _payload(self, attempt: Attempt) -> dict[str, JsonValue]:
        """The payload of a job; what a Secret holds is hidden in all that is said of the attempt."""
        ticket = attempt.ticket
        if ticket.payload_secret is None:
            return ticket.payload
        payload = read_secret(self._secrets, namespace=ticket.namespace, reference=ticket.payload_secret)
        attempt.scope.mask = Mask(payload)
        return payload

    def _begin(
        self,
        attempt: Attempt,
        task: Task,
        reader: TypeAdapter[Any] | None,
        *,
        payload: dict[str, JsonValue],
        begin: datetime,
        checkpoint: JsonValue,
    ) -> Body:
        ticket = attempt.ticket
        timeout = ticket.timeout_seconds
        attempt.words = Words(lambda: self._hear(attempt))
        context = TaskContext(
            type=ticket.type,
            namespace=ticket.namespace,
            name=ticket.name,
            uid=ticket.uid,
            attempt=ticket.attempt,
            max_attempts=ticket.max_attempts,
            grant=str(attempt.grant),
            deadline=None if timeout is None else begin + timedelta(seconds=timeout),
            log=logging.getLogger(f"distriqueue.task.{task.name}"),
            last_checkpoint=copy.deepcopy(checkpoint),  # the handler's own, to change as it likes
            tell=attempt.words,
        )

        def ended(ending: Ending) -> None:
            self._end(attempt, ending)

        if task.isolation == "process":
            until = self._lives_until()
            return ProcessBody(task, payload, context, scope=attempt.scope, until=until, ended=ended)
        inner = copy_context()
        inner.run(SCOPE.set, attempt.scope)

        def call() -> Any:
            # The process may have been frozen between the start and this: then somebody else may have the job.
            if monotonic() >= self._lives_until():
                raise LeaseOverError("the worker's lease was over before the handler began")
            return task.function(read_payload(reader, payload), context)

        if task.isolation == "thread":
            return ThreadBody(call, inner, context.cancelled, ended)

        async def work() -> object:
            return await call()

        return LoopBody(work, inner, context.cancelled, ended)

    def _time_out(self, attempt: Attempt) -> None:
        if attempt.grant in self._attempts:
            attempt.timed_out = True
            self._ask(attempt)

    def _ask(self, attempt: Attempt) -> None:
        if attempt.body is not None and not attempt.stopping:
            attempt.stopping = True
            self._next(attempt, self._kill, self._stop_grace)
            attempt.body.ask()

    def _kill(self, attempt: Attempt) -> None:
        if attempt.grant in self._attempts and attempt.body is not None and not attempt.killed:
            attempt.killed = True
            self._next(attempt, self._give_up, max(self._stop_grace, GIVE_UP_SECONDS))
            attempt.body.kill()

    def _give_up(self, attempt: Attempt) -> None:
        if attempt.grant in self._attempts:
            self._log.error("a handler cannot be stopped", **attempt.scope.fields)
            self._on_stuck(attempt.grant)

    def _next(self, attempt: Attempt, step: Callable[[Attempt], None], after: float) -> None:
        if attempt.timer is not None:
            attempt.timer.cancel()
        attempt.timer = asyncio.get_running_loop().call_later(after, step, attempt)

    def _hear(self, attempt: Attempt) -> None:
        if attempt.words is not None and attempt.grant in self._attempts:
            for word in attempt.words.take():
                if isinstance(word, Progressed):
                    word = replace(word, message=attempt.scope.hide(word.message))  # noqa: PLW2901 - the same word
                self._on_word(attempt.grant, word)

    def _end(self, attempt: Attempt, ending: Ending) -> None:
        self._hear(attempt)
        del self._attempts[attempt.grant]
        if attempt.timer is not None:
            attempt.timer.cancel()
        try:
            result = self._result(attempt, ending)
        except Exception as error:  # noqa: BLE001 - a handler that cannot be described has ended all the same
            result = raised(error)
        if result is not None and attempt.scope.mask is not None:
            hide = attempt.scope.mask
            result = replace(result, error=hide(result.error), log_tail=hide(result.log_tail))
        took = monotonic() - attempt.started
        outcome = "Stopped" if result is None else str(result.outcome)
        self._metrics.jobs.labels(attempt.label, outcome).inc()
        self._metrics.duration.labels(attempt.label).observe(took)
        self._log.info(
            "handler ended",
            outcome=outcome,
            reason=result.reason if result else "",
            seconds=round(took, 6),
            **attempt.scope.fields,
        )
        self._on_end(attempt.grant, result, utc_text())

    def _result(self, attempt: Attempt, ending: Ending) -> Result | None:
        scope = attempt.scope
        context = copy_context()
        context.run(SCOPE.set, scope)
        context.run(scope.flush)
        if ending.error is not None:
            # In the handler's scope, so that the tail says where it happened.
            context.run(self._log.error, "handler raised", exc_info=ending.error)
        if attempt.timed_out and ending.asked:
            text = f"the attempt took longer than its timeout of {attempt.ticket.timeout_seconds} s and was stopped"
            return failure(TIMEOUT, text, log_tail=scope.tail.text())
        if ending.error is not None:
            return raised(ending.error, scope.tail.text())
        if ending.result is not None:
            result = ending.result
            if result.reason and not result.log_tail:
                result = failure(result.reason, result.error, log_tail=scope.tail.text(), permanent=result.permanent)
            return result
        return None
