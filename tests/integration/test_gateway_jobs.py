"""The gateway's services on a real API server: what is submitted, read, changed and watched, by several replicas."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from distriqueue.gateway import caches
from distriqueue.gateway.caches import ClusterCache, JobCache
from distriqueue.gateway.changes import Change, ChangeKind
from distriqueue.gateway.identities import ANONYMOUS, Access, Identity
from distriqueue.gateway.problems import Conflict, Forbidden, Internal, NotFound, Problem, Unavailable, Unprocessable
from distriqueue.gateway.queries import JobQuery
from distriqueue.gateway.services import ClusterService, JobRef, JobService, Submitted
from distriqueue.gateway.settings import GatewaySettings
from distriqueue.gateway.showing import job_view
from distriqueue.gateway.views import JobStatus, JobSubmission, JobView
from distriqueue.kube.client import MERGE_PATCH, KubeClient
from distriqueue.kube.leases import Candidate, Durations, LeaseView
from distriqueue.kube.resources import JOBS, WORKERS
from localcluster.control_plane import ControlPlane
from tests.integration.kube_plane import new_namespace
from tests.support.waiting import until

pytestmark = pytest.mark.integration

RBAC = "/apis/rbac.authorization.k8s.io/v1"
LEASE = "distriqueue-shard-0"


@dataclass(frozen=True)
class Replica:
    """One gateway replica without its doors."""

    client: KubeClient
    cache: JobCache
    cluster_cache: ClusterCache
    jobs: JobService
    cluster: ClusterService


@asynccontextmanager
async def replica(
    plane: ControlPlane, home: str, *, namespaces: tuple[str, ...] = (), auth: str = "none", queue: int = 4096
) -> AsyncIterator[Replica]:
    """Run one; `home` is the operator's namespace."""
    settings = GatewaySettings.model_validate({"auth": auth, "auth_cache_seconds": 0.0})
    async with await KubeClient.connect(plane.kubeconfig, pool_size=64, user_agent="distriqueue-tests") as client:
        access = Access.create(client, settings)
        cache = JobCache(client, namespaces, queue=queue)
        cluster = ClusterCache(client, namespace=home, lease_name=LEASE)
        running = [asyncio.create_task(cache.run()), asyncio.create_task(cluster.run())]
        try:
            await until(lambda: cache.synced and cluster.synced)
            yield Replica(
                client,
                cache,
                cluster,
                JobService(client, jobs=cache, cluster=cluster, access=access),
                ClusterService(jobs=cache, cluster=cluster, access=access),
            )
        finally:
            access.close()
            for task in running:
                task.cancel()
            for task in running:
                with contextlib.suppress(asyncio.CancelledError):
                    await task


@pytest.fixture(name="namespace")
async def namespace_fixture(kube: KubeClient) -> str:
    return await new_namespace(kube)


@pytest.fixture(name="one")
async def one_fixture(plane: ControlPlane, namespace: str) -> AsyncIterator[Replica]:
    async with replica(plane, namespace) as made:
        yield made


def wanted(**fields: Any) -> JobSubmission:
    return JobSubmission.model_validate({"type": "email", **fields})


async def submit(one: Replica, place: str, **fields: Any) -> JobView:
    return (await one.jobs.submit(ANONYMOUS, place, wanted(**fields))).job


async def many(one: Replica, namespace: str, count: int, **fields: Any) -> list[JobView]:
    made = await one.jobs.submit_many(ANONYMOUS, namespace, [wanted(**fields)] * count)
    assert all(isinstance(outcome, Submitted) and outcome.created for outcome in made), made
    return [outcome.job for outcome in made if isinstance(outcome, Submitted)]


async def write_status(kube: KubeClient, job: JobView, **status: Any) -> None:
    """Write a status, as an operator does."""
    path = JOBS.path(job.namespace, job.name, "status")
    await kube.request("PATCH", path, body={"status": status}, content_type=MERGE_PATCH)


def ref(job: JobView) -> JobRef:
    return JobRef(uid=job.id)


async def read(kube: KubeClient, job: JobView) -> Any:
    return await kube.request("GET", JOBS.path(job.namespace, job.name))


# --- submitting -----------------------------------------------------------------------------------------------------


async def test_a_submission_is_a_resource_and_can_be_read_at_once(
    one: Replica, kube: KubeClient, namespace: str
) -> None:
    fields = {
        "payload": {"a": [None, "ü"]},
        "labels": {"app": "shop"},
        "priority": "High",
        "backoff": {"maxSeconds": 9},
    }
    made = await submit(one, namespace, **fields)
    found = await read(kube, made)
    assert job_view(found) == made == await one.jobs.get(ANONYMOUS, ref(made))
    assert found["metadata"]["annotations"] == {"distriqueue.io/submitted-by": "anonymous"}
    assert found["spec"]["payload"] == {"a": [None, "ü"]}
    assert found["spec"]["backoff"] == {"initialSeconds": 5, "factorPercent": 200, "maxSeconds": 9, "jitterPercent": 10}
    assert (made.name.startswith("email-"), made.status, made.priority_value) == (True, JobStatus.PENDING, 50)
    page = await one.jobs.list(ANONYMOUS, JobQuery.parse(namespace=namespace, labels="app=shop"))
    assert page.items == [made]
    assert await one.jobs.get(ANONYMOUS, JobRef.parse(f"{namespace}/{made.name}")) == made


async def test_a_key_makes_one_job_however_often_it_is_sent(
    one: Replica, plane: ControlPlane, kube: KubeClient, namespace: str
) -> None:
    async with replica(plane, namespace) as other:
        replicas = [one, other] * 5
        made = await asyncio.gather(
            *(
                each.jobs.submit(ANONYMOUS, namespace, wanted(payload={"a": 1, "b": 2}), idempotency_key="k 1")
                for each in replicas
            )
        )
        assert Counter(outcome.created for outcome in made) == {True: 1, False: 9}
        assert len({outcome.job.id for outcome in made}) == 1
        again = await other.jobs.submit(ANONYMOUS, namespace, wanted(payload={"b": 2, "a": 1}), idempotency_key="k 1")
        assert not again.created
    with pytest.raises(Unprocessable, match="another request"):
        await one.jobs.submit(ANONYMOUS, namespace, wanted(payload={"a": 2}), idempotency_key="k 1")
    ann = Identity("ann")
    hers = await one.jobs.submit(ann, namespace, wanted(payload={"a": 1, "b": 2}), idempotency_key="k 1")
    assert hers.created
    named = wanted(name="mine")
    assert (await one.jobs.submit(ann, namespace, named, idempotency_key="k 2")).created
    assert not (await one.jobs.submit(ann, namespace, named, idempotency_key="k 2")).created
    for caller, key in [(ANONYMOUS, "k 2"), (ann, None)]:
        with pytest.raises(Conflict):
            await one.jobs.submit(caller, namespace, named, idempotency_key=key)
    assert len((await kube.request("GET", JOBS.collection(namespace)))["items"]) == 3


async def test_what_cannot_be_taken_is_refused_with_the_reason(one: Replica, kube: KubeClient, namespace: str) -> None:
    with pytest.raises(Unprocessable) as refused:
        await submit(one, namespace, backoff={"initialSeconds": 100, "maxSeconds": 10})
    assert [error.field for error in refused.value.errors] == ["/backoff/maxSeconds"]
    both = {"payload": {"a": 1}, "payloadFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}}
    with pytest.raises(Unprocessable, match="leave one of them out"):
        await submit(one, namespace, **both)
    with pytest.raises(NotFound, match="not found"):
        await submit(one, "no-such-namespace")
    with pytest.raises(Unprocessable, match="leave one of them out"):
        await submit(one, namespace, namespace="default")
    made = await one.jobs.submit_many(
        ANONYMOUS, None, [wanted(namespace=namespace, name="a"), wanted(namespace=namespace, name="a")] * 20
    )
    kinds = Counter(type(outcome) for outcome in made)
    assert kinds == {Submitted: 1, Conflict: 39}
    assert len((await kube.request("GET", JOBS.collection(namespace)))["items"]) == 1


async def test_a_dry_run_makes_nothing_and_says_what_would_be(one: Replica, kube: KubeClient, namespace: str) -> None:
    tried = await one.jobs.submit(ANONYMOUS, namespace, wanted(), dry_run=True)
    assert not tried.created
    assert tried.job.max_attempts == 3
    assert tried.explanation is not None
    assert tried.explanation.blocker == "NoLeader"
    assert (await kube.request("GET", JOBS.collection(namespace)))["items"] == []
    assert one.cache.ordered(namespace) == []
    with pytest.raises(Unprocessable):
        await one.jobs.submit(ANONYMOUS, namespace, wanted(backoff={"maxSeconds": 1}), dry_run=True)


# --- reading --------------------------------------------------------------------------------------------------------


async def test_a_job_of_another_replica_is_waited_for(one: Replica, plane: ControlPlane, namespace: str) -> None:
    async with replica(plane, namespace) as other:
        for _ in range(10):
            made = await submit(other, namespace)
            assert await one.jobs.get(ANONYMOUS, ref(made)) == made
    with pytest.raises(NotFound):
        await one.jobs.get(ANONYMOUS, JobRef.parse("0b8e9b5e-6f0a-4c53-9a56-5f2b0e2f9c3d"))
    with pytest.raises(NotFound):
        await one.jobs.get(ANONYMOUS, JobRef.parse("default/no-such-job"))


async def test_pages_hold_while_jobs_come_and_go(one: Replica, kube: KubeClient, namespace: str) -> None:
    staying = await many(one, namespace, 60, labels={"stays": "yes"})
    leaving = await many(one, namespace, 40)
    await write_status(kube, staying[0], phase="Running")
    await until(lambda: one.cache.counts["default", "Running"])

    async def come_and_go() -> None:
        for job in leaving:
            await one.jobs.delete(ANONYMOUS, ref(job))
            await submit(one, namespace)

    moving = asyncio.create_task(come_and_go())
    seen: list[str] = []
    cursor = None
    while True:
        page = await one.jobs.list(ANONYMOUS, JobQuery.parse(namespace=namespace, limit=9, cursor=cursor))
        seen.extend(job.id for job in page.items)
        cursor = page.next
        if cursor is None:
            break
        await asyncio.sleep(0.01)
    await moving
    assert len(seen) == len(set(seen))
    assert {job.id for job in staying} <= set(seen)
    found = await one.jobs.list(ANONYMOUS, JobQuery.parse(namespace=namespace, labels="stays", limit=5, order="oldest"))
    assert (found.total, len(found.items)) == (60, 5)
    running = await one.jobs.list(ANONYMOUS, JobQuery.parse(namespace=namespace, status=["running"]))
    assert [job.id for job in running.items] == [staying[0].id]
    counted = await one.jobs.statistics(ANONYMOUS, JobQuery.parse(namespace=namespace, labels="stays"))
    assert (counted.total, counted.by_status[JobStatus.RUNNING]) == (60, 1)


async def test_nobody_sees_or_touches_what_the_cluster_does_not_let_them(
    plane: ControlPlane, kube: KubeClient, namespace: str
) -> None:
    other = await new_namespace(kube)
    for place, user in ((namespace, "ann"), (other, "bob")):
        rule = {"apiGroups": ["distriqueue.io"], "resources": ["distributedjobs"], "verbs": ["*"]}
        metadata = {"name": user}
        await kube.request("POST", f"{RBAC}/namespaces/{place}/roles", body={"metadata": metadata, "rules": [rule]})
        body = {
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user},
            "subjects": [{"kind": "User", "name": user}],
        }
        await kube.request("POST", f"{RBAC}/namespaces/{place}/rolebindings", body=body)
    ann, bob = Identity("ann"), Identity("bob")
    async with replica(plane, namespace, auth="kubernetes") as one:

        async def may() -> bool:
            return await one.jobs._access.permits(ann, "create", namespace=namespace) and (
                await one.jobs._access.permits(bob, "get", namespace=other)
            )

        await until(may)
        made = (await one.jobs.submit(ann, namespace, wanted())).job
        assert made.submitted_by == "ann"
        jobs = one.jobs
        by_uid, by_name = ref(made), JobRef(namespace=namespace, name=made.name)
        for which in (by_uid, by_name):
            for act in (jobs.get, jobs.cancel, jobs.retry, jobs.suspend, jobs.resume, jobs.delete, jobs.explain):
                with pytest.raises(Forbidden) as refused:
                    await act(bob, which)
                assert (namespace in refused.value.detail) == (which is by_name)
        for query in (JobQuery(namespace=namespace), JobQuery()):
            for ask in (jobs.list, jobs.statistics):
                with pytest.raises(Forbidden):
                    await ask(bob, query)
            with pytest.raises(Forbidden):
                await anext(jobs.watch(bob, query))
        with pytest.raises(Forbidden, match="name one"):
            await jobs.list(ann, JobQuery())
        with pytest.raises(Forbidden):
            await jobs.submit(bob, namespace, wanted())
        with pytest.raises(Forbidden):
            await one.cluster.workers(ann)
        assert (await jobs.list(bob, JobQuery(namespace=other))).total == 0
        assert await read(kube, made) == await read(kube, (await jobs.get(ann, by_uid)))


async def test_a_gateway_for_some_namespaces_knows_no_other(
    plane: ControlPlane, kube: KubeClient, namespace: str
) -> None:
    second = await new_namespace(kube)
    async with replica(plane, namespace, namespaces=(namespace, second)) as one:
        first_job, second_job = await submit(one, namespace), await submit(one, second)
        with pytest.raises(NotFound, match="does not serve"):
            await submit(one, "default")
        page = await one.jobs.list(ANONYMOUS, JobQuery())
        assert {job.id for job in page.items} == {first_job.id, second_job.id}
        await until(lambda: not one.cache.ahead)  # streams say what a watch has shown
        async with aclosing(one.jobs.watch(ANONYMOUS, JobQuery())) as told:
            heard = await hear(told, 3)
            assert [change.kind for change in heard] == ["job", "job", "synced"]
            await write_status(kube, second_job, phase="Running")
            change = (await hear(told, 1))[0]
        async with aclosing(one.jobs.watch(ANONYMOUS, JobQuery(), since=change.id)) as told:
            assert [change.kind for change in await hear(told, 1)] == ["synced"]


# --- changing -------------------------------------------------------------------------------------------------------


async def test_retries_at_the_same_time_are_one_whoever_else_writes(
    one: Replica, kube: KubeClient, namespace: str
) -> None:
    made = await submit(one, namespace)
    await write_status(kube, made, phase="Dead")
    writing = True

    async def disturb() -> None:
        number = 0
        while writing:
            number += 1
            await kube.request(
                "PATCH",
                JOBS.path(namespace, made.name),
                body={"metadata": {"labels": {"n": str(number)}}},
                content_type=MERGE_PATCH,
            )

    disturbing = asyncio.create_task(disturb())
    answers = await asyncio.gather(*(one.jobs.retry(ANONYMOUS, ref(made)) for _ in range(20)), return_exceptions=True)
    writing = False
    await disturbing
    retried = [answer for answer in answers if isinstance(answer, JobView)]
    assert retried
    assert all(isinstance(answer, JobView | Unavailable) for answer in answers), answers
    assert {view.retry_generation for view in retried} == {1}
    assert (await read(kube, made))["spec"]["retryGeneration"] == 1
    # The leader takes it up; then the next retry is another one.
    await write_status(kube, made, phase="Dead", retryGeneration=1)
    assert (await one.jobs.retry(ANONYMOUS, ref(made))).retry_generation == 2


async def test_what_people_want_of_a_job(one: Replica, kube: KubeClient, namespace: str) -> None:
    made = await submit(one, namespace)
    assert (await one.jobs.suspend(ANONYMOUS, ref(made))).suspended
    assert (await one.jobs.suspend(ANONYMOUS, ref(made))).suspended
    assert not (await one.jobs.resume(ANONYMOUS, ref(made))).suspended
    assert not (await one.jobs.get(ANONYMOUS, ref(made))).suspended
    assert (await one.jobs.cancel(ANONYMOUS, ref(made))).cancel_requested
    assert (await one.jobs.cancel(ANONYMOUS, ref(made))).cancel_requested
    with pytest.raises(Conflict, match="for good"):
        await one.jobs.retry(ANONYMOUS, ref(made))
    over = await submit(one, namespace)
    await write_status(kube, over, phase="Succeeded")
    # This replica may not have seen it yet: it decides on what the API server has.
    for act in (one.jobs.cancel, one.jobs.suspend):
        with pytest.raises(Conflict, match="is over"):
            await act(ANONYMOUS, ref(over))
    assert "cancel" not in (await read(kube, over))["spec"]
    await one.jobs.delete(ANONYMOUS, ref(over))
    assert one.cache.get(over.id) is None
    with pytest.raises(NotFound):
        await one.jobs.get(ANONYMOUS, ref(over))
    again = await submit(one, namespace, name=made.name + "-2")
    await kube.request("DELETE", JOBS.path(namespace, again.name))
    with pytest.raises(NotFound):
        await one.jobs.suspend(ANONYMOUS, ref(again))


# --- the cache ------------------------------------------------------------------------------------------------------


async def test_after_500_jobs_have_changed_and_gone_the_cache_is_what_the_api_server_has(
    one: Replica, plane: ControlPlane, kube: KubeClient, namespace: str
) -> None:
    rng = random.Random(5)  # noqa: S311 - a made-up day
    async with replica(plane, namespace) as other:
        jobs = await many(one, namespace, 500)

        async def live(job: JobView) -> None:
            await write_status(kube, job, phase="Running")
            if rng.random() < 0.5:
                await rng.choice((one, other)).jobs.suspend(ANONYMOUS, ref(job))
            if rng.random() < 0.5:
                await write_status(kube, job, phase="Succeeded", completionTime="2026-11-23T04:00:00Z")
            if rng.random() < 0.4:
                await rng.choice((one, other)).jobs.delete(ANONYMOUS, ref(job))

        for start in range(0, 500, 25):
            await asyncio.gather(*map(live, jobs[start : start + 25]))
        answer = await kube.request("GET", JOBS.collection(namespace))
        expected = {item["metadata"]["uid"]: job_view(item) for item in answer["items"]}
        for each in (one, other):
            await until(partial(holds, each, namespace, expected))
            assert {row.uid: job_view(row.raw()) for row in each.cache.ordered(namespace)} == expected
            assert sum(each.cache.counts.values()) == len(each.cache)


def holds(one: Replica, namespace: str, expected: dict[str, JobView]) -> bool:
    """Whether a replica has these jobs in these versions, and all of it from its watch."""
    versions = {row.uid: str(row.version) for row in one.cache.ordered(namespace)}
    return not one.cache.ahead and versions == {uid: view.resource_version for uid, view in expected.items()}


async def test_what_we_wrote_and_no_watch_ever_shows_leaves_again(
    plane: ControlPlane, kube: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "DOUBT_SECONDS", 0.2)
    made = await kube.request(
        "POST",
        JOBS.collection(namespace),
        body={
            "apiVersion": JOBS.api_version,
            "kind": JOBS.kind,
            "metadata": {"name": "a"},
            "spec": {"type": "email"},
        },
    )
    stays = await kube.request(
        "POST",
        JOBS.collection(namespace),
        body={
            "apiVersion": JOBS.api_version,
            "kind": JOBS.kind,
            "metadata": {"name": "b"},
            "spec": {"type": "email"},
        },
    )
    await kube.request("DELETE", JOBS.path(namespace, "a"))
    async with replica(plane, namespace) as one:
        uid = made["metadata"]["uid"]
        one.cache.put(made)
        assert one.cache.get(uid) is not None
        one.cache.put(stays)
        await until(lambda: one.cache.get(uid) is None)
        assert one.cache.get(stays["metadata"]["uid"]) is not None
        assert one.cache.ahead == 0


# --- streams --------------------------------------------------------------------------------------------------------


async def hear(told: AsyncGenerator[Change, None], count: int) -> list[Change]:
    async with asyncio.timeout(60):
        return [await anext(told) for _ in range(count)]


async def test_a_reader_that_is_cut_again_and_again_hears_of_every_end_exactly_once(
    one: Replica, plane: ControlPlane, kube: KubeClient, namespace: str
) -> None:
    """It comes back to the other replica each time, with the id of the last change that it has read."""
    rng = random.Random(11)  # noqa: S311 - a made-up day
    async with replica(plane, namespace) as other:
        jobs = await many(one, namespace, 300)

        async def live(job: JobView) -> None:
            await write_status(kube, job, phase="Running")
            await write_status(kube, job, phase="Succeeded", completionTime="2026-11-23T04:00:00Z")

        async def live_all() -> None:
            for start in range(0, len(jobs), 10):
                await asyncio.gather(*map(live, jobs[start : start + 10]))

        living = asyncio.create_task(live_all())
        ends: Counter[str] = Counter()
        since: str | None = None
        cuts = 0
        query = JobQuery.parse(namespace=namespace, status=["completed"])
        while len(ends) < len(jobs):
            cut_after = rng.randrange(5, 25)
            async with aclosing((one, other)[cuts % 2].jobs.watch(ANONYMOUS, query, since=since)) as told:
                for _ in range(cut_after):
                    change = (await hear(told, 1))[0]
                    since = change.id
                    assert change.kind in {ChangeKind.JOB, ChangeKind.SYNCED}
                    view = change.job
                    if view is not None:
                        ends[view.id] += 1
                    if len(ends) == len(jobs):
                        break
            cuts += 1
        await living
        assert cuts >= 20
        assert ends == Counter(job.id for job in jobs)
        # A replica that has only just begun knows the old position too.
        async with (
            replica(plane, namespace) as fresh,
            aclosing(fresh.jobs.watch(ANONYMOUS, query, since=since)) as told,
        ):
            assert (await hear(told, 1))[0].kind is ChangeKind.SYNCED


async def test_a_position_from_the_future_begins_anew_and_one_from_the_past_does_not(
    one: Replica, kube: KubeClient, namespace: str
) -> None:
    made = await submit(one, namespace)
    now = int(
        (await kube.request("GET", JOBS.collection(namespace), params={"limit": "1"}))["metadata"]["resourceVersion"]
    )
    await until(lambda: not one.cache.ahead)  # streams say what a watch has shown
    query = JobQuery(namespace=namespace)
    async with aclosing(one.jobs.watch(ANONYMOUS, query, since=f"*-{now + 1_000_000}")) as told:
        assert [change.kind for change in await hear(told, 3)] == ["reset", "job", "synced"]
    async with aclosing(one.jobs.watch(ANONYMOUS, query, since=f"*-{made.resource_version}")) as told:
        assert [change.kind for change in await hear(told, 1)] == ["synced"]
    async with aclosing(one.jobs.watch(ANONYMOUS, query, since="*-1")) as told:
        assert [change.kind for change in await hear(told, 2)] == ["job", "synced"]
        await one.jobs.delete(ANONYMOUS, ref(made))
        gone = (await hear(told, 1))[0]
    assert (gone.kind, gone.job is not None and gone.job.id) == ("deleted", made.id)


# --- the cluster ----------------------------------------------------------------------------------------------------


async def test_the_cluster_is_shown_as_lease_and_workers_say(one: Replica, kube: KubeClient, namespace: str) -> None:
    with pytest.raises(Unavailable):
        one.cluster.leader()
    assert one.cluster.health().status == "degraded"
    # Long, so that a slow machine has it expire no sooner than the test wants.
    candidate = Candidate("replica-1", Durations(lease=300, renew=200.0, retry=1.0))
    lease = LeaseView(kube, namespace, LEASE, candidate)
    taken = await lease.create()
    await until(lambda: one.cluster_cache.lease().record is not None)
    assert (one.cluster.leader().leader, one.cluster.leader().epoch) == ("replica-1", taken.epoch)
    renewed = await lease.replace(taken.renewed(candidate))
    await until(lambda: one.cluster.election().renew_time != one.cluster.election().acquire_time)
    assert one.cluster.election().epoch == taken.epoch < renewed.version
    body = {"apiVersion": WORKERS.api_version, "kind": WORKERS.kind, "metadata": {"name": "w-1"}}
    await kube.request("POST", WORKERS.collection(namespace), body=body)
    status = {"phase": "Online", "poolName": "solo", "concurrency": 4, "running": 1, "types": ["email"]}
    await kube.request(
        "PATCH", WORKERS.path(namespace, "w-1", "status"), body={"status": status}, content_type=MERGE_PATCH
    )
    await until(lambda: one.cluster.cluster_status().slots == 4)
    assert [worker.name for worker in (await one.cluster.workers(ANONYMOUS)).items] == ["w-1"]
    assert (await one.cluster.worker(ANONYMOUS, "w-1")).pool_name == "solo"
    made = await submit(one, namespace, poolName="solo", type="email")
    shown = one.cluster.cluster_status()
    assert next(pool for pool in shown.pools if pool.name == "solo").waiting == 1
    one.cluster_cache.broker = lambda: True
    assert one.cluster.health().status == "ok"
    assert (await one.jobs.explain(ANONYMOUS, ref(made))).blocker == "None"
    assert one.cluster.metrics()["workersOnline"] == 1
    # The last renewal is for a moment, and nobody renews it any more.
    last = renewed.renewed(candidate)
    last["spec"]["leaseDurationSeconds"] = 3
    await lease.replace(last)
    await until(lambda: one.cluster.election().leader is None)
    assert (await one.jobs.explain(ANONYMOUS, ref(made))).blocker == "NoLeader"
    await kube.request("DELETE", WORKERS.path(namespace, "w-1"))
    await until(lambda: one.cluster.cluster_status().slots == 0)
    with pytest.raises(NotFound):
        await one.cluster.worker(ANONYMOUS, "w-1")


async def test_before_the_jobs_are_read_a_replica_takes_jobs_in_and_answers_nothing_else(
    kube: KubeClient, namespace: str
) -> None:
    access = Access.create(kube, GatewaySettings(auth="none"))
    cache = JobCache(kube)
    cluster = ClusterCache(kube, namespace=namespace, lease_name=LEASE)
    service = JobService(kube, jobs=cache, cluster=cluster, access=access)
    made = (await service.submit(ANONYMOUS, namespace, wanted())).job
    reading: list[Any] = [service.get(ANONYMOUS, ref(made)), service.list(ANONYMOUS, JobQuery())]
    for asked in reading:
        with pytest.raises(Unavailable):
            await asked
    with pytest.raises(Problem):
        await anext(service.watch(ANONYMOUS, JobQuery()))
    access.close()


async def test_a_submission_that_fails_by_our_own_fault_takes_no_other_with_it(one: Replica, namespace: str) -> None:
    payload: dict[str, Any] = {}
    for _ in range(300):
        payload = {"a": payload}
    unchecked = wanted().model_copy(update={"payload": payload})  # no door lets it in, and nothing can write it
    made = await one.jobs.submit_many(ANONYMOUS, namespace, [wanted(), unchecked, wanted()])
    assert [type(outcome) for outcome in made] == [Submitted, Internal, Submitted]
