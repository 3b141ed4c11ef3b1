"""The one interface of the three kinds of cluster that the project runs on, and the choice between them.

``CLUSTER=local`` (the default) is the one of this package, ``CLUSTER=kind`` is kind in Docker, and ``CLUSTER=current``
is whatever the current kubeconfig points to. Chart and tests are the same on all.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from localcluster.errors import LocalClusterError


@dataclass(frozen=True)
class PartStatus:
    """How a part of a cluster is.

    Attributes:
        name: The part.
        pid: Its process id, or None when it does not run or is no process of this machine.
        healthy: Whether it says that it is healthy.
        detail: More about it, for people.
    """

    name: str
    pid: int | None
    healthy: bool
    detail: str = ""


class Cluster(Protocol):
    """A cluster with pods. Every method fails with :class:`LocalClusterError`."""

    def up(self) -> None:
        """Have it run and be ready; what runs already stays."""

    def down(self, *, purge: bool) -> None:
        """Have it gone.

        Args:
            purge: Delete what a later ``up`` could use, too (loaded images).
        """

    def status(self) -> Sequence[PartStatus]:
        """Return how every part is."""
        ...

    def load_image(self, archive: Path, name: str) -> None:
        """Let pods use the image in a docker archive, by its name."""

    def kubeconfig(self) -> Path:
        """Return the path of an administrator's kubeconfig."""
        ...


def choose_cluster(kind: str | None = None) -> Cluster:
    """Return the cluster of a kind, ``$CLUSTER`` by default.

    Raises:
        LocalClusterError: There is no such kind.
    """
    # Each kind is imported when it is chosen: none of them needs what the others do.
    from localcluster.current import CurrentCluster  # noqa: PLC0415
    from localcluster.kind import KindCluster  # noqa: PLC0415
    from localcluster.local import LocalCluster  # noqa: PLC0415

    match kind or os.environ.get("CLUSTER") or "local":
        case "local":
            return LocalCluster()
        case "kind":
            return KindCluster()
        case "current":
            return CurrentCluster()
        case other:
            raise LocalClusterError(f"CLUSTER={other}: write local, kind or current")
