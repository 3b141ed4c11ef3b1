"""Running other programs to their end, and saying what goes on meanwhile.

Guarantees: a long command prints a line every :data:`PROGRESS_SECONDS` with what it does and for how long, its whole
output is in a log file, and a failure carries the end of that output. Progress goes to standard error, so that
standard output stays what scripts read (a path, a table).
"""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from localcluster.errors import CommandError

PROGRESS_SECONDS = 15.0
"""Seconds between two progress lines of a long command."""

TAIL_CHARACTERS = 3000
"""How much of a failed command's output goes into its error."""


def say(message: str) -> None:
    """Print a progress line to standard error."""
    print(f"localcluster: {message}", file=sys.stderr, flush=True)


def run(argv: Sequence[str], *, stdin: str | None = None, timeout: float = 120.0) -> str:
    """Run a short command and return what it printed to standard output.

    Args:
        argv: The program and its arguments.
        stdin: What to feed it.
        timeout: Seconds after which it is killed.

    Raises:
        CommandError: It failed, could not be found, or took too long.
    """
    try:
        done = subprocess.run(
            list(argv), input=stdin, capture_output=True, text=True, timeout=timeout, check=False, errors="replace"
        )
    except FileNotFoundError as error:
        raise CommandError(argv, 127, f"{error.filename}: no such program") from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(argv, 124, f"no answer within {timeout:.0f} s") from error
    if done.returncode != 0:
        raise CommandError(argv, done.returncode, (done.stdout + done.stderr)[-TAIL_CHARACTERS:])
    return done.stdout


def succeeds(argv: Sequence[str], *, timeout: float = 60.0) -> bool:
    """Return whether a short command ends with exit code 0."""
    try:
        run(argv, timeout=timeout)
    except CommandError:
        return False
    return True


def run_with_progress(
    argv: Sequence[str],
    *,
    title: str,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Run a long command, with a line of progress every :data:`PROGRESS_SECONDS`.

    Args:
        argv: The program and its arguments.
        title: What it does, for people: "building helm".
        log: The file that gets its whole output.
        env: Environment variables to set on top of our own.
        cwd: The directory to run it in.

    Raises:
        CommandError: It failed; the error has the end of the log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    say(f"{title} ...")
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(argv), stdout=output, stderr=subprocess.STDOUT, cwd=cwd, env={**os.environ, **(env or {})}
        )
        try:
            while (returncode := _wait(process)) is None:
                say(f"{title}: {time.monotonic() - started:.0f} s")
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if returncode != 0:
        raise CommandError(argv, returncode, log.read_text(errors="replace")[-TAIL_CHARACTERS:], log=log)
    say(f"{title}: done in {time.monotonic() - started:.0f} s")


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(timeout=PROGRESS_SECONDS)
    except subprocess.TimeoutExpired:
        return None
