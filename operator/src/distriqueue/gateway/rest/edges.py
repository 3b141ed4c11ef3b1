"""The outermost layer of the app: what is true of every request and every answer.

Guarantees: each request is one line in the log and one observation in the metrics, whatever became of it; an exception
that nobody expected is an answer of 500 without its text, and a line in the log with it.
"""

import sys
import time
from typing import Any, Final, Protocol

import orjson
import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from distriqueue.gateway.problems import Internal
from distriqueue.gateway.rest.callers import CALLER_KEY
from distriqueue.gateway.rest.failures import problem_answer
from distriqueue.gateway.rest.serving import cut
from distriqueue.gateway.settings import GatewaySettings
from distriqueue.telemetry.gateways import UNMATCHED, GatewayMetrics

_LOG: Final = structlog.get_logger(__name__)
ACCESS: Final = "distriqueue.gateway.access"
"""The name of the logger of the lines for requests."""

CLIENT_GONE: Final = 499
"""The status in log and metrics of a request whose caller did not wait for the answer."""
STREAM_KEY: Final = "distriqueue.stream"
"""Set in the scope of a stream: its time is no response time."""

_HEADERS: Final = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))


class AccessLog(Protocol):
    """What writes the lines."""

    def info(self, event: str, **facts: Any) -> Any:
        """Write a line."""


def access_log(settings: GatewaySettings) -> AccessLog | None:
    """Return where the lines for requests go, as the settings say; None: nowhere.

    As JSON they take a short way to the same place, in the same form: by the usual one, a line costs as much as all
    else that is done for a submission.
    """
    if not settings.access_log or settings.log_level not in {"debug", "info"}:
        return None
    if settings.log_format != "json":
        text: AccessLog = structlog.get_logger(ACCESS)
        return text
    short: AccessLog = structlog.wrap_logger(
        structlog.BytesLogger(sys.stderr.buffer),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=_json),
        ],
        wrapper_class=structlog.BoundLogger,
    ).bind(logger=ACCESS)
    return short


def _json(event: Any, **_options: Any) -> bytes:
    return orjson.dumps(event)


class Edge:
    """See the module; wraps the app.

    Args:
        app: What is inside.
        metrics: Gets every request.
        log: Gets a line for each.
    """

    def __init__(self, app: ASGIApp, *, metrics: GatewayMetrics, log: AccessLog | None) -> None:
        self._app = app
        self._metrics = metrics
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.monotonic()
        status = CLIENT_GONE

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = with_defaults(message.get("headers", ()))
            await send(message)

        self._metrics.requests_under_way.inc()
        try:
            await self._app(scope, receive, send_on)
        except ClientDisconnect:
            pass  # it has gone while it sent its body: nobody waits for an answer
        except Exception:  # noqa: BLE001 - the last frame of a request: whatever it is becomes an answer and a line
            _LOG.exception("a request failed", **_facts(scope))
            if status == CLIENT_GONE:
                problem = Internal("the gateway failed to answer; its log says why. Trying again may help")
                await problem_answer(problem, path=scope["path"])(scope, receive, send_on)
            else:
                cut(scope)  # half of an answer must not look like the whole
        finally:
            self._metrics.requests_under_way.dec()
            self._ended(scope, status=status, seconds=time.monotonic() - begun)

    def _ended(self, scope: Scope, *, status: int, seconds: float) -> None:
        facts = _facts(scope)
        if STREAM_KEY not in scope:
            self._metrics.request_ended(route=facts["route"], method=facts["method"], status=status, seconds=seconds)
        if self._log is not None:
            self._log.info("request", **facts, status=status, seconds=round(seconds, 4))


def with_defaults(headers: Any) -> list[tuple[bytes, bytes]]:
    """Return headers with those that every answer has, unless it has its own."""
    found = list(headers)
    names = {name.lower() for name, _ in found}
    found.extend(item for item in _HEADERS if item[0] not in names)
    return found


def _facts(scope: Scope) -> dict[str, Any]:
    route = scope.get("route")
    return {
        "caller": scope.get(CALLER_KEY, ""),
        "method": scope["method"],
        "route": getattr(route, "path_format", None) or getattr(route, "path", UNMATCHED),
    }
