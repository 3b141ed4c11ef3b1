"""The pages about the interface: its OpenAPI document, and Swagger UI without the internet.

Guarantees: everything that the page loads comes from this gateway (assets/, with their licence), and a browser is told
to load nothing else. They say nothing that the documentation does not, so they need no token.
"""

import hashlib
from collections.abc import Callable
from importlib import resources
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

OPENAPI_PATH: Final = "/api/openapi.json"
DOCS_PATH: Final = "/api/docs"

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI sets styles at elements, so those may be inline; scripts may not."""

_ASSETS: Final = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "start.js": "text/javascript; charset=utf-8",
}
_PAGE: Final = "page.html"


def routes(document: bytes) -> list[Route]:
    """Return the routes of the pages.

    Args:
        document: The OpenAPI document.
    """
    found = [
        _route(OPENAPI_PATH, document, "application/json"),
        _route(DOCS_PATH, _asset(_PAGE), "text/html; charset=utf-8"),
    ]
    found.extend(_route(f"{DOCS_PATH}/{name}", _asset(name), kind) for name, kind in _ASSETS.items())
    return found


def _route(path: str, content: bytes, kind: str) -> Route:
    return Route(path, _serve(content, kind), methods=["GET"], include_in_schema=False)


def _serve(content: bytes, kind: str) -> Callable[[Request], Response]:
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {
        "ETag": tag,
        "Cache-Control": "no-cache",
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        "Referrer-Policy": "no-referrer",
        "X-Frame-Options": "DENY",
    }

    async def serve(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=kind, headers=headers)

    return serve  # type: ignore[return-value]  # Starlette takes both kinds of function


def _asset(name: str) -> bytes:
    return resources.files("distriqueue.gateway.rest").joinpath("assets", name).read_bytes()
