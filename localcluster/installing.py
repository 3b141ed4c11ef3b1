"""Installing the chart on the chosen cluster: images built and loaded, `helm upgrade --install`, wait until it runs.

Guarantees: what is up to date is neither built nor loaded nor restarted again; a changed image restarts its pods
although its tag stays, because its content's hash is an annotation of them. Fails with `LocalClusterError`, with
helm's own words.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from localcluster.binaries import ensure
from localcluster.clusters import Cluster, choose_cluster
from localcluster.commands import run, say
from localcluster.errors import LocalClusterError
from localcluster.images.catalogue import ensure_images
from localcluster.paths import state_directory
from localcluster.resources import kubectl

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts" / "distriqueue"
VALUES = ROOT / "localcluster" / "values.yaml"
RELEASE = "distriqueue"
NAMESPACE = "distriqueue"
PARTS = {
    "operator": "distriqueue/operator:dev",
    "gateway": "distriqueue/operator:dev",
    "worker": "distriqueue/worker:dev",
}
"""Whose pods run which image."""


def helm(kubeconfig: Path, *arguments: str, timeout: float = 600.0) -> str:
    """Run helm and return what it printed.

    Raises:
        CommandError: It failed; the error has its words.
    """
    return run([str(ensure("helm")), f"--kubeconfig={kubeconfig}", *arguments], timeout=timeout)


def load_images(cluster: Cluster) -> dict[str, Path]:
    """Build the project's images and let the cluster's pods use them; returns the archives by name."""
    archives = ensure_images()
    marks = state_directory() / "loaded-images"
    marks.mkdir(parents=True, exist_ok=True)
    # A mark alone proves nothing: the cluster may have been purged since. The node says which names it has.
    present = kubectl(cluster.kubeconfig(), "get", "nodes", "--output=jsonpath={.items[*].status.images[*].names}")
    for name, archive in archives.items():
        mark = marks / name.replace("/", "_")
        if name not in present or not mark.exists() or mark.read_text() != archive.name:
            say(f"loading {name}")
            cluster.load_image(archive, name)
            mark.write_text(archive.name)
    return archives


def install(cluster: Cluster, *, namespace: str = NAMESPACE, release: str = RELEASE, more: Sequence[str] = ()) -> None:
    """Install the chart, or upgrade it, and return when its pods are ready.

    Args:
        cluster: Where; it must be up.
        namespace: Made if missing.
        release: The release's name.
        more: Further arguments for helm, such as ``--set=worker.replicas=2``.
    """
    settings: list[str] = []
    if os.environ.get("CLUSTER", "local") != "current":
        archives = load_images(cluster)
        settings += [f"--values={VALUES}"]
        settings += [
            f"--set-string={part}.podAnnotations.distriqueue\\.io/image={archives[name].stem}"
            for part, name in PARTS.items()
        ]
    say(f"helm upgrade --install {release}")
    helm(
        cluster.kubeconfig(),
        "upgrade",
        "--install",
        release,
        str(CHART),
        f"--namespace={namespace}",
        "--create-namespace",
        "--wait",
        "--timeout=5m",
        *settings,
        *more,
    )


def main() -> int:
    """Install on the cluster that ``$CLUSTER`` names; returns the exit status."""
    try:
        install(choose_cluster())
    except LocalClusterError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
