"""Problem documents become the exceptions of their kind, and what is no document is no crash."""

import inspect

import pytest

from distriqueue import client
from distriqueue.client import errors
from distriqueue.client.errors import ClientError, FieldError, ProblemError, from_problem
from distriqueue.gateway import problems


def _server_problems(kind: type[problems.Problem]) -> list[type[problems.Problem]]:
    found = [kind] if kind is not problems.Problem else []
    for below in kind.__subclasses__():
        if below.__module__ == problems.__name__:
            found += _server_problems(below)
    return found


@pytest.mark.parametrize("kind", _server_problems(problems.Problem))
def test_what_the_gateway_refuses_is_raised_with_all_its_fields(kind: type[problems.Problem]) -> None:
    problem = kind("say another", errors=[problems.FieldError("/type", "too long")])
    error = from_problem(problem.status, problem.document("/api/jobs"), retry_after=2.5)
    assert type(error) is not ProblemError, "there is no exception of its kind"
    assert (error.status, error.slug, error.title) == (problem.status, problem.slug, problem.title)
    assert error.errors == (FieldError("/type", "too long"),)
    assert error.retry_after == 2.5
    assert error.retryable == problem.retryable
    assert "say another" in str(error)
    assert "/type: too long" in str(error)


@pytest.mark.parametrize("document", [{}, {"errors": "x", "type": 7, "title": None}, {"errors": [1, {}]}])
def test_what_a_proxy_answers_is_an_error_too(document: dict[str, object]) -> None:
    error = from_problem(502, document)
    assert isinstance(error, errors.Unavailable)
    assert error.retryable
    assert "502" in str(error) or error.title


def test_a_batch_says_under_which_names_to_look_for_what_was_not_answered() -> None:
    away = errors.ConnectionFailed("no answer")
    error = errors.BatchRefused({}, {7: away}, names={7: "email-0a"})
    assert error.refused == {7: away}
    assert error.names == {7: "email-0a"}
    assert "number 7: no answer" in str(error)


def test_an_unknown_refusal_is_not_repeated() -> None:
    assert not from_problem(418, {}).retryable
    assert isinstance(from_problem(599, {}), errors.InternalError)


def test_every_error_has_the_one_root_and_is_exported() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, BaseException)]
    assert len(kinds) > 15
    for kind in kinds:
        assert issubclass(kind, ClientError)
        assert getattr(client, kind.__name__) is kind
        assert isinstance(kind.retryable, bool)
