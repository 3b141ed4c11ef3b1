"""The project's own resources on an API server: install the definitions, make namespaces; for tests and benches."""

from pathlib import Path

from localcluster.binaries import ensure
from localcluster.commands import run

ROOT = Path(__file__).resolve().parent.parent
DEFINITIONS = ("distributedjobs.distriqueue.io", "distributedworkers.distriqueue.io")


def kubectl(kubeconfig: Path, *arguments: str, stdin: str | None = None, timeout: float = 120.0) -> str:
    """Run kubectl and return what it printed.

    Raises:
        CommandError: It failed; the error has its words.
    """
    return run([str(ensure("kubectl")), f"--kubeconfig={kubeconfig}", *arguments], stdin=stdin, timeout=timeout)


def install_definitions(kubeconfig: Path) -> None:
    """Install the CRDs and the admission policy, and return when they are served."""
    kubectl(kubeconfig, "apply", "--server-side", "--filename", str(ROOT / "crds"))
    names = [f"crd/{name}" for name in DEFINITIONS]
    kubectl(kubeconfig, "wait", "--for=condition=Established", "--timeout=60s", *names)


def make_namespace(kubeconfig: Path, name: str) -> None:
    """Make a namespace."""
    kubectl(kubeconfig, "create", "namespace", name)
