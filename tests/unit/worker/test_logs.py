"""What handlers log: under their job, and its end in the tail."""

import logging
import sys

from hypothesis import given
from hypothesis import strategies as st

from distriqueue_worker.logs import TAIL_BYTES, LogTail, cut_back, cut_front


@given(st.lists(st.text(alphabet=st.characters(codec=None), max_size=3000), max_size=20))
def test_a_tail_is_the_end_and_fits(lines: list[str]) -> None:
    tail = LogTail()
    for line in lines:
        tail.add(line)
    text = tail.text()
    assert len(text.encode()) <= TAIL_BYTES
    whole = "\n".join(lines).encode(errors="replace").decode()
    assert whole.endswith(text)
    if len(whole) * 4 <= TAIL_BYTES:
        assert text == whole


def test_cutting_keeps_whole_characters() -> None:
    assert cut_front("aü", 2) == "ü"
    assert cut_front("aü", 1) == ""
    assert cut_back("üa", 2) == "ü"
    assert cut_back("üa", 1) == ""


def test_the_worker_is_not_disturbed_by_what_is_logged_outside_of_handlers() -> None:
    logging.getLogger("somewhere").info("fine")
    assert sys.stdout.writable()
