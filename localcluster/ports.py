"""Free ports on loopback, for programs that want to be told which one to take.

They lie below the kernel's own range, or somebody's outgoing connection could take the port of a program that is down
for a moment, and below Kubernetes' node ports. Nothing holds a port for us: whoever starts a program on one must be
ready to find it taken after all, and try again.
"""

import random
import socket

from localcluster.errors import LocalClusterError

PORTS = range(20000, 30000)
CANDIDATES = 500


def is_free(port: int) -> bool:
    """Return whether nobody listens on a port of loopback."""
    with socket.socket() as probe:
        # A port whose last connections are still being forgotten is free, too.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_ports(count: int) -> list[int]:
    """Return so many different ports that are free now.

    Raises:
        LocalClusterError: There are not so many.
    """
    free: list[int] = []
    for port in random.SystemRandom().sample(PORTS, CANDIDATES):
        if is_free(port):
            free.append(port)
            if len(free) == count:
                return free
    raise LocalClusterError(f"no {count} free ports on loopback between {PORTS.start} and {PORTS.stop}")


def free_port() -> int:
    """Return one port that is free now."""
    (port,) = free_ports(1)
    return port
