"""How many objects a page of a list is to have."""

import pytest

from distriqueue.kube.feeds import next_chunk

MEBIBYTE = 1024 * 1024


@pytest.mark.parametrize(
    ("chunk", "page_bytes", "most", "expected"),
    [
        (500, MEBIBYTE, 500, 500),
        (500, 8 * MEBIBYTE, 500, 250),
        (250, 4 * MEBIBYTE, 500, 250),
        (250, 2 * MEBIBYTE, 500, 500),
        (500, 700 * MEBIBYTE, 500, 10),
        (5, 70 * MEBIBYTE, 5, 5),
        (500, 50, 500, 500),
    ],
)
def test_pages_are_kept_near_four_mebibytes(chunk: int, page_bytes: int, most: int, expected: int) -> None:
    assert next_chunk(chunk, page_bytes, most=most) == expected
