"""The network of the cluster: one network namespace, joined to the machine by a pair of virtual interfaces.

Everything of the cluster runs inside, so no port of the machine is taken. The machine reaches the API server, pods and
Services through routes to the inside; pods reach the machine's end and nothing beyond, as the machine forwards nothing
for them.

Making and deleting are idempotent: what is there already stays, what is gone already is fine.
"""

from collections.abc import Sequence
from pathlib import Path

from localcluster.commands import run, succeeds

NAMESPACE = "distriqueue"
"""The network namespace."""

NODE_ADDRESS = "10.123.0.2"
"""The inside end: the address of the only node, of the API server and of DNS."""

PODS = "10.123.64.0/18"
"""The addresses of pods."""

SERVICES = "10.123.128.0/18"
"""The addresses of Services."""

KUBERNETES_SERVICE = "10.123.128.1"
"""The first address of :data:`SERVICES`, which the API server takes for itself."""

_MACHINE_ADDRESS = "10.123.0.1"
_LINK_BITS = 30
_OUTSIDE, _INSIDE = "distriqueue0", "uplink0"
_NAMESPACE_FILE = Path("/run/netns") / NAMESPACE


def inside(argv: Sequence[str]) -> list[str]:
    """Return a command that runs in the namespace, with the same pid once it runs.

    Not ``ip netns exec``: that remounts /sys, which hides the control groups from the kubelet.
    """
    return ["nsenter", f"--net={_NAMESPACE_FILE}", *argv]


def exists() -> bool:
    """Return whether the namespace is there."""
    return succeeds(inside(["true"])) if _NAMESPACE_FILE.exists() else False


def create() -> None:
    """Make the namespace, the pair of interfaces and the routes."""
    if not exists():
        delete()  # the file of a namespace that is gone, as a reboot can leave it
        run(["ip", "netns", "add", NAMESPACE])
    if not Path("/sys/class/net", _OUTSIDE).exists():
        run(["ip", "link", "add", _OUTSIDE, "type", "veth", "peer", "name", _INSIDE, "netns", NAMESPACE])
    run(["ip", "address", "replace", f"{_MACHINE_ADDRESS}/{_LINK_BITS}", "dev", _OUTSIDE])
    run(["ip", "link", "set", _OUTSIDE, "up"])
    run(inside(["ip", "address", "replace", f"{NODE_ADDRESS}/{_LINK_BITS}", "dev", _INSIDE]))
    run(inside(["ip", "link", "set", _INSIDE, "up"]))
    run(inside(["ip", "link", "set", "lo", "up"]))
    run(inside(["ip", "route", "replace", "default", "via", _MACHINE_ADDRESS]))
    run(inside(["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]))
    for addresses in (PODS, SERVICES):
        run(["ip", "route", "replace", addresses, "via", NODE_ADDRESS])


def delete() -> None:
    """Delete the namespace; interfaces and routes go with it. Everything in it must have ended."""
    if Path("/sys/class/net", _OUTSIDE).exists():
        run(["ip", "link", "delete", _OUTSIDE])
    if _NAMESPACE_FILE.exists() and not succeeds(["ip", "netns", "delete", NAMESPACE]):
        _NAMESPACE_FILE.unlink()  # no mount is on it any more
