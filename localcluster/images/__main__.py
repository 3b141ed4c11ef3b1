"""The command line of the images: ``python -m localcluster.images build [operator|worker|rabbitmq|base|all] ...``.

Progress goes to standard error; at the end standard output has a line ``NAME FILE`` for each image, for scripts. Ends
with exit code 1 and a sentence when something could not be built.
"""

import argparse
import sys

from localcluster.errors import LocalClusterError
from localcluster.images.catalogue import IMAGES, ensure_images


def main() -> int:
    """Build images."""
    parser = argparse.ArgumentParser(prog="python -m localcluster.images", description="Build the project's images.")
    commands = parser.add_subparsers(required=True)
    build = commands.add_parser("build", help="have images as docker archives; those up to date are left alone")
    build.add_argument("images", nargs="*", choices=[*IMAGES, "all", []], help="which ones (all by default)")
    options = parser.parse_args()
    wanted = list(IMAGES) if not options.images or "all" in options.images else options.images
    try:
        for name, archive in ensure_images(wanted).items():
            print(name, archive)
    except LocalClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
