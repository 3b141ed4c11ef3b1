"""The Lease object, from one version to the next."""

import random
from datetime import UTC, datetime
from typing import Any

import pytest

from distriqueue.kube.leases import OFFSET_ANNOTATION, Candidate, Durations, LeaseRecord

NOW = datetime(2026, 11, 1, 12, 30, 15, 42, tzinfo=UTC)
CANDIDATE = Candidate("me", wall=lambda: NOW, rng=random.Random(1))  # noqa: S311  # a fixed seed is the point


def raw(*, annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": "a", "uid": "u", "resourceVersion": "17", "labels": {"kept": "yes"}}
    if annotations is not None:
        metadata["annotations"] = annotations
    return {"metadata": metadata, "spec": {"strategy": "kept", **spec}}


@pytest.mark.parametrize(
    ("durations", "right"),
    [
        ((6, 4, 1, 1), True),
        ((6, 6, 1, 1), False),
        ((6, 4, 4, 1), False),
        ((6, 4, 0, 1), False),
        ((6, 4, 1, 6), False),
        ((6, 4, 1, -1), False),
    ],
)
def test_durations_that_make_no_sense_are_refused(durations: tuple[int, float, float, float], *, right: bool) -> None:
    if right:
        Durations(*durations)
        return
    with pytest.raises(ValueError, match="do not hold"):
        Durations(*durations)


@pytest.mark.parametrize(
    ("annotations", "epoch"),
    [(None, 17), ({OFFSET_ANNOTATION: "100"}, 117), ({OFFSET_ANNOTATION: "x"}, 17), ({OFFSET_ANNOTATION: "-5"}, 17)],
)
def test_an_epoch_is_version_and_offset(annotations: dict[str, str] | None, epoch: int) -> None:
    assert LeaseRecord.parse(raw(annotations=annotations)).epoch == epoch


def test_an_empty_lease_is_held_by_nobody() -> None:
    record = LeaseRecord.parse({"metadata": {"name": "a", "uid": "u", "resourceVersion": "1"}})
    assert (record.holder, record.duration, record.transitions, record.offset) == ("", 0, 0, 0)


@pytest.mark.parametrize(("holder", "transitions"), [("other", 4), ("", 4), (None, 4), ("me", 3)])
def test_taking_counts_a_transition_when_the_holder_changes(holder: str | None, transitions: int) -> None:
    taken = LeaseRecord.parse(raw(holderIdentity=holder, leaseTransitions=3)).taken(CANDIDATE)
    assert taken["spec"] == {
        "strategy": "kept",
        "holderIdentity": "me",
        "leaseDurationSeconds": 6,
        "acquireTime": "2026-11-01T12:30:15.000042Z",
        "renewTime": "2026-11-01T12:30:15.000042Z",
        "leaseTransitions": transitions,
    }
    assert taken["metadata"]["resourceVersion"] == "17", "the write must be tied to what it was made from"
    assert taken["metadata"]["labels"] == {"kept": "yes"}


def test_renewing_and_releasing_change_no_more_than_they_say() -> None:
    before = raw(holderIdentity="me", leaseTransitions=3, acquireTime="then", leaseDurationSeconds=6)
    record = LeaseRecord.parse(before)
    time = {"renewTime": "2026-11-01T12:30:15.000042Z"}
    assert record.renewed(CANDIDATE) == {**before, "spec": {**before["spec"], **time}}
    assert record.released(CANDIDATE) == {**before, "spec": {**before["spec"], **time, "holderIdentity": ""}}
    raised = record.raised(9)
    assert raised["metadata"]["annotations"] == {OFFSET_ANNOTATION: "9"}
    assert raised["spec"] == before["spec"]
    assert "annotations" not in before["metadata"], "what was read is not changed"


def test_pauses_are_drawn_below_the_retry_time() -> None:
    pauses = [CANDIDATE.pause() for _ in range(100)]
    assert len(set(pauses)) > 50
    assert all(0.8 <= pause <= 1.0 for pause in pauses)
