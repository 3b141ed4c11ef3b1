"""Logs of the worker, and of the handlers in it.

Guarantees: one JSON object (or one line of text) per record on stderr, each with worker, incarnation and epoch, and
within a handler with its job, attempt and grant. What a handler logs or prints, by the standard library, structlog or
`print`, also goes into its tail: the last 4 KiB, which travel with a failed report. Records of libraries that may hold
the broker's URL are not let through below CRITICAL. Never raises into a handler.
"""

import contextlib
import io
import json
import logging
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, TextIO

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

TAIL_BYTES: Final = 4096
LINE_CHARACTERS: Final = 8192
"""A longer line is cut; nobody reads it, and it would be held in memory until it ends."""
OUTPUT_LOGGER: Final = "distriqueue.output"
_LIBRARIES: Final = ("aio_pika", "aiormq")


class LogTail:
    """The end of what was written, never more than `TAIL_BYTES` of UTF-8. Threads may add to it."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque()
        self._size = 0

    def add(self, line: str) -> None:
        """Append a line; older ones fall out."""
        self._lines.append(line)
        self._size += len(line) + 1
        while self._size > TAIL_BYTES and len(self._lines) > 1:
            self._size -= len(self._lines.popleft()) + 1

    def text(self) -> str:
        """The lines, cut at the front to the limit."""
        return cut_front("\n".join(self._lines), TAIL_BYTES)


def cut_front(text: str, size: int) -> str:
    """The end of a text, at most `size` bytes of UTF-8; characters that UTF-8 cannot hold become question marks."""
    return text.encode(errors="replace")[-size:].decode(errors="ignore")


def cut_back(text: str, size: int) -> str:
    """The beginning of a text, at most `size` bytes of UTF-8."""
    return text.encode(errors="replace")[:size].decode(errors="ignore")


@dataclass(slots=True)
class Scope:
    """The handler on whose behalf something is logged.

    Attributes:
        fields: What every record of it carries.
        tail: The end of its log.
        partial: Output that waits for the end of its line.
        mask: Hides what is secret in all that is written.
    """

    fields: dict[str, Any]
    tail: LogTail = field(default_factory=LogTail)
    partial: str = ""
    mask: Callable[[str], str] | None = None

    def hide(self, text: str) -> str:
        """The text without what is secret in it."""
        return text if self.mask is None else self.mask(text)

    def output(self, text: str) -> None:
        """Take what was printed; whole lines become records."""
        *lines, rest = (self.partial + text).split("\n")
        self.partial = rest[:LINE_CHARACTERS]
        for line in lines:
            if line.strip():
                logging.getLogger(OUTPUT_LOGGER).info("%s", self.hide(line)[:LINE_CHARACTERS])

    def flush(self) -> None:
        """The handler has ended: a line without an end is one all the same."""
        if self.partial:
            self.output("\n")


SCOPE: Final[ContextVar[Scope | None]] = ContextVar("distriqueue_scope", default=None)
"""Set in the context of each handler; threads that a handler starts by itself do not have it."""
IDENTITY: Final[dict[str, Any]] = {}
"""What every record carries: worker, incarnation, epoch. Kept up to date by the worker."""


def get_logger() -> FilteringBoundLogger:
    """The logger for the worker's own code."""
    logger: FilteringBoundLogger = structlog.get_logger()
    return logger


def configure(level: str, form: str) -> None:
    """Set up structlog and the standard library's logging; call it once, before anything logs.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        form: `json` or `text`.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_scope,
    ]
    render = _masked(
        # Plain tracebacks: prettier ones show the values of variables.
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
        if form == "text"
        else structlog.processors.JSONRenderer(serializer=_dump_text)
    )
    exceptions: list[structlog.typing.Processor] = [] if form == "text" else [structlog.processors.format_exc_info]
    stream = logging.StreamHandler(sys.__stderr__)
    structlog.configure(
        processors=[*shared, *exceptions, _keep_tail, render],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=sys.__stderr__),
        cache_logger_on_first_use=True,
    )
    stream.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *exceptions, render],
        )
    )
    stream.setLevel(threshold)
    root = logging.getLogger()
    root.handlers[:] = [_TailHandler(logging.INFO), stream]
    root.setLevel(min(threshold, logging.INFO))  # the tail has what handlers say at INFO, whatever the level is
    for library in _LIBRARIES:
        logging.getLogger(library).setLevel(logging.CRITICAL if threshold > logging.DEBUG else logging.INFO)


@contextlib.contextmanager
def captured_output() -> Iterator[None]:
    """Turn what handlers print into records; what is printed outside of a handler goes where it went before."""
    stdout, stderr = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Output(stdout), _Output(stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = stdout, stderr


class _Output(io.TextIOBase):
    def __init__(self, beneath: TextIO) -> None:
        self._beneath = beneath

    def write(self, text: str) -> int:
        scope = SCOPE.get()
        if scope is None:
            return self._beneath.write(text)
        scope.output(text)
        return len(text)

    def flush(self) -> None:
        self._beneath.flush()

    def fileno(self) -> int:
        return self._beneath.fileno()

    def isatty(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed has a variable where the io classes have properties
        return "utf-8"


class _TailHandler(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.setFormatter(logging.Formatter("%(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        scope = SCOPE.get()
        if scope is not None:
            try:
                printed = record.name == OUTPUT_LOGGER
                scope.tail.add(scope.hide(record.getMessage() if printed else self.format(record)))
            except Exception:  # noqa: BLE001 - a record that cannot be formatted is the author's, not a failure here
                self.handleError(record)


def _add_scope(_logger: WrappedLogger, _name: str, record: EventDict) -> EventDict:
    for key, value in IDENTITY.items():
        record.setdefault(key, value)
    scope = SCOPE.get()
    if scope is not None:
        for key, value in scope.fields.items():
            record.setdefault(key, value)
    return record


def _keep_tail(_logger: WrappedLogger, _name: str, record: EventDict) -> EventDict:
    scope = SCOPE.get()
    if scope is not None:
        scope.tail.add(scope.hide(f"{str(record.get('level', '')).upper()} {record.get('event', '')}"))
        if "exception" in record:
            scope.tail.add(scope.hide(str(record["exception"])))
    return record


def _masked(render: structlog.typing.Processor) -> structlog.typing.Processor:
    """Hide what is secret in the texts of a record, and then in the finished line, wherever else it stood."""

    def masked(logger: WrappedLogger, name: str, record: EventDict) -> Any:
        scope = SCOPE.get()
        if scope is None or scope.mask is None:
            return render(logger, name, record)
        hide = scope.mask
        for key, value in record.items():
            if isinstance(value, str):
                record[key] = hide(value)
        return hide(str(render(logger, name, record)))

    return masked


def _dump_text(record: EventDict, **_options: Any) -> str:
    try:
        return orjson.dumps(record, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # text that UTF-8 cannot hold
        return json.dumps(record, default=repr)
