"""Where things lie: the cache of built binaries, and the state of what runs. Never inside the checkout.

Both can be moved by an environment variable; reading one creates nothing.
"""

import os
from pathlib import Path

SOURCE = Path(__file__).resolve().parent
"""This package's own directory: Go modules and the pause program's source lie in it."""


def cache_directory() -> Path:
    """Return the directory for what can be made again: ``$DISTRIQUEUE_CACHE``, or the user's cache directory."""
    chosen = os.environ.get("DISTRIQUEUE_CACHE")
    if chosen:
        return Path(chosen).resolve()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).resolve() / "distriqueue"


def state_directory() -> Path:
    """Return the directory for the state of running things: ``$DISTRIQUEUE_STATE``, or ``/var/lib/distriqueue``."""
    return Path(os.environ.get("DISTRIQUEUE_STATE") or "/var/lib/distriqueue").resolve()
