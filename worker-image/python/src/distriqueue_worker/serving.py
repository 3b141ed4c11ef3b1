"""The worker's HTTP endpoint: /metrics, /healthz and /readyz.

Guarantees: it is served by threads of its own, so it answers also while the event loop is blocked, and says so: that is
what the liveness probe is for. Fails at the start with `OSError` when the port is taken.
"""

import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Check = Callable[[], str]
"""Returns what is wrong in a sentence, or nothing."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = 10.0

    def log_message(self, _format: str, *_arguments: Any) -> None:
        """Say nothing: probes come every few seconds."""


class Endpoint:
    """A started endpoint; a context manager that ends it.

    Args:
        host: The address to listen on.
        port: The port, 0 for any.
        registry: What /metrics shows.
        alive: What /healthz asks.
        ready: What /readyz asks.

    Raises:
        OSError: The port is taken.
    """

    def __init__(self, host: str, port: int, *, registry: CollectorRegistry, alive: Check, ready: Check) -> None:
        checks = {"/healthz": alive, "/readyz": ready}
        self._server = make_server(
            host, port, _application(make_wsgi_app(registry), checks), server_class=_Server, handler_class=_Handler
        )
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _application(metrics: "WSGIApplication", checks: dict[str, Check]) -> "WSGIApplication":
    def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return metrics(environ, start_response)
        check = checks.get(path)
        status, text = "404 Not Found", "there is /metrics, /healthz and /readyz"
        if check is not None:
            problem = check()
            status, text = ("503 Service Unavailable", problem) if problem else ("200 OK", "ok")
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [text.encode() + b"\n"]

    return application
