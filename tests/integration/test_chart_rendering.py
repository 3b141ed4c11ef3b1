"""The chart by itself: what helm renders from many sets of values, and what it refuses."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from distriqueue_worker.settings import Settings
from tests.integration.chart_rendering import (
    CHART,
    CHECKOUT,
    NAMESPACE,
    VALUES_FILES,
    HelmError,
    Manifest,
    Rendered,
    environment,
    helm,
    labels_of,
    mounted_keys,
    secret_texts,
    selected,
    selects,
    template,
    template_file,
)

pytestmark = pytest.mark.integration

MONITORED = {"metrics": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}}


def _name(path: Path) -> str:
    return path.stem


@pytest.fixture(scope="module", params=VALUES_FILES, ids=_name)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    return template_file(request.param)


@pytest.mark.parametrize("values", VALUES_FILES, ids=_name)
def test_helm_lint_is_content(values: Path) -> None:
    helm("lint", "--strict", str(CHART), "--values", str(values))


# What is refused


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"worker": {"replica": 3}}, r"/worker'.*'replica' not allowed"),
        ({"wroker": {}}, r"'wroker' not allowed"),
        ({"operator": {"lease": {"duration": 6}}}, r"/operator/lease'.*'duration' not allowed"),
        ({"metrics": {"serviceMonitor": {"intervall": "5s"}}}, r"/metrics/serviceMonitor'.*'intervall' not allowed"),
        ({"rabbitmq": {"persistence": {"storageClassName": "x"}}}, r"'storageClassName' not allowed"),
        ({"operator": {"logLevel": "verbose"}}, r"/operator/logLevel'.*'debug'"),
        ({"worker": {"concurrency": 0}}, r"/worker/concurrency'.*minimum"),
        ({"watchNamespaces": "team-a"}, r"/watchNamespaces'.*want array"),
        ({"commonLabels": {"cost": 42}}, r"/commonLabels/cost'.*want string"),
        ({"rabbitmq": {"auth": {"operatorPassword": "a/b@c"}}}, r"/rabbitmq/auth/operatorPassword'"),
        ({"worker": {"extraEnv": [{"name": "A", "vale": "1"}]}}, r"/worker/extraEnv/0'.*'vale' not allowed"),
        ({"worker": {"terminationGracePeriodSeconds": 25}}, "must be more than worker.shutdownGraceSeconds"),
        ({"operator": {"lease": {"renewDeadlineSeconds": 6}}}, "renewDeadlineSeconds must be less than"),
        ({"operator": {"lease": {"retrySeconds": 4}}}, "retrySeconds must be less than"),
        ({"rabbitmq": {"enabled": False}}, "set broker.existingSecret"),
        ({"gateway": {"auth": "basic"}}, r"/gateway/auth'.*'kubernetes'"),
        ({"gateway": {"audiences": ["a,b"]}}, r"/gateway/audiences/0'"),
        ({"gateway": {"image": {"tag": "x"}}}, r"/gateway'.*'image' not allowed"),
        ({"gateway": {"tls": {"secret": "x"}}}, r"/gateway/tls'.*'secret' not allowed"),
        ({"gateway": {"ingress": {"enabled": True}}}, "set gateway.ingress.hosts"),
        ({"worker": {"secrets": [{"name": "x"}]}}, r"/worker/secrets/0'.*'namespace'"),
        ({"rabbitmq": {"resources": {"limits": {"memory": "1 GB"}}}}, "write it like 1Gi"),
    ],
)
def test_a_mistake_in_values_is_named(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(HelmError) as refused:
        template(values)
    assert re.search(complaint, str(refused.value), re.DOTALL), refused.value


def test_an_old_cluster_is_refused() -> None:
    with pytest.raises(HelmError, match=r"incompatible with Kubernetes v1\.31\.0"):
        helm("template", "dq", str(CHART), "--kube-version", "v1.31.0")


# Values and their documentation


def _leaves(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    else:
        yield path


FREE = {"podSecurityContext", "securityContext", "resources", "startupProbe", "livenessProbe", "readinessProbe"}
"""Values whose content Kubernetes defines: the comment stands above the whole."""


def test_every_value_has_a_comment_above_it() -> None:
    bare = []
    path: list[tuple[int, str]] = []
    before = ""
    for line in (CHART / "values.yaml").read_text().splitlines():
        key = re.match(r"^( *)([A-Za-z]+):(.*)$", line)
        if key:
            depth = len(key[1])
            path = [*(entry for entry in path if entry[0] < depth), (depth, key[2])]
            documented = before.lstrip().startswith("#")
            within_free = any(name in FREE for _, name in path[:-1])
            if not (documented or within_free or (not key[3] and key[2] not in FREE)):
                bare.append(".".join(name for _, name in path))
        before = line
    assert bare == []


def test_the_schema_knows_every_value_and_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())

    def resolved(part: Manifest) -> Manifest:
        reference = part.get("$ref")
        return schema["$defs"][reference.rpartition("/")[2]] if reference else part

    def known(part: Manifest, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        part = resolved(part)
        if "properties" in part and path[-1:] not in {(name,) for name in (*FREE, "affinity")}:
            for key, inner in part["properties"].items():
                yield from known(inner, (*path, key))
        elif path != ("global",):
            yield path

    def cut(path: tuple[str, ...]) -> tuple[str, ...]:
        whole = [index for index, key in enumerate(path) if key in FREE]
        return path[: whole[0] + 1] if whole else path

    assert {cut(path) for path in _leaves(defaults)} == set(known(schema))


def test_the_table_of_values_names_what_there_is() -> None:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    named = re.findall(r"^\| `([A-Za-z.]+)`", (CHECKOUT / "docs" / "installing.md").read_text(), re.MULTILINE)
    assert len(named) > 30
    for path in named:
        place = defaults
        for key in path.split("."):
            assert key in place, f"{path} is no value of the chart"
            place = place[key]


# Pods


def test_pods_have_what_the_restricted_profile_wants_and_more(rendered: Rendered) -> None:
    for component, pod in rendered.pods().items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["enableServiceLinks"] is False
        for container in spec["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, component
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]
            if component != "test":
                assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys()


def test_only_those_who_talk_to_the_api_server_have_a_token(rendered: Rendered) -> None:
    with_token = {name for name, pod in rendered.pods().items() if pod["spec"]["automountServiceAccountToken"]}
    assert with_token <= {"operator", "gateway", "test"}
    assert "operator" in with_token
    assert all(account["automountServiceAccountToken"] is False for account in rendered.of("ServiceAccount"))


def test_selectors_of_workloads_and_budgets_select_their_own_pods_and_no_others(rendered: Rendered) -> None:
    pods = rendered.pods()
    owners = rendered.of("Deployment") + rendered.of("StatefulSet") + rendered.of("PodDisruptionBudget")
    for owner in owners:
        component = labels_of(owner)["app.kubernetes.io/component"]
        chosen = [
            name for name, pod in pods.items() if selects(owner["spec"]["selector"]["matchLabels"], labels_of(pod))
        ]
        assert chosen == [component], owner["kind"]


def test_services_lead_to_ports_that_their_pods_have(rendered: Rendered) -> None:
    for service in rendered.of("Service"):
        (pod,) = selected(service["spec"]["selector"], rendered.pods().values())
        ports = {port["name"] for container in pod["spec"]["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_probes_ask_ports_that_the_container_has(rendered: Rendered) -> None:
    for pod in rendered.pods().values():
        for container in pod["spec"]["containers"]:
            ports = {port["name"] for port in container.get("ports", [])}
            for probe in (container[name] for name in container if name.endswith("Probe")):
                assert (probe.get("httpGet") or probe["tcpSocket"])["port"] in ports


def test_the_operators_liveness_is_not_its_readiness() -> None:
    for component in ("operator", "gateway", "worker"):
        (container,) = template().pods()[component]["spec"]["containers"]
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_workers_get_time_to_finish() -> None:
    for values, expected in (
        ({}, 40),
        ({"shutdownGraceSeconds": 300}, 315),
        ({"terminationGracePeriodSeconds": 26}, 26),
    ):
        rendered = template({"worker": values})
        spec = rendered.one("Deployment", "worker")["spec"]["template"]["spec"]
        assert spec["terminationGracePeriodSeconds"] == expected


def test_everything_that_is_set_arrives() -> None:
    values = yaml.safe_load((CHART / "ci" / "everything-values.yaml").read_text())
    rendered = template_file(CHART / "ci" / "everything-values.yaml")
    for component in ("operator", "gateway", "worker", "rabbitmq"):
        kind = "StatefulSet" if component == "rabbitmq" else "Deployment"
        image = values["operator" if component == "gateway" else component]["image"]
        given = values[component]
        workload = rendered.one(kind, component)
        pod = workload["spec"]["template"]
        spec = pod["spec"]
        (container,) = spec["containers"]
        assert container["image"] == f"{image['repository']}@{image['digest']}"
        assert container["imagePullPolicy"] == "Always"
        pull_secrets = [secret["name"] for secret in spec["imagePullSecrets"]]
        of_its_image = ["operator-registry"] if component == "gateway" else []
        assert pull_secrets == ["company-registry", *of_its_image, *given["imagePullSecrets"]]
        for key in ("nodeSelector", "tolerations", "affinity", "priorityClassName", "terminationGracePeriodSeconds"):
            assert spec[key] == given[key]
        (spread,) = spec["topologySpreadConstraints"]
        assert spread["topologyKey"] == "topology.kubernetes.io/zone"
        assert selects(spread["labelSelector"]["matchLabels"], labels_of(pod))
        assert container["resources"] == given["resources"]
        assert container["envFrom"] == given["extraEnvFrom"]
        assert [env for env in container["env"] if env in given["extraEnv"]] == given["extraEnv"]
        assert given["extraVolumes"][0] in spec["volumes"]
        assert given["extraVolumeMounts"][0] in container["volumeMounts"]
        assert pod["metadata"]["annotations"]["example.com/contact"] == "platform"
        assert workload["metadata"]["annotations"]["example.com/contact"] == "platform"
        assert labels_of(pod)["cost-center"] == "42"
        assert container["startupProbe"]["initialDelaySeconds"] == 1
        account = rendered.one("ServiceAccount", component)
        assert account["metadata"]["annotations"]["example.com/role"] == "jobs"
        assert spec["serviceAccountName"] == account["metadata"]["name"]
    assert rendered.one("Deployment", "operator")["spec"]["replicas"] == 3
    assert rendered.one("Deployment", "gateway")["spec"]["replicas"] == 4
    assert rendered.one("Deployment", "worker")["spec"]["replicas"] == 5
    assert rendered.one("PodDisruptionBudget", "operator")["spec"]["minAvailable"] == "50%"
    assert rendered.one("PodDisruptionBudget", "rabbitmq")["spec"]["maxUnavailable"] == 0
    for item in rendered.objects:
        if item["kind"] != "CustomResourceDefinition" and "Validating" not in item["kind"]:
            assert labels_of(item)["team"] == "platform", item["metadata"]["name"]
            assert item["metadata"]["annotations"]["example.com/owner"] == "platform", item["metadata"]["name"]


def test_what_is_set_arrives_in_the_programs_settings() -> None:
    rendered = template_file(CHART / "ci" / "everything-values.yaml")
    environments = {name: environment(pod) for name, pod in rendered.pods().items()}
    assert environments["operator"]["DISTRIQUEUE_NAMESPACES"] == "jobs,team-a"
    assert environments["operator"]["DISTRIQUEUE_LOG_LEVEL"] == "debug"
    assert environments["operator"]["DISTRIQUEUE_LOG_FORMAT"] == "text"
    assert environments["operator"]["DISTRIQUEUE_LEASE_DURATION_SECONDS"] == "15"
    assert environments["gateway"]["DISTRIQUEUE_NAMESPACES"] == "jobs,team-a"
    assert environments["gateway"]["DISTRIQUEUE_AUTH"] == "kubernetes"
    assert environments["gateway"]["DISTRIQUEUE_AUTH_AUDIENCES"] == "jobs.example.com,other"
    assert environments["gateway"]["DISTRIQUEUE_SHUTDOWN_DELAY_SECONDS"] == "7"
    assert environments["worker"]["DISTRIQUEUE_WORKER_POOL"] == "gpu"
    assert environments["worker"]["DISTRIQUEUE_WORKER_CONCURRENCY"] == "16"
    assert environments["worker"]["DISTRIQUEUE_WORKER_TASKS"] == "company.tasks,company.more_tasks"
    assert environments["worker"]["DISTRIQUEUE_WORKER_SHUTDOWN_GRACE_SECONDS"] == "120"


def test_secrets_for_jobs_lie_where_workers_look_for_them() -> None:
    pod = template_file(CHART / "ci" / "everything-values.yaml").pods()["worker"]
    (container,) = pod["spec"]["containers"]
    directory = str(Settings.model_fields["worker_secrets_directory"].default)
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    found = {
        mount["mountPath"].removeprefix(f"{directory}/"): volumes[mount["name"]]["secret"]["secretName"]
        for mount in container["volumeMounts"]
        if mount["mountPath"].startswith(directory)
    }
    assert found == {"team-a/api-access": "api-access", "jobs/api-access": "api-access-of-jobs"}


def test_names_stay_within_what_kubernetes_takes() -> None:
    long = "a" * 53
    text = helm("template", long, str(CHART), "--namespace", "n" * 63, "--kube-version", "v1.36.3")
    for item in (document for document in yaml.safe_load_all(text) if document):
        bound = 253 if item["kind"].startswith(("ClusterRole", "FlowSchema", "Custom", "Validating")) else 52
        assert len(item["metadata"]["name"]) <= bound, item["metadata"]["name"]


# Rights


def test_rights_are_named_one_by_one_and_secrets_are_not_among_them(rendered: Rendered) -> None:
    for role in rendered.of("Role") + rendered.of("ClusterRole"):
        for rule in role["rules"]:
            words = [*rule["apiGroups"], *rule["resources"], *rule["verbs"], *rule.get("resourceNames", [])]
            assert "*" not in words
            assert not {"secrets", "pods/exec", "serviceaccounts/token", "roles", "clusterroles"} & set(
                rule["resources"]
            )
            assert not {"bind", "escalate", "impersonate"} & set(rule["verbs"])
            if rule["resources"] == ["leases"] and rule["verbs"] != ["create"]:
                assert rule["resourceNames"] == [rendered.one("Lease")["metadata"]["name"]]


def test_with_a_list_of_namespaces_the_operator_has_roles_there_and_nothing_cluster_wide() -> None:
    rendered = template_file(CHART / "ci" / "namespaced-values.yaml")
    assert rendered.of("ClusterRole") == []
    assert rendered.of("ClusterRoleBinding") == []
    jobs = [role for role in rendered.of("Role") if role["metadata"]["name"].endswith("-jobs")]
    assert {role["metadata"]["namespace"] for role in jobs} == {"team-a", "team-b"}
    bindings = [binding for binding in rendered.of("RoleBinding") if binding["metadata"]["name"].endswith("-jobs")]
    assert {binding["metadata"]["namespace"] for binding in bindings} == {"team-a", "team-b"}
    for binding in bindings:
        account = rendered.one("ServiceAccount", labels_of(binding)["app.kubernetes.io/component"])["metadata"]
        (subject,) = binding["subjects"]
        assert (subject["name"], subject["namespace"]) == (account["name"], NAMESPACE)
    assert rendered.one("Pod", "test")["metadata"]["namespace"] == NAMESPACE
    assert "team-a" in rendered.one("Pod", "test")["spec"]["containers"][0]["command"]


def test_bindings_bind_accounts_and_roles_that_are_there(rendered: Rendered) -> None:
    roles = {(role["kind"], role["metadata"]["name"]) for role in rendered.of("Role") + rendered.of("ClusterRole")}
    accounts = {account["metadata"]["name"] for account in rendered.of("ServiceAccount")} | {"given"}
    for binding in rendered.of("RoleBinding") + rendered.of("ClusterRoleBinding"):
        assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) in roles
        assert {subject["name"] for subject in binding["subjects"]} <= accounts


# Monitors and policies


def test_a_service_monitor_selects_the_services_that_are_there() -> None:
    rendered = template(MONITORED)
    monitors = rendered.of("ServiceMonitor")
    assert {labels_of(monitor)["app.kubernetes.io/component"] for monitor in monitors} == {
        "operator",
        "gateway",
        "rabbitmq",
    }
    for monitor in monitors:
        (service,) = selected(monitor["spec"]["selector"]["matchLabels"], rendered.of("Service"))
        assert service["metadata"]["namespace"] in monitor["spec"]["namespaceSelector"]["matchNames"]
        assert labels_of(service)["app.kubernetes.io/component"] == labels_of(monitor)["app.kubernetes.io/component"]
        ports = {port["name"] for port in service["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports


def test_the_pod_monitor_selects_the_workers() -> None:
    rendered = template(MONITORED)
    monitor = rendered.one("PodMonitor")
    (pod,) = selected(monitor["spec"]["selector"]["matchLabels"], rendered.pods().values())
    assert labels_of(pod)["app.kubernetes.io/component"] == "worker"
    assert monitor["spec"]["namespaceSelector"]["matchNames"] == [pod["metadata"]["namespace"]]
    ports = {port["name"] for container in pod["spec"]["containers"] for port in container["ports"]}
    assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= ports


def test_without_monitors_the_chart_needs_no_other_definitions() -> None:
    assert not [item for item in template().objects if item["apiVersion"].startswith("monitoring.coreos.com")]


def test_network_policies_close_each_kind_of_pod_and_let_the_broker_be_reached() -> None:
    rendered = template({"networkPolicy": {"enabled": True}})
    pods = rendered.pods()
    for component, pod in pods.items():
        policies = [
            policy
            for policy in rendered.of("NetworkPolicy")
            if selects(policy["spec"]["podSelector"]["matchLabels"], labels_of(pod))
        ]
        assert [labels_of(policy)["app.kubernetes.io/component"] for policy in policies] == [component]
        assert policies[0]["spec"]["policyTypes"] == ["Ingress", "Egress"]
    (amqp,) = (
        rule
        for rule in rendered.one("NetworkPolicy", "rabbitmq")["spec"]["ingress"]
        if rule["ports"] == [{"port": "amqp", "protocol": "TCP"}]
    )
    let_in = {
        component
        for component, pod in pods.items()
        for peer in amqp["from"]
        if selects(peer["podSelector"]["matchLabels"], labels_of(pod))
    }
    assert let_in == {"operator", "gateway", "worker"}
    for component in ("operator", "gateway", "worker"):
        rules = rendered.one("NetworkPolicy", component)["spec"]["egress"]
        assert any(
            selects(peer["podSelector"]["matchLabels"], labels_of(pods["rabbitmq"]))
            for rule in rules
            for peer in rule.get("to", [])
        )


# The broker


def test_the_secret_gives_each_user_a_url_with_the_password_that_the_broker_imports() -> None:
    rendered = template()
    texts = secret_texts(rendered.one("Secret"))
    definitions = json.loads(texts["definitions.json"])
    service = rendered.one("Service", "rabbitmq")["metadata"]["name"]
    users = {user["name"]: user for user in definitions["users"]}
    assert users.keys() == {"operator", "gateway", "worker"}
    for name, user in users.items():
        assert user["tags"] == []
        assert texts[f"{name}-password"] == user["password"]
        assert len(user["password"]) == 32
        assert texts[f"{name}-url"] == f"amqp://{name}:{user['password']}@{service}:5672/"
    assert len({user["password"] for user in users.values()}) == 3
    rights = {right.pop("user"): right for right in definitions["permissions"]}
    assert rights["gateway"] == rights["worker"] != rights["operator"]


def test_given_passwords_are_used_and_a_change_restarts_who_uses_them() -> None:
    def checksums(password: str) -> dict[str, str]:
        others = {"workerPassword": "w", "gatewayPassword": "g"}
        rendered = template({"rabbitmq": {"auth": {"operatorPassword": password, **others}}})
        assert secret_texts(rendered.one("Secret"))["operator-password"] == password
        return {
            name: pod["metadata"]["annotations"]["checksum/broker"]
            for name, pod in rendered.pods().items()
            if name != "test"
        }

    assert checksums("one") == checksums("one")
    assert checksums("one").items().isdisjoint(checksums("two").items())


def test_a_broker_of_ones_own_takes_the_place_of_ours() -> None:
    rendered = template_file(CHART / "ci" / "existing-broker-values.yaml")
    assert not [item for item in rendered.objects if labels_of(item).get("app.kubernetes.io/component") == "rabbitmq"]
    assert rendered.of("Secret") == []
    for component in ("operator", "gateway", "worker"):
        pod = rendered.pods()[component]
        (container,) = pod["spec"]["containers"]
        (url,) = (env for env in container["env"] if env["name"] == "DISTRIQUEUE_AMQP_URL")
        assert url["valueFrom"]["secretKeyRef"] == {"name": "my-broker", "key": component}
        files = mounted_keys(pod, "company-authorities")
        assert files == {environment(pod)["DISTRIQUEUE_AMQP_CA_FILE"]: "authorities.pem"}
    assert len(rendered.of("ServiceMonitor")) == 2


@pytest.mark.parametrize(
    ("limit", "expected"), [("1Gi", 2**30), ("1.5Gi", 3 * 2**29), ("1500M", 1_500_000_000), ("2147483648", 2**31)]
)
def test_rabbitmq_is_told_its_memory_in_bytes(limit: str, expected: int) -> None:
    rendered = template({"rabbitmq": {"resources": {"limits": {"memory": limit}}}})
    configuration = rendered.one("ConfigMap", "rabbitmq")["data"]["10-distriqueue.conf"]
    assert f"total_memory_available_override_value = {expected}\n" in configuration


def test_a_change_of_the_brokers_configuration_restarts_it() -> None:
    def checksum(values: dict[str, Any]) -> str:
        pod = template({"rabbitmq": values}).pods()["rabbitmq"]
        return str(pod["metadata"]["annotations"]["checksum/config"])

    variants: list[dict[str, Any]] = [
        {},
        {"extraConfig": "heartbeat = 30"},
        {"extraPlugins": ["rabbitmq_shovel"]},
        {"diskFreeLimit": "1GB"},
        {"resources": {"limits": {"memory": "2Gi"}}},
    ]
    assert len({checksum(values) for values in variants}) == len(variants)


def test_nothing_of_the_claim_follows_the_charts_version() -> None:
    (claim,) = template().one("StatefulSet")["spec"]["volumeClaimTemplates"]
    assert not {"helm.sh/chart", "app.kubernetes.io/version"} & labels_of(claim).keys()


# What is generated, and the inner loop


def test_definitions_are_kept_when_the_chart_goes_and_can_be_left_out() -> None:
    kept = template().of("CustomResourceDefinition")
    assert {item["metadata"]["name"] for item in kept} == {
        f"{path.stem}.distriqueue.io" for path in (CHECKOUT / "crds").glob("distributed*.yaml")
    }
    assert all(item["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for item in kept)
    assert template({"crds": {"install": False}}).of("CustomResourceDefinition") == []


def test_the_lease_is_rendered_without_a_spec() -> None:
    assert "spec" not in template().one("Lease")


def test_notes_say_what_to_do_next() -> None:
    notes = (CHART / "templates" / "NOTES.txt").read_text()
    for words in (
        "create token",
        "kubectl apply",
        "kubectl -n",
        "wait --for=condition=Complete",
        "port-forward",
        "get dworkers",
    ):
        assert words in notes


def test_the_tiltfile_parses_and_names_files_that_exist() -> None:
    text = (CHECKOUT / "Tiltfile").read_text()
    tree = ast.parse(text)  # Starlark is near enough to Python for its syntax
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert {"docker_build", "helm", "k8s_yaml", "k8s_resource"} <= called
    paths = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    for path in (path for path in paths if path.startswith("./")):
        assert (CHECKOUT / path).exists(), path
