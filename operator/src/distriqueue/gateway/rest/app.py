"""The app: all routes, failures as problems, the edge around everything.

Guarantees: `create_app` without doors makes an app that can describe itself and nothing more, so the document never
depends on a running system.
"""

from typing import Any, Final

import orjson
from fastapi import FastAPI
from starlette.routing import BaseRoute

from distriqueue.gateway.rest import cluster, jobs, pages, workers
from distriqueue.gateway.rest.documents import API_VERSION, DESCRIPTION, READ, WRITTEN, document
from distriqueue.gateway.rest.doors import Doors
from distriqueue.gateway.rest.edges import Edge, access_log
from distriqueue.gateway.rest.failures import install

# Their routes stand in the app itself: a router inside of a router is looked up twice for each request. Those by uid
# and with fixed words come before those by namespace and name.
_ROUTES: Final[tuple[BaseRoute, ...]] = (*jobs.router.routes, *workers.router.routes, *cluster.router.routes)


def create_app(doors: Doors | None = None) -> FastAPI:
    """Return the app.

    Args:
        doors: What the routes need; None for an app that is only to be described.
    """
    app = FastAPI(
        title="DistriQueue",
        version=API_VERSION,
        description=DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        routes=list(_ROUTES),
        redirect_slashes=False,
    )
    install(app)
    app.router.routes.extend(pages.routes(orjson.dumps(_described(app))))
    if doors is not None:
        app.state.doors = doors
        app.add_middleware(Edge, metrics=doors.metrics, log=access_log(doors.settings))
    return app


def openapi() -> dict[str, Any]:
    """Return the OpenAPI document."""
    return _described(create_app())


def _described(app: FastAPI) -> dict[str, Any]:
    return document(app, read=(*READ, *jobs.READ, *workers.READ), written=(*WRITTEN, *jobs.WRITTEN))
