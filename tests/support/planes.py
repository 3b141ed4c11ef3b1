"""The one API server that all integration tests share."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from localcluster.control_plane import ControlPlane, Tuning


@functools.cache
def shared_plane() -> ControlPlane:
    """Start it at the first call; it ends with the test run.

    It has a namespace controller, so deleted namespaces go away, and no other.
    """
    directory = Path(tempfile.mkdtemp(prefix="distriqueue-plane-"))
    plane = ControlPlane.start(directory, tuning=Tuning(controllers=("namespace-controller",)))

    def stop() -> None:
        plane.stop()
        shutil.rmtree(directory, ignore_errors=True)

    atexit.register(stop)
    return plane
