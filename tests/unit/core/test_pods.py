"""What the kubelet's word about a pod proves."""

from typing import Any

import pytest

from distriqueue.core.pods import containers_ended

ENDED: dict[str, Any] = {"state": {"terminated": {"exitCode": 0}}}
RUNNING: dict[str, Any] = {"state": {"running": {}}}


def pod(
    *statuses: dict[str, Any], phase: str = "Running", deleted: bool = False, containers: int | None = None
) -> dict[str, Any]:
    return {
        "metadata": {"deletionTimestamp": "2026-11-01T00:00:00Z"} if deleted else {},
        "spec": {"containers": [{}] * (len(statuses) if containers is None else containers)},
        "status": {"phase": phase, "containerStatuses": list(statuses)},
    }


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_all_containers_terminated_in_a_final_phase(phase: str) -> None:
    assert containers_ended(pod(ENDED, ENDED, phase=phase))


def test_all_containers_terminated_of_a_pod_that_is_being_deleted() -> None:
    assert containers_ended(pod(ENDED, deleted=True))


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param(pod(RUNNING), id="running"),
        pytest.param(pod(RUNNING, deleted=True), id="deleted by force, or still ending"),
        pytest.param(pod(ENDED, RUNNING, deleted=True), id="one still runs"),
        pytest.param(pod(ENDED), id="to be restarted"),
        pytest.param(pod({"state": {"waiting": {"reason": "CrashLoopBackOff"}}}, deleted=True), id="waiting"),
        pytest.param(pod(ENDED, deleted=True, containers=2), id="nothing is known of the second"),
        pytest.param(pod(phase="Failed", deleted=True, containers=1), id="failed by a controller, node unreachable"),
        pytest.param(pod({}, phase="Failed"), id="no state"),
        pytest.param(pod({"state": None}, phase="Failed"), id="null state"),
        pytest.param({"metadata": {}, "status": {"phase": "Failed"}}, id="no statuses"),
        pytest.param({}, id="empty"),
        pytest.param({"metadata": None, "spec": None, "status": None}, id="nulls"),
    ],
)
def test_anything_else_proves_nothing(seen: dict[str, Any]) -> None:
    assert not containers_ended(seen)
