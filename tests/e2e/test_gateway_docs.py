"""The commands of docs/api.md as they are written, in their order, in one shell, against the release in the cluster."""

import contextlib
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from localcluster.binaries import ensure
from localcluster.installing import ROOT
from tests.e2e.systems import System

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400, func_only=True)]

PAGE = ROOT / "docs" / "api.md"
BLOCKS = re.findall(r"^```sh run\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
NAMESPACE = "api-tour"
SECONDS = 240


@pytest.fixture(name="home")
def home_fixture(system: System, tmp_path: Path) -> Path:
    """A directory with the kubectl of the project, and a namespace that is not there yet."""
    (tmp_path / "kubectl").symlink_to(ensure("kubectl"))
    system.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=true")
    return tmp_path


def test_the_page_has_commands_for_everything() -> None:
    text = "\n".join(BLOCKS)
    assert len(BLOCKS) > 10
    for path in ("/batch", "/explain", "dryRun=true", "/resume", "/retry", "/cancel", "/stream", "Idempotency-Key"):
        assert path in text


def test_the_commands_run_as_written(system: System, home: Path) -> None:
    script = "set -euo pipefail\n" + "\n".join(
        f"echo; echo '=== block {number}'\n{block}" for number, block in enumerate(BLOCKS, 1)
    )
    environment = {
        **os.environ,
        "KUBECONFIG": str(system.kubeconfig),
        "PATH": f"{home}:{os.environ['PATH']}",
        "NO_PROXY": "*",
        "no_proxy": "*",
    }
    output = home / "output"
    # Into a file: the tunnel would hold a pipe open after the shell has failed.
    with output.open("w") as said_to:
        shell = subprocess.Popen(
            ["bash", "-c", script],
            env=environment,
            cwd=home,
            stdout=said_to,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            shell.wait(timeout=SECONDS)
    finally:
        # The tunnel, if the page did not get as far as to end it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
        system.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false")
    said = output.read_text()
    assert shell.returncode == 0, said[-4000:]
    answers = dict(re.findall(r"=== block (\d+)\n(.*?)(?=\n=== block|\Z)", said, re.DOTALL))
    assert len(answers) == len(BLOCKS)
    assert '"status":"completed"' in said
    assert '"created":3' in said
    assert "event: synced" in said
    assert re.search(r" 201\n.* 200\n.* 200\n", said, re.DOTALL)
    assert "urn:distriqueue:problem:unprocessable" in said
