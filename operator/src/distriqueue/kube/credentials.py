"""Who we are to the API server: service account or kubeconfig, and how that is renewed.

Guarantees: inside a pod the service account is used; elsewhere the kubeconfig that was named, or that $KUBECONFIG or
~/.kube/config names. Tokens that the kubelet rotates are read again within a minute, and `Credentials.reload` reads
everything again (token, client certificate, authority) when the API server no longer takes what we show.

Fails with `NoCredentials` when there is nothing to be read, or it makes no sense.
"""

import asyncio
import os
import ssl
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

import yaml
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import incluster_config

from distriqueue.kube.errors import NoCredentials

_TOKEN_SECONDS: Final = 30.0
"""How long an Authorization header is used before its source is asked again."""


class Credentials:
    """A server, how to trust it, and how to be trusted by it.

    Attributes:
        configuration: The kubernetes client's own configuration, for others who need one (kopf's login).
        server: URL of the API server, without a slash at its end.
        tls: The TLS context; connections made after a `reload` show the new certificate.
        server_hostname: The name to expect in the server's certificate, when it is another than the URL's.
        proxy: URL of the HTTP proxy to go through, or None.
    """

    def __init__(
        self, configuration: Configuration, *, kubeconfig: Path | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.configuration = configuration
        self.server = str(configuration.host).rstrip("/")
        # ApiClient knows how to build the context; its own session is made lazily and never used.
        self.tls: ssl.SSLContext = ApiClient(configuration).rest_client.ssl_context
        self.server_hostname: str | None = configuration.tls_server_name
        self.proxy = configuration.proxy or _proxy_from_environment(self.server)
        self._kubeconfig = kubeconfig
        self._clock = clock
        self._header: str | None = None
        self._header_at = float("-inf")
        self._loading = asyncio.Lock()
        self._generation = 0

    @classmethod
    async def load(cls, kubeconfig: Path | None = None) -> Self:
        """Load the service account's credentials, or a kubeconfig's.

        Args:
            kubeconfig: The file to use. When None: the service account if this is a pod, or else the usual places.

        Raises:
            NoCredentials: None were found, or they cannot be used.
        """
        return cls(await _load(kubeconfig), kubeconfig=kubeconfig)

    @property
    def generation(self) -> int:
        """How often the credentials were loaded again; pass it to `reload`."""
        return self._generation

    async def authorization(self) -> str | None:
        """Return the Authorization header, or None when the client certificate says who we are."""
        now = self._clock()
        if now - self._header_at >= _TOKEN_SECONDS:
            self._header = await self.configuration.get_api_key_with_prefix("BearerToken")
            if self._header is None and self.configuration.username:
                self._header = self.configuration.get_basic_auth_token()
            if self._header is not None:
                self._header = self._header.strip()  # a token file may end with a newline
            self._header_at = now
        return self._header

    async def reload(self, generation: int) -> None:
        """Read everything again, unless somebody did so since `generation` was asked for.

        Raises:
            NoCredentials: They can no longer be read; the old ones stay in use.
        """
        async with self._loading:
            if generation != self._generation:
                return
            configuration = await _load(self._kubeconfig)
            try:
                self._show(configuration)
            except OSError as error:  # ssl.SSLError is one
                raise NoCredentials(f"certificates cannot be read again: {error}") from error
            self.configuration = configuration
            self._header_at = float("-inf")
            self._generation += 1

    def _show(self, configuration: Configuration) -> None:
        if configuration.ssl_ca_cert:
            self.tls.load_verify_locations(cafile=configuration.ssl_ca_cert)
        if configuration.cert_file:
            self.tls.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)


async def _load(kubeconfig: Path | None) -> Configuration:
    configuration = Configuration()
    try:
        if kubeconfig is None and _is_pod():
            # (the client's config package carries no annotations)
            kube_config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        else:
            await kube_config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=_files(kubeconfig), client_configuration=configuration, persist_config=False
            )
    except (kube_config.ConfigException, OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise NoCredentials(f"credentials cannot be used: {error}") from error
    return configuration


def _is_pod() -> bool:
    return Path(incluster_config.SERVICE_TOKEN_FILENAME).is_file()


def _files(kubeconfig: Path | None) -> str:
    """Return the kubeconfig's path; $KUBECONFIG may name several, which are merged."""
    files = str(kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config")
    if not any(Path(file).expanduser().is_file() for file in files.split(os.pathsep)):
        raise NoCredentials(f"no service account, and no kubeconfig at {files}")
    return files


def _proxy_from_environment(server: str) -> str | None:
    """Return the proxy that HTTPS_PROXY and NO_PROXY ask for: once, as asking for each request costs more than it."""
    url = urllib.parse.urlsplit(server)
    if url.hostname is None or urllib.request.proxy_bypass(url.netloc):
        return None
    return urllib.request.getproxies().get(url.scheme)
