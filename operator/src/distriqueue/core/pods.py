"""What the kubelet's word about a pod proves: whether its containers can still run."""

from collections.abc import Mapping
from typing import Any

_ENDED_PHASES = frozenset({"Succeeded", "Failed"})


def containers_ended(pod: Mapping[str, Any]) -> bool:
    """Whether the kubelet says that every container of a pod has ended, for good.

    A deleted object alone says nothing: a pod that was deleted by force may run on, on a node that nobody reaches. Nor
    does a container that ended and is about to be restarted: the worker in it says so itself, as a new incarnation.

    Args:
        pod: The pod, with its status.
    """
    status = pod.get("status") or {}
    containers = status.get("containerStatuses") or []
    if not containers or len(containers) < len((pod.get("spec") or {}).get("containers") or []):
        return False  # of the others the kubelet has said nothing yet
    if not all((container.get("state") or {}).get("terminated") for container in containers):
        return False
    deleted = bool((pod.get("metadata") or {}).get("deletionTimestamp"))
    return deleted or status.get("phase") in _ENDED_PHASES
