"""Completion: names of jobs from the cluster, scripts for shells, and what kubectl asks of a plugin.

kubectl completes ``kubectl djobs ...`` by running ``kubectl_complete-djobs`` with the words so far, and reads one
completion a line, a tab and a description behind it if there is one, and a last line ``:4`` (no files). Guarantees: a
cluster that does not answer completes to nothing, at once and without a word.
"""

import contextlib
import io
import logging
import os
import shlex
import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import Final

import typer

from distriqueue.cli.places import Place

PROGRAM: Final = "kubectl-djobs"
VARIABLE: Final = "_KUBECTL_DJOBS_COMPLETE"
_NO_FILES: Final = ":4"


class Shell(StrEnum):
    """Shells for which there is a script."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def names(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Names of jobs that begin like this and are not on the line already."""
    said: dict[str, object] = {}
    for level in (ctx.parent, ctx):
        said.update({key: value for key, value in (level.params if level else {}).items() if value is not None})
    given = said.get("names") or said.get("name") or ()
    taken = {given} if isinstance(given, str) else set(given) if isinstance(given, list | tuple) else set()
    words = {key: str(said[key]) for key in ("namespace", "context", "kubeconfig") if said.get(key)}
    for name in _from_cluster(Place(**words)):
        if name.startswith(incomplete) and name not in taken:
            yield name


def _from_cluster(place: Place) -> list[str]:
    from distriqueue.cli.clusters import Cluster, run  # noqa: PLC0415 - only where names are wanted
    from distriqueue.cli.errors import CliError  # noqa: PLC0415 - likewise

    logging.disable()

    async def ask(cluster: Cluster) -> list[str]:
        return [item["metadata"]["name"] for item in await cluster.names()]

    try:
        return run(place, ask)
    except CliError:
        return []


def prepare() -> None:
    """Make the application able to answer shells; its own options for that are left out, so it has to be told."""
    if os.environ.get(VARIABLE):
        from typer.completion import get_completion_inspect_parameters  # noqa: PLC0415 - only where it is needed

        get_completion_inspect_parameters()


def print_script(shell: Shell) -> None:
    """Print the script that makes a shell complete the program's own name; ends the program."""
    from distriqueue.cli.apps import app  # noqa: PLC0415 - it imports this module

    os.environ[VARIABLE] = f"source_{shell.value}"
    prepare()
    app(prog_name=PROGRAM)


def for_kubectl() -> None:
    """Answer kubectl: the program `kubectl_complete-djobs`."""
    from distriqueue.cli.apps import app  # noqa: PLC0415 - it imports this module

    *before, last = sys.argv[1:] or [""]
    # The protocol of fish says what kubectl wants to hear: a completion, a tab, its help.
    os.environ[VARIABLE] = "complete_fish"
    os.environ["_TYPER_COMPLETE_FISH_ACTION"] = "get-args"
    os.environ["_TYPER_COMPLETE_ARGS"] = " ".join(
        [PROGRAM, *map(shlex.quote, before), shlex.quote(last) if last else ""]
    )
    prepare()
    answer = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(answer):
        app(prog_name=PROGRAM)
    for line in answer.getvalue().splitlines():
        if line:
            sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"{_NO_FILES}\n")
