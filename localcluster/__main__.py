"""The command line: ``python3 -m localcluster COMMAND``.

Standard output has what scripts read; progress and errors go to standard error. The exit code is 0, 1 when something
failed (with a sentence that says what), or 2 for a wrong call.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from localcluster.binaries import ensure, known_programs
from localcluster.control_plane import Tuning
from localcluster.errors import LocalClusterError
from localcluster.lights import run_light


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except LocalClusterError as error:
        print(f"localcluster: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m localcluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    light = commands.add_parser("light", help="etcd and API server alone, in the foreground, on loopback")
    light.add_argument("--directory", type=Path, required=True, help="holds its data, keys and logs")
    light.add_argument("--no-fsync", action="store_true", help="let etcd skip fsync")
    light.add_argument("--controllers", default="", help="comma separated controllers to run, for example *")
    tool = commands.add_parser("tool", help="build or install a program if missing, and print its path")
    tool.add_argument("name", choices=known_programs(), metavar="NAME", help=", ".join(known_programs()))
    return parser


def _run(options: argparse.Namespace) -> int:
    match options.command:
        case "light":
            controllers = [name for name in options.controllers.split(",") if name]
            run_light(options.directory, tuning=Tuning(fsync=not options.no_fsync, controllers=controllers))
        case "tool":
            print(ensure(options.name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
