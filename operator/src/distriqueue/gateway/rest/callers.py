"""Who asks: the bearer token of a request, the identity that it stands for, and how often that one may ask.

Guarantees: nobody's body or parameters are looked at before we know who it is. Fails with `Unauthenticated`, with
`TooManyRequests`, and with `Unavailable` when the API server cannot be asked.
"""

import time
from typing import Annotated, Final

from fastapi import Depends
from starlette.requests import Request

from distriqueue.gateway.identities import Identity
from distriqueue.gateway.problems import TooManyRequests, Unauthenticated
from distriqueue.gateway.rest.doors import doors_of

CALLER_KEY: Final = "distriqueue.caller"
"""Where the scope of a request has its caller's name, for the log."""


async def identify(request: Request) -> Identity:
    """Return the caller of a request.

    Raises:
        Unauthenticated: No token, or one that the cluster does not know.
        TooManyRequests: The caller asks too often.
        Unavailable: The API server cannot be asked.
    """
    doors = doors_of(request)
    caller = await doors.access.identify(token_of(request.headers.get("authorization")))
    request.scope[CALLER_KEY] = caller.name
    wait = doors.limiter.take(caller.name, mono=time.monotonic())
    if wait:
        doors.metrics.limited.inc()
        raise TooManyRequests(
            "you ask more often than this gateway lets one caller ask: wait as Retry-After says, and send many jobs by "
            "POST /api/jobs/batch",
            retry_after=wait,
        )
    return caller


Caller = Annotated[Identity, Depends(identify)]
"""A parameter of a route: who calls it."""


def token_of(header: str | None) -> str | None:
    """Return the token of an Authorization header; None when there is no header.

    Raises:
        Unauthenticated: The header has something else than a bearer token.
    """
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("send the header 'Authorization: Bearer TOKEN', with what 'kubectl create token' printed")
    return token
