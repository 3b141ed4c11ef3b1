"""The command line of the images.

``python -m localcluster.images build [operator|worker|rabbitmq|base|all]`` builds the project's own;
``python -m localcluster.images build-own DIRECTORY --name example/worker:1`` one on top of them.

Progress goes to standard error; at the end standard output has a line ``NAME FILE`` for each image, for scripts. Ends
with exit code 1 and a sentence when something could not be built.
"""

import argparse
import sys
from pathlib import Path

from localcluster.errors import LocalClusterError
from localcluster.images.catalogue import IMAGES, build_image, ensure_images


def _build(options: argparse.Namespace) -> dict[str, Path]:
    everything = not options.images or "all" in options.images
    return ensure_images(IMAGES if everything else options.images)


def _build_own(options: argparse.Namespace) -> dict[str, Path]:
    return {options.name: build_image(options.context, name=options.name, dockerfile=options.file)}


def main() -> int:
    """Build images."""
    parser = argparse.ArgumentParser(prog="python -m localcluster.images", description="Build images for the cluster.")
    commands = parser.add_subparsers(required=True)
    build = commands.add_parser("build", help="the project's images; those up to date are left alone")
    build.add_argument("images", nargs="*", metavar="IMAGE", help=f"{', '.join(IMAGES)} or all (the default)")
    build.set_defaults(do=_build)
    own = commands.add_parser("build-own", help="an image of your own, say FROM distriqueue/worker:dev")
    own.add_argument("context", type=Path, help="the directory with the Dockerfile")
    own.add_argument("--name", required=True, help="repository and tag: example/worker:1")
    own.add_argument("--file", type=Path, help="the Dockerfile, if not the one in the context")
    own.set_defaults(do=_build_own)
    options = parser.parse_args()
    try:
        for name, archive in options.do(options).items():
            print(name, archive)
    except LocalClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
