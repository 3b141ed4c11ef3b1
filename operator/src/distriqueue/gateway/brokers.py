"""Whether RabbitMQ answers this replica: one connection that does nothing but live, for health and explanations.

Guarantees: nothing that a gateway does for submitters waits for it. `reachable` is None until the first try has ended,
and as old as the heartbeats of the connection at most. Fails never: what goes wrong is the answer.
"""

import asyncio
from typing import Any, Final

import aio_pika
import aiormq
import structlog

_LOG: Final = structlog.get_logger(__name__)

CONNECT_SECONDS: Final = 5.0
PAUSE_SECONDS: Final = (1.0, 10.0)
"""Between two tries: at first, and at most."""


class BrokerWatch:
    """Keeps the connection; `run` it until cancelled.

    Args:
        url: `amqp://` or `amqps://`, with user and password.
        name: What the broker's own tools show for the connection.
    """

    def __init__(self, url: str, *, name: str) -> None:
        self._url = url
        self._name = name
        self._reachable: bool | None = None

    def reachable(self) -> bool | None:
        """Whether the broker answers; None: not known yet."""
        return self._reachable

    async def run(self) -> None:
        """Connect, and again whenever the connection is lost."""
        pause, longest = PAUSE_SECONDS
        while True:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    connection = await aio_pika.connect(self._url, client_properties={"connection_name": self._name})
            except (OSError, aiormq.exceptions.AMQPError, TimeoutError) as error:
                if self._reachable is not False:
                    _LOG.warning("RabbitMQ does not answer: jobs are taken in and wait", error=str(error))
                self._reachable = False
                await asyncio.sleep(pause)
                pause = min(2 * pause, longest)
                continue
            pause = PAUSE_SECONDS[0]
            lost = asyncio.Event()

            def closed(_connection: Any, _error: BaseException | None, lost: asyncio.Event = lost) -> None:
                lost.set()

            connection.close_callbacks.add(closed)
            if self._reachable is not True:
                _LOG.info("RabbitMQ answers")
            self._reachable = True
            try:
                await lost.wait()
            finally:
                self._reachable = False
                await connection.close()
