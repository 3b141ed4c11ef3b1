"""How a program of the control plane runs, from its settings to its exit status.

Guarantees: what is wrong with the settings is said on standard error before anything is started; SIGTERM and SIGINT ask
the program to end; whatever ends it otherwise goes into the log, as every other line does.
"""

import asyncio
import signal
import sys
from collections.abc import Callable
from typing import Protocol, TypeVar

import structlog
import uvloop

from distriqueue.telemetry.logs import configure
from distriqueue_protocol.settings import ProgramSettings, SettingsError

SettingsT = TypeVar("SettingsT", bound=ProgramSettings)


class Program(Protocol):
    """One replica of something."""

    async def run(self) -> None:
        """Run until stopped."""

    def stop(self) -> None:
        """Ask it to end."""


def run(name: str, settings: type[SettingsT], make: Callable[[SettingsT], Program]) -> int:
    """Read the settings, set up logs and signals, and run until SIGTERM.

    Args:
        name: What the log calls the program.
        settings: Its settings.
        make: Makes it; called in the event loop.

    Returns:
        The exit status: 0 after a clean stop, 2 for settings that make no sense, 1 for everything else.
    """
    try:
        read = settings.load()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    configure(level=read.log_level, format_=read.log_format)
    return uvloop.run(_run(name, lambda: make(read)))


async def _run(name: str, make: Callable[[], Program]) -> int:
    program = make()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, program.stop)
    try:
        await program.run()
    except Exception:  # noqa: BLE001 - the last frame of the program: whatever it is goes into the log as JSON
        structlog.get_logger(__name__).exception(f"the {name} ends")
        return 1
    return 0
