"""The errors of this package: one root, so that the command line can turn each into a sentence and exit code 1."""

from collections.abc import Sequence
from pathlib import Path


class LocalClusterError(Exception):
    """Something about the local cluster failed; the message says what, and what to do where that is known."""


class CommandError(LocalClusterError):
    """A program that we ran ended with another exit code than 0.

    Attributes:
        argv: The program and its arguments.
        returncode: Its exit code; negative for a signal.
        output: The end of what it printed.
    """

    def __init__(self, argv: Sequence[str], returncode: int, output: str, *, log: Path | None = None) -> None:
        """Keep what is needed to explain the failure."""
        self.argv = tuple(argv)
        self.returncode = returncode
        self.output = output
        where = f" (all of it: {log})" if log else ""
        super().__init__(f"{' '.join(argv[:4])} ... ended with {returncode}{where}:\n{output.strip()}")


class NotReadyError(LocalClusterError):
    """A part was started and did not become healthy in time, or died."""
