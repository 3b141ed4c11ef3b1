"""`python -m distriqueue.operator`: a replica of the operator, until SIGTERM; exit statuses: `telemetry.running`."""

import sys

from distriqueue.operator.programs import Program
from distriqueue.operator.settings import OperatorSettings
from distriqueue.telemetry import running


def main() -> int:
    """Run the operator; returns the exit status."""
    return running.run("operator", OperatorSettings, Program)


if __name__ == "__main__":
    sys.exit(main())
