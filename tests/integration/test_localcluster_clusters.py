"""The three kinds of cluster behind one interface, as far as they can be asked without pods."""

import tarfile
from pathlib import Path

import pytest

from localcluster.__main__ import main
from localcluster.clusters import choose_cluster
from localcluster.containerds import Containerd, full_name
from localcluster.control_plane import ControlPlane
from localcluster.current import CurrentCluster
from localcluster.errors import LocalClusterError
from localcluster.kind import KindCluster
from localcluster.local import LocalCluster
from localcluster.mounts import mounted_below

pytestmark = pytest.mark.integration


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLUSTER", raising=False)
    assert isinstance(choose_cluster(), LocalCluster)
    for kind, expected in (("local", LocalCluster), ("kind", KindCluster), ("current", CurrentCluster)):
        monkeypatch.setenv("CLUSTER", kind)
        assert isinstance(choose_cluster(), expected)
    monkeypatch.setenv("CLUSTER", "other")
    with pytest.raises(LocalClusterError, match="write local, kind or current"):
        choose_cluster()


def test_a_cluster_that_does_not_run_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLUSTER", "local")
    monkeypatch.setenv("DISTRIQUEUE_STATE", str(tmp_path / "state"))
    assert main(["status"]) == 1
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == [
        "PART",
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "containerd",
        "kubelet",
        "kube-proxy",
        "coredns",
        "node",
    ]
    assert all(row.split()[1:3] == ["-", "no"] for row in rows[1:])
    assert main(["kubeconfig"]) == 1
    assert "start it first" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()


def test_somebodys_own_cluster_is_asked_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLUSTER", "current")
    with ControlPlane(tmp_path / "plane") as plane:
        monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig))
        assert main(["up"]) == 0
        assert capsys.readouterr().out.strip() == str(plane.kubeconfig)
        assert main(["status"]) == 0
        assert main(["down"]) == 0
        assert main(["status"]) == 0
        assert main(["load-image", "worker.tar", "worker:1"]) == 1
        assert "push worker:1 to a registry" in capsys.readouterr().err
    assert main(["status"]) == 1
    assert main(["up"]) == 1


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("testbox", "docker.io/library/testbox:latest"),
        ("testbox:1", "docker.io/library/testbox:1"),
        ("team/worker:dev", "docker.io/team/worker:dev"),
        ("registry.example/worker", "registry.example/worker:latest"),
        ("localhost:5000/a/b:2", "localhost:5000/a/b:2"),
        ("localhost/a", "localhost/a:latest"),
    ],
)
def test_image_names_are_written_out_as_pods_look_them_up(short: str, full: str) -> None:
    assert full_name(short) == full


def test_what_is_no_image_is_refused_before_containerd_is_asked(tmp_path: Path) -> None:
    containerd = Containerd(tmp_path / "containerd", store=tmp_path / "store")
    with pytest.raises(LocalClusterError, match="is no docker archive"):
        containerd.load_image(tmp_path / "missing.tar", "worker:1")
    root = tmp_path / "root.tar"
    with tarfile.open(root, "w"):
        pass
    with pytest.raises(LocalClusterError, match="is no docker archive"):
        containerd.load_image(root, "worker:1")


def test_mount_points_are_found_with_the_innermost_first() -> None:
    points = mounted_below(Path("/"))
    assert Path("/proc") in points
    assert Path("/") not in points
    for position, point in enumerate(points):
        assert not any(inner.is_relative_to(point) and inner != point for inner in points[position + 1 :])
