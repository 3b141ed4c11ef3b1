"""Condition types and reasons: every word that programs may test for, each with what it means.

Conditions are the contract of a resource (``kubectl wait --for=condition=Complete djob/NAME``); phases are their
summary. A job's final phase decides its conditions alone:

=========== ============== ============== ==================================================
phase       Complete       Failed         Accepted
=========== ============== ============== ==================================================
Succeeded   True           (not set)      True
Failed      (not set)      True           False when the leader refused the job, else True
Dead        (not set)      True           True
Cancelled   (not set)      True           as it was
any other   (not set)      (not set)      True from the first status write on
=========== ============== ============== ==================================================
"""

from enum import StrEnum


class JobCondition(StrEnum):
    """Condition types of a DistributedJob."""

    ACCEPTED = "Accepted"
    """True: the leader took the job into its books. False: it refused the job, and the job is Failed."""
    COMPLETE = "Complete"
    """True: the job succeeded and its result is in the status."""
    FAILED = "Failed"
    """True: the job ended without success (phase Failed, Dead or Cancelled); the reason says how."""
    PAYLOAD_READY = "PayloadReady"
    """False: the job waits for what `spec.payloadFrom` names; the message says for what. True: it is there again."""
    SUSPENDED = "Suspended"
    """True: no attempt starts while `spec.suspend` is true. False: it was resumed."""


class JobReason(StrEnum):
    """Reasons of the conditions of a DistributedJob."""

    ACCEPTED = "Accepted"
    """On Accepted=True: the leader dispatches the job."""
    SUCCEEDED = "Succeeded"
    """On Complete=True."""
    ATTEMPTS_EXHAUSTED = "AttemptsExhausted"
    """On Failed=True, phase Dead: `maxAttempts` attempts failed or were lost."""
    PERMANENT_ERROR = "PermanentError"
    """On Failed=True, phase Failed: the handler said that another attempt cannot help."""
    PAYLOAD_TOO_LARGE = "PayloadTooLarge"
    """On Accepted=False and Failed=True, phase Failed: the payload has more bytes than `limits.PAYLOAD_LIMIT_BYTES`."""
    INVALID_PAYLOAD = "InvalidPayload"
    """On Accepted=False and Failed=True, phase Failed: what the ConfigMap of `spec.payloadFrom` holds is no JSON
    object, or the payload is nested deeper than 190 levels."""
    CONFIG_MAP_NOT_FOUND = "ConfigMapNotFound"
    """On PayloadReady=False: there is no ConfigMap of that name in the job's namespace."""
    CONFIG_MAP_KEY_NOT_FOUND = "ConfigMapKeyNotFound"
    """On PayloadReady=False: the ConfigMap has no such key."""
    CONFIG_MAP_FORBIDDEN = "ConfigMapForbidden"
    """On PayloadReady=False: the operator may not read ConfigMaps there."""
    CONFIG_MAP_UNREAD = "ConfigMapUnread"
    """On PayloadReady=False: the API server has not answered, several times in a row."""
    WORKER_TOO_OLD = "WorkerTooOld"
    """On PayloadReady=False: the workers that asked for the job are of a version that knows no `spec.payloadFrom`."""
    PAYLOAD_RESOLVED = "PayloadResolved"
    """On PayloadReady=True."""
    INVALID_SPEC = "InvalidSpec"
    """On Accepted=False and Failed=True, phase Failed: stored by other means than the schema and not understood."""
    CANCELLED = "Cancelled"
    """On Failed=True, phase Cancelled: `spec.cancel` was set before the job had succeeded."""
    DUPLICATE = "Duplicate"
    """On Failed=True, phase Cancelled: an unfinished job of the namespace has the same `spec.dedupKey`."""
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    """On Failed=True, phase Failed: `spec.deadlineSeconds` passed before the job had succeeded."""
    SUSPENDED = "Suspended"
    """On Suspended=True."""
    RESUMED = "Resumed"
    """On Suspended=False."""


class AttemptReason(StrEnum):
    """Reasons of an attempt that did not succeed (`status.attempts[].reason`).

    Where a handler raised an error, the reason is the name of the error's class instead, such as ValueError.
    """

    HANDLER_ERROR = "HandlerError"
    """The handler failed, and its worker gave no reason."""
    INVALID_PAYLOAD = "InvalidPayload"
    """The payload is not what the handler wants, or the Secret of `spec.payloadFrom` holds no JSON object; no further
    attempt follows."""
    PAYLOAD_TOO_LARGE = "PayloadTooLarge"
    """The Secret of `spec.payloadFrom` holds more bytes than a payload may have; no further attempt follows."""
    SECRET_NOT_MOUNTED = "SecretNotMounted"  # noqa: S105 - a reason, not a password
    """The worker has not the Secret of `spec.payloadFrom` for the job's namespace, or not that key of it."""
    TIMEOUT = "Timeout"
    """The attempt ran longer than `spec.timeoutSeconds` and was stopped."""
    UNKNOWN_TYPE = "UnknownType"
    """The worker that was granted the attempt has no handler for the job's type."""
    RESULT_TOO_LARGE = "ResultTooLarge"
    """The handler returned more bytes of JSON than `limits.RESULT_LIMIT_BYTES`."""
    RESULT_NOT_JSON = "ResultNotJSON"
    """The handler returned something that JSON cannot carry."""
    OUT_OF_MEMORY = "OutOfMemory"
    """The handler, or its whole worker, used more memory than it may."""
    CANCELLED_BY_HANDLER = "CancelledByHandler"
    """Something inside an asynchronous handler cancelled it."""
    PROCESS_DIED = "ProcessDied"
    """The process of a handler ended without a result."""
    WORKER_LOST = "WorkerLost"
    """No heartbeat from the worker for 15 s, its pod ended, or it no longer has the attempt; outcome Lost."""
    WORKER_STOPPED = "WorkerStopped"
    """The worker shut down and stopped its handlers before this one ended; outcome Lost."""
    NOT_STARTED = "NotStarted"
    """The gateway claimed it for an HTTP worker that never took it; outcome Stopped, and it counts for nothing."""
    CANCELLED = "Cancelled"
    """The job was cancelled while the attempt ran; outcome Stopped."""
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    """The deadline of the job passed while the attempt ran; outcome Stopped."""
    RETRIED = "Retried"
    """Somebody asked for a retry of the job while the attempt ran; outcome Stopped."""


class WorkerCondition(StrEnum):
    """Condition types of a DistributedWorker."""

    READY = "Ready"
    """True: the worker heartbeats and claims work."""


class WorkerReason(StrEnum):
    """Reasons of the conditions of a DistributedWorker."""

    HEARTBEATING = "Heartbeating"
    """On Ready=True."""
    DRAINING = "Draining"
    """On Ready=False: it finishes what it holds and claims nothing more."""
    HEARTBEAT_MISSED = "HeartbeatMissed"
    """On Ready=False: nothing was heard of it for 15 s."""
    POD_GONE = "PodGone"
    """On Ready=False: the kubelet says that its containers have ended."""
    STOPPED = "Stopped"
    """On Ready=False: it said goodbye after a clean stop."""
