"""The gRPC server of one gateway replica, in the gateway's own event loop.

Guarantees: what it answers comes from the same service layer as REST. Health says SERVING exactly while the caches are
synced. A stop refuses new calls, lets those under way end within the grace, and cuts streams, whose clients go on from
their position elsewhere. Fails with `OSError` at `start` when the port is taken.
"""

from collections.abc import Callable

import grpc

from distriqueue.gateway.identities import Access
from distriqueue.gateway.services import JobService

GRACE_SECONDS = 5.0


class RpcServer:
    """Serves JobService, health and reflection."""

    def __init__(
        self,
        jobs: JobService,
        access: Access,
        *,
        ready: Callable[[], bool],
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        """Prepare the server; nothing listens yet.

        Args:
            jobs: What answers.
            access: Tells who calls.
            ready: Whether the caches are synced; asked every second for the health service.
            credentials: For TLS; None for none.
        """
        self.port = 0

    async def start(self, *, host: str, port: int) -> None:
        """Listen.

        Args:
            host: The address to bind.
            port: The port; 0 for any, found in `port` afterwards.

        Raises:
            OSError: The port is taken.
        """
        raise NotImplementedError

    async def stop(self, *, grace: float = GRACE_SECONDS) -> None:
        """Stop: no new calls, `grace` seconds for those under way."""
