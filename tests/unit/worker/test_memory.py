"""The counter of processes that the kernel killed for want of memory."""

from pathlib import Path

import pytest

from distriqueue_worker import memory


@pytest.fixture(name="root")
def root_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(memory, "ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "OWN", tmp_path / "own")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


EVENTS = "low 0\nhigh 4\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n"


def test_of_version_2(root: Path) -> None:
    write(root / "own", "0::/pod/worker\n")
    write(root / "cgroup/pod/worker/memory.events", EVENTS)
    assert memory.oom_kills() == 2


def test_of_version_2_in_a_container(root: Path) -> None:
    write(root / "own", "0::/\n")
    write(root / "cgroup/memory.events", EVENTS)
    assert memory.oom_kills() == 2
    write(root / "own", "0::/../outside\n")
    assert memory.oom_kills() == 2


def test_of_version_1_beside_version_2(root: Path) -> None:
    write(root / "own", "4:memory:/worker\n1:cpu,cpuacct:/other\n0::/\n")
    write(root / "cgroup/memory/worker/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
    assert memory.oom_kills() == 5


def test_where_nothing_can_be_read_nothing_was_killed(root: Path) -> None:
    assert memory.oom_kills() == 0
    write(root / "own", "nonsense\n0::/\n")
    write(root / "cgroup/memory.events", "oom_kill many\n")
    assert memory.oom_kills() == 0
