"""The gateway's part of the chart, and TLS in it: image, rights, doors, certificates and their authorities."""

import re

import pytest

from tests.integration.chart_rendering import (
    CHART,
    NAMESPACE,
    Manifest,
    environment,
    labels_of,
    mounted_keys,
    secret_texts,
    selects,
    template,
    template_file,
)

pytestmark = pytest.mark.integration

MONITORED = {"metrics": {"serviceMonitor": {"enabled": True}}}


def test_the_gateway_runs_the_operators_image() -> None:
    pods = template({"operator": {"image": {"repository": "example.com/op", "tag": "7"}}}).pods()
    (container,) = pods["gateway"]["spec"]["containers"]
    assert container["image"] == "example.com/op:7"
    assert container["command"] == ["python", "-m", "distriqueue.gateway"]


def test_the_gateway_can_be_left_out() -> None:
    rendered = template({"gateway": {"enabled": False}, "networkPolicy": {"enabled": True}, **MONITORED})
    assert not [item for item in rendered.objects if labels_of(item).get("app.kubernetes.io/component") == "gateway"]
    assert "gateway" not in secret_texts(rendered.one("Secret"))["definitions.json"]


def test_the_gateway_shows_the_certificate_of_its_secret() -> None:
    plain, rendered = template(), template({"gateway": {"tls": {"existingSecret": "door"}}})
    assert mounted_keys(rendered.pods()["gateway"], "door") == {
        environment(rendered.pods()["gateway"])["DISTRIQUEUE_TLS_CERT_FILE"]: "tls.crt",
        environment(rendered.pods()["gateway"])["DISTRIQUEUE_TLS_KEY_FILE"]: "tls.key",
    }
    assert "DISTRIQUEUE_TLS_CERT_FILE" not in environment(plain.pods()["gateway"])
    for one, name, port in ((plain, "http", 80), (rendered, "https", 443)):
        first = one.one("Service", "gateway")["spec"]["ports"][0]
        assert (first["name"], first["port"], first["targetPort"]) == (name, port, "rest")


def test_the_ingress_leads_to_a_port_that_the_service_has() -> None:
    assert template().of("Ingress") == []
    rendered = template_file(CHART / "ci" / "everything-values.yaml")
    ingress, service = rendered.one("Ingress"), rendered.one("Service", "gateway")
    assert [rule["host"] for rule in ingress["spec"]["rules"]] == ["jobs.example.com", "jobs.example.org"]
    assert ingress["spec"]["tls"] == [
        {"secretName": "ingress-tls", "hosts": ["jobs.example.com", "jobs.example.org"]},
    ]
    for rule in ingress["spec"]["rules"]:
        (path,) = rule["http"]["paths"]
        assert path["backend"]["service"]["name"] == service["metadata"]["name"]
        assert path["backend"]["service"]["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}


# Rights


def test_the_gateway_asks_about_callers_by_a_role_that_holds_nothing_else() -> None:
    rendered = template({"watchNamespaces": ["team-a"], "rbac": {"aggregate": False}})
    role = rendered.one("ClusterRole")
    assert labels_of(role)["app.kubernetes.io/component"] == "gateway"
    assert {(*rule["apiGroups"], *rule["resources"], *rule["verbs"]) for rule in role["rules"]} == {
        ("authentication.k8s.io", "tokenreviews", "create"),
        ("authorization.k8s.io", "subjectaccessreviews", "create"),
    }


def test_nobody_may_run_jobs_who_is_not_bound_to_it_by_name() -> None:
    (role,) = (
        role
        for role in template().of("ClusterRole") + template().of("Role")
        if any("run" in rule["verbs"] for rule in role["rules"])
    )
    assert role["metadata"]["name"] == f"{NAMESPACE}-dq-distriqueue-http-worker"
    assert role["rules"] == [{"apiGroups": ["distriqueue.io"], "resources": ["distributedjobs"], "verbs": ["run"]}]
    assert not [label for label in labels_of(role) if "aggregate" in label]


# The network


def test_replicas_of_the_gateway_reach_each_other_whoever_else_may() -> None:
    elsewhere = {"podSelector": {"matchLabels": {"app": "ingress"}}}
    for allowed in ([], [elsewhere]):
        rendered = template({"networkPolicy": {"enabled": True, "gatewayFrom": allowed}})
        policy, pod = rendered.one("NetworkPolicy", "gateway")["spec"], rendered.pods()["gateway"]

        def open_to_it(rules: list[Manifest], side: str, pod: Manifest = pod) -> bool:
            return any(
                {"port": "rest", "protocol": "TCP"} in rule["ports"]
                and any(selects(peer["podSelector"]["matchLabels"], labels_of(pod)) for peer in rule.get(side, []))
                for rule in rules
            )

        doors = [rule for rule in policy["ingress"] if {"port": "grpc", "protocol": "TCP"} in rule["ports"]]
        assert [rule.get("from", []) for rule in doors] == [allowed]
        assert open_to_it(policy["egress"], "to")
        assert open_to_it(policy["ingress"], "from") or not allowed


# The broker


def test_the_gateway_is_a_worker_to_a_broker_of_ones_own_unless_it_has_a_key() -> None:
    rendered = template({"rabbitmq": {"enabled": False}, "broker": {"existingSecret": "b", "workerKey": "w"}})
    (container,) = rendered.pods()["gateway"]["spec"]["containers"]
    (url,) = (env for env in container["env"] if env["name"] == "DISTRIQUEUE_AMQP_URL")
    assert url["valueFrom"]["secretKeyRef"]["key"] == "w"
    assert "DISTRIQUEUE_AMQP_CA_FILE" not in environment(rendered.pods()["gateway"])


def test_with_a_certificate_the_broker_speaks_tls_alone_and_all_know_its_authority() -> None:
    rendered = template({"rabbitmq": {"tls": {"existingSecret": "broker-tls"}}})
    texts = secret_texts(rendered.one("Secret"))
    host = rendered.one("Service", "rabbitmq")["metadata"]["name"]
    pods = rendered.pods()
    for component in ("operator", "gateway", "worker"):
        assert re.fullmatch(rf"amqps://{component}:\w+@{host}:5671/", texts[f"{component}-url"])
        ca_file = environment(pods[component])["DISTRIQUEUE_AMQP_CA_FILE"]
        assert mounted_keys(pods[component], "broker-tls") == {ca_file: "ca.crt"}  # and not the key
    configuration = rendered.one("ConfigMap", "rabbitmq")["data"]["10-distriqueue.conf"]
    assert "listeners.tcp = none\nlisteners.ssl.default = 5671\n" in configuration
    for path, key in mounted_keys(pods["rabbitmq"], "broker-tls").items():
        assert re.search(rf"^ssl_options\.\w+ = {path}$", configuration, re.MULTILINE), key
    (amqp,) = (port for port in rendered.one("Service", "rabbitmq")["spec"]["ports"] if port["name"] == "amqp")
    assert amqp["port"] == 5671
    (container,) = pods["rabbitmq"]["spec"]["containers"]
    assert {"name": "amqp", "containerPort": 5671, "protocol": "TCP"} in container["ports"]
