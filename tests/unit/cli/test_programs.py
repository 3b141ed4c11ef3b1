"""The program from outside, without a cluster: help, completion, what kubectl asks, wrong words, and its start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from distriqueue.cli.logs import Spoken

SAYING = """
import logging, sys
from distriqueue_worker import logs
logs.configure("info", sys.argv[1])
for name, attempt in (("a", 1), ("a", 2), ("b", 1)):
    fields = {"job": f"default/{name}", "namespace": "default", "type": "x", "attempt": attempt, "grant": "5-1"}
    token = logs.SCOPE.set(logs.Scope(fields))
    logging.getLogger("handler").info("standard %s %s", name, attempt)
    logs.get_logger().info("structured", name=name, number=attempt)
    logs.SCOPE.reset(token)
logging.getLogger("worker").info("of the worker itself")
"""


def program(*words: str, code: str = "from distriqueue.cli.__main__ import main; main()", **environment: str) -> "Ran":
    paths = [path for path in sys.path if path]
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv[0] = 'kubectl-djobs'; {code}", *words],
        env={"PYTHONPATH": os.pathsep.join(paths), "PATH": os.environ["PATH"], "HOME": "/nowhere", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in ran.stderr
    return ran


Ran = subprocess.CompletedProcess[str]


def test_help_names_every_command() -> None:
    said = program("--help").stdout
    for word in ("submit", "list", "explain", "redrive", "top", "completion"):
        assert f"\n  {word} " in said


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["frobnicate"], 2, "No such command"),
        (["submit"], 2, "error: name the type"),
        (["submit", "--type", "x", "--priority", "urgent"], 2, "urgent"),
        (["submit", "-f", "/no/such/file"], 2, "error: /no/such/file cannot be read"),
        (["submit", "-f", "/x", "--type", "x"], 2, "error: -f takes whole manifests"),
        (["cancel", "a", "--kubeconfig", "/no/such/file"], 6, "error: there is no kubeconfig at /no/such/file"),
        (["list"], 6, "error: there is no kubeconfig at /nowhere/.kube/config"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(words: list[str], code: int, said: str) -> None:
    ran = program(*words)
    assert ran.returncode == code
    assert said in ran.stderr


def test_a_cluster_that_is_not_there(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n"
        "contexts: [{name: c, context: {cluster: c, user: u}}]\n"
        "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\n"
        "users: [{name: u, user: {token: t}}]\n"
    )
    ran = program("list", KUBECONFIG=str(kubeconfig))
    assert ran.returncode == 6
    assert ran.stderr.startswith("error: the API server (https://127.0.0.1:1) does not answer: check the network")
    ran = program("list", "--context", "other", KUBECONFIG=str(kubeconfig))
    assert ran.returncode == 6
    assert "other" in ran.stderr
    assert program("get", "", KUBECONFIG=str(kubeconfig), code=COMPLETE).stdout == ":4\n", (
        "completion says nothing of it"
    )


def test_a_kubeconfig_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("- not a kubeconfig\n")
    ran = program("list", "--kubeconfig", str(tmp_path / "config"))
    assert ran.returncode == 6
    assert ran.stderr.startswith("error: the kubeconfig")


# --- completion ----------------------------------------------------------------------------------------------------

COMPLETE = "from distriqueue.cli.completing import for_kubectl; for_kubectl()"


@pytest.mark.parametrize(
    ("words", "first"),
    [(["redr"], "redrive\tRun dead letters"), (["list", "--ph"], "--phase\t"), (["list", "--phase", "De"], "Dead")],
)
def test_kubectl_is_told_what_completes(words: list[str], first: str) -> None:
    *lines, last = program(*words, code=COMPLETE).stdout.splitlines()
    assert lines[0].startswith(first)
    assert last == ":4"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_for_shells(shell: str) -> None:
    ran = program("completion", shell)
    assert ran.returncode == 0
    assert "_KUBECTL_DJOBS_COMPLETE=complete_" in ran.stdout
    assert "kubectl-djobs" in ran.stdout


def test_bash_completes_the_program(tmp_path: Path) -> None:
    starter = tmp_path / "kubectl-djobs"
    starter.write_text(f'#!/bin/sh\nexec {sys.executable} -m distriqueue.cli "$@"\n')
    starter.chmod(0o755)
    script = program("completion", "bash").stdout
    asking = f"""{script}
COMP_WORDS=(kubectl-djobs res); COMP_CWORD=1; _kubectl_djobs_completion kubectl-djobs; echo "${{COMPREPLY[@]}}" """
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        ["bash", "-c", asking], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout.split() == ["resume"]


# --- start, and logs -----------------------------------------------------------------------------------------------


def test_what_is_heavy_is_not_loaded_before_it_is_needed() -> None:
    code = (
        "import distriqueue.cli.__main__; "
        "loaded = {name.split('.')[0] for name in sys.modules}; "
        "print(sorted(loaded & {'aiohttp', 'kubernetes', 'rich', 'yaml', 'pydantic'}))"
    )
    assert program(code=code).stdout == "[]\n"


@pytest.mark.parametrize("form", ["json", "text"])
def test_of_a_workers_log_only_the_lines_of_the_attempt_are_taken(form: str) -> None:
    log = program(form, code=f"exec({SAYING!r})").stderr.splitlines()
    assert len(log) == 7
    mine = list(Spoken("default/a", 2).lines(log))
    assert len(mine) == 2
    assert mine[0].count("standard a 2") == (1 if form == "json" else 2), "lines of text stay as they are"
    assert "structured" in mine[1]
    assert "number=2" in mine[1]
