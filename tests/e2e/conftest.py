"""What the tests with pods share: the cluster, the one release on it, and a namespace for each module's jobs.

Guarantees: two test runs on one machine take turns, since there is one release for all; the cluster is brought up, and
what an interrupted run left is gone, before the first test. After the last one the release is as `make install` makes
it.
"""

import fcntl
import secrets
from collections.abc import Iterator

import pytest

from localcluster.clusters import Cluster, choose_cluster
from localcluster.commands import say
from localcluster.paths import state_directory
from tests.e2e.systems import LABELS, System, forget_recording


@pytest.fixture(scope="session", autouse=True)
def _turn() -> Iterator[None]:
    """Wait until no other run of these tests is at work on this machine."""
    lock = state_directory() / "e2e.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another run of the tests with pods is at work; waiting for it")
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


@pytest.fixture(name="cluster", scope="session", autouse=True)
def cluster_fixture(_turn: None) -> Cluster:
    """The cluster that CLUSTER names, up."""
    cluster = choose_cluster()
    cluster.up()
    forget_recording(cluster.kubeconfig())
    return cluster


@pytest.fixture(name="system", scope="session")
def system_fixture(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The release, whose workers have the recording tasks."""
    system = System(cluster, tmp_path_factory.mktemp("system"))
    system.install_recording()
    yield system
    system.install_plain()


@pytest.fixture(name="namespace", scope="module")
def namespace_fixture(system: System) -> Iterator[str]:
    """A namespace for the jobs of one module."""
    name = f"e2e-{secrets.token_hex(3)}"
    system.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": LABELS}})
    yield name
    system.kubectl("delete", "namespace", name, "--wait=false")
