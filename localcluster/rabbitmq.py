"""A real RabbitMQ 4 as a process, for tests and for trying things out.

The broker runs from a Debian root (localcluster.images.roots) in mount and process-id namespaces of its own. Its data,
configuration, cookie and logs lie in one directory; it listens on three free ports of the loopback (AMQP, the Erlang
distribution, epmd) and nowhere else, so any number of brokers run side by side.

Guarantees:
- ``start`` returns when the broker has answered a whole AMQP handshake, login and virtual host included.
- When the broker ends, is killed, or the process that started it dies in whatever way, nothing is left running: the
  kernel ends the whole process-id namespace, the broker's own epmd included.
- The URL stays the same over stop, kill, restart and reset.
Fails with BrokerError, which carries the end of the broker's log. Needs root (namespaces, chroot).

Command line: ``python -m localcluster.rabbitmq --directory D`` prints the URL and runs until SIGTERM.
"""

import argparse
import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Self

from localcluster.amqp import serves
from localcluster.errors import LocalClusterError
from localcluster.images.roots import BROKER, unpacked_root
from localcluster.ports import free_ports
from localcluster.processes import Children, Process, wait_gone

START_SECONDS = 60.0
"""How long a start may take on a busy machine; a warm one needs 3 to 5 s."""
STOP_SECONDS = 30.0
"""How long a clean stop may take before the broker is killed."""
POLL_SECONDS = 0.05

_CONFIGURATION = """\
listeners.tcp.1 = 127.0.0.1:{port}
loopback_users.guest = true
# Alarms would block publishers: a full disk or a big neighbour on a shared machine is not what is being tested.
disk_free_limit.absolute = 50MB
vm_memory_high_watermark.absolute = 1GiB
# The default of 512 MB is allocated for each log of the quorum queues, which costs time on a slow disk.
raft.wal_max_size_bytes = 64000000
log.console = false
log.file = rabbitmq.log
log.file.level = info
"""

_ENTER = """\
set -e
mount --bind "$ROOT" "$ROOT"
mount -o remount,bind,ro "$ROOT"
mount --bind "$DIRECTORY" "$ROOT/instance"
mount --bind /dev "$ROOT/dev"
mount -t proc proc "$ROOT/proc"
cd /
exec chroot "$ROOT" env -i "$@"
"""
"""Enters the root, read-only, with the instance's directory in it. Runs in a mount namespace of its own."""


_UNSHARE = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child")
"""Mount and process-id namespaces of one's own, which end when their first process or unshare itself does."""

_NAME = "rabbitmq"


class BrokerError(LocalClusterError):
    """The broker did not start, did not stop or refused a command."""


class Broker:
    """One RabbitMQ node. A context manager: entering starts it, leaving stops it.

    The methods block; from a coroutine call them by ``asyncio.to_thread``. They may be called from any thread, one at
    a time.

    Args:
        directory: Where data, configuration and logs lie; kept at the end. Without one it is a temporary directory,
            removed when the context is left.
        port: The AMQP port; a free one by default.
        plugins: Plugins to enable, such as ``rabbitmq_prometheus`` (most of them listen on ports of their own).
        configuration: Lines in addition for ``rabbitmq.conf``; the broker sees its directory as ``/instance``.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        port: int | None = None,
        plugins: Sequence[str] = (),
        configuration: str = "",
    ) -> None:
        self._temporary = directory is None
        self.directory = directory.resolve() if directory else Path(tempfile.mkdtemp(prefix="distriqueue-rabbitmq-"))
        own, self._distribution_port, self._epmd_port = free_ports(3)
        self.port = port or own
        self._plugins = tuple(plugins)
        self._configuration = configuration
        self._children: Children | None = None
        self._lock: IO[str] | None = None

    @property
    def url(self) -> str:
        """The AMQP URL, without a heartbeat: append ``?heartbeat=N``, or the client decides for 60 s."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @property
    def pid(self) -> int:
        """The process id of the Erlang VM, as seen from outside: what to stop, freeze or kill.

        Raises:
            BrokerError: The broker does not run.
        """
        outer = self._process()
        if outer is None:
            raise BrokerError("the broker does not run")
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        return int(children.read_text().split()[0])

    @property
    def running(self) -> bool:
        """Whether the process is there (a frozen one is)."""
        return self._process() is not None

    @property
    def log_file(self) -> Path:
        """The broker's log."""
        return self.directory / "log" / "rabbitmq.log"

    def start(self) -> None:
        """Start the broker on the data that its directory holds, and wait until it serves.

        Raises:
            BrokerError: It runs already, another one uses the directory, or it did not come up.
        """
        if self.running:
            raise BrokerError("the broker runs already")
        env = self._outer()
        self._prepare()
        command = self._enter("/usr/lib/rabbitmq/bin/rabbitmq-server")
        self._children = Children()
        self._children.start(_NAME, command, log=self.directory / "log" / "console.log", env=env)
        deadline = time.monotonic() + START_SECONDS
        while not serves(self.port):
            if not self.running:
                self._release()
                raise BrokerError(f"RabbitMQ ended while it started\n{self._log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise BrokerError(f"RabbitMQ did not serve within {START_SECONDS:.0f} s\n{self._log_tail()}")
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Stop it cleanly (SIGTERM), also a frozen one; kill it when it takes too long. Stopped already is fine."""
        outer = self._process()
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)
        if outer is not None and not wait_gone([outer], timeout=STOP_SECONDS):
            self.kill()
        self._release()

    def kill(self) -> None:
        """Kill it (SIGKILL): what was not written is lost. Not running is fine.

        Raises:
            BrokerError: The kernel did not end it within half a minute.
        """
        outer = self._process()
        if outer is not None:
            # The outer process ends when its namespace is empty. It is ended itself when it has no child yet.
            if not self._signal(signal.SIGKILL):
                outer.signal(signal.SIGKILL)
            if not wait_gone([outer], timeout=STOP_SECONDS):
                raise BrokerError("the broker outlived SIGKILL")
        self._release()

    def restart(self) -> None:
        """Stop it cleanly and start it again on the same data and port."""
        self.stop()
        self.start()

    def reset(self) -> None:
        """Kill it, forget all queues, messages and users, and start it again, on the same port."""
        self.kill()
        shutil.rmtree(self.directory / "data", ignore_errors=True)
        self.start()

    def ctl(self, *args: str, timeout: float = 60.0) -> str:
        """Run ``rabbitmqctl`` with these arguments and return what it prints; takes a second or two.

        Args:
            *args: As on its command line.
            timeout: Seconds until the command is given up.

        Raises:
            BrokerError: The command failed; carries what it wrote.
        """
        command = self._enter("/usr/lib/rabbitmq/bin/rabbitmqctl", *args)
        env = {**os.environ, **self._outer()}
        try:
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired as error:
            raise BrokerError(f"rabbitmqctl {' '.join(args)}: no answer within {timeout:.0f} s") from error
        if done.returncode:
            raise BrokerError(f"rabbitmqctl {' '.join(args)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def __enter__(self) -> Self:
        """Start it."""
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop it, and remove its directory when that was a temporary one."""
        self.close()

    def close(self) -> None:
        """Stop it for good: a temporary directory is removed."""
        if self._temporary:
            self.kill()  # nobody will read the data again
            shutil.rmtree(self.directory, ignore_errors=True)
        else:
            self.stop()

    def _prepare(self) -> None:
        self._release()  # what is left of one that ended by itself
        self.directory.mkdir(parents=True, exist_ok=True)
        lock = (self.directory / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise BrokerError(f"another broker runs in {self.directory}") from error
        self._lock = lock
        for part in ("data", "log", "tmp"):
            (self.directory / part).mkdir(exist_ok=True)
        (self.directory / "rabbitmq.conf").write_text(_CONFIGURATION.format(port=self.port) + self._configuration)
        (self.directory / "enabled_plugins").write_text(f"[{','.join(self._plugins)}].\n")
        cookie = self.directory / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(mode=0o600)
            cookie.write_text(secrets.token_hex(16))

    def _enter(self, *command: str) -> list[str]:
        variables = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/instance",
            "TMPDIR": "/instance/tmp",
            "LANG": "C.UTF-8",
            # The broker insists on an epmd (the name service of Erlang nodes) and starts one: it gets one of its own.
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP": "/instance/log/erl_crash.dump",
            # Makes the start script become the broker instead of staying its parent.
            "RUNNING_UNDER_SYSTEMD": "true",
            # Names collide only within one epmd, so all brokers can have the same.
            "RABBITMQ_NODENAME": "rabbit@localhost",
            "RABBITMQ_CONF_ENV_FILE": "/instance/rabbitmq-env.conf",
            "RABBITMQ_CONFIG_FILE": "/instance/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": "/instance/enabled_plugins",
            "RABBITMQ_MNESIA_BASE": "/instance/data",
            "RABBITMQ_LOG_BASE": "/instance/log",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_CTL_ERL_ARGS": "-start_epmd false -dist_listen false",
        }
        assignments = [f"{name}={value}" for name, value in variables.items()]
        return [*_UNSHARE, "sh", "-c", _ENTER, "enter", *assignments, *command]

    def _outer(self) -> dict[str, str]:
        return {"ROOT": str(unpacked_root(BROKER)), "DIRECTORY": str(self.directory)}

    def _process(self) -> Process | None:
        return self._children.get(_NAME) if self._children is not None else None

    def _signal(self, number: signal.Signals) -> bool:
        with contextlib.suppress(BrokerError, FileNotFoundError, ProcessLookupError, IndexError):
            os.kill(self.pid, number)
            return True
        return False

    def _release(self) -> None:
        if self._children is not None:
            self._children.close()
            self._children = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _log_tail(self) -> str:
        logs = [self.directory / "log" / "console.log", self.log_file]
        lines = [line for log in logs if log.exists() for line in log.read_text(errors="replace").splitlines()[-20:]]
        return "\n".join(lines)


def main() -> int:
    """Run a broker until SIGTERM or SIGINT; 1 if it ends by itself."""
    parser = argparse.ArgumentParser(prog="python -m localcluster.rabbitmq", description="Run a RabbitMQ 4 process.")
    parser.add_argument("--directory", type=Path, required=True, help="data, configuration and logs; kept")
    parser.add_argument("--port", type=int, help="the AMQP port (a free one by default)")
    parser.add_argument("--plugin", action="append", default=[], help="a plugin to enable; may be repeated")
    options = parser.parse_args()
    asked = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        asked.set()

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    with Broker(options.directory, port=options.port, plugins=options.plugin) as broker:
        print(broker.url, flush=True)
        while broker.running and not asked.wait(1.0):
            pass
    return 0 if asked.is_set() else 1


if __name__ == "__main__":
    raise SystemExit(main())
