"""What callers are told when something is refused, by us or by the API server."""

import pytest

from distriqueue.gateway import problems
from distriqueue.gateway.problems import FieldError, Problem, from_kube
from distriqueue.kube import errors as kube

INVALID = b"""{"kind": "Status", "code": 422, "reason": "Invalid", "message": "DistributedJob \\"a\\" is invalid",
 "details": {"causes": [
  {"reason": "FieldValueInvalid", "message": "must be 1 or more", "field": "spec.maxAttempts"},
  {"reason": "FieldValueInvalid", "message": "is no name", "field": "spec.retryBudget[a/b].x"},
  {"reason": "FieldValueInvalid", "message": "all of it"}]}}"""


def test_a_document_is_what_rfc_9457_wants() -> None:
    problem = problems.Unprocessable("see errors", errors=[FieldError("/type", "write one")])
    assert problem.document("/api/jobs") == {
        "type": "urn:distriqueue:problem:unprocessable",
        "title": "Not as it has to be",
        "status": 422,
        "detail": "see errors",
        "instance": "/api/jobs",
        "errors": [{"field": "/type", "message": "write one"}],
    }
    assert set(problems.NotFound("gone").document()) == {"type", "title", "status", "detail"}


def test_what_the_schema_refuses_names_the_fields_of_the_submission() -> None:
    problem = from_kube(kube.from_answer(422, INVALID))
    assert isinstance(problem, problems.Unprocessable)
    assert problem.errors == (
        FieldError("/maxAttempts", "must be 1 or more"),
        FieldError("/retryBudget/a~1b/x", "is no name"),
        FieldError("", "all of it"),
    )


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (kube.NotFound("no namespace"), problems.NotFound),
        (kube.AlreadyExists("a exists"), problems.Conflict),
        (kube.Conflict("changed"), problems.Conflict),
        (kube.Gone("too old"), problems.Gone),
        (kube.Refused("too large", code=413), problems.TooLarge),
        (kube.Refused("no", code=400), problems.Unprocessable),
        (kube.Forbidden("quota: exceeded quota", code=403), problems.Conflict),
        (
            kube.Forbidden("is being terminated", code=403, causes=({"reason": "NamespaceTerminating"},)),
            problems.Conflict,
        ),
        (
            kube.Forbidden('admission webhook "a.example" denied the request: no team label', code=403),
            problems.Forbidden,
        ),
        (
            kube.Forbidden(
                "distributedjobs.distriqueue.io \"a\" is forbidden: ValidatingAdmissionPolicy 'team' with binding "
                "'all' denied request: no team label",
                code=403,
            ),
            problems.Forbidden,
        ),
        (kube.Forbidden("secret-account may not", code=403), problems.Unavailable),
        (kube.Forbidden("secret-account may not", code=401), problems.Unavailable),
        (kube.NoCredentials("none at /secret"), problems.Unavailable),
        (kube.Throttled("busy"), problems.Unavailable),
        (kube.Unreachable("10.0.0.1:6443 refused"), problems.Unavailable),
        (kube.Unanswered("10.0.0.1:6443 timed out"), problems.Unavailable),
        (kube.NotLeading("secret"), problems.Internal),
    ],
)
def test_every_error_of_the_api_server_has_its_problem(error: kube.KubeError, kind: type[Problem]) -> None:
    problem = from_kube(error)
    assert type(problem) is kind
    assert "secret" not in problem.detail
    assert "10.0.0.1" not in problem.detail
    assert (problem.retry_after is not None) == (kind is problems.Unavailable)


def test_a_policy_that_refuses_is_heard_in_its_own_words() -> None:
    problem = from_kube(kube.Forbidden('admission webhook "a.example" denied the request: no team label', code=403))
    assert "no team label" in problem.detail


def test_the_api_servers_own_pause_is_passed_on() -> None:
    assert from_kube(kube.Throttled("busy", retry_after=7.0)).retry_after == 7.0
