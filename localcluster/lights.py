"""The light form as a command: runs until it is told to end, and prints the kubeconfig's path when it is ready.

A second signal while it stops ends it at once; the parts are then killed with it.
"""

import signal
from pathlib import Path
from types import FrameType
from typing import NoReturn

from localcluster.commands import say
from localcluster.control_plane import ControlPlane, Tuning


class _ToldToEndError(Exception):
    """A signal asked us to end."""


def run_light(directory: Path, *, tuning: Tuning) -> None:
    """Run a light control plane until SIGTERM or SIGINT.

    Standard output gets one line, the path of the administrator's kubeconfig, when the API server is ready.

    Args:
        directory: Holds its files; see :class:`ControlPlane`.
        tuning: What to change about it.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    try:
        with ControlPlane(directory, tuning=tuning) as plane:
            print(plane.kubeconfig, flush=True)
            while True:
                # An end that comes before the pause is no loss: the handler raises wherever it finds us.
                signal.pause()
    except _ToldToEndError:
        say("stopped")


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _ToldToEndError
