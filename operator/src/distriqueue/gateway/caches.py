"""What a replica knows of jobs, workers and the Lease, from watches."""

from collections.abc import Callable, Sequence

from distriqueue.kube.client import KubeClient


class JobCache:
    """The jobs; `run` fills it until cancelled."""

    def __init__(self, client: KubeClient, namespaces: Sequence[str] = ()) -> None:
        raise NotImplementedError

    @property
    def synced(self) -> bool:
        """Whether every namespace was listed once."""
        raise NotImplementedError

    @property
    def last_event_age(self) -> float:
        """Seconds since the API server was last heard."""
        raise NotImplementedError

    async def run(self) -> None:
        """Follow the jobs until cancelled."""
        raise NotImplementedError


class ClusterCache:
    """The DistributedWorkers and the Lease; `run` fills it until cancelled.

    Attributes:
        broker: Asked whether RabbitMQ answers; None: not known. Set by whoever holds a connection to it.
    """

    broker: Callable[[], bool | None]

    def __init__(self, client: KubeClient, *, namespace: str, lease_name: str) -> None:
        raise NotImplementedError

    @property
    def synced(self) -> bool:
        """Whether workers and Lease were read once."""
        raise NotImplementedError

    async def run(self) -> None:
        """Follow both until cancelled."""
        raise NotImplementedError
