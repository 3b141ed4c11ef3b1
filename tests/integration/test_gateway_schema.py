"""Schemathesis against a running gateway: requests by the hundred, right and wrong by its own OpenAPI document.

All its checks are on. Left out is the stream, whose answers have no end (test_gateway_streams.py is about it), and one
of two paths that lead to the same function.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from distriqueue.kube.client import KubeClient
from tests.support.gateways import Gateway, make_caller, start
from tests.support.stages import CALM, Stage, Stages

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = "3"
SECONDS = 280

GROUPS = {
    "submitting": ["--include-operation-id=submitJob", "--include-operation-id=submitJobs"],
    "reading": ["--include-operation-id=listJobs", "--include-operation-id=jobStatistics"],
    "one job": ["--include-path-regex=^/api/jobs/{uid}(/[a-z]+)?$", "--exclude-operation-id=putJobStatus"],
    "workers": ["--include-tag=workers"],
    "cluster": ["--include-tag=cluster"],
}


@pytest.fixture(name="stage", scope="module")
def stage_fixture(stages: Stages) -> Iterator[Stage]:
    with stages.open(**CALM) as stage:
        stage.start(operators=1, workers=1)
        yield stage


@pytest.fixture(name="gateway", scope="module")
def gateway_fixture(stage: Stage) -> Gateway:
    return start(stage.programs, NAMESPACES="")


@pytest.mark.parametrize("group", GROUPS)
async def test_no_request_is_answered_otherwise_than_described(
    gateway: Gateway, stage: Stage, kube: KubeClient, tmp_path: Path, group: str
) -> None:
    token = await make_caller(kube, stage.namespace, "everybody", workers=True, everywhere=True)
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{gateway.url}/api/openapi.json"),
        *GROUPS[group],
        *("--header", f"Authorization: Bearer {token}"),
        *("--checks=all", "--phases=examples,coverage,fuzzing", f"--max-examples={EXAMPLES}"),
        *("--workers=1", "--no-shrink", "--continue-on-failure", "--request-timeout=30", "--seed=1"),
    ]
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "tests.integration.schemathesis_hooks",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
    }
    found = await asyncio.to_thread(
        subprocess.run, command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS
    )
    assert found.returncode == 0, found.stdout[-8000:] + found.stderr[-2000:]
    assert gateway.program.process.alive()
