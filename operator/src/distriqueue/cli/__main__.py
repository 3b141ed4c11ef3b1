"""The program `kubectl-djobs`, which kubectl runs as `kubectl djobs`.

Guarantees: whatever goes wrong ends in a sentence on standard error and an exit code of `errors.Exit`; a reader that
closes the pipe ends it quietly.
"""

import logging
import os
import sys

from distriqueue.cli.apps import app
from distriqueue.cli.completing import PROGRAM, prepare
from distriqueue.cli.errors import Exit

DEBUG = "DISTRIQUEUE_DEBUG"
"""Set it to see where an error that nobody expected came from."""


def main() -> None:
    """Run the program."""
    logging.disable()  # what libraries log is not for whoever sits at the terminal
    prepare()
    try:
        app(prog_name=PROGRAM)
    except BrokenPipeError:
        # Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.FAILED)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    except Exception as error:  # the last resort: a person gets a sentence
        if os.environ.get(DEBUG):
            raise
        said = " ".join(str(error).split())
        sys.stderr.write(
            f"error: this should not have happened ({type(error).__name__}: {said}): set {DEBUG}=1 for more\n"
        )
        sys.exit(Exit.FAILED)


if __name__ == "__main__":
    main()
