"""Jobs that are named on a command line: none is passed over in silence, and none stops the others."""

import orjson
import pytest

from distriqueue.api.phases import JobPhase
from distriqueue.cli import changing
from distriqueue.cli.clusters import Cluster
from distriqueue.cli.errors import CliError, Exit
from distriqueue.cli.jobs import Choice, chosen
from distriqueue.gateway.requests import JobRequests
from distriqueue.kube.client import MERGE_PATCH, KubeClient
from distriqueue.kube.resources import JOBS
from tests.integration.kube_plane import new_namespace

pytestmark = pytest.mark.integration

DEAD = ("a", "b", "c")


@pytest.fixture(name="cluster")
async def cluster_fixture(kube: KubeClient) -> Cluster:
    """A namespace with three dead letters and a job that waits."""
    namespace = await new_namespace(kube)
    for name in (*DEAD, "waits"):
        body = {"apiVersion": JOBS.api_version, "kind": JOBS.kind, "metadata": {"name": name}, "spec": {"type": "x"}}
        await JobRequests(kube).create(namespace, orjson.dumps(body))  # it waits for definitions that are new
        if name in DEAD:
            status = {"status": {"phase": "Dead", "completionTime": f"2026-01-01T00:00:0{DEAD.index(name)}Z"}}
            path = JOBS.path(namespace, name, "status")
            await kube.request("PATCH", path, body=status, content_type=MERGE_PATCH)
    return Cluster(client=kube, namespace=namespace, explicit=True, operator=None)


async def runs_again(cluster: Cluster) -> list[str]:
    jobs = await cluster.jobs(cluster.namespace)
    return sorted(job["metadata"]["name"] for job in jobs if job["spec"].get("retryGeneration"))


async def redrive(cluster: Cluster, *names: str) -> Exit:
    return await changing.redrive(cluster, Choice(names=names), rate=1000, limit=None, dry_run=False)


async def test_a_name_that_nobody_has_is_said_whatever_narrows_it(cluster: Cluster) -> None:
    for choice in (
        Choice(names=("a", "typo"), phases=(JobPhase.DEAD,)),
        Choice(names=("typo",), labels="team=blue"),
        Choice(names=("typo",), type="x"),
    ):
        with pytest.raises(CliError, match="there is no job typo in") as caught:
            await chosen(cluster, choice)
        assert caught.value.code is Exit.FAILED
    found = await chosen(cluster, Choice(names=("a", "waits"), phases=(JobPhase.DEAD,)))
    assert [job["metadata"]["name"] for job in found] == ["a"], "it is there, and narrowed out"
    with pytest.raises(CliError, match="leave out -A") as caught:
        await chosen(cluster, Choice(names=("a",), everywhere=True))
    assert caught.value.code is Exit.USAGE


async def test_redrive_refuses_each_that_is_no_dead_letter(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CliError, match="there is no job typo"):
        await redrive(cluster, "a", "typo")
    assert await runs_again(cluster) == []
    assert await redrive(cluster, "waits", "a") is Exit.FAILED
    said = capsys.readouterr()
    assert "waits: it is no dead letter (Pending)" in said.err
    assert "1 dead letter will run again" in said.out
    assert await runs_again(cluster) == ["a"]
    assert await redrive(cluster, "b") is Exit.FINE


async def test_one_that_is_gone_meanwhile_does_not_stop_the_others(
    cluster: Cluster, kube: KubeClient, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = await chosen(cluster, Choice(names=DEAD))
    await kube.request("DELETE", JOBS.path(cluster.namespace, "a"))
    assert await changing.write(cluster, wanted[:1], changing.RETRY, alone=False) == 1
    assert "error: a: " in capsys.readouterr().err
    with pytest.raises(CliError, match="a: "):
        await changing.write(cluster, wanted[:1], changing.RETRY, alone=True)
