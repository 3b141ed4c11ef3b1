"""What the API server sends is read, however deeply somebody has nested what they stored."""

import orjson
import pytest

from distriqueue.kube.decoding import DEEPEST, decode


def listed(*, levels: int) -> bytes:
    """A page of three objects: the second has a payload of so many levels, brackets in strings beside it."""
    deep = b'{"a":' * levels + b"1" + b"}" * levels
    tricky = rb'{"text":"[[[{{ \" ]] \\","list":[1,{"b":[2]}]}'
    items = b'{"name":"a","payload":%s},{"name":"b","payload":%s,"after":[3]},{"name":"c"}' % (tricky, deep)
    return b'{"items":[%s],"metadata":{"resourceVersion":"7"}}' % items


@pytest.mark.parametrize("levels", [1, 300, DEEPEST + 20, 2_000, 10_000])
def test_one_object_that_is_too_deep_keeps_no_other_from_being_read(levels: int) -> None:
    page = decode(listed(levels=levels))
    assert [item["name"] for item in page["items"]] == ["a", "b", "c"]
    assert page["items"][0]["payload"] == {"text": '[[[{{ " ]] \\', "list": [1, {"b": [2]}]}
    assert page["items"][1]["after"] == [3]
    assert page["metadata"] == {"resourceVersion": "7"}


def test_what_is_left_of_it_is_still_too_deep_to_be_taken_for_a_payload() -> None:
    payload, depth = decode(listed(levels=5_000))["items"][1]["payload"], 0
    while isinstance(payload, dict):
        payload, depth = payload["a"], depth + 1
    assert (payload, depth) == (None, DEEPEST - 3)


@pytest.mark.parametrize("text", [b"", b"{", b'{"a":', b"[" * 2_000, b'"abc'])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        decode(text)
