"""What pip is told on this machine (index, certificates), handed to a pip that runs inside an image build.

A build starts from a bare image and knows nothing of the machine. The settings are mounted for the time of the build
and never written into an image or a file of the project. Unreadable configuration files count as absent, as in pip.
"""

import configparser
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

_FILES = ("/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")
"""Where pip looks on Linux, later ones winning; then PIP_CONFIG_FILE, then its environment variables."""
_PATHS = ("cert", "client-cert", "find-links")
"""Options that may name a file or directory of the machine."""
_OF_THE_MACHINE = ("cache-dir", "config-file", "require-virtualenv", "target", "prefix", "user", "python", "log")
"""Options that mean something on the machine and nothing in a build."""


def pip_settings(*, environment: Mapping[str, str], files: Sequence[str] = _FILES) -> dict[str, str]:
    """Return pip's options on this machine by their long names, environment variables included.

    Args:
        environment: The environment to read ``PIP_*`` from.
        files: pip's configuration files.
    """
    settings: dict[str, str] = {}
    for file in (*files, environment.get("PIP_CONFIG_FILE", "")):
        parser = configparser.RawConfigParser()
        try:
            parser.read(Path(file).expanduser() if file else [])
        except (configparser.Error, OSError, UnicodeDecodeError):
            continue
        for section in ("global", "install"):
            if parser.has_section(section):
                settings.update(parser.items(section))
    for name, value in environment.items():
        if name.startswith("PIP_") and value:
            settings[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    return {name: value for name, value in settings.items() if name not in _OF_THE_MACHINE}


def pip_mounts(directory: Path) -> list[str]:
    """Write the settings into ``directory`` and return what to mount in a build, as ``source:target:ro``.

    The machine's certificates are among it, or pip inside the build trusts nobody.
    """
    settings = pip_settings(environment=os.environ)
    # A value of several lines goes on with an indent.
    options = (f"{name} = {value}".replace("\n", "\n  ") for name, value in settings.items())
    lines = ["[global]", *options]
    config = directory / "pip.conf"
    config.touch(mode=0o600)  # an index may come with a password
    config.write_text("\n".join(lines) + "\n")
    certificates = "/etc/ssl/certs"
    mounts = [f"{config}:/etc/pip.conf:ro", f"{certificates}:{certificates}:ro"]
    places = [place for name in _PATHS for place in settings.get(name, "").split() if place.startswith("/")]
    outside = [place for place in places if not place.startswith(certificates) and Path(place).exists()]
    return [*mounts, *(f"{place}:{place}:ro" for place in outside)]
