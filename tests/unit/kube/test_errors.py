"""What an answer means for the one who asked."""

import orjson
import pytest

from distriqueue.kube.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Gone,
    KubeError,
    NotFound,
    NotLeading,
    Refused,
    Throttled,
    Unanswered,
    Unreachable,
    from_answer,
    from_status,
)


@pytest.mark.parametrize(
    ("code", "reason", "expected", "retryable"),
    [
        (400, "BadRequest", Refused, False),
        (401, "Unauthorized", Forbidden, True),
        (403, "Forbidden", Forbidden, True),
        (404, "NotFound", NotFound, False),
        (409, "Conflict", Conflict, True),
        (409, "AlreadyExists", AlreadyExists, False),
        (410, "Expired", Gone, True),
        (413, "RequestEntityTooLarge", Refused, False),
        (422, "Invalid", Refused, False),
        (429, "TooManyRequests", Throttled, True),
        (500, "InternalError", Unanswered, True),
        (503, "ServiceUnavailable", Unanswered, True),
        (504, "Timeout", Unanswered, True),
    ],
)
def test_the_class_says_what_may_be_concluded(
    code: int, reason: str, expected: type[KubeError], *, retryable: bool
) -> None:
    body = orjson.dumps({"kind": "Status", "message": "why", "reason": reason, "code": code})
    error = from_answer(code, body)
    assert type(error) is expected
    assert (error.code, error.reason, error.message, str(error)) == (code, reason, "why", "why")
    assert error.retryable is retryable


def test_causes_and_waiting_time_are_kept() -> None:
    causes = [{"reason": "FieldValueInvalid", "message": "no", "field": "spec.type"}]
    details = {"causes": [*causes, "nonsense"], "retryAfterSeconds": 3}
    error = from_status({"code": 429, "message": "m", "details": details})
    assert error.causes == tuple(causes)
    assert error.retry_after == 3
    header = from_answer(429, orjson.dumps({"details": details}), retry_after="1.5")
    assert header.retry_after == 1.5


@pytest.mark.parametrize(
    "body", [b"", b"upstream broke off\n", b"[1]", b"null", b'{"details": null}', b"\xff\xfe", b"{"]
)
def test_whatever_a_proxy_writes_is_an_error_all_the_same(body: bytes) -> None:
    error = from_answer(502, body, retry_after="Wed, 21 Oct 2015 07:28:00 GMT")
    assert type(error) is Unanswered
    assert error.retry_after == 0
    assert error.message


def test_a_status_without_code_leaves_everything_open() -> None:
    assert type(from_status({"message": "?"})) is Unanswered


def test_whoever_handles_the_unknown_handles_the_unsent_too() -> None:
    assert issubclass(Unreachable, Unanswered)
    assert not issubclass(NotLeading, Unanswered)
    assert not NotLeading.retryable
