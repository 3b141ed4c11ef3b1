"""The command line: ``python3 -m localcluster COMMAND``.

``CLUSTER`` chooses the cluster: local (the default), kind or current. Standard output has what scripts read; progress
and errors go to standard error. The exit code is 0, 1 when something failed or is not healthy, or 2 for a wrong call.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from localcluster.binaries import ensure, known_programs
from localcluster.clusters import PartStatus, choose_cluster
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
    except KeyboardInterrupt:
        print("localcluster: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m localcluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("up", help="have the cluster run; prints the kubeconfig's path")
    down = commands.add_parser("down", help="have the cluster gone, with its data")
    down.add_argument("--purge", action="store_true", help="delete loaded images, too")
    commands.add_parser("status", help="show how every part is")
    commands.add_parser("kubeconfig", help="print the path of the administrator's kubeconfig")
    load = commands.add_parser("load-image", help="let pods use the image in a docker archive")
    load.add_argument("archive", type=Path, metavar="FILE.tar")
    load.add_argument("name", metavar="NAME", help="the image's name in manifests, such as distriqueue/worker:dev")
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
        case "up":
            cluster = choose_cluster()
            cluster.up()
            print(cluster.kubeconfig())
        case "down":
            choose_cluster().down(purge=options.purge)
        case "kubeconfig":
            print(choose_cluster().kubeconfig())
        case "load-image":
            choose_cluster().load_image(options.archive, options.name)
        case "status":
            parts = choose_cluster().status()
            print(_table(parts))
            return 0 if all(part.healthy for part in parts) else 1
    return 0


def _table(parts: Sequence[PartStatus]) -> str:
    rows = [("PART", "PID", "HEALTHY", "DETAIL")]
    rows += [(part.name, str(part.pid or "-"), "yes" if part.healthy else "no", part.detail) for part in parts]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows
    )


if __name__ == "__main__":
    sys.exit(main())
