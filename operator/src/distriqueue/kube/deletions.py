"""Deletes objects at the version at which somebody decided to: one that has changed since is left alone."""

from collections.abc import Callable
from typing import Any

from distriqueue.kube.client import KubeClient
from distriqueue.kube.errors import NotFound
from distriqueue.kube.resources import Resource


class Deleter:
    """Deletes objects of one kind."""

    def __init__(self, client: KubeClient, resource: Resource) -> None:
        self._client = client
        self._resource = resource

    async def delete(
        self, namespace: str, name: str, *, uid: str, resource_version: str, check: Callable[[], bool]
    ) -> None:
        """Delete an object; one that is gone is fine.

        Args:
            namespace: The object's namespace.
            name: The object's name.
            uid: The object's uid: a later object of the same name is left alone.
            resource_version: The version that the deletion was decided on.
            check: Whether we still lead; asked when the request is about to go out.

        Raises:
            Conflict: The object has another version or uid by now.
            NotLeading: The check said no; nothing was sent.
            KubeError: Anything else.
        """
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid, "resourceVersion": resource_version},
        }
        try:
            await self._client.request("DELETE", self._resource.path(namespace, name), body=body, guard=check)
        except NotFound:
            return
