"""The cluster that a command talks to: kubeconfig, context and namespace as kubectl chooses them, and lists in pages.

Guarantees: the caller's own rights and nothing else; the namespace is `--namespace`, or else that of the context, or
else `default`; one list answers a command, in pages of 500. Fails with `CliError`.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from kubernetes.aio import config as kube_config
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import incluster_config
from kubernetes.aio.config.kube_config import list_kube_config_contexts

from distriqueue.cli.errors import translated
from distriqueue.cli.places import Place
from distriqueue.kube.client import METADATA_LIST, KubeClient
from distriqueue.kube.credentials import Credentials
from distriqueue.kube.errors import Forbidden, Gone, KubeError, NoCredentials
from distriqueue.kube.resources import JOBS, LEASES, WORKERS, Resource

PAGE: Final = 500
LIST_SECONDS: Final = 60.0
AT_A_TIME: Final = 16
"""Writes under way at a time: what one person may ask of an API server."""
OPERATOR_NAMESPACE: Final = "DISTRIQUEUE_OPERATOR_NAMESPACE"
"""Where the operator's Lease and workers are, for those who may not look into all namespaces."""
USER_AGENT: Final = "kubectl-djobs"

Item = dict[str, Any]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Cluster:
    """A connection, and where it looks.

    Attributes:
        client: Speaks for the caller.
        namespace: The one that counts when a command names none.
        explicit: It was named on the command line.
        operator: The operator's namespace, if it was named.
    """

    client: KubeClient
    namespace: str
    explicit: bool
    operator: str | None

    async def read(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        fields: str = "",
        labels: str = "",
        accept: str | None = None,
    ) -> tuple[list[Item], str]:
        """Read a collection in pages.

        Returns:
            The objects, and the version of the list, from which a watch goes on.
        """
        params = {"limit": str(PAGE)}
        if fields:
            params["fieldSelector"] = fields
        if labels:
            params["labelSelector"] = labels
        while True:
            items: list[Item] = []
            token = ""
            try:
                while True:
                    page = await self.client.request(
                        "GET",
                        resource.collection(namespace),
                        params={**params, "continue": token} if token else params,
                        accept=accept,
                        timeout=LIST_SECONDS,
                    )
                    items += page["items"]
                    token = page["metadata"].get("continue", "")
                    if not token:
                        return items, page["metadata"]["resourceVersion"]
            except Gone:
                continue  # the pages took longer than etcd remembers

    async def jobs(self, namespace: str | None, *, fields: str = "", labels: str = "") -> list[Item]:
        """All jobs of a namespace, or of all that there are."""
        return (await self.read(JOBS, namespace, fields=fields, labels=labels))[0]

    async def everywhere(self, *, fields: str = "") -> tuple[list[Item], bool]:
        """The jobs of all namespaces, or of the current one for those who may not see all; and whether it is all."""
        try:
            return await self.jobs(None, fields=fields), True
        except Forbidden:
            return await self.jobs(self.namespace, fields=fields), False

    async def workers(self) -> list[Item] | None:
        """The DistributedWorkers of the operator; None for those who may not see them."""
        return await self._of_operator(WORKERS)

    async def leases(self) -> list[Item] | None:
        """The Leases by which leaders are elected; None for those who may not see them."""
        return await self._of_operator(LEASES, fields="metadata.namespace!=kube-node-lease", holds="-shard-")

    async def _of_operator(self, resource: Resource, *, fields: str = "", holds: str = "") -> list[Item] | None:
        """Read what is in the operator's namespace, wherever that is.

        Whoever may not look everywhere sees their own namespace; if nothing is there, it is probably elsewhere.
        """

        async def ask(namespace: str | None) -> list[Item]:
            items, _ = await self.read(resource, namespace, fields=fields)
            return [item for item in items if holds in item["metadata"]["name"]]

        try:
            return await ask(self.operator)
        except Forbidden:
            if self.operator is not None:
                return None
        try:
            return await ask(self.namespace) or None
        except Forbidden:
            return None

    async def names(self) -> list[Item]:
        """Metadata of the first jobs of the namespace, for completion."""
        page = await self.client.request(
            "GET", JOBS.collection(self.namespace), params={"limit": str(PAGE)}, accept=METADATA_LIST, timeout=3.0
        )
        items: list[Item] = page["items"]
        return items


class _Credentials(Credentials):
    """Those of a context, which is kept when they are read again."""

    context: str | None = None
    files: str = ""

    async def reload(self, generation: int) -> None:
        async with self._loading:
            if generation != self._generation:
                return
            self.configuration = await _configuration(self.files, self.context)
            self._show(self.configuration)
            self._header_at = float("-inf")
            self._generation += 1


async def _configuration(files: str, context: str | None) -> Configuration:
    made = Configuration()
    try:
        # (the client's config package carries no annotations)
        await kube_config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=files, context=context, client_configuration=made, persist_config=False
        )
    except (kube_config.ConfigException, OSError, ValueError, TypeError, KeyError) as error:
        raise NoCredentials(f"the kubeconfig {files} cannot be used: {error}") from error
    return made


def _files(place: Place) -> str:
    """The kubeconfig's path, as kubectl finds it; several, separated by colons, are merged."""
    return place.kubeconfig or os.environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())


def _in_pod(place: Place, files: str) -> bool:
    named = place.kubeconfig or place.context or os.environ.get("KUBECONFIG") or Path(files).is_file()
    return not named and Path(incluster_config.SERVICE_TOKEN_FILENAME).is_file()


def _see(files: str) -> None:
    if not any(Path(file).expanduser().is_file() for file in files.split(os.pathsep)):
        raise NoCredentials(f"there is no kubeconfig at {files}")


def _namespace_of_pod() -> str:
    return Path(incluster_config.SERVICE_TOKEN_FILENAME).with_name("namespace").read_text().strip()


def _namespace_of(files: str, context: str | None) -> str:
    try:
        contexts, active = list_kube_config_contexts(files)  # type: ignore[no-untyped-call]  # as above
    except (kube_config.ConfigException, OSError, ValueError, TypeError, KeyError):
        return "default"
    chosen = next((one for one in contexts if one["name"] == context), active) if context else active
    return str((chosen or {}).get("context", {}).get("namespace") or "default")


@asynccontextmanager
async def connected(place: Place) -> AsyncIterator[Cluster]:
    """Connect as the caller.

    Raises:
        CliError: There is no kubeconfig, or it cannot be used; or, from what is done inside, any `KubeError`.
    """
    files, server = _files(place), ""
    try:
        if _in_pod(place, files):
            credentials = await Credentials.load()
            namespace = _namespace_of_pod()
        else:
            _see(files)
            ours = _Credentials(await _configuration(files, place.context), kubeconfig=None)
            ours.files, ours.context = files, place.context
            credentials, namespace = ours, _namespace_of(files, place.context)
        server = credentials.server
        async with KubeClient(credentials, pool_size=AT_A_TIME, user_agent=USER_AGENT) as client:
            yield Cluster(
                client=client,
                namespace=place.namespace or namespace,
                explicit=place.namespace is not None,
                operator=os.environ.get(OPERATOR_NAMESPACE) or None,
            )
    except KubeError as error:
        raise translated(error, server=server) from error


def run(place: Place, work: Callable[[Cluster], Awaitable[T]]) -> T:
    """Connect, and do what a command does."""

    async def whole() -> T:
        async with connected(place) as cluster:
            return await work(cluster)

    return asyncio.run(whole())


async def many(items: Iterable[T], work: Callable[[T], Awaitable[R]]) -> list[R | KubeError]:
    """Do something for each, some at a time; what failed stands as its error where its result would."""
    gate = asyncio.Semaphore(AT_A_TIME)

    async def one(item: T) -> R | KubeError:
        async with gate:
            try:
                return await work(item)
            except KubeError as error:
                return error

    return list(await asyncio.gather(*(one(item) for item in items)))


def selector(parts: Mapping[str, str | None]) -> str:
    """A field selector of what was asked for."""
    return ",".join(f"{field}={value}" for field, value in parts.items() if value)
