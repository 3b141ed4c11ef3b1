"""Tasks: how a function becomes the handler of a job type, and what it is told about the job.

    from distriqueue_worker.tasks import TaskContext, task

    @task("thumbnail")
    async def thumbnail(payload: Thumbnail, context: TaskContext) -> dict[str, str]: ...

Guarantees: the decorator returns the function unchanged, so it can be called in the author's own tests. Fails with
`TaskError` when a function cannot be a handler. What a handler says about itself (`progress`, `checkpoint`) may be said
from any thread, as often as it likes. This module is what authors of tasks import; it stays stable.
"""

import inspect
import logging
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeVar, get_type_hints

from pydantic import JsonValue, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError

from distriqueue_worker.commands import Checkpointed, Progressed, Word
from distriqueue_worker.values import NotJSONError, TooLargeError, compact

Isolation = Literal["loop", "thread", "process"]
"""Where a handler runs: in the worker's event loop (async def), in a thread (def), or in a process of its own."""
DEFAULT_TASK: Final = "*"
"""The name of the task that takes every type which has none of its own."""
CHECKPOINT_BYTES: Final = 16 * 1024
"""The most bytes of a checkpoint, as compact JSON in UTF-8: it is part of the resource's status."""
MESSAGE_CHARACTERS: Final = 256
"""The most characters of the message that goes with progress; what is longer is cut."""
_PERCENT_MOST: Final = 100
_MARK: Final = "__distriqueue_task__"
_PARAMETERS: Final = 2

Handler = TypeVar("Handler", bound=Callable[..., Any])


class TaskError(Exception):
    """A task cannot be registered; the message says which and why."""


class PermanentError(Exception):
    """Raise it in a handler when another attempt cannot help: the job fails at once, whatever attempts are left."""


class Stopped(BaseException):
    """The handler gives in, because it was asked to stop.

    `raise_if_cancelled` raises it. In a thread that was asked and did not stop within its grace the worker raises it
    from outside, wherever the thread is at that moment.
    """


def _unheard(_word: Word) -> None:
    """Nobody listens: the handler runs in a test of its author."""


@dataclass(frozen=True, slots=True)
class TaskContext:
    """What a handler knows about the job it runs.

    Attributes:
        type: The job's type; tells the default task what it stands in for.
        namespace: The job's namespace.
        name: The job's name.
        uid: The UID of its resource.
        attempt: The number of this attempt, from 1.
        max_attempts: How many there will be at most.
        grant: The fencing token, `epoch-counter`: grows with every attempt that is granted anywhere. Hand it to systems
            that can refuse an older one.
        deadline: When this attempt is stopped (UTC), None if it has no timeout.
        cancelled: Set when the handler is to stop: its job was cancelled, its time is over, or its worker has to let
            go of it. Handlers in threads and processes look at it; async handlers also get a CancelledError.
        log: Its last 4 KiB go with the report when the attempt fails.
        last_checkpoint: What the last `checkpoint` of an earlier attempt was given; None if there is none.
        tell: Takes what the handler says about itself; a test of a handler may look there.
    """

    type: str
    namespace: str
    name: str
    uid: str
    attempt: int
    max_attempts: int
    grant: str
    deadline: datetime | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("distriqueue.task"))
    last_checkpoint: JsonValue = None
    tell: Callable[[Word], None] = field(default=_unheard, repr=False, compare=False)

    def remaining(self) -> float | None:
        """Seconds until the attempt is stopped (not below 0), None if it has no timeout."""
        return None if self.deadline is None else max(0.0, (self.deadline - datetime.now(UTC)).total_seconds())

    def progress(self, percent: float | None, message: str = "") -> None:
        """Say how far the work has come; it shows in the job's status, up to a second later.

        Args:
            percent: From 0 to 100, rounded down; None if nobody can say.
            message: What is being done, in a few words.

        Raises:
            TypeError: One of them is of another type.
            ValueError: The percentage is none.
        """
        if percent is not None:
            if isinstance(percent, bool) or not isinstance(percent, int | float):
                raise TypeError(f"progress takes a number from 0 to 100, or None, not {type(percent).__name__}")
            if not 0 <= percent <= _PERCENT_MOST:
                raise ValueError(f"progress takes a number from 0 to 100, or None, not {percent}")
        if not isinstance(message, str):
            raise TypeError(f"the message of progress is a str, not {type(message).__name__}")
        text = message[:MESSAGE_CHARACTERS].encode(errors="replace").decode()
        self.tell(Progressed(None if percent is None else math.floor(percent), text))

    def checkpoint(self, data: object) -> None:
        """Leave what another attempt of this job goes on from; it finds it in `last_checkpoint`.

        The last one counts, and it is dropped when the job has succeeded. It is on its way when this returns, and not
        yet safe: a worker that is lost within the next second or two may take it along.

        Args:
            data: JSON or a pydantic model, at most 16 KiB as compact JSON in UTF-8. None: forget the last one.

        Raises:
            TypeError: It is not JSON.
            ValueError: It is too large.
        """
        try:
            plain, size = compact(data, limit=CHECKPOINT_BYTES)
        except TooLargeError as error:
            raise ValueError(
                f"the checkpoint is too large: {error}; store it elsewhere and leave where it is"
            ) from None
        except NotJSONError as error:
            raise TypeError(f"the checkpoint is not JSON: {error}") from error
        self.tell(Checkpointed(plain, size))

    def raise_if_cancelled(self) -> None:
        """Give in if the handler is to stop; for loops in threads and processes.

        Raises:
            Stopped: It is.
        """
        if self.cancelled.is_set():
            raise Stopped("the handler was asked to stop")


@dataclass(frozen=True, slots=True)
class Task:
    """A handler and the name of the job type that it handles."""

    name: str
    function: Callable[..., Any]
    isolation: Isolation

    @property
    def origin(self) -> str:
        """Where the function is, for messages and for a process of its own."""
        return f"{self.function.__module__}:{self.function.__qualname__}"

    @property
    def is_async(self) -> bool:
        """Whether the function is an `async def`."""
        return inspect.iscoroutinefunction(self.function)

    def payload_reader(self) -> TypeAdapter[Any] | None:
        """What validates the payload, by the annotation of the first parameter; None if it is taken as it is.

        Raises:
            TaskError: The annotation cannot be resolved, or is nothing that pydantic can validate.
        """
        first = next(iter(inspect.signature(self.function).parameters))
        try:
            hint = get_type_hints(self.function).get(first, Any)
            return None if hint in {Any, dict} else TypeAdapter(hint)
        except (NameError, TypeError, PydanticSchemaGenerationError) as error:
            raise TaskError(
                f"task '{self.name}' ({self.origin}): the annotation of '{first}' is unclear: {error}"
            ) from error


def task(name: str, *, isolation: Isolation | None = None) -> Callable[[Handler], Handler]:
    """Make a function the handler of a job type.

    The function takes the payload and a `TaskContext`. A payload that is annotated with a pydantic model is validated
    first. It returns something that is JSON, or a pydantic model; an exception is a failed attempt.

    Args:
        name: The job type, as in `spec.type`, or `*` for every type without a task of its own.
        isolation: By default `loop` for an `async def`, `thread` for a `def`. `process` runs either in a process that
            can be killed: for work that uses the CPU, that may crash, or that cannot look at `context.cancelled`.

    Raises:
        TaskError: The function cannot be a handler.
    """

    def mark(function: Handler) -> Handler:
        setattr(function, _MARK, _checked(name, function, isolation))
        return function

    return mark


def marked(candidate: object) -> Task | None:
    """The task that a function was made by the decorator, or None."""
    found = getattr(candidate, _MARK, None) if callable(candidate) else None
    return found if isinstance(found, Task) else None


def _checked(name: str, function: Callable[..., Any], isolation: Isolation | None) -> Task:
    is_async = inspect.iscoroutinefunction(function)
    made = Task(name, function, isolation or ("loop" if is_async else "thread"))
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = list(inspect.signature(function).parameters.values())
    required = [parameter for parameter in parameters[_PARAMETERS:] if parameter.default is inspect.Parameter.empty]
    if len([one for one in parameters if one.kind in positional]) < _PARAMETERS or required:
        raise TaskError(f"task '{name}' ({made.origin}) must take two arguments: the payload and the context")
    if made.isolation == "loop" and not is_async:
        raise TaskError(
            f"task '{name}' ({made.origin}) is no async def and would block the loop: use 'thread' or 'process'"
        )
    if made.isolation == "thread" and is_async:
        raise TaskError(f"task '{name}' ({made.origin}) is an async def: use 'loop' or 'process'")
    if made.isolation == "process" and "<locals>" in function.__qualname__:
        raise TaskError(f"task '{name}' ({made.origin}): for a process of its own it must be importable, not nested")
    return made
