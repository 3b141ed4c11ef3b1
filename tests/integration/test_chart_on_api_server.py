"""The chart against a real API server: what it renders is valid there, and the life of a release.

No pods run here (tests/e2e has those); everything else of a release does: definitions, rights, Lease, Secret, owners.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcluster.binaries import ensure
from localcluster.commands import run
from localcluster.control_plane import ControlPlane, Tuning
from localcluster.errors import CommandError
from tests.integration.chart_rendering import (
    CHART,
    CHECKOUT,
    NAMESPACE,
    RELEASE,
    VALUES_FILES,
    HelmError,
    Manifest,
    eventually,
    helm,
    secret_texts,
    template_file,
)
from tests.integration.chart_schemas import LOCATION, monitor_definitions, write_schemas

pytestmark = pytest.mark.integration

CLUSTER_SCOPED = {
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "FlowSchema",
    "Namespace",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}
LEASE = f"{RELEASE}-distriqueue-shard-0"
"""The name that the release's Lease has."""


class Cluster:
    """kubectl and helm with the rights of an administrator."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        return run([str(ensure("kubectl")), f"--kubeconfig={self.plane.kubeconfig}", *args], stdin=stdin)

    def get(self, *args: str) -> Any:
        return json.loads(self.kubectl("get", *args, "--output=json"))

    def apply(self, manifest: Manifest) -> None:
        self.kubectl("apply", "--server-side", "--filename=-", stdin=json.dumps(manifest))

    def namespace(self, name: str, labels: Mapping[str, str] | None = None) -> None:
        metadata = {"name": name, "labels": dict(labels or {})}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})

    def helm(self, *args: str, values: Mapping[str, Any] | None = None, namespace: str = NAMESPACE) -> str:
        return helm(*args, "--namespace", namespace, kubeconfig=self.plane.kubeconfig, values=values)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    tuning = Tuning(fsync=False, controllers=("garbage-collector-controller", "clusterrole-aggregation-controller"))
    with ControlPlane(tmp_path_factory.mktemp("plane"), tuning=tuning) as plane:
        made = Cluster(plane)
        for file in monitor_definitions():
            made.kubectl("apply", "--server-side", f"--filename={file}")
        made.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        made.namespace(NAMESPACE, {"pod-security.kubernetes.io/enforce": "restricted"})
        made.namespace("team-a")
        made.namespace("team-b")
        yield made


@pytest.fixture(scope="module")
def definitions(cluster: Cluster) -> None:
    """The project's own definitions, as a release leaves them behind."""
    cluster.helm("install", RELEASE, str(CHART))
    cluster.helm("uninstall", RELEASE)


# What is rendered is valid


@pytest.fixture(scope="module")
def schemas(cluster: Cluster, definitions: None, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001 - in order
    folder = tmp_path_factory.mktemp("schemas")
    # A definition's OpenAPI appears a moment after it is Established.
    kinds = ("distributedjobs", "servicemonitors", "podmonitors")
    eventually(lambda: all(cluster.kubectl("explain", kind) for kind in kinds), ignoring=CommandError)
    paths = json.loads(cluster.kubectl("get", "--raw=/openapi/v3"))["paths"]
    count = sum(
        write_schemas(json.loads(cluster.kubectl("get", f"--raw=/openapi/v3/{path}")), folder)
        for path in paths
        if path.startswith(("api/", "apis/")) and path.count("/") >= 1
    )
    assert count > 100
    return folder


def _kubeconform(schemas: Path, manifests: str) -> dict[str, Any]:
    done = subprocess.run(
        [
            str(ensure("kubeconform")),
            "-strict",
            "-output=json",
            "-summary",
            f"-schema-location={schemas}/{LOCATION}",
            "-",
        ],
        input=manifests,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("values", VALUES_FILES, ids=lambda file: file.stem)
def test_everything_rendered_fits_the_api_servers_own_schemas(schemas: Path, values: Path) -> None:
    objects = template_file(values).objects
    answer = _kubeconform(schemas, yaml.safe_dump_all(objects))
    assert answer.get("resources", []) == []
    assert answer["summary"]["valid"] == len(objects)


def test_the_check_of_schemas_finds_a_misspelled_field_and_a_wrong_type(schemas: Path) -> None:
    rendered = template_file(VALUES_FILES[0])
    deployment = rendered.one("Deployment", "operator")
    deployment["spec"]["template"]["spec"]["containers"][0]["imagePullPolciy"] = "Always"
    stateful = rendered.one("StatefulSet")
    stateful["spec"]["replicas"] = "one"
    answer = _kubeconform(schemas, yaml.safe_dump_all([deployment, stateful]))
    assert answer["summary"] == {"valid": 0, "invalid": 2, "errors": 0, "skipped": 0}


@pytest.mark.parametrize("values", VALUES_FILES, ids=lambda file: file.stem)
def test_the_api_server_takes_everything_rendered(cluster: Cluster, definitions: None, values: Path) -> None:  # noqa: ARG001
    objects = template_file(values).objects
    for namespaced in (True, False):
        chosen = [item for item in objects if (item["kind"] not in CLUSTER_SCOPED) == namespaced]
        # A definition that is there already is compared with what is applied, so force the fields to be ours.
        flags = ("--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "--filename=-")
        if chosen:
            cluster.kubectl("apply", *flags, stdin=yaml.safe_dump_all(chosen))


def test_pods_are_admitted_under_the_restricted_profile(cluster: Cluster) -> None:
    for values in VALUES_FILES:
        for component, pod in template_file(values).pods().items():
            _admit(cluster, component, pod["spec"])
    with pytest.raises(CommandError, match="violates PodSecurity"):
        _admit(cluster, "careless", {**template_file(VALUES_FILES[0]).pods()["worker"]["spec"], "securityContext": {}})


def _admit(cluster: Cluster, name: str, spec: Manifest) -> None:
    """Ask the API server whether it would take such a pod."""
    volumes = [*spec.get("volumes", []), *_claims(spec)]
    spec = {**spec, "restartPolicy": "Never", "volumes": volumes, "priorityClassName": ""}
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    flags = ("create", f"--namespace={NAMESPACE}", "--dry-run=server", "--filename=-")
    cluster.kubectl(*flags, stdin=json.dumps(manifest))


def _claims(spec: Manifest) -> list[Manifest]:
    """Return a volume for each mount of a StatefulSet's claim template."""
    names = {volume["name"] for volume in spec.get("volumes", [])}
    mounted = {mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]}
    return [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in mounted - names]


# The life of a release


@pytest.fixture
def release(cluster: Cluster) -> Iterator[Cluster]:
    cluster.helm("install", RELEASE, str(CHART))
    yield cluster
    cluster.helm("uninstall", RELEASE)


def _stored_passwords(cluster: Cluster) -> dict[str, str]:
    texts = secret_texts(cluster.get("secret", f"{RELEASE}-distriqueue-broker", f"--namespace={NAMESPACE}"))
    return {name: text for name, text in texts.items() if name.endswith("-password")}


def test_an_upgrade_keeps_the_leader_the_passwords_and_the_pods(release: Cluster) -> None:
    passwords = _stored_passwords(release)
    holder = {"spec": {"holderIdentity": "operator-0_1", "leaseDurationSeconds": 6, "leaseTransitions": 3}}
    release.kubectl(
        "patch", "lease", LEASE, f"--namespace={NAMESPACE}", "--type=merge", f"--patch={json.dumps(holder)}"
    )
    before = release.get("lease", LEASE, f"--namespace={NAMESPACE}")
    pods = _pod_templates(release)

    release.helm("upgrade", RELEASE, str(CHART), values={"commonAnnotations": {"example.com/round": "2"}})

    after = release.get("lease", LEASE, f"--namespace={NAMESPACE}")
    assert after["spec"] == before["spec"]
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["metadata"]["annotations"]["example.com/round"] == "2"
    assert _stored_passwords(release) == passwords
    assert _pod_templates(release) == pods


def _pod_templates(cluster: Cluster) -> list[Manifest]:
    found = cluster.get("deployments,statefulsets", f"--namespace={NAMESPACE}")["items"]
    assert len(found) == 4
    return [item["spec"]["template"] for item in found]


def test_an_upgrade_really_upgrades_the_definitions(cluster: Cluster, tmp_path: Path) -> None:
    older = _chart_with_older_definitions(tmp_path / "distriqueue")
    cluster.helm("install", RELEASE, str(older))
    try:
        assert LATER_FIELD not in _spec_properties(cluster)
        cluster.helm("upgrade", RELEASE, str(CHART))
        assert LATER_FIELD in _spec_properties(cluster)
    finally:
        cluster.helm("uninstall", RELEASE)


LATER_FIELD = "ttlSecondsAfterFinished"
"""A field that no rule names."""


def _chart_with_older_definitions(folder: Path) -> Path:
    """Copy the chart as an older version might have been: a field fewer in the definition of jobs."""
    shutil.copytree(CHART, folder)
    jobs = next(item for item in template_file(VALUES_FILES[0]).of("CustomResourceDefinition") if "jobs" in str(item))
    properties = jobs["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    del properties[LATER_FIELD]
    text = yaml.safe_dump(jobs).replace("{{", '{{ "{{" }}')
    (folder / "templates" / "crds" / "distributedjobs.yaml").write_text(text)
    return folder


def _spec_properties(cluster: Cluster) -> Manifest:
    definition = cluster.get("crd", "distributedjobs.distriqueue.io")
    properties: Manifest = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    fields: Manifest = properties["spec"]["properties"]
    return fields


def test_a_release_of_another_name_takes_over_kept_definitions_when_told_to(cluster: Cluster) -> None:
    cluster.helm("install", RELEASE, str(CHART))
    cluster.helm("uninstall", RELEASE)
    with pytest.raises(HelmError, match=r"meta\.helm\.sh/release-name"):
        cluster.helm("install", "other", str(CHART))
    cluster.helm("install", "other", str(CHART), "--take-ownership")
    cluster.helm("uninstall", "other")
    # Back to what the other tests expect.
    cluster.helm("install", RELEASE, str(CHART), "--take-ownership")
    cluster.helm("uninstall", RELEASE)


def test_the_smoke_test_says_how_far_its_job_came_and_takes_it_away_again(release: Cluster) -> None:
    command = [sys.executable, "-m", "distriqueue.operator.smoke", f"--namespace={NAMESPACE}", "--timeout=1"]
    done = subprocess.run(
        [*command, f"--kubeconfig={release.plane.kubeconfig}"],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT / "operator" / "src")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    # Nobody runs jobs here.
    assert done.returncode == 1, done.stderr
    assert re.fullmatch(rf"created smoke-\w+ in {NAMESPACE}\n", done.stdout)
    assert re.search(r'smoke-\w+ did not complete in time: .*"phase": "Pending"', done.stderr)
    assert release.get("djobs", f"--namespace={NAMESPACE}")["items"] == []


# Rights


OPERATOR = f"system:serviceaccount:{NAMESPACE}:{RELEASE}-distriqueue-operator"
WORKER = f"system:serviceaccount:{NAMESPACE}:{RELEASE}-distriqueue-worker"
GATEWAY = f"system:serviceaccount:{NAMESPACE}:{RELEASE}-distriqueue-gateway"


def _may(cluster: Cluster, user: str, verb: str, what: str, namespace: str = NAMESPACE) -> bool:
    words = ["auth", "can-i", verb, *what.split(), f"--as={user}", f"--namespace={namespace}", "--quiet"]
    try:
        cluster.kubectl(*words)
    except CommandError as error:
        if error.returncode != 1 or "error:" in error.output.lower():
            raise
        return False
    return True


GRANTED = [
    ("watch", "distributedjobs.distriqueue.io", "team-a"),
    ("update", "distributedjobs.distriqueue.io --subresource=status", "team-a"),
    ("delete", "distributedjobs.distriqueue.io", "team-a"),
    ("create", "events.events.k8s.io", "team-a"),
    ("patch", "events.events.k8s.io", "team-a"),
    ("create", "events.events.k8s.io", NAMESPACE),
    ("get", "configmaps/of-a-job", "team-a"),
    ("create", "distributedworkers.distriqueue.io", NAMESPACE),
    ("patch", "distributedworkers.distriqueue.io --subresource=status", NAMESPACE),
    ("update", f"lease.coordination.k8s.io/{LEASE}", NAMESPACE),
    ("watch", f"lease.coordination.k8s.io/{LEASE}", NAMESPACE),
    ("create", "leases.coordination.k8s.io", NAMESPACE),
    ("watch", "pods", NAMESPACE),
]
WITHHELD = [
    ("create", "events", "team-a"),
    ("patch", "distributedjobs.distriqueue.io --subresource=status", "team-a"),
    ("update", "distributedjobs.distriqueue.io", "team-a"),
    ("create", "distributedjobs.distriqueue.io", "team-a"),
    ("deletecollection", "distributedjobs.distriqueue.io", "team-a"),
    ("list", "events.events.k8s.io", "team-a"),
    ("delete", "events.events.k8s.io", "team-a"),
    ("create", "distributedworkers.distriqueue.io", "team-a"),
    ("update", "lease.coordination.k8s.io/another", NAMESPACE),
    ("delete", f"lease.coordination.k8s.io/{LEASE}", NAMESPACE),
    ("watch", "pods", "team-a"),
    ("delete", "pods", NAMESPACE),
    ("create", "pods --subresource=exec", NAMESPACE),
    ("get", "secrets", NAMESPACE),
    ("list", "secrets", NAMESPACE),
    ("list", "configmaps", NAMESPACE),
    ("watch", "configmaps", "team-a"),
    ("list", "namespaces", NAMESPACE),
    ("create", "tokenreviews.authentication.k8s.io", NAMESPACE),
]
GATEWAY_GRANTED = [
    *((verb, "distributedjobs.distriqueue.io", "team-a") for verb in ("get", "list", "watch", "create", "patch")),
    ("delete", "distributedjobs.distriqueue.io", "team-a"),
    ("watch", "distributedworkers.distriqueue.io", NAMESPACE),
    ("watch", f"lease.coordination.k8s.io/{LEASE}", NAMESPACE),
    ("create", "tokenreviews.authentication.k8s.io", NAMESPACE),
    ("create", "subjectaccessreviews.authorization.k8s.io", NAMESPACE),
]
GATEWAY_WITHHELD = [
    ("update", "distributedjobs.distriqueue.io", "team-a"),
    ("deletecollection", "distributedjobs.distriqueue.io", "team-a"),
    ("update", "distributedjobs.distriqueue.io --subresource=status", "team-a"),
    ("run", "distributedjobs.distriqueue.io", "team-a"),
    ("list", "distributedworkers.distriqueue.io", "team-a"),
    ("delete", "distributedworkers.distriqueue.io", NAMESPACE),
    ("update", f"lease.coordination.k8s.io/{LEASE}", NAMESPACE),
    ("get", "lease.coordination.k8s.io/another", NAMESPACE),
    ("list", "pods", NAMESPACE),
    ("get", "configmaps", NAMESPACE),
    ("get", "secrets", NAMESPACE),
    ("create", "events.events.k8s.io", "team-a"),
    ("create", "serviceaccounts --subresource=token", NAMESPACE),
    ("impersonate", "users", NAMESPACE),
]


def test_the_operator_may_do_its_work_and_nothing_else_and_workers_nothing(release: Cluster) -> None:
    eventually(lambda: _may(release, OPERATOR, *GRANTED[0]))
    for verb, what, namespace in GRANTED:
        assert _may(release, OPERATOR, verb, what, namespace), (verb, what)
        assert not _may(release, WORKER, verb, what, namespace), (verb, what)
    for verb, what, namespace in WITHHELD:
        assert not _may(release, OPERATOR, verb, what, namespace), (verb, what)


def test_the_gateway_may_do_what_its_callers_may_and_nothing_else(release: Cluster) -> None:
    eventually(lambda: _may(release, GATEWAY, *GATEWAY_GRANTED[0]))
    for verb, what, namespace in GATEWAY_GRANTED:
        assert _may(release, GATEWAY, verb, what, namespace), (verb, what)
    for verb, what, namespace in GATEWAY_WITHHELD:
        assert not _may(release, GATEWAY, verb, what, namespace), (verb, what)


def test_an_account_of_http_workers_may_run_jobs_where_it_is_bound(release: Cluster) -> None:
    account = f"system:serviceaccount:{NAMESPACE}:http-worker"
    role = f"--clusterrole={NAMESPACE}-{RELEASE}-distriqueue-http-worker"
    release.kubectl(
        "create", "rolebinding", "http-worker", role, f"--serviceaccount={NAMESPACE}:http-worker", "-nteam-a"
    )
    eventually(lambda: _may(release, account, "run", "distributedjobs.distriqueue.io", "team-a"))
    assert not _may(release, account, "run", "distributedjobs.distriqueue.io", "team-b")
    assert not _may(release, account, "get", "distributedjobs.distriqueue.io", "team-a")


def test_people_who_may_view_or_edit_a_namespace_may_do_so_with_jobs(release: Cluster) -> None:
    for role in ("view", "edit"):
        release.kubectl(
            "create", "rolebinding", f"people-{role}", f"--clusterrole={role}", f"--user={role}er", "-nteam-a"
        )
    eventually(lambda: _may(release, "viewer", "list", "distributedjobs.distriqueue.io", "team-a"))
    eventually(lambda: _may(release, "editer", "create", "distributedjobs.distriqueue.io", "team-a"))
    assert _may(release, "viewer", "watch", "distributedworkers.distriqueue.io", "team-a")
    assert not _may(release, "viewer", "create", "distributedjobs.distriqueue.io", "team-a")
    assert not _may(release, "editer", "update", "distributedjobs.distriqueue.io --subresource=status", "team-a")
    assert not _may(release, "editer", "run", "distributedjobs.distriqueue.io", "team-a")
    assert not _may(release, "editer", "create", "distributedworkers.distriqueue.io", "team-a")


def test_the_lease_has_a_lane_of_its_own(release: Cluster) -> None:
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}"]
    kubeconfig = release.plane.kubeconfig_for(OPERATOR, groups=groups)
    lease_lane, jobs_lane = (
        _lane(kubeconfig, f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{LEASE}"),
        _lane(kubeconfig, "/apis/distriqueue.io/v1alpha1/distributedjobs"),
    )
    ours = release.get("flowschema", f"{NAMESPACE}-{RELEASE}-distriqueue-lease")
    assert lease_lane == ours["metadata"]["uid"]
    assert jobs_lane == release.get("flowschema", "service-accounts")["metadata"]["uid"]
    assert release.get("prioritylevelconfiguration", ours["spec"]["priorityLevelConfiguration"]["name"])


def _lane(kubeconfig: Path, path: str) -> str:
    """Return the uid of the FlowSchema that a request was classified by, from the answer's headers."""
    done = subprocess.run(
        [str(ensure("kubectl")), f"--kubeconfig={kubeconfig}", "get", f"--raw={path}", "-v=8"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found = re.search(r"X-Kubernetes-Pf-Flowschema-Uid: ([0-9a-f-]{36})", done.stderr, re.IGNORECASE)
    assert found, done.stderr[-2000:]
    return found[1]


def test_a_list_of_namespaces_bounds_the_operators_rights(cluster: Cluster) -> None:
    values = {"watchNamespaces": ["team-a"]}
    cluster.helm("install", RELEASE, str(CHART), values=values)
    try:
        eventually(lambda: _may(cluster, OPERATOR, "watch", "distributedjobs.distriqueue.io", "team-a"))
        assert not _may(cluster, OPERATOR, "watch", "distributedjobs.distriqueue.io", "team-b")
        assert not _may(cluster, OPERATOR, "watch", "distributedjobs.distriqueue.io", NAMESPACE)
        assert _may(cluster, OPERATOR, "watch", "pods", NAMESPACE)
        for namespace, may in (("team-a", True), (NAMESPACE, True), ("team-b", False)):
            assert _may(cluster, OPERATOR, "create", "events.events.k8s.io", namespace) is may, namespace
        for namespace in ("team-a", "team-b"):
            may = namespace == "team-a"
            assert _may(cluster, GATEWAY, "create", "distributedjobs.distriqueue.io", namespace) is may, namespace
        assert _may(cluster, GATEWAY, "create", "tokenreviews.authentication.k8s.io")
    finally:
        cluster.helm("uninstall", RELEASE)


# The end, and after it


JOB: Manifest = {
    "apiVersion": "distriqueue.io/v1alpha1",
    "kind": "DistributedJob",
    "metadata": {"name": "waiting", "namespace": NAMESPACE},
    "spec": {"type": "calculate"},
}


def test_uninstall_leaves_jobs_and_definitions_and_a_later_install_goes_on(cluster: Cluster) -> None:
    untouched = _inventory(cluster)
    cluster.helm("install", RELEASE, str(CHART))
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    eventually(lambda: cluster.get("djobs,dworkers"), ignoring=CommandError)
    cluster.apply(JOB)
    lease = cluster.get("lease", LEASE, f"--namespace={NAMESPACE}")
    owner = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "name": LEASE, "uid": lease["metadata"]["uid"]}
    metadata = {"name": "worker-0", "namespace": NAMESPACE, "ownerReferences": [owner]}
    cluster.apply({"apiVersion": "distriqueue.io/v1alpha1", "kind": "DistributedWorker", "metadata": metadata})
    job = cluster.get("djob", "waiting", f"--namespace={NAMESPACE}")

    cluster.helm("uninstall", RELEASE)

    kept = {("CustomResourceDefinition", f"distributed{name}.distriqueue.io") for name in ("jobs", "workers")}
    # The garbage collector looks for new definitions every half minute.
    eventually(lambda: cluster.get("dworkers", f"--namespace={NAMESPACE}")["items"] == [], seconds=90)
    assert _inventory(cluster) - untouched <= kept
    assert kept <= _inventory(cluster)
    assert cluster.get("djob", "waiting", f"--namespace={NAMESPACE}")["metadata"]["uid"] == job["metadata"]["uid"]

    cluster.helm("install", RELEASE, str(CHART))
    assert cluster.get("djob", "waiting", f"--namespace={NAMESPACE}")["metadata"]["uid"] == job["metadata"]["uid"]
    cluster.helm("uninstall", RELEASE)
    cluster.kubectl("delete", "djob", "waiting", f"--namespace={NAMESPACE}")


def _inventory(cluster: Cluster) -> set[tuple[str, str]]:
    """Return everything in the release's namespace and all of the cluster's own things that the chart may make."""
    kinds = "configmaps,secrets,services,serviceaccounts,persistentvolumeclaims,pods,deployments,statefulsets,leases"
    more = "poddisruptionbudgets,networkpolicies,ingresses,roles,rolebindings,servicemonitors,podmonitors"
    wide = "clusterroles,clusterrolebindings,crds,flowschemas,validatingadmissionpolicies"
    items = cluster.get(f"{kinds},{more}", f"--namespace={NAMESPACE}")["items"]
    items += cluster.get(f"{wide},validatingadmissionpolicybindings")["items"]
    return {(item["kind"], item["metadata"]["name"]) for item in items}
