"""The light form: a real API server that starts, survives kills of its parts, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from localcluster.apis import ApiClient, ApiError
from localcluster.binaries import ensure
from localcluster.commands import run, succeeds
from localcluster.control_plane import ControlPlane, Tuning
from localcluster.errors import CommandError, LocalClusterError, NotReadyError
from localcluster.processes import Process, wait_gone
from localcluster.waiting import wait_until_ready

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("plane")) as running:
        yield running


def _kubectl(kubeconfig: Path, *arguments: str) -> str:
    return run([str(ensure("kubectl")), f"--kubeconfig={kubeconfig}", *arguments])


def _make_config_map(plane: ControlPlane, name: str) -> None:
    _kubectl(plane.kubeconfig, "create", "configmap", name, "--from-literal=key=value")


def _value(plane: ControlPlane, name: str) -> str:
    return _kubectl(plane.kubeconfig, "get", "configmap", name, "--output=jsonpath={.data.key}")


def test_is_ready_and_says_its_version(plane: ControlPlane) -> None:
    assert _kubectl(plane.kubeconfig, "get", "--raw", "/readyz") == "ok"
    version = json.loads(_kubectl(plane.kubeconfig, "get", "--raw", "/version"))
    assert (version["gitVersion"], version["minor"]) == ("v1.36.3", "36")


def test_apiserver_goes_on_after_a_kill(plane: ControlPlane) -> None:
    _make_config_map(plane, "before-the-apiserver")
    plane.kill_apiserver()
    with pytest.raises(CommandError):
        _value(plane, "before-the-apiserver")
    plane.start_apiserver()
    assert _value(plane, "before-the-apiserver") == "value"


def test_etcd_goes_on_after_a_kill(plane: ControlPlane) -> None:
    _make_config_map(plane, "before-etcd")
    plane.kill_etcd()
    plane.start_etcd()
    plane.wait_ready()
    assert _value(plane, "before-etcd") == "value"


def test_other_users_may_do_only_what_they_were_granted(plane: ControlPlane) -> None:
    alice = plane.kubeconfig_for("alice", groups=["readers"])
    who = _kubectl(alice, "auth", "whoami", "--output=json")
    assert json.loads(who)["status"]["userInfo"]["groups"] == ["readers", "system:authenticated"]
    with pytest.raises(CommandError, match="forbidden"):
        _kubectl(alice, "get", "configmaps")
    _kubectl(plane.kubeconfig, "create", "clusterrole", "read", "--verb=list", "--resource=configmaps")
    _kubectl(plane.kubeconfig, "create", "clusterrolebinding", "readers", "--clusterrole=read", "--group=readers")
    listing = [str(ensure("kubectl")), f"--kubeconfig={alice}", "get", "configmaps"]
    # The authorizer reads grants from a watch: a moment later than the write.
    wait_until_ready(
        "alice's right to read",
        ready=lambda: succeeds(listing),
        alive=lambda: True,
        log=plane.log("kube-apiserver"),
        timeout=30,
    )


def test_a_directory_is_one_control_planes(plane: ControlPlane) -> None:
    with pytest.raises(LocalClusterError, match="another control plane runs"):
        ControlPlane.start(plane.directory)
    assert _kubectl(plane.kubeconfig, "get", "--raw", "/readyz") == "ok"


def test_stopping_leaves_no_process_and_keeps_the_data(tmp_path: Path) -> None:
    first = ControlPlane.start(tmp_path)
    processes = [first.process(name) for name in ("etcd", "kube-apiserver")]
    _make_config_map(first, "kept")
    first.stop()
    assert all(process is not None and not process.alive() for process in processes)
    with ControlPlane(tmp_path, tuning=Tuning(controllers=("namespace-controller",))) as second:
        assert _value(second, "kept") == "value"
        # With its controller, a namespace really goes; kubectl waits for that.
        _kubectl(second.kubeconfig, "create", "namespace", "short-lived")
        _kubectl(second.kubeconfig, "delete", "namespace", "short-lived", "--timeout=60s")


def test_a_part_that_cannot_start_is_explained(tmp_path: Path) -> None:
    with pytest.raises(NotReadyError, match="no-such-flag"):
        ControlPlane.start(tmp_path, tuning=Tuning(apiserver_arguments=["--no-such-flag"]))


def test_a_killed_parent_takes_everything_with_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "localcluster", "light", "--directory", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().strip() == str(tmp_path / "admin.kubeconfig")
        children = _children_of(parent.pid)
        assert len(children) == 2
        parent.kill()
    assert wait_gone(children, timeout=20)


def test_the_command_ends_well_on_sigterm(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "localcluster", "light", "--directory", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline()
        children = _children_of(parent.pid)
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(timeout=30) == 0
    assert not any(child.alive() for child in children)


def test_an_api_error_says_what_the_server_said(plane: ControlPlane) -> None:
    authority = plane.directory / "pki"
    admin = (authority / "admin.crt", authority / "admin.key")
    api = ApiClient(plane.server, authority=authority / "ca.crt", client=admin)
    with pytest.raises(ApiError, match="not found") as refused:
        api.get("/api/v1/namespaces/none")
    assert refused.value.status == 404
    with pytest.raises(ApiError) as unanswered:
        ApiClient("https://127.0.0.1:1", authority=authority / "ca.crt", client=admin).get("/version")
    assert unanswered.value.status == 0


def test_a_process_is_not_mistaken_for_a_later_one_with_its_pid() -> None:
    here = Process.of(os.getpid())
    assert here is not None
    assert here.alive()
    assert not Process(pid=here.pid, started=here.started - 1, boot=here.boot).alive()
    assert not Process(pid=here.pid, started=here.started, boot="another boot").alive()


def _children_of(pid: int) -> list[Process]:
    pids = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return [process for child in pids if (process := Process.of(child)) is not None]
