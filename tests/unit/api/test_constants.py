"""The constants: cheap to import, and of one mind with each other."""

import subprocess
import sys

from distriqueue.api import limits, names
from distriqueue.api.conditions import AttemptReason, JobReason, WorkerReason
from distriqueue.api.fences import JOB_FENCE_RULES, Fence, violated_fences
from distriqueue.api.phases import FINAL_JOB_PHASES, JobPhase, Priority
from distriqueue_protocol.payloads import PayloadTextError, PayloadTextTooLargeError
from distriqueue_worker import results
from distriqueue_worker.mounted_secrets import SecretNotMountedError

LIGHT = ["names", "phases", "limits", "conditions", "fences", "raw"]


def test_the_constants_import_no_library() -> None:
    code = (
        "import sys\n"
        + "".join(f"import distriqueue.api.{module}\n" for module in LIGHT)
        + "print(*[name for name in ('pydantic', 'yaml', 'kopf', 'kubernetes') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert answer.stdout.strip() == ""


def test_final_phases_are_the_ones_without_a_way_on() -> None:
    assert set(JobPhase) - FINAL_JOB_PHASES == {
        JobPhase.PENDING,
        JobPhase.QUEUED,
        JobPhase.RUNNING,
        JobPhase.RETRYING,
    }


def test_every_reason_is_one_word_that_the_schema_takes() -> None:
    for reason in (*JobReason, *AttemptReason, *WorkerReason):
        assert reason.isalnum()
        assert reason[0].isupper()
        assert len(reason) <= limits.REASON_LIMIT


def test_the_default_priority_is_one_of_them() -> None:
    assert limits.DEFAULT_PRIORITY in set(Priority)


def test_the_api_version_is_group_and_version() -> None:
    assert f"{names.GROUP}/{names.VERSION}" == names.API_VERSION


def test_a_refusal_names_its_fences() -> None:
    message = "".join(rule["message"] for rule in JOB_FENCE_RULES[:2])
    assert violated_fences(f"DistributedJob is invalid: {message}") == {Fence.EPOCH, Fence.ATTEMPT}
    assert violated_fences("spec.priority: Unsupported value") == frozenset()


def test_every_fence_has_its_rule() -> None:
    assert [violated_fences(rule["message"]) for rule in JOB_FENCE_RULES] == [{fence} for fence in Fence]


def test_the_worker_keeps_the_limits_and_words_of_the_api() -> None:
    assert results.RESULT_BYTES == limits.RESULT_LIMIT_BYTES
    assert min(limits.ERROR_LIMIT, limits.LOG_TAIL_LIMIT) >= results.ERROR_BYTES
    assert results.REASON_CHARACTERS <= limits.REASON_LIMIT
    words = {
        results.INVALID_PAYLOAD,
        results.RESULT_NOT_JSON,
        results.RESULT_TOO_LARGE,
        results.TIMEOUT,
        results.UNKNOWN_TYPE,
        results.CANCELLED,
        results.PROCESS_DIED,
        SecretNotMountedError.reason,
        PayloadTextError.reason,
        PayloadTextTooLargeError.reason,
    }
    assert words <= set(AttemptReason)
    assert {PayloadTextError.reason, PayloadTextTooLargeError.reason} <= set(JobReason)
