"""What the services decide without the API server: how much is on a page, and who is told of workers."""

import time
from typing import Any, cast

import pytest

from distriqueue.api import names
from distriqueue.gateway import identities, services
from distriqueue.gateway.caches import ClusterCache, JobCache
from distriqueue.gateway.identities import Access, Identity
from distriqueue.gateway.services import JobRef, JobService
from distriqueue.gateway.settings import GatewaySettings
from tests.unit.gateway.job_resources import Watched, job, row, uid_of


def test_a_page_of_large_jobs_ends_before_it_is_too_large_to_be_encoded_in_one_piece() -> None:
    large = [row(number, spec={"payload": {"text": "x" * 64 * 1024}}) for number in range(500)]
    page = services.fitting(large)
    size = sum(len(one.data) for one in page)
    assert services.PAGE_BYTES - 70 * 1024 < size <= services.PAGE_BYTES
    assert list(page) == large[: len(page)]


def test_a_page_of_small_jobs_is_whole_and_one_job_is_always_on_it() -> None:
    small = [row(number) for number in range(500)]
    assert list(services.fitting(small)) == small
    assert services.fitting([]) == []
    huge = [row(number, spec={"payload": {"text": "x" * services.PAGE_BYTES}}) for number in range(2)]
    assert list(services.fitting(huge)) == huge[:1]


@pytest.mark.parametrize("may", [True, False])
async def test_an_explanation_speaks_of_workers_to_those_alone_who_may_list_them(*, may: bool) -> None:
    settings = GatewaySettings.model_validate({"auth_cache_seconds": 60})
    nobody: Any = None  # all that would be asked is remembered
    access = Access.create(nobody, settings)
    caller = Identity(name="ann")
    for verb, resource, namespace, answer in (
        ("get", names.JOB_PLURAL, "shop", True),
        ("list", names.WORKER_PLURAL, "home", may),
    ):
        right = identities._Right(caller, verb, names.GROUP, resource, "", namespace)
        (access._rights._good if answer else access._rights._bad).put(right, answer, time.monotonic())
    shelves = Watched()
    shelves.show(job(1, 5), listing=True)
    shelves.show_synced(5)
    cluster = ClusterCache(nobody, namespace="home", lease_name="lease")
    service = JobService(nobody, jobs=cast("JobCache", shelves), cluster=cluster, access=access)
    found = await service.explain(caller, JobRef(uid=uid_of(1)))
    assert ("may not see the workers" in found.sentence) is not may
