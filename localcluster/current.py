"""Somebody's own cluster: whatever the current kubeconfig points to. Nothing is made or deleted there."""

import os
from pathlib import Path

from localcluster.binaries import ensure
from localcluster.clusters import PartStatus
from localcluster.commands import run, say, succeeds
from localcluster.errors import LocalClusterError


class CurrentCluster:
    """The cluster of ``$KUBECONFIG``, or of ``~/.kube/config``."""

    def up(self) -> None:
        """Check that it answers."""
        run(self._kubectl("get", "--raw", "/readyz"))
        say(f"the cluster of {self.kubeconfig()} answers")

    def down(self, *, purge: bool) -> None:
        """Leave it alone; check that it answers, so that a wrong kubeconfig is noticed."""
        del purge
        self.up()
        say("it is not ours to stop")

    def status(self) -> list[PartStatus]:
        """Return whether it answers."""
        healthy = succeeds(self._kubectl("get", "--raw", "/readyz"))
        return [PartStatus("kube-apiserver", None, healthy, str(self.kubeconfig()))]

    def load_image(self, archive: Path, name: str) -> None:
        """Say how to bring an image to it: that depends on its registry.

        Raises:
            LocalClusterError: Always.
        """
        raise LocalClusterError(
            f"CLUSTER=current: push {name} to a registry that the cluster pulls from, for example with\n"
            f"  skopeo copy docker-archive:{archive} docker://REGISTRY/{name}\n"
            "and name it in the chart's values (image.repository, image.tag)"
        )

    def kubeconfig(self) -> Path:
        """Return the path of the kubeconfig."""
        # $KUBECONFIG may list several; the first that exists is where kubectl finds its current context, too.
        listed = [Path(path) for path in os.environ.get("KUBECONFIG", "").split(os.pathsep) if path]
        for path in [*listed, Path.home() / ".kube" / "config"]:
            if path.exists():
                return path
        raise LocalClusterError("CLUSTER=current: set KUBECONFIG to a kubeconfig file, or have ~/.kube/config")

    def _kubectl(self, *arguments: str) -> list[str]:
        return [str(ensure("kubectl")), "--kubeconfig", str(self.kubeconfig()), "--request-timeout=10s", *arguments]
