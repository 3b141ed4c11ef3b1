"""The operators' rights are taken away and given back, and their token is replaced while they work."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import yaml

from tests.faults.conftest import Run
from tests.faults.drills import Drill, Trial
from tests.support.waiting import until

FAMILY = "Kubernetes"
WITHOUT_SECONDS = 20.0
ACCOUNT = "operator"


def binding(drill: Drill) -> dict[str, Any]:
    """What gives the operators their rights."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": ACCOUNT, "namespace": drill.stage.namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": drill.stage.namespace}],
    }


def bindings(drill: Drill) -> str:
    """The path of role bindings."""
    return f"/apis/rbac.authorization.k8s.io/v1/namespaces/{drill.stage.namespace}/rolebindings"


async def new_token(drill: Drill, secret: str) -> str:
    """Make a token that is good for as long as a Secret is there."""
    core = f"/api/v1/namespaces/{drill.stage.namespace}"
    made = await drill.client.request("POST", f"{core}/secrets", body={"metadata": {"name": secret}})
    reference = {"kind": "Secret", "apiVersion": "v1", "name": secret, "uid": made["metadata"]["uid"]}
    body = {"spec": {"boundObjectRef": reference}}
    answer = await drill.client.request("POST", f"{core}/serviceaccounts/{ACCOUNT}/token", body=body)
    return str(answer["status"]["token"])


def with_account(directory: Path) -> Callable[[Drill], Awaitable[dict[str, str]]]:
    """Let the operators log in by the token of a service account, from a file."""

    async def prepare(drill: Drill) -> dict[str, str]:
        core = f"/api/v1/namespaces/{drill.stage.namespace}"
        await drill.client.request("POST", f"{core}/serviceaccounts", body={"metadata": {"name": ACCOUNT}})
        await drill.client.request("POST", bindings(drill), body=binding(drill))
        (directory / "token").write_text(await new_token(drill, "first"))
        content = yaml.safe_load(drill.stage.plane.kubeconfig.read_text())
        content["users"][0]["user"] = {"tokenFile": str(directory / "token")}
        kubeconfig = directory / "kubeconfig"
        kubeconfig.write_text(json.dumps(content))
        return {"KUBECONFIG": str(kubeconfig)}

    return prepare


async def test_rights_taken_away(run: Run, tmp_path: Path) -> None:
    async def inject(drill: Drill) -> None:
        leader = await drill.leader()
        await drill.client.request("DELETE", f"{bindings(drill)}/{ACCOUNT}")
        await until(lambda: leader.metric("distriqueue_leader") == 0)
        await asyncio.sleep(WITHOUT_SECONDS)  # the fault is a time that passes
        await drill.client.request("POST", bindings(drill), body=binding(drill))

    trial = Trial(
        name="rights-taken",
        family=FAMILY,
        fault="the operators' RoleBinding deleted until the leader has stepped down, and 20 s longer",
        promise="nobody leads meanwhile; what runs is finished and reported; no attempt is repeated",
        once=True,
        prepare=with_account(tmp_path),
    )
    await run(trial, inject)


async def test_token_replaced(run: Run, tmp_path: Path) -> None:
    async def inject(drill: Drill) -> None:
        (tmp_path / "token").write_text(await new_token(drill, "second"))
        await drill.client.request("DELETE", f"/api/v1/namespaces/{drill.stage.namespace}/secrets/first")

    trial = Trial(
        name="token-replaced",
        family=FAMILY,
        fault="the operators' token replaced in its file, and the old one made invalid at once",
        promise="it is read again at the first 401; no attempt is repeated",
        once=True,
        prepare=with_account(tmp_path),
    )
    await run(trial, inject)
