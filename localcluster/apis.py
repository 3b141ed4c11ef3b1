"""A small client of the API server, for what the cluster itself needs: is it ready, apply this, what does that say.

Not for the operator or its tests: those use real clients. Every failure, also one of the network, is an
:class:`ApiError`, whose ``status`` is 0 when there was no answer.
"""

import http.client
import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from localcluster.errors import LocalClusterError


class ApiError(LocalClusterError):
    """The API server refused a request, or did not answer (``status`` 0)."""

    def __init__(self, status: int, message: str) -> None:
        """Keep the HTTP status and what the server said."""
        self.status = status
        super().__init__(message)


class ApiClient:
    """Requests to one API server, as one user."""

    def __init__(self, server: str, *, authority: Path, client: tuple[Path, Path]) -> None:
        """Prepare requests.

        Args:
            server: The URL of the API server.
            authority: The certificate that the server's must be signed by.
            client: Certificate and key of the user.
        """
        self.server = server
        context = ssl.create_default_context(cafile=str(authority))
        context.load_cert_chain(*client)
        # No proxy: a machine-wide proxy setting must not take loopback traffic elsewhere.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        content_type: str = "application/json",
        timeout: float = 10,
    ) -> str:
        """Send a request and return the answer's text.

        Raises:
            ApiError: The answer was not a success, or none came within ``timeout`` seconds.
        """
        request = urllib.request.Request(  # noqa: S310  # the URL is the https one that we were made with
            self.server + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": content_type, "Accept": "application/json"},
        )
        try:
            with self._opener.open(request, timeout=timeout) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                raise ApiError(error.code, f"{method} {path}: {error.code}: {error.read().decode()}") from error
        except (OSError, http.client.HTTPException) as error:
            raise ApiError(0, f"{method} {path}: {error}") from error

    def get(self, path: str) -> Any:
        """Return what lies at a path, decoded from JSON."""
        return json.loads(self.request("GET", path))

    def apply(self, path: str, resource: dict[str, Any]) -> Any:
        """Make a resource be as given, whether it exists or not (server-side apply), and return it.

        Args:
            path: The collection, such as ``/api/v1/namespaces``.
            resource: The resource, with ``apiVersion``, ``kind`` and a name.
        """
        name = resource["metadata"]["name"]
        return json.loads(
            self.request(
                "PATCH",
                f"{path}/{name}?fieldManager=localcluster&force=true",
                body=resource,
                content_type="application/apply-patch+yaml",
            )
        )

    def is_ready(self) -> bool:
        """Return whether the API server says that it is ready."""
        try:
            return self.request("GET", "/readyz", timeout=5) == "ok"
        except ApiError:
            return False
