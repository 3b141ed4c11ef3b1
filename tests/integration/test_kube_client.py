"""The client on a real API server: answers and refusals, watches of any size, rotated credentials, broken links."""

import asyncio
import json
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import yaml

from distriqueue.kube.client import MERGE_PATCH, METADATA_ONLY, KubeClient
from distriqueue.kube.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Gone,
    KubeError,
    NoCredentials,
    NotFound,
    NotLeading,
    Refused,
    Unanswered,
    Unreachable,
)
from localcluster.control_plane import ControlPlane
from tests.integration.kube_plane import TRIES, client_fixture, compact, make_try, namespace_fixture, plane_fixture
from tests.integration.tcp_relay import Relay

__all__ = ["client_fixture", "namespace_fixture", "plane_fixture"]

pytestmark = pytest.mark.integration


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def maps(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


async def test_create_read_patch_delete(client: KubeClient, namespace: str) -> None:
    path = f"{maps(namespace)}/a"
    made = await client.request("POST", maps(namespace), body=config_map("a", key="1"))
    assert (await client.request("GET", path)) == made
    patch = {"data": {"key": "2"}}
    assert (await client.request("PATCH", path, body=patch, content_type=MERGE_PATCH))["data"] == {"key": "2"}
    assert "data" not in await client.request("GET", path, accept=METADATA_ONLY)
    await client.request("DELETE", path)
    with pytest.raises(NotFound):
        await client.request("GET", path)


async def test_refusals_are_told_apart(client: KubeClient, namespace: str) -> None:
    made = await client.request("POST", maps(namespace), body=config_map("a"))
    with pytest.raises(AlreadyExists):
        await client.request("POST", maps(namespace), body=config_map("a"))
    await client.request("PUT", f"{maps(namespace)}/a", body=made | {"data": {"x": "y"}})
    with pytest.raises(Conflict) as conflict:
        await client.request("PUT", f"{maps(namespace)}/a", body=made | {"data": {"x": "z"}})
    assert not isinstance(conflict.value, AlreadyExists)
    with pytest.raises(Refused) as refused:
        await client.request("POST", maps(namespace), body=config_map("No Good"))
    assert refused.value.code == 422
    assert refused.value.causes[0]["field"] == "metadata.name"
    with pytest.raises(Refused) as refused:
        await client.request("POST", maps(namespace), body=b"{")
    assert refused.value.code == 400
    with pytest.raises(NotFound):
        await client.request("GET", "/apis/no.such.group/v1/things")


async def test_what_etcd_has_forgotten_is_gone(plane: ControlPlane, client: KubeClient, namespace: str) -> None:
    made = [await client.request("POST", maps(namespace), body=config_map(f"n{number}")) for number in range(3)]
    page = await client.request("GET", maps(namespace), params={"limit": "1"})
    token = page["metadata"]["continue"]
    await client.request("DELETE", f"{maps(namespace)}/n0")
    now = (await client.request("GET", maps(namespace)))["metadata"]["resourceVersion"]
    await compact(plane, int(now))
    await asyncio.to_thread(plane.kill_apiserver)  # whose caches remember longer than etcd
    await asyncio.to_thread(plane.start_apiserver)
    with pytest.raises(Gone):
        await client.request("GET", maps(namespace), params={"limit": "1", "continue": token})
    params = {"resourceVersion": made[0]["metadata"]["resourceVersion"]}
    with pytest.raises(Gone):
        await anext(client.stream(maps(namespace), params, inactivity=20))


async def test_what_rbac_does_not_grant_is_forbidden(plane: ControlPlane, namespace: str) -> None:
    async with await KubeClient.connect(plane.kubeconfig_for("nobody")) as nobody:
        with pytest.raises(Forbidden) as forbidden:
            await nobody.request("GET", maps(namespace))
    assert "nobody" in forbidden.value.message


async def test_a_guard_holds_every_method_back(client: KubeClient, namespace: str) -> None:
    for method, path, body in (
        ("GET", maps(namespace), None),
        ("DELETE", f"{maps(namespace)}/a", None),
        ("POST", maps(namespace), config_map("a")),
    ):
        with pytest.raises(NotLeading):
            await client.request(method, path, body=body, guard=lambda: False)
    assert (await client.request("GET", maps(namespace)))["items"] == []


async def test_a_watch_delivers_objects_of_any_size(client: KubeClient, namespace: str) -> None:
    big = "x" * 1_400_000
    list_version = (await client.request("GET", TRIES.collection(namespace)))["metadata"]["resourceVersion"]
    await make_try(client, namespace, "big", text=big)
    for number in range(450):  # more than one read's worth, and more than one turn of the loop
        await make_try(client, namespace, f"n{number:03}", number=number)
    stream = client.stream(TRIES.collection(namespace), {"resourceVersion": list_version}, inactivity=60)
    names = []
    async with asyncio.timeout(60), aclosing(stream) as events:
        async for event in events:
            assert event["type"] == "ADDED"
            names.append(event["object"]["metadata"]["name"])
            if event["object"]["metadata"]["name"] == "big":
                assert event["object"]["spec"]["payload"]["text"] == big
            if len(names) == 451:
                break
    assert names == ["big", *(f"n{number:03}" for number in range(450))]


async def test_a_watch_ends_when_the_server_says_so(client: KubeClient, namespace: str) -> None:
    params = {"resourceVersion": "0", "timeoutSeconds": "1"}
    async with asyncio.timeout(30):
        assert [event async for event in client.stream(TRIES.collection(namespace), params, inactivity=20)] == []


async def test_a_silent_watch_is_given_up(plane: ControlPlane, namespace: str) -> None:
    async with Relay.to(plane.server) as relay, await KubeClient.connect(relay.kubeconfig(plane.kubeconfig)) as client:
        await client.request("GET", TRIES.collection(namespace))
        relay.swallow_answers()
        with pytest.raises(Unanswered):
            await anext(client.stream(TRIES.collection(namespace), {}, inactivity=0.5))


async def test_a_watch_that_breaks_is_no_quiet_end(plane: ControlPlane, namespace: str, client: KubeClient) -> None:
    async with Relay.to(plane.server) as relay, await KubeClient.connect(relay.kubeconfig(plane.kubeconfig)) as broken:
        await make_try(client, namespace, "a")
        async with aclosing(broken.stream(TRIES.collection(namespace), {}, inactivity=20)) as events:
            assert (await anext(events))["object"]["metadata"]["name"] == "a"
            relay.cut()
            with pytest.raises(Unanswered):
                await anext(events)


async def test_time_runs_out_while_waiting_for_a_connection(plane: ControlPlane, namespace: str) -> None:
    async with (
        Relay.to(plane.server) as relay,
        await KubeClient.connect(relay.kubeconfig(plane.kubeconfig), pool_size=1) as client,
    ):
        await client.request("GET", maps(namespace))
        relay.hold()
        first = asyncio.create_task(client.request("POST", maps(namespace), body=config_map("a"), timeout=1.5))
        await asyncio.sleep(0)
        with pytest.raises(Unreachable):  # it had no connection: nothing was sent
            await client.request("POST", maps(namespace), body=config_map("b"), timeout=0.2)
        with pytest.raises(Unanswered) as sent:
            await first
        assert not isinstance(sent.value, Unreachable)


async def test_after_close_nothing_is_sent(plane: ControlPlane, namespace: str) -> None:
    client = await KubeClient.connect(plane.kubeconfig)
    await client.close()
    with pytest.raises(Unreachable):
        await client.request("POST", maps(namespace), body=config_map("a"))


async def test_without_credentials_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoCredentials, match="no kubeconfig"):
        await KubeClient.connect(tmp_path / "missing")
    broken = tmp_path / "broken"
    broken.write_text("clusters: [")
    with pytest.raises(NoCredentials):
        await KubeClient.connect(broken)
    broken.write_text("{current-context: a, contexts: [], clusters: [], users: []}")
    with pytest.raises(NoCredentials):
        await KubeClient.connect(broken)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    with pytest.raises(NoCredentials):
        await KubeClient.connect()


async def test_kubeconfig_comes_from_the_environment(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch, namespace: str
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig))
    async with await KubeClient.connect() as client:
        assert (await client.request("GET", maps(namespace)))["items"] == []


@pytest.fixture
async def account(client: KubeClient, namespace: str) -> str:
    """A service account that may do everything in its namespace."""
    body: dict[str, Any] = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}}
    await client.request("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", body=body)
    body = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "a"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "a", "namespace": namespace}],
    }
    await client.request("POST", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings", body=body)
    return f"/api/v1/namespaces/{namespace}/serviceaccounts/a/token"


async def _token(client: KubeClient, account: str) -> str:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
    token: str = (await client.request("POST", account, body=body))["status"]["token"]
    return token


async def test_a_rotated_token_is_read_again(
    plane: ControlPlane, client: KubeClient, namespace: str, account: str, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("no longer valid")
    content = yaml.safe_load(plane.kubeconfig.read_text())
    content["users"][0]["user"] = {"tokenFile": str(file)}
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(content))
    async with await KubeClient.connect(kubeconfig) as tokened:
        file.write_text(await _token(client, account) + "\n")
        # Refused with 401 once, it reads the file again and succeeds within the same call, a write too.
        made = await tokened.request("POST", maps(namespace), body=config_map("a"))
        assert made["metadata"]["name"] == "a"
        assert tokened.credentials.generation == 1
    file.write_text("bad")
    async with await KubeClient.connect(kubeconfig) as tokened:
        with pytest.raises(Forbidden) as refused:
            await tokened.request("GET", maps(namespace))
        assert refused.value.code == 401


async def test_a_pod_uses_its_service_account(
    plane: ControlPlane,
    client: KubeClient,
    namespace: str,
    account: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kubernetes.aio.config import incluster_config  # noqa: PLC0415  # only here

    token, authority = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text(await _token(client, account))
    authority.write_bytes(plane.directory.joinpath("pki", "ca.crt").read_bytes())
    # Where a pod finds its account is fixed by Kubernetes; a test cannot write there.
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(authority))
    host, port = plane.server.removeprefix("https://").split(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    async with await KubeClient.connect() as pod:
        assert (await pod.request("GET", maps(namespace)))["items"] == []
        with pytest.raises(Forbidden) as refused:
            await pod.request("GET", "/api/v1/secrets")
        assert f"system:serviceaccount:{namespace}:a" in refused.value.message
        token.write_text("rotated away")
        pod.credentials._header_at = float("-inf")
        await pod.credentials.reload(pod.credentials.generation)
        with pytest.raises(Forbidden) as refused:
            await pod.request("GET", maps(namespace))
        assert refused.value.code == 401
        token.write_text(await _token(client, account))
        pod._reloaded_at = float("-inf")
        assert (await pod.request("GET", maps(namespace)))["items"] == []


async def test_an_untrusted_server_is_unreachable(plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    content = yaml.safe_load(plane.kubeconfig.read_text())
    del content["clusters"][0]["cluster"]["certificate-authority-data"]
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(content))
    async with await KubeClient.connect(kubeconfig) as client:
        with pytest.raises(Unreachable):
            await client.request("GET", maps(namespace))


async def test_no_error_of_the_http_library_escapes(plane: ControlPlane, namespace: str) -> None:
    """Cut the link again and again at whatever place it is: every failure is a KubeError."""
    async with Relay.to(plane.server) as relay, await KubeClient.connect(relay.kubeconfig(plane.kubeconfig)) as client:

        async def write(number: int) -> bool:
            try:
                await client.request("POST", maps(namespace), body=config_map(f"n{number}"), timeout=20)
            except KubeError:
                return False
            return True

        async def cutting() -> None:
            while True:
                await asyncio.sleep(0.03)
                relay.cut()

        cutter = asyncio.create_task(cutting())
        outcomes = await asyncio.gather(*(write(number) for number in range(300)))
        cutter.cancel()
    assert not all(outcomes), "nothing was cut"
