"""kind, where Docker and kind are: a thin wrapper of its command line, with the interface of the local cluster.

kind pulls its node image from a registry, which a machine without one cannot.
"""

import json
import shutil
from pathlib import Path

from localcluster.clusters import PartStatus
from localcluster.commands import run, run_with_progress
from localcluster.errors import LocalClusterError
from localcluster.paths import cache_directory, state_directory

CLUSTER_NAME = "distriqueue"
"""The name of the kind cluster."""


class KindCluster:
    """A cluster that kind makes, in Docker."""

    def up(self) -> None:
        """Make the cluster unless it is there, and write its kubeconfig."""
        self._need_programs()
        if CLUSTER_NAME not in run(["kind", "get", "clusters"]).split():
            kubeconfig = ["--kubeconfig", str(self._kubeconfig())]
            run_with_progress(
                ["kind", "create", "cluster", "--name", CLUSTER_NAME, "--wait", "180s", *kubeconfig],
                title=f"kind create cluster --name {CLUSTER_NAME}",
                log=cache_directory() / "logs" / "kind.log",
            )
        run(["kind", "export", "kubeconfig", "--name", CLUSTER_NAME, "--kubeconfig", str(self._kubeconfig())])

    def down(self, *, purge: bool) -> None:
        """Delete the cluster. Its images go with it, purge or not."""
        del purge
        self._need_programs()
        run(["kind", "delete", "cluster", "--name", CLUSTER_NAME, "--kubeconfig", str(self._kubeconfig())])
        self._kubeconfig().unlink(missing_ok=True)

    def status(self) -> list[PartStatus]:
        """Return whether each of the cluster's containers runs."""
        self._need_programs()
        nodes = run(["kind", "get", "nodes", "--name", CLUSTER_NAME]).split()
        if not nodes:
            return [PartStatus("node", None, healthy=False, detail="there is no cluster")]
        states = json.loads(run(["docker", "inspect", *nodes]))
        return [
            PartStatus(node, state["State"]["Pid"] or None, healthy=state["State"]["Running"])
            for node, state in zip(nodes, states, strict=True)
        ]

    def load_image(self, archive: Path, name: str) -> None:
        """Load the images of a docker archive into every node; they keep the names that they have in it."""
        del name
        self._need_programs()
        run(["kind", "load", "image-archive", str(archive), "--name", CLUSTER_NAME], timeout=600)

    def kubeconfig(self) -> Path:
        """Return the path of the kubeconfig that ``up`` wrote."""
        if not self._kubeconfig().exists():
            raise LocalClusterError("there is no kind cluster; start it first: CLUSTER=kind python3 -m localcluster up")
        return self._kubeconfig()

    @staticmethod
    def _kubeconfig() -> Path:
        return state_directory() / "kind.kubeconfig"

    @staticmethod
    def _need_programs() -> None:
        for program in ("docker", "kind"):
            if shutil.which(program) is None:
                raise LocalClusterError(f"CLUSTER=kind needs {program}, which is not here; CLUSTER=local needs neither")
