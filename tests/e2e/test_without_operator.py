"""With the operator gone, jobs and their namespaces can be deleted; nothing holds them back, and nothing is lost."""

from collections.abc import Iterator

import pytest

from localcluster.errors import LocalClusterError
from localcluster.installing import NAMESPACE, RELEASE
from tests.e2e.systems import OPERATORS, PATIENCE_SECONDS, System
from tests.support.jobs import manifest, phase

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300, func_only=True)]

OPERATOR = f"deployment/{RELEASE}-operator"
WAIT = f"--timeout={PATIENCE_SECONDS:.0f}s"


@pytest.fixture(scope="module", autouse=True)
def _gone(system: System, namespace: str) -> Iterator[None]:
    """Stop the operator while one job is over, one runs and one waits for a pool that nobody serves."""
    system.until_whole()
    system.apply(
        manifest(namespace, "over"),
        manifest(namespace, "running", type="hold", payload={"until": "never"}),
        manifest(namespace, "waiting", poolName="nobody"),
    )
    system.until_over(["over"], namespace=namespace)
    system.until(lambda: phase(system.job("running", namespace=namespace)) == "Running")
    system.kubectl("scale", OPERATOR, "--replicas=0", f"--namespace={NAMESPACE}")
    system.until(lambda: not system.get("pods", "--selector=app.kubernetes.io/component=operator")["items"])
    yield
    system.kubectl("scale", OPERATOR, f"--replicas={OPERATORS}", f"--namespace={NAMESPACE}")
    system.until_whole()


def test_deleting_jobs_does_not_hang(system: System, namespace: str) -> None:
    system.apply(manifest(namespace, "new"))
    for name in ("over", "running", "waiting", "new"):
        system.kubectl("delete", "djob", name, f"--namespace={namespace}", "--timeout=30s")
    assert not system.jobs(namespace)


def test_deleting_a_namespace_does_not_hang(system: System) -> None:
    other = "e2e-abandoned"
    system.kubectl("create", "namespace", other)
    system.apply(manifest(other, "one"), manifest(other, "two", poolName="nobody"))
    system.kubectl("delete", "namespace", other, WAIT)
    with pytest.raises(LocalClusterError, match="not found"):
        system.kubectl("get", "namespace", other)


def test_when_it_is_back_new_jobs_run_and_deleted_ones_are_stopped(system: System, namespace: str) -> None:
    system.apply(manifest(namespace, "later"))
    system.kubectl("scale", OPERATOR, f"--replicas={OPERATORS}", f"--namespace={NAMESPACE}")
    assert phase(system.until_over(["later"], namespace=namespace)["later"]) == "Succeeded"
    system.until(lambda: [record for record in system.records().events("stopped") if record.namespace == namespace])
    started = {record.name for record in system.records().started() if record.namespace == namespace}
    assert started == {"over", "running", "later"}
