"""Structured logs: JSON lines on standard error for machines, or coloured text for people, from every library alike.

Guarantees: one line per event with `timestamp` (RFC 3339, UTC), `level`, `event`, `logger`, and what was bound (job,
attempt, worker, epoch). Records of the standard library's logging (kopf, aio-pika) go through the same renderer.
"""

import logging
import sys
from typing import Final, Literal

import structlog
from structlog.typing import Processor

NOISY: Final = ("aiormq", "aio_pika", "kopf.activities", "kopf.objects", "asyncio")
"""Libraries that say at INFO what we say ourselves."""


def configure(*, level: str, format_: Literal["json", "text"]) -> None:
    """Set up logging for the whole process.

    Args:
        level: debug, info, warning or error, in letters of any size.
        format_: `json`, or `text` for a terminal.
    """
    level = level.upper()
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if format_ == "json"
        else [structlog.dev.ConsoleRenderer()]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _drop_kopf_fields],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _drop_kopf_fields(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Kopf puts settings and a whole object reference into its records; its name is enough."""
    for key in ("settings", "k8s_skip"):
        event.pop(key, None)
    return event
