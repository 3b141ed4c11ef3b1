"""The release on a cluster, as tests see it and disturb it: kubectl and helm for real, and the pods' processes.

Its workers have the recording tasks of `tests.support`, brought in the way that users bring theirs: a module in a
ConfigMap, named by the chart's values. What handlers record goes to a volume that outlives every pod, so it is told by
the handlers alone and by nothing that the product says about itself.

Fails with `LocalClusterError`, or with an AssertionError that has the last thing that was seen.
"""

import inspect
import json
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from localcluster.clusters import Cluster
from localcluster.errors import LocalClusterError
from localcluster.installing import NAMESPACE, RELEASE, helm, install
from localcluster.processes import Process
from localcluster.resources import kubectl
from tests.support import recording_tasks
from tests.support.jobs import Job, is_final, phase
from tests.support.records import Records

LEASE: Final = f"{RELEASE}-shard-0"
OPERATORS: Final = 2
GATEWAYS: Final = 2
WORKERS: Final = 2
CONCURRENCY: Final = 4
GRACE_SECONDS: Final = 5
"""How long a worker that is asked to go lets its handlers run."""

PATIENCE_SECONDS: Final = 120.0
"""After so long something is broken, however busy the machine is."""

_POLL_SECONDS: Final = 0.2
LABELS: Final = {"distriqueue.io/tests": "e2e"}
"""On everything that the tests make and that does not go with a namespace of theirs."""

_RECORDS: Final = "/records/records.jsonl"

T = TypeVar("T")


def recording_values(name: str) -> dict[str, Any]:
    """Values for the chart: workers with the recording tasks.

    Args:
        name: Of the ConfigMap with the tasks, and of the claim with the records.
    """
    return {
        "worker": {
            "replicas": WORKERS,
            "concurrency": CONCURRENCY,
            "shutdownGraceSeconds": GRACE_SECONDS,
            "tasks": ["recording_tasks"],
            "extraEnv": [
                {"name": "PYTHONPATH", "value": "/tasks"},
                {"name": recording_tasks.RECORDS_VARIABLE, "value": _RECORDS},
                {"name": "DISTRIQUEUE_WORKER_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            ],
            "extraVolumes": [
                {"name": "tasks", "configMap": {"name": name}},
                {"name": "records", "persistentVolumeClaim": {"claimName": name}},
            ],
            "extraVolumeMounts": [
                {"name": "tasks", "mountPath": "/tasks", "readOnly": True},
                {"name": "records", "mountPath": "/records"},
            ],
        }
    }


def forget_recording(kubeconfig: Path) -> None:
    """Delete what tests, interrupted ones too, left: their part of the release, and their namespaces with all jobs.

    It does not wait: a claim that is in use goes with its last pod.
    """
    selector = ",".join(f"{key}={value}" for key, value in LABELS.items())
    for kind in ("configmaps", "persistentvolumeclaims", "namespaces"):
        kubectl(kubeconfig, "delete", kind, f"--selector={selector}", f"--namespace={NAMESPACE}", "--wait=false")


class System:
    """See the module.

    Args:
        cluster: Where; it must be up.
        directory: For what is copied from it.
    """

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.cluster = cluster
        self.kubeconfig = cluster.kubeconfig()
        self._directory = directory

    # --- commands --------------------------------------------------------------------------------------------------

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 120.0) -> str:
        """Run kubectl."""
        return kubectl(self.kubeconfig, *arguments, stdin=stdin, timeout=timeout)

    def helm(self, *arguments: str) -> str:
        """Run helm in the release's namespace."""
        return helm(self.kubeconfig, *arguments, f"--namespace={NAMESPACE}")

    def get(self, *arguments: str, namespace: str = NAMESPACE) -> Any:
        """Read resources."""
        return json.loads(self.kubectl("get", *arguments, f"--namespace={namespace}", "--output=json"))

    def apply(self, *resources: dict[str, Any]) -> None:
        """Apply resources."""
        body = {"apiVersion": "v1", "kind": "List", "items": list(resources)}
        self.kubectl("apply", "--server-side", "--filename=-", stdin=json.dumps(body))

    def until(
        self, ask: Callable[[], T], holds: Callable[[T], object] = bool, *, seconds: float = PATIENCE_SECONDS
    ) -> T:
        """Ask again and again until something holds of the answer, and return it.

        Args:
            ask: The question. Errors of its commands count as not yet: a pod that is asked may be on its way out.
            holds: What is to hold; by default that the answer is true.
            seconds: Until the test fails, with the last answer.
        """
        deadline = time.monotonic() + seconds
        last: object = None
        while time.monotonic() < deadline:
            try:
                last = answer = ask()
            except LocalClusterError as error:
                last = error
            else:
                if holds(answer):
                    return answer
            time.sleep(_POLL_SECONDS)
        raise AssertionError(f"did not come true within {seconds:.0f} s; the last answer was {last!r:.4000}")

    # --- the release -----------------------------------------------------------------------------------------------

    def install_recording(self) -> None:
        """Have the release run, its workers with the recording tasks, in a namespace that enforces `restricted`."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})
        name = f"e2e-{secrets.token_hex(3)}"
        metadata = {"name": name, "namespace": NAMESPACE, "labels": LABELS}
        tasks = {"recording_tasks.py": inspect.getsource(recording_tasks)}
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "100Mi"}}}
        self.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": tasks},
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": claim},
        )
        values = self._directory / "values.json"
        values.write_text(json.dumps(recording_values(name)))
        install(self.cluster, more=[f"--values={values}"])
        self.until_whole()

    def install_plain(self) -> None:
        """Have the release as `make install` makes it."""
        install(self.cluster)
        forget_recording(self.kubeconfig)

    def until_whole(self) -> None:
        """Wait until every replica runs and is ready, none is on its way out, and somebody leads."""
        wanted = {"operator": OPERATORS, "gateway": GATEWAYS, "worker": WORKERS}
        self.until(lambda: {part: len(self._ready(part)) for part in wanted}, lambda found: found == wanted)
        self.until(self.leader)

    def _ready(self, component: str) -> list[str]:
        conditions = {pod["metadata"]["name"]: pod["status"].get("conditions", []) for pod in self.pods(component)}
        return [
            name
            for name, found in conditions.items()
            if any(condition["type"] == "Ready" and condition["status"] == "True" for condition in found)
        ]

    # --- pods ------------------------------------------------------------------------------------------------------

    def pods(self, component: str) -> list[dict[str, Any]]:
        """The pods of a component, without those that are on their way out."""
        items = self.get("pods", f"--selector=app.kubernetes.io/component={component}")["items"]
        return [item for item in items if "deletionTimestamp" not in item["metadata"]]

    def holder(self) -> str:
        """Who holds the Lease; empty when nobody does."""
        return str(self.get("lease", LEASE).get("spec", {}).get("holderIdentity") or "")

    def leader(self) -> str:
        """The name of the leader's pod; empty when nobody leads."""
        return self.holder().partition("_")[0]

    def process(self, pod: str) -> Process | None:
        """The first process of a pod's container, as this machine knows it; None while there is none.

        Other clusters' nodes are other machines: then the test is skipped.
        """
        if os.environ.get("CLUSTER") == "current":
            pytest.skip("kill -9 needs the node's processes on this machine")
        (status,) = self.get("pod", pod)["status"]["containerStatuses"]
        container = str(status.get("containerID") or "").rpartition("/")[2]
        for directory in Path("/proc").glob("[0-9]*"):
            try:
                is_first = (directory / "status").read_text().partition("\nNSpid:")[2].splitlines()[0].endswith("\t1")
                found = is_first and container and container in (directory / "cgroup").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if found:
                return Process.of(int(directory.name))
        return None

    def kill(self, pod: str) -> None:
        """Kill -9 the first process of a pod's container, and with it all others in the container."""
        process = self.until(lambda: self.process(pod))
        assert process is not None
        assert process.signal(signal.SIGKILL)

    # --- jobs and what their handlers recorded -----------------------------------------------------------------------

    def jobs(self, namespace: str) -> list[Job]:
        """All jobs of a namespace."""
        found: list[Job] = self.get("djobs", namespace=namespace)["items"]
        return found

    def job(self, name: str, *, namespace: str) -> Job:
        """One job."""
        found: Job = self.get("djob", name, namespace=namespace)
        return found

    def until_over(self, names: Iterable[str], *, namespace: str) -> dict[str, Job]:
        """Wait until all of these jobs are in a final phase; returns them by name."""
        wanted = set(names)

        def found() -> dict[str, Job]:
            return {job["metadata"]["name"]: job for job in self.jobs(namespace) if job["metadata"]["name"] in wanted}

        def unfinished() -> dict[str, str]:
            jobs = found()
            ended = {name for name, job in jobs.items() if is_final(job)}
            return {name: phase(jobs[name]) if name in jobs else "absent" for name in wanted - ended}

        self.until(unfinished, lambda left: not left)
        return found()

    def records(self) -> Records:
        """What handlers wrote down so far."""
        text = self._in_worker(f"cat {_RECORDS} 2>/dev/null || true")
        copy = self._directory / "records.jsonl"
        copy.write_text(text)
        return Records(copy)

    def open_gate(self, gate: str) -> None:
        """Let the `hold` handlers that wait for this gate return."""
        self._in_worker(f"touch {Path(_RECORDS).with_name(gate)}")

    def _in_worker(self, script: str) -> str:
        shell = ("exec", f"deployment/{RELEASE}-worker", f"--namespace={NAMESPACE}", "--", "sh", "-c", script)
        # The pod that is chosen may be on its way out.
        (answer,) = self.until(lambda: [self.kubectl(*shell)])
        return answer
