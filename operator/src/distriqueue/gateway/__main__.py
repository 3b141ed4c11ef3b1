"""`python -m distriqueue.gateway`: a replica of the gateway, until SIGTERM; exit statuses: `telemetry.running`."""

import sys

from distriqueue.gateway.programs import Program
from distriqueue.gateway.settings import GatewaySettings
from distriqueue.telemetry import running


def main() -> int:
    """Run the gateway; returns the exit status."""
    return running.run("gateway", GatewaySettings, Program)


if __name__ == "__main__":
    sys.exit(main())
