"""Every bound of the API in one place, for the schemas, the leader's second check and the worker's cut.

Sizes of payload and result count the bytes of the JSON text without spaces, in UTF-8. Limits of texts count characters,
because that is what a schema's `maxLength` counts.
"""

from typing import Final

from distriqueue_protocol import names

KIB: Final = 1024

PAYLOAD_LIMIT_BYTES: Final = names.PAYLOAD_LIMIT_BYTES
"""Largest payload that runs; a larger one is refused with the reason PayloadTooLarge."""

RESULT_LIMIT_BYTES: Final = 64 * KIB
"""Largest `status.result`; an attempt that returns more fails with the reason ResultTooLarge."""

PAYLOAD_KEYS_LIMIT: Final = 1024
"""Most keys at the top of `spec.payload`."""

ERROR_LIMIT: Final = 4096
"""Most characters of an error text (`status.error`, `status.attempts[].error`, a condition's message)."""

LOG_TAIL_LIMIT: Final = 4096
"""Most characters of a handler's log that are kept with a failed attempt: the last ones."""

HISTORY_LIMIT: Final = 10
"""Most entries of `status.attempts`; the oldest leave first."""

REASON_LIMIT: Final = 64
"""Most characters of a reason, which is one CamelCase word."""

TYPE_LIMIT: Final = 63
"""Most characters of a job type."""

POOL_NAME_LIMIT: Final = 40
"""Most characters of a pool's name; it is part of queue names and of Kubernetes names."""

NAME_LIMIT: Final = 253
"""Most characters of the name of a worker, pod or host (a DNS subdomain)."""

INCARNATION_LIMIT: Final = 64
"""Most characters of a worker's incarnation."""

UID_LIMIT: Final = 64
"""Most characters of the uid of a Kubernetes object."""

VERSION_LIMIT: Final = 64
"""Most characters of a worker's version."""

WORKER_TYPES_LIMIT: Final = 256
"""Most job types that one worker serves."""

CONCURRENCY_LIMIT: Final = 10_000
"""Most slots of one worker."""

CONDITIONS_LIMIT: Final = 16
"""Most conditions of one resource."""

TIME_LIMIT: Final = 40
"""Most characters of a timestamp."""

MAX_ATTEMPTS_LIMIT: Final = 100
"""Highest `spec.maxAttempts`."""

REFERENCE_KEY_LIMIT: Final = 253
"""Most characters of a key inside a ConfigMap or Secret."""

PRIORITY_VALUE_LIMIT: Final = 100
"""Highest `spec.priorityValue`."""

TIMEOUT_LIMIT_SECONDS: Final = 7 * 24 * 3600
"""Longest `spec.timeoutSeconds`: a week."""

DEADLINE_LIMIT_SECONDS: Final = 30 * 24 * 3600
"""Longest `spec.deadlineSeconds`: thirty days."""

TTL_LIMIT_SECONDS: Final = 366 * 24 * 3600
"""Longest `spec.ttlSecondsAfterFinished`: a year."""

DEDUP_KEY_LIMIT: Final = 253
"""Most characters of `spec.dedupKey`."""

RETRY_BUDGET_LIMIT: Final = 100
"""Most retries in a budget of `spec.retryBudget`."""

CHECKPOINT_LIMIT_BYTES: Final = 16 * KIB
"""Largest checkpoint that is kept for the next attempt."""

PROGRESS_MESSAGE_LIMIT: Final = 256
"""Most characters of `status.progress.message`."""

BACKOFF_INITIAL_LIMIT_SECONDS: Final = 3600
BACKOFF_MAX_LIMIT_SECONDS: Final = 24 * 3600
BACKOFF_FACTOR_MIN_PERCENT: Final = 100
BACKOFF_FACTOR_LIMIT_PERCENT: Final = 1000
BACKOFF_JITTER_LIMIT_PERCENT: Final = 100

INT32_MAX: Final = 2**31 - 1

DEFAULT_POOL_NAME: Final = "default"
DEFAULT_PRIORITY: Final = "Medium"
DEFAULT_PRIORITY_VALUE: Final = 50
DEFAULT_MAX_ATTEMPTS: Final = 3
DEFAULT_TIMEOUT_SECONDS: Final = 3600
DEFAULT_TTL_SECONDS: Final = 7 * 24 * 3600
DEFAULT_BACKOFF_INITIAL_SECONDS: Final = 5
DEFAULT_BACKOFF_FACTOR_PERCENT: Final = 200
DEFAULT_BACKOFF_MAX_SECONDS: Final = 300
DEFAULT_BACKOFF_JITTER_PERCENT: Final = 10
