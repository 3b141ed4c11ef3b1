"""Every problem has a status code of its kind, and arrives whole in the details."""

from collections.abc import Iterator

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from grpc import StatusCode

from distriqueue.gateway import problems
from distriqueue.gateway.problems import FieldError, Problem, Unprocessable
from distriqueue.gateway.rpc import refusals


def _kinds(kind: type[Problem] = Problem) -> Iterator[type[Problem]]:
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == problems.__name__:
            yield from _kinds(below)


@pytest.mark.parametrize("kind", list(_kinds()))
def test_every_problem_has_a_code(kind: type[Problem]) -> None:
    code = refusals.code_of(kind("what happened"))
    assert code not in {StatusCode.UNKNOWN, StatusCode.OK}
    if kind.retryable:
        assert code in {StatusCode.UNAVAILABLE, StatusCode.RESOURCE_EXHAUSTED}
    else:
        assert code is not StatusCode.UNAVAILABLE


def test_a_problem_arrives_as_its_document_says() -> None:
    problem = Unprocessable("see errors", errors=[FieldError("/type", "say one")], retry_after=1.5)
    trailers = dict(refusals.trailers_of(problem))
    found = refusals.problem_in(trailers.items())
    assert found is not None
    document = problem.document()
    assert (found.type, found.title, found.status, found.detail) == tuple(
        document[key] for key in ("type", "title", "status", "detail")
    )
    assert [{"field": error.field, "message": error.message} for error in found.errors] == document["errors"]
    assert found.retry_after_seconds == 1.5
    assert trailers[refusals.PUSHBACK_TRAILER] == "1500"


def test_what_may_have_been_done_is_not_to_be_repeated_by_a_retry_policy() -> None:
    trailers = dict(refusals.trailers_of(problems.Unsettled("look before you ask again")))
    assert trailers[refusals.PUSHBACK_TRAILER] == "-1"
    assert refusals.PUSHBACK_TRAILER not in dict(refusals.trailers_of(problems.Conflict("changed")))


def test_the_details_are_those_of_google_rpc_status() -> None:
    problem = Unprocessable("see errors")
    status = dict(refusals.trailers_of(problem))[refusals.DETAILS_TRAILER]
    assert isinstance(status, bytes)
    fields = _wire(status)
    assert fields[1] == StatusCode.INVALID_ARGUMENT.value[0]
    assert fields[2] == b"see errors"
    packed = fields[3]
    assert isinstance(packed, bytes)
    assert AnyMessage.FromString(packed).type_url == "type.googleapis.com/distriqueue.v1alpha1.Problem"


def test_the_trailers_of_a_huge_problem_are_taken_by_any_client() -> None:
    errors = [FieldError(f"/payload/{number}", "ü" * 100) for number in range(1000)]
    trailers = refusals.trailers_of(Unprocessable("ü" * 4000, errors=errors))
    assert sum(len(key) + len(value) for key, value in trailers) < 6000
    found = refusals.problem_in(trailers)
    assert found is not None
    assert found.errors


def test_no_problem_is_found_where_none_is() -> None:
    assert refusals.problem_in(None) is None
    assert refusals.problem_in([("other", "x")]) is None


def _wire(data: bytes) -> dict[int, int | bytes]:
    """Read the fields of a message without its definition; enough for numbers below 128 and lengths below 16,384."""
    found: dict[int, int | bytes] = {}
    place = 0

    def varint() -> int:
        nonlocal place
        value, shift = 0, 0
        while True:
            byte = data[place]
            place += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while place < len(data):
        key = varint()
        value = varint()
        if key & 7 == 2:
            found[key >> 3] = data[place : place + value]
            place += value
        else:
            found[key >> 3] = value
    return found
