"""`make demo`: the main job end to end, on a real cluster, as a new user would see it.

Brings the cluster up, installs the chart, applies examples of every priority, a job that fails and a burst, shows them
finish, and ends with a table and what to try next. Exit status 0 means that every job reached the phase that it should.
"""

import json
import sys
import time
from collections import Counter
from typing import Any

from localcluster.binaries import ensure
from localcluster.clusters import Cluster, choose_cluster
from localcluster.errors import LocalClusterError
from localcluster.installing import NAMESPACE, ROOT, install
from localcluster.resources import kubectl

JOBS_NAMESPACE = "demo"
BURST = 300
PATIENCE_SECONDS = 300.0
FINAL = ("Succeeded", "Failed", "Dead", "Cancelled")
EXPECTED_DEAD = "example-failing"


def heading(text: str) -> None:
    """Print what comes next."""
    print(f"\n\033[1m==> {text}\033[0m" if sys.stdout.isatty() else f"\n==> {text}", flush=True)


class Demo:
    """One run of the demo."""

    def __init__(self, cluster: Cluster) -> None:
        """Keep the cluster."""
        self._cluster = cluster

    def run(self) -> int:
        """Run it; returns the exit status."""
        heading("A cluster (the first time this builds Kubernetes, about ten minutes on two cores)")
        self._cluster.up()
        heading("Images and chart")
        install(self._cluster)
        print(self._kubectl("get", "pods,lease", f"--namespace={NAMESPACE}"))
        heading(f"Jobs: one of each priority, one that fails, and a burst of {BURST}")
        self._clean()
        self._kubectl("apply", f"--namespace={JOBS_NAMESPACE}", "--filename", str(ROOT / "examples"))
        began = time.monotonic()
        self._kubectl("create", "--filename=-", stdin=json.dumps(burst()))
        created = time.monotonic()
        print(f"{BURST} jobs created in {created - began:.1f} s")
        jobs = self._watch()
        took = time.monotonic() - began
        self._report(jobs, took)
        wrong = problems(jobs)
        for problem in wrong:
            print(f"WRONG: {problem}", file=sys.stderr)
        if not wrong:
            self._suggest()
        return 1 if wrong else 0

    def _kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return kubectl(self._cluster.kubeconfig(), *arguments, stdin=stdin)

    def _clean(self) -> None:
        """Begin anew: jobs of an earlier demo are deleted, and it does not matter whether they run."""
        namespaces = self._kubectl("get", "namespaces", "--output=name").split()
        if f"namespace/{JOBS_NAMESPACE}" in namespaces:
            self._kubectl("delete", "djobs", "--all", f"--namespace={JOBS_NAMESPACE}")
        else:
            self._kubectl("create", "namespace", JOBS_NAMESPACE)

    def _watch(self) -> list[dict[str, Any]]:
        """Print how the jobs fare until all are over; returns them."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        last = ""
        while True:
            jobs: list[dict[str, Any]] = json.loads(
                self._kubectl("get", "djobs", f"--namespace={JOBS_NAMESPACE}", "--output=json")
            )["items"]
            phases = Counter(job["status"]["phase"] for job in jobs)
            line = "   ".join(f"{phase} {count}" for phase, count in sorted(phases.items()))
            if line != last:
                print(f"  {time.strftime('%H:%M:%S')}   {line}", flush=True)
                last = line
            if all(phase in FINAL for phase in phases) or time.monotonic() > deadline:
                return jobs
            time.sleep(1)

    def _report(self, jobs: list[dict[str, Any]], took: float) -> None:
        heading("What became of them")
        shown = ["djobs", *(f"{job['metadata']['name']}" for job in jobs if not is_burst(job))]
        print(self._kubectl("get", *shown, f"--namespace={JOBS_NAMESPACE}", "--output=wide"))
        done = sum(job["status"]["phase"] == "Succeeded" for job in jobs if is_burst(job))
        print(f"and of the burst, {done} of {BURST} succeeded; everything was over after {took:.0f} s\n")
        failing = next((job for job in jobs if job["metadata"]["name"] == EXPECTED_DEAD), None)
        for attempt in (failing or {}).get("status", {}).get("attempts", []):
            print(
                f"  {EXPECTED_DEAD}, attempt {attempt['number']}: {attempt['startTime'][11:23]} to "
                f"{attempt['completionTime'][11:23]}  {attempt['outcome']}: {attempt.get('error', '')[:60]}"
            )
        print()
        print(self._kubectl("get", "dworkers", f"--namespace={NAMESPACE}"))

    def _suggest(self) -> None:
        heading("Try next")
        print(
            f"""  export KUBECONFIG=$(make -s kubeconfig) PATH={ensure("kubectl").parent}:$PATH
  kubectl explain djob.spec
  kubectl -n {JOBS_NAMESPACE} describe djob {EXPECTED_DEAD}              # why it failed, attempt by attempt
  kubectl -n {JOBS_NAMESPACE} get djobs --watch
  kubectl -n {NAMESPACE} delete pod -l app.kubernetes.io/component=operator   # jobs go on under the next leader
  make down                                                # when you have seen enough
  docs/writing-tasks.md                                    # a task of your own, from an empty folder"""
        )


def burst() -> dict[str, Any]:
    """A list of quick jobs of mixed priorities."""
    priorities = ("High", "Medium", "Low")
    items = [
        {
            "apiVersion": "distriqueue.io/v1alpha1",
            "kind": "DistributedJob",
            "metadata": {
                "name": f"burst-{number:03}",
                "namespace": JOBS_NAMESPACE,
                "labels": {"demo": "burst"},
            },
            "spec": {
                "type": "calculate",
                "priority": priorities[number % 3],
                "payload": {"operation": "multiply", "operands": [number, number]},
            },
        }
        for number in range(BURST)
    ]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def is_burst(job: dict[str, Any]) -> bool:
    """Whether a job belongs to the burst."""
    return bool(job["metadata"].get("labels", {}).get("demo") == "burst")


def problems(jobs: list[dict[str, Any]]) -> list[str]:
    """What is not as it should be, a sentence each."""
    found = []
    for job in jobs:
        name, phase = job["metadata"]["name"], job["status"]["phase"]
        wanted = "Dead" if name == EXPECTED_DEAD else "Succeeded"
        if phase != wanted:
            found.append(f"{name} is {phase}, not {wanted}: {job['status'].get('error', '')}")
    if sum(is_burst(job) for job in jobs) != BURST:
        found.append(f"there are not {BURST} jobs in the burst")
    return found


def main() -> int:
    """Run the demo; returns the exit status."""
    try:
        return Demo(choose_cluster()).run()
    except LocalClusterError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
