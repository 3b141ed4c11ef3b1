"""The outermost layer of the app: what is true of every request and every answer.

Guarantees: each request is one line in the log and one observation in the metrics, whatever became of it; an exception
that nobody expected is an answer of 500 without its text, and a line in the log with it.
"""

import time
from typing import Any, Final

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from distriqueue.gateway.problems import Internal
from distriqueue.gateway.rest.callers import CALLER_KEY
from distriqueue.gateway.rest.failures import problem_answer
from distriqueue.gateway.rest.serving import cut
from distriqueue.telemetry.gateways import UNMATCHED, GatewayMetrics

_LOG: Final = structlog.get_logger("distriqueue.gateway.access")

CLIENT_GONE: Final = 499
"""The status in log and metrics of a request whose caller did not wait for the answer."""
STREAM_KEY: Final = "distriqueue.stream"
"""Set in the scope of a stream: its time is no response time."""

_HEADERS: Final = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))


class Edge:
    """See the module; wraps the app.

    Args:
        app: What is inside.
        metrics: Gets every request.
        log: Whether to write a line for each.
    """

    def __init__(self, app: ASGIApp, *, metrics: GatewayMetrics, log: bool) -> None:
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
        if self._log:
            _LOG.info("request", **facts, status=status, seconds=round(seconds, 4))


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
