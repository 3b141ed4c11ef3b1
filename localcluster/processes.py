"""Starting and ending the processes of a cluster, by their identity and never by name.

A :class:`Process` is a pid together with the time it started and the boot it started in, so that a pid file that is
older than a crash or a reboot never leads to somebody else's process. Ending one asks first (SIGTERM), and kills after
a grace period; it returns when the process is gone, also when it is not our child.

Two ways to start one: :class:`Children` start processes that die with this process, even when it is killed;
:func:`start_daemon` starts one that outlives us and is found again through its pid file.
"""

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from localcluster.errors import LocalClusterError


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for another one with the same pid.

    Attributes:
        pid: Its process id.
        started: When it started, in clock ticks since boot.
        boot: The kernel's id of that boot.
    """

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> "Process | None":
        """Return the process that has a pid now, or None when there is none that still runs."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        state, *fields = stat.rpartition(")")[2].split()  # the name before it may have spaces and parentheses
        if state in {"Z", "X"}:
            return None
        return cls(pid=pid, started=int(fields[18]), boot=_boot_id())

    def alive(self) -> bool:
        """Return whether it still runs (a zombie does not)."""
        return Process.of(self.pid) == self

    def signal(self, number: int) -> bool:
        """Send a signal, and return whether the process was there to get it."""
        return _signal_all([self], number) == 1

    def stop(self, *, grace: float) -> None:
        """End it: SIGTERM, and SIGKILL when it still runs after ``grace`` seconds."""
        stop_all([self], grace=grace)


def stop_all(processes: Sequence[Process], *, grace: float) -> None:
    """End several processes at once: SIGTERM, then SIGKILL after ``grace`` seconds; return when all are gone.

    Raises:
        LocalClusterError: One did not even end when killed (it hangs in the kernel).
    """
    _signal_all(processes, signal.SIGTERM)
    if wait_gone(processes, timeout=grace):
        return
    _signal_all(processes, signal.SIGKILL)
    if not wait_gone(processes, timeout=20):
        left = ", ".join(str(process.pid) for process in processes if process.alive())
        raise LocalClusterError(f"processes that do not end though they were killed: {left}")


def wait_gone(processes: Sequence[Process], *, timeout: float) -> bool:
    """Wait until none of the processes runs any more; return whether that came true within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    for process in processes:
        try:
            descriptor = os.pidfd_open(process.pid)
        except ProcessLookupError:
            continue
        try:
            while process.alive():
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                # Readable when the process ends. Who kills and then waits for the next one needs no polling.
                select.select([descriptor], [], [], remaining)
        finally:
            os.close(descriptor)
    return True


def _signal_all(processes: Sequence[Process], number: int) -> int:
    reached = 0
    for process in processes:
        try:
            descriptor = os.pidfd_open(process.pid)
        except ProcessLookupError:
            continue
        try:
            if process.alive():  # checked while the descriptor is held: the pid cannot change hands in between
                signal.pidfd_send_signal(descriptor, number)
                reached += 1
        except ProcessLookupError:
            continue
        finally:
            os.close(descriptor)
    return reached


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def read_pid_file(path: Path) -> Process | None:
    """Return the process of a pid file, if it still runs; an unreadable file counts as none."""
    try:
        content = json.loads(path.read_text())
        process = Process(pid=int(content["pid"]), started=int(content["started"]), boot=str(content["boot"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return process if process.alive() else None


def start_daemon(argv: Sequence[str], *, pid_file: Path, log: Path, env: Mapping[str, str] | None = None) -> Process:
    """Start a process that outlives us, and write its pid file.

    Args:
        argv: The program and its arguments. What it replaces itself by (``nsenter``, ``setpriv``) keeps the pid.
        pid_file: Written by rename, once the process runs.
        log: Gets its output, appended.
        env: Environment variables to set on top of our own.
    """
    pid_file.parent.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
            env={**os.environ, **(env or {})},
        )
    process = Process.of(child.pid)
    if process is None:
        raise LocalClusterError(f"{argv[0]} ended at once; see {log}")
    child.returncode = 0  # it is not ours to wait for: keeps Popen from warning that it still runs
    unfinished = pid_file.with_name(pid_file.name + ".unfinished")
    unfinished.write_text(json.dumps(asdict(process)) + "\n")
    unfinished.rename(pid_file)
    return process


class Children:
    """Starts processes that end when this process ends, in whatever way.

    The kernel kills them (``PR_SET_PDEATHSIG``) when the *thread* that started them ends, so they are all started by
    one thread that lives as long as this object.
    """

    def __init__(self) -> None:
        """Start the thread that will be the parent of all."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="localcluster-parent")
        self._running: dict[str, tuple[subprocess.Popen[bytes], Process]] = {}

    def start(self, name: str, argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> Process:
        """Start a process under a name, by which it can be stopped; its output is appended to ``log``.

        Args:
            name: Any name that is not in use.
            argv: The program and its arguments.
            log: Gets its output, appended.
            env: Environment variables to set on top of our own.
        """
        if name in self._running:
            raise LocalClusterError(f"{name} was already started and not stopped")
        child = self._thread.submit(self._spawn, argv, log, dict(env or {})).result()
        process = Process.of(child.pid)
        if process is None:
            child.wait()
            raise LocalClusterError(f"{name} ended at once; see {log}")
        self._running[name] = (child, process)
        return process

    @staticmethod
    def _spawn(argv: Sequence[str], log: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us; we end them in order
                env={**os.environ, **env},
            )

    def get(self, name: str) -> Process | None:
        """Return the process that was started under a name, if it runs."""
        started = self._running.get(name)
        return started[1] if started is not None and started[1].alive() else None

    def stop(self, name: str, *, grace: float) -> None:
        """End a process: SIGTERM, and SIGKILL after ``grace`` seconds (0: SIGKILL at once). Unknown names are fine."""
        started = self._running.pop(name, None)
        if started is None:
            return
        child, process = started
        if grace > 0:
            process.stop(grace=grace)
        else:
            process.signal(signal.SIGKILL)
        child.wait()

    def close(self) -> None:
        """Kill what still runs, and end the thread."""
        for name in reversed(list(self._running)):
            self.stop(name, grace=0)
        self._thread.shutdown()
