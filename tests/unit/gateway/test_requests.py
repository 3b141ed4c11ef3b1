"""How the job of a request whose answer was lost is known again."""

from typing import Any

import pytest

from distriqueue.gateway.requests import _age_of, _holds

ASKED: dict[str, Any] = {
    "metadata": {"name": "a", "annotations": {"distriqueue.io/submitted-by": "me"}},
    "spec": {"type": "email", "payload": {"list": [1, {"a": None}], "x": 1.0}},
}


def test_what_the_api_server_adds_does_not_matter() -> None:
    found = {
        "metadata": {**ASKED["metadata"], "uid": "u", "labels": {}},
        "spec": {**ASKED["spec"], "priority": "Medium"},
        "status": {},
    }
    assert _holds(found, ASKED)


@pytest.mark.parametrize(
    "found",
    [
        {**ASKED, "spec": {**ASKED["spec"], "type": "other"}},
        {**ASKED, "spec": {"type": "email"}},
        {**ASKED, "spec": {"type": "email", "payload": {"list": [1, {"a": 2}], "x": 1.0}}},
        {**ASKED, "metadata": {"name": "a", "annotations": {"distriqueue.io/submitted-by": "somebody"}}},
        {**ASKED, "metadata": {"name": "a"}},
    ],
)
def test_the_job_of_another_is_not_taken_for_ours(found: dict[str, Any]) -> None:
    assert not _holds(found, ASKED)


def test_the_age_of_a_job_is_counted_from_its_creation() -> None:
    job = {"metadata": {"creationTimestamp": "1970-01-01T00:01:00Z"}}
    assert _age_of(job, 100.0) == 40.0
