"""Reads one key of a ConfigMap at a time: no list, no watch, no copy kept. The right to `get` is all it needs.

Guarantees: what is returned is what the API server had when it was asked. Fails with a `KubeError` within
`READ_SECONDS`.
"""

import base64
from typing import Final

from distriqueue.kube.client import KubeClient
from distriqueue.kube.resources import CONFIG_MAPS

READ_SECONDS: Final = 5.0
"""A worker's slot waits for the answer."""


class ConfigMapReader:
    """See the module."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def read(self, namespace: str, name: str, key: str) -> str | bytes | None:
        """Read a key.

        Returns:
            The text under `data`, the bytes under `binaryData`, or None if there is no such key.

        Raises:
            NotFound: There is no such ConfigMap.
            Forbidden: We may not read it.
            KubeError: Anything else.
        """
        found = await self._client.request("GET", CONFIG_MAPS.path(namespace, name), timeout=READ_SECONDS)
        text = (found.get("data") or {}).get(key)
        if text is not None:
            return str(text)
        encoded = (found.get("binaryData") or {}).get(key)
        return base64.b64decode(encoded) if encoded is not None else None
