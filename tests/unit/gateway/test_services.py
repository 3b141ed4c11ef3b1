"""What the services decide without the API server: how much is on a page."""

from distriqueue.gateway import services
from tests.unit.gateway.job_resources import row


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
