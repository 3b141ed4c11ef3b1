"""Bodies of requests: what is read, and which words refuse the rest."""

import json
from typing import Any

import pytest
from starlette.requests import Request

from distriqueue.gateway.problems import InvalidRequest, Problem, TooLarge, Unprocessable
from distriqueue.gateway.rest.bodies import DEPTH_LIMIT, ERRORS_SHOWN, parse, read_model
from distriqueue.gateway.rest.failures import UnsupportedMediaType
from distriqueue.gateway.rest.jobs import Batch
from distriqueue.gateway.views import JobSubmission

LIMIT = 1000


def request_of(*parts: bytes, **headers: str) -> Request:
    """A request whose body comes in parts; it fails when more is read than there is."""
    messages = [
        {"type": "http.request", "body": part, "more_body": number < len(parts)} for number, part in enumerate(parts, 1)
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": raw, "left": messages}, receive)


def test_a_submission_is_read() -> None:
    found = parse(b'{"type": "email", "payload": {"to": "a"}, "maxAttempts": 5, "priority": "High"}', JobSubmission)
    assert (found.type, found.payload, found.max_attempts, found.priority) == ("email", {"to": "a"}, 5, "High")


def test_a_whole_number_may_have_a_point() -> None:
    assert parse(b'{"type": "email", "maxAttempts": 5.0}', JobSubmission).max_attempts == 5


def test_a_moment_is_a_text() -> None:
    found = parse(b'{"type": "email", "startAfter": "2026-03-01T06:00:00Z"}', JobSubmission)
    assert found.start_after is not None
    assert found.start_after.year == 2026


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ('{"type": "email", "maxAttempts": "5"}', "/maxAttempts"),
        ('{"type": "email", "maxAttempts": true}', "/maxAttempts"),
        ('{"type": "email", "maxAttempts": 1.5}', "/maxAttempts"),
        ('{"type": "email", "maxAttempts": 0}', "/maxAttempts"),
        ('{"type": "Email"}', "/type"),
        ('{"type": "email", "prioritty": "High"}', "/prioritty"),
        ('{"type": "email", "priority": "high"}', "/priority"),
        ('{"type": "email", "backoff": {"maxSeconds": 0}}', "/backoff/maxSeconds"),
        ('{"type": "email", "payload": []}', "/payload"),
        ('{"type": "email", "cancel": true}', "/cancel"),
        ('{"payload": {}}', "/type"),
        ("[]", ""),
        ("null", ""),
    ],
)
def test_what_is_wrong_is_named_by_its_field(body: str, pointer: str) -> None:
    with pytest.raises(Unprocessable) as caught:
        parse(body.encode(), JobSubmission)
    assert [error.field for error in caught.value.errors] == [pointer]
    assert "errors.pydantic.dev" not in str(caught.value.document())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"type": "email", "prioritty": "High"}', "there is no such field: did you mean 'priority'?"),
        ('{"type": "email", "backoff": {"maxSecond": 9}}', "there is no such field: did you mean 'maxSeconds'?"),
        ('{"type": "email", "zzz": 1}', "there is no such field"),
    ],
)
def test_a_field_that_there_is_not_brings_the_one_that_was_meant(body: str, message: str) -> None:
    with pytest.raises(Unprocessable) as caught:
        parse(body.encode(), JobSubmission)
    assert [error.message for error in caught.value.errors] == [message]


def test_a_batch_names_the_field_of_the_job() -> None:
    with pytest.raises(Unprocessable) as caught:
        parse(b'{"jobs": [{"type": "email"}, {"type": ""}]}', Batch)
    assert [error.field for error in caught.value.errors] == ["/jobs/1/type"]


def test_not_every_error_is_shown() -> None:
    body = json.dumps({"type": "email", **{f"field{number}": 1 for number in range(100)}}).encode()
    with pytest.raises(Unprocessable) as caught:
        parse(body, JobSubmission)
    assert len(caught.value.errors) == ERRORS_SHOWN
    assert caught.value.detail.startswith("100 fields are wrong, the first: /field0: ")


@pytest.mark.parametrize(
    "body", ["", "{", "{'a': 1}", '{"a": NaN}', '{"a": Infinity}', '"\\ud800"', '{"a": 1e400}', "\xff"]
)
def test_what_is_no_json_is_refused(body: str) -> None:
    with pytest.raises(InvalidRequest):
        parse(body.encode("latin-1"), JobSubmission)


def nested(depth: int) -> bytes:
    """A payload; the body and it are two levels."""
    return b'{"type": "email", "payload": {"a": ' + b"[" * (depth - 2) + b"]" * (depth - 2) + b"}}"


def test_depth_is_bounded() -> None:
    parse(nested(DEPTH_LIMIT), JobSubmission)
    with pytest.raises(InvalidRequest, match="deep"):
        parse(nested(DEPTH_LIMIT + 1), JobSubmission)
    with pytest.raises(InvalidRequest):
        parse(nested(100_000), JobSubmission)


def test_brackets_beside_each_other_are_not_deep() -> None:
    found = parse(b'{"type": "email", "payload": {"a": [' + b",".join([b"{}"] * 500) + b"]}}", JobSubmission)
    assert len(found.payload["a"]) == 500  # type: ignore[arg-type]  # JSON: it is a list


def test_whole_numbers_beyond_64_bits_are_what_the_api_server_makes_of_them() -> None:
    found = parse(b'{"type": "email", "payload": {"a": 123456789012345678901234567890}}', JobSubmission)
    assert found.payload == {"a": 1.2345678901234568e29}


async def test_a_body_in_parts_is_one() -> None:
    request = request_of(b'{"type": ', b'"email"}', content_type="application/json; charset=utf-8")
    assert (await read_model(request, JobSubmission, limit=LIMIT)).type == "email"


async def test_a_body_that_says_that_it_is_too_large_is_not_read() -> None:
    request = request_of(b"{}", content_type="application/json", content_length=str(LIMIT + 1))
    with pytest.raises(TooLarge):
        await read_model(request, JobSubmission, limit=LIMIT)
    assert len(request.scope["left"]) == 1


async def test_a_body_is_read_no_further_than_the_limit() -> None:
    request = request_of(b" " * LIMIT, b" ", b"more", content_type="application/json")
    with pytest.raises(TooLarge):
        await read_model(request, JobSubmission, limit=LIMIT)
    assert len(request.scope["left"]) == 1


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded"])
async def test_only_json_is_taken(kind: str) -> None:
    request = request_of(b"{}", content_type=kind)
    with pytest.raises(UnsupportedMediaType) as caught:
        await read_model(request, JobSubmission, limit=LIMIT)
    problem: Problem = caught.value
    assert problem.status == 415
    assert "--json" in problem.detail
