"""`python -m distriqueue.gateway`: read the settings, set up logs and signals, run until SIGTERM.

Exit status: 0 after a clean stop, 2 for settings that make no sense, 1 for everything else.
"""

import asyncio
import signal
import sys

import structlog
import uvloop

from distriqueue.gateway.programs import Program
from distriqueue.gateway.settings import GatewaySettings
from distriqueue.telemetry.logs import configure
from distriqueue_protocol.settings import SettingsError


def main() -> int:
    """Run the gateway; returns the exit status."""
    try:
        settings = GatewaySettings.load()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    configure(level=settings.log_level, format_=settings.log_format)
    return uvloop.run(_run(settings))


async def _run(settings: GatewaySettings) -> int:
    program = Program(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, program.stop)
    try:
        await program.run()
    except Exception:  # noqa: BLE001 - the last frame of the program: whatever it is goes into the log as JSON
        structlog.get_logger(__name__).exception("the gateway ends")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
