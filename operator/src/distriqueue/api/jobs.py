"""DistributedJob: one piece of work, from the manifest that asks for it to the result in its status.

The model is the only source of its CRD. A field stands here when something acts on it, and not before. Everything is
bounded, what cannot change is refused by CEL with a sentence that says what to do instead, and the fences of `fences`
stand at the root.
"""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, JsonValue, WithJsonSchema
from pydantic.config import JsonDict

from distriqueue.api import limits
from distriqueue.api.admission import SPEC_IS_IMMUTABLE_MESSAGE
from distriqueue.api.fences import JOB_FENCE_RULES
from distriqueue.api.models import (
    Conditions,
    Epoch,
    ErrorText,
    Int32,
    Int64,
    Model,
    ObservedGeneration,
    Reason,
    Resource,
    Timestamp,
)
from distriqueue.api.names import API_VERSION, JOB_KIND
from distriqueue.api.phases import AttemptOutcome, JobPhase, Priority

TYPE_PATTERN: Final = "^[a-z0-9]([-a-z0-9_.]*[a-z0-9])?$"
POOL_NAME_PATTERN: Final = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
OBJECT_NAME_PATTERN: Final = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
REFERENCE_KEY_PATTERN: Final = "^[-._a-zA-Z0-9]+$"

JobType = Annotated[
    str,
    Field(
        min_length=1,
        max_length=limits.TYPE_LIMIT,
        pattern=TYPE_PATTERN,
        json_schema_extra={
            "pattern": None,  # the rule below says the same and names what would be right
            "x-kubernetes-validations": [
                {
                    "rule": f"self.matches('{TYPE_PATTERN}')",
                    "message": "a type is made of lower-case letters, digits, '-', '_' and '.', and begins and ends "
                    "with a letter or digit, such as 'email' or 'image.resize'",
                }
            ],
        },
    ),
]
"""A job type, as a job asks for it; at most `limits.TYPE_LIMIT` characters."""

PoolName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=limits.POOL_NAME_LIMIT,
        pattern=POOL_NAME_PATTERN,
        json_schema_extra={
            "pattern": None,
            "x-kubernetes-validations": [
                {
                    "rule": f"self.matches('{POOL_NAME_PATTERN}')",
                    "message": "a pool name is made of lower-case letters, digits and '-', and begins and ends with a "
                    "letter or digit, such as 'default' or 'gpu-large'",
                }
            ],
        },
    ),
]
"""A pool of workers; a DNS label of at most `limits.POOL_NAME_LIMIT` characters."""

Payload = Annotated[
    dict[str, JsonValue],
    Field(max_length=limits.PAYLOAD_KEYS_LIMIT),
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": limits.PAYLOAD_KEYS_LIMIT,
            "x-kubernetes-preserve-unknown-fields": True,
            "x-kubernetes-map-type": "atomic",
        }
    ),
]
AnyJson = Annotated[JsonValue, WithJsonSchema({"x-kubernetes-preserve-unknown-fields": True, "nullable": True})]

ObjectName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=limits.NAME_LIMIT,
        pattern=OBJECT_NAME_PATTERN,
        json_schema_extra={
            "pattern": None,
            "x-kubernetes-validations": [
                {
                    "rule": f"self.matches('{OBJECT_NAME_PATTERN}')",
                    "message": "the name of a ConfigMap or Secret is made of lower-case letters, digits, '-' and '.', "
                    "and begins and ends with a letter or digit, such as 'report-settings'",
                }
            ],
        },
    ),
]
"""The name of a ConfigMap or Secret; a DNS subdomain."""

ReferenceKey = Annotated[
    str,
    Field(
        min_length=1,
        max_length=limits.REFERENCE_KEY_LIMIT,
        pattern=REFERENCE_KEY_PATTERN,
        json_schema_extra={
            "pattern": None,
            "x-kubernetes-validations": [
                {
                    "rule": f"self.matches('{REFERENCE_KEY_PATTERN}') && self != '.' && !self.startsWith('..')",
                    "message": "a key is made of letters, digits, '-', '_' and '.', and does not begin with two dots, "
                    "such as 'payload.json'",
                }
            ],
        },
    ),
]
"""A key inside a ConfigMap or Secret, in the form that Kubernetes takes there."""

DedupKey = Annotated[str, Field(min_length=1, max_length=limits.DEDUP_KEY_LIMIT)]
Budget = Annotated[Int32, Field(ge=0, le=limits.RETRY_BUDGET_LIMIT)]
FailureCount = Annotated[Int32, Field(ge=0, le=limits.INT32_MAX)]


def _unchanged(field: str) -> str:
    """Return CEL that is true if an optional field is as it was."""
    return f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"


_FIXED_FIELDS: Final = ("type", "payload", "poolName", "maxAttempts", "backoff", "timeoutSeconds")
_FIXED_OPTIONAL_FIELDS: Final = ("payloadFrom", "retryBudget", "dedupKey")

SPEC_IS_IMMUTABLE: Final[JsonDict] = {
    "rule": " && ".join(
        [
            *(f"self.{field} == oldSelf.{field}" for field in _FIXED_FIELDS),
            *(_unchanged(field) for field in _FIXED_OPTIONAL_FIELDS),
        ]
    ),
    "message": SPEC_IS_IMMUTABLE_MESSAGE,
    "reason": "FieldValueForbidden",
}
"""The rule sees every field but the keys of the payload that were renamed; the admission policy sees those too."""

_OLD_RETRY: Final = "(has(oldSelf.retryGeneration) ? oldSelf.retryGeneration : 0)"
_NEW_RETRY: Final = "(has(self.retryGeneration) ? self.retryGeneration : 0)"

CANCEL_IS_ONE_WAY: Final[JsonDict] = {
    "rule": "!(has(oldSelf.cancel) && oldSelf.cancel) || (has(self.cancel) && self.cancel)",
    "message": "a cancel cannot be taken back: create a new job",
    "reason": "FieldValueForbidden",
    "fieldPath": ".cancel",
}
RETRY_GENERATION_RISES: Final[JsonDict] = {
    "rule": f"{_NEW_RETRY} >= {_OLD_RETRY}",
    "message": "retryGeneration never falls: raise it by one to have the job run again",
    "reason": "FieldValueForbidden",
    "fieldPath": ".retryGeneration",
}
CANCELLED_IS_NOT_RETRIED: Final[JsonDict] = {
    "rule": f"!(has(self.cancel) && self.cancel) || {_NEW_RETRY} == {_OLD_RETRY}",
    "message": "a job with cancel: true cannot be run again: create a new job",
    "reason": "FieldValueForbidden",
    "fieldPath": ".retryGeneration",
}

ONE_PAYLOAD: Final[JsonDict] = {
    # As seen by a rule, payload has no keys and no size of its own; as anything at all it has.
    "rule": "!has(self.payloadFrom) || dyn(self.payload).size() == 0",
    "message": "a job has either payload or payloadFrom: leave one of them out",
    "reason": "FieldValueForbidden",
    "fieldPath": ".payloadFrom",
}


class Backoff(Model):
    """How long a job waits between a failed or lost attempt and the next one.

    The wait after attempt n is initialSeconds x (factorPercent / 100)^(n-1), at most maxSeconds, varied at random by
    jitterPercent.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "self.maxSeconds >= self.initialSeconds",
                    "message": "maxSeconds (300 unless you set it) must not be below initialSeconds: set maxSeconds to "
                    "the value of initialSeconds or more",
                    "fieldPath": ".maxSeconds",
                }
            ]
        }
    )

    initial_seconds: Annotated[Int32, Field(ge=0, le=limits.BACKOFF_INITIAL_LIMIT_SECONDS)] = (
        limits.DEFAULT_BACKOFF_INITIAL_SECONDS
    )
    """Seconds to wait after the first attempt, 0 to 3600. 0 tries again at once. Default 5."""

    factor_percent: Annotated[
        Int32, Field(ge=limits.BACKOFF_FACTOR_MIN_PERCENT, le=limits.BACKOFF_FACTOR_LIMIT_PERCENT)
    ] = limits.DEFAULT_BACKOFF_FACTOR_PERCENT
    """By how much each wait is longer than the one before, in percent, 100 to 1000. 200 doubles it every time, 100
    keeps it as it is. Default 200."""

    max_seconds: Annotated[Int32, Field(ge=1, le=limits.BACKOFF_MAX_LIMIT_SECONDS)] = limits.DEFAULT_BACKOFF_MAX_SECONDS
    """Seconds that no wait exceeds (before jitter), 1 to 86400, and not below initialSeconds. Default 300."""

    jitter_percent: Annotated[Int32, Field(ge=0, le=limits.BACKOFF_JITTER_LIMIT_PERCENT)] = (
        limits.DEFAULT_BACKOFF_JITTER_PERCENT
    )
    """By how much a wait is varied at random in either direction, in percent of it, 0 to 100, so that jobs which failed
    together do not come back together. Default 10."""


class RetryBudget(Model):
    """How many retries each class of failure may cost.

    A class that is not named here counts against maxAttempts, along with all others that are not; a named one has a
    budget of its own and leaves maxAttempts alone.
    """

    application: Budget | None = None
    """Retries after the handler failed, 0 to 100."""

    timeout: Budget | None = None
    """Retries after an attempt ran longer than timeoutSeconds, 0 to 100."""

    out_of_memory: Budget | None = None
    """Retries after the handler, or its worker, used more memory than it may, 0 to 100."""

    worker_lost: Budget | None = None
    """Retries after the worker went away (a crash, a lost node, a shutdown), 0 to 100. Such a retry follows at once,
    without backoff. With 0, an attempt whose worker was lost is never tried again."""


class KeyReference(Model):
    """One key of a ConfigMap or Secret."""

    name: ObjectName
    """Name of the ConfigMap or Secret. Required."""

    key: ReferenceKey
    """The key in it whose value is the payload, as JSON text: an object. Required."""


class PayloadSource(Model):
    """Where the payload stands when it is not in the job: exactly one of configMapKeyRef and secretKeyRef."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "has(self.configMapKeyRef) != has(self.secretKeyRef)",
                    "message": "name one source: either configMapKeyRef or secretKeyRef, each with name and key",
                }
            ]
        }
    )

    config_map_key_ref: KeyReference | None = None
    """A key of a ConfigMap in the job's namespace. It is read when an attempt is about to start, so each attempt gets
    what stands there then; the text is copied nowhere. As long as the ConfigMap or the key is missing the job waits,
    the condition PayloadReady says for what, and no attempt is used up. A value that is no JSON object ends the job
    with the reason InvalidPayload, one above 64 KiB with PayloadTooLarge."""

    secret_key_ref: KeyReference | None = None
    """A key of a Secret that is mounted into the workers for the job's namespace (worker.secrets of the chart). The
    worker alone reads it, when an attempt starts; it is in no message, log or status. An attempt on a worker that has
    it not for this namespace fails with the reason SecretNotMounted."""


class JobSpec(Model):
    """What to run, and how. What the work is cannot change once the job is made; when it runs, and whether, can."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                SPEC_IS_IMMUTABLE,
                ONE_PAYLOAD,
                CANCEL_IS_ONE_WAY,
                RETRY_GENERATION_RISES,
                CANCELLED_IS_NOT_RETRIED,
            ]
        }
    )

    type: JobType
    """The kind of work, which names the handler that a worker runs for it: email, fail, calculate, or a type of your
    own. A type for which a worker has no handler of its own goes to its default handler '*'. Lower-case letters,
    digits, '-', '_' and '.', 1 to 63 characters. Required."""

    payload: Payload = Field(default_factory=dict, json_schema_extra={"default": {}})
    """The handler's input: any JSON object, at most 64 KiB as JSON text without spaces and at most 1024 keys at its
    top. A larger one is refused with the reason PayloadTooLarge: store large data outside and pass a reference to it.
    The handler says which keys it wants. Default {}."""

    payload_from: PayloadSource | None = None
    """Instead of payload: where the handler's input stands, a key of a ConfigMap or of a Secret whose value is a JSON
    object of at most 64 KiB. Exactly one of configMapKeyRef and secretKeyRef."""

    priority: Priority = Priority.MEDIUM
    """High, Medium or Low. Of the jobs that wait for a pool, all High ones start before any Medium one, and those
    before any Low one. Work that runs already is never interrupted. Can be changed while the job waits. Default
    Medium."""

    priority_value: Annotated[Int32, Field(ge=0, le=limits.PRIORITY_VALUE_LIMIT)] = limits.DEFAULT_PRIORITY_VALUE
    """The order among waiting jobs of the same priority and pool, 0 to 100: the higher one starts first, and of two
    equal ones the older. Can be changed while the job waits. Default 50."""

    pool_name: PoolName = limits.DEFAULT_POOL_NAME
    """The pool whose workers may run the job: those started with the same pool name. A job for a pool without workers
    waits until there is one. A DNS label of at most 40 characters. Default "default"."""

    max_attempts: Annotated[Int32, Field(ge=1, le=limits.MAX_ATTEMPTS_LIMIT)] = limits.DEFAULT_MAX_ATTEMPTS
    """How many times the job is tried in all, the first time included, 1 to 100. Attempts that fail, run out of time or
    lose their worker count alike, but for the classes that retryBudget names. After the last one the job is Dead. 1
    never tries again. Default 3."""

    retry_budget: RetryBudget | None = None
    """Budgets of their own for some classes of failure. Left out, all count against maxAttempts."""

    backoff: Backoff = Backoff()
    """How long to wait between an attempt and the next one. By default 5 s, then 10 s, 20 s and so on up to 5
    minutes."""

    timeout_seconds: Annotated[Int32, Field(ge=1, le=limits.TIMEOUT_LIMIT_SECONDS)] = limits.DEFAULT_TIMEOUT_SECONDS
    """Seconds that one attempt may run, from the handler's start, 1 to 604800 (a week). Then the worker stops it and
    the attempt has failed with the reason Timeout. Waiting does not count. Default 3600 (an hour)."""

    deadline_seconds: Annotated[Int32, Field(ge=1, le=limits.DEADLINE_LIMIT_SECONDS)] | None = None
    """Seconds that the whole job may take, waiting and all attempts included, 1 to 2592000 (30 days), counted from its
    creation, or from startAfter if that is later, and anew from a retry by hand. Then a running attempt is stopped, and
    the job is Failed with the reason DeadlineExceeded. Can be changed. Left out, there is no deadline."""

    start_after: Timestamp | None = None
    """The moment before which no attempt starts, as in "2026-03-01T06:00:00Z". Until then the job is Pending. Can be
    changed while the job waits."""

    ttl_seconds_after_finished: Annotated[Int32, Field(ge=0, le=limits.TTL_LIMIT_SECONDS)] | None = None
    """Seconds after its end when the job is deleted, 0 to 31622400 (a year). Can be changed. Left out, the operator's
    own setting counts, which is 7 days unless the chart says otherwise."""

    dedup_key: DedupKey | None = None
    """While a job of the namespace with the same key is not over, a later one ends at once as Cancelled with the reason
    Duplicate. 1 to 253 characters."""

    suspend: bool | None = None
    """true: no attempt starts until it is false again; one that runs already goes on to its end. The condition
    Suspended says so. Can be changed. Default false."""

    cancel: bool | None = None
    """true: the job ends as Cancelled. One that waits never starts; of one that runs, the handler is told to stop,
    killed if it does not, and the phase follows then. If the handler succeeds first, the job has Succeeded. Cannot be
    taken back. Default false."""

    retry_generation: Annotated[Int64, Field(ge=0, le=limits.INT32_MAX)] | None = None
    """Raise it by one to have the job run again, whatever its phase (but Cancelled by cancel): a finished job is
    Pending again with its whole budget of attempts, a waiting one skips its backoff, a running attempt is stopped
    first. Attempt numbers go on. Never falls. Default 0."""


class Grant(Model):
    """A grant id: a leader's permission for one attempt on one worker. Ordered by epoch, then by counter."""

    epoch: Epoch
    """The epoch of the leader that gave it."""

    counter: Annotated[Int64, Field(ge=0)]
    """Its number within that epoch."""


class Attempt(Model):
    """One attempt: where it ran, when, and how it ended."""

    number: Annotated[Int32, Field(ge=1, le=limits.INT32_MAX)]
    """The attempt's number, from 1."""

    worker: Annotated[str, Field(max_length=limits.NAME_LIMIT)] | None = None
    """Name of the DistributedWorker that it was granted to."""

    incarnation: Annotated[str, Field(max_length=limits.INCARNATION_LIMIT)] | None = None
    """Which life of that worker: from a process start, or from losing its lease, to the next loss."""

    start_time: Timestamp | None = None
    """When its handler started, by the worker's clock, with microseconds."""

    completion_time: Timestamp | None = None
    """When it ended; of a lost one, when its loss was established."""

    outcome: AttemptOutcome | None = None
    """Succeeded, Failed (the handler failed or ran out of time), Lost (its worker went away) or Stopped (by a cancel,
    the deadline or a retry by hand). Absent while it runs."""

    reason: Reason | None = None
    """Why it did not succeed, as one word: Timeout, InvalidPayload, ResultTooLarge, WorkerLost and others, or the name
    of the error's class that the handler raised, such as ValueError."""

    error: ErrorText | None = None
    """The text of the error, at most 4096 characters."""

    log_tail: Annotated[str, Field(max_length=limits.LOG_TAIL_LIMIT)] | None = None
    """The last lines that the handler logged before it failed, at most 4096 characters."""


Attempts = Annotated[
    list[Attempt],
    Field(
        max_length=limits.HISTORY_LIMIT,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["number"]},
    ),
]


class Failures(Model):
    """Attempts that did not succeed, by class, since the last retry by hand."""

    application: FailureCount | None = None
    """The handler failed."""

    timeout: FailureCount | None = None
    """They ran longer than timeoutSeconds."""

    out_of_memory: FailureCount | None = None
    """They used more memory than they may."""

    worker_lost: FailureCount | None = None
    """Their worker went away."""


class JobProgress(Model):
    """How far the handler has come, by its own word."""

    percent: Annotated[Int32, Field(ge=0, le=100)] | None = None
    """0 to 100."""

    message: Annotated[str, Field(max_length=limits.PROGRESS_MESSAGE_LIMIT)] | None = None
    """What it is doing, at most 256 characters."""

    time: Timestamp | None = None
    """When the operator heard of it."""


class JobStatus(Model):
    """What became of the job. Written by the operator alone."""

    phase: JobPhase = JobPhase.PENDING
    """The summary of the conditions. Pending: waits with the leader. Queued: its ticket is in RabbitMQ. Running: a
    worker has it. Retrying: waits for its next attempt. Final are Succeeded; Failed: will not be tried again; Dead:
    every attempt was used up; Cancelled."""

    attempt: Annotated[Int32, Field(ge=0, le=limits.INT32_MAX)] | None = None
    """The number of the current attempt, or of the last one. Absent before the first. Never falls."""

    attempts: Attempts | None = None
    """The last 10 attempts, oldest first."""

    worker: Annotated[str, Field(max_length=limits.NAME_LIMIT)] | None = None
    """The worker that has the job, or had it last."""

    failures: Failures | None = None
    """Attempts that did not succeed, by class, since the last retry by hand: what retryBudget and maxAttempts count."""

    progress: JobProgress | None = None
    """How far the handler has come, by its own word. Coalesced: it may be some seconds old."""

    checkpoint: AnyJson = None
    """What the last attempt left for the next one to go on from: any JSON value, at most 16 KiB. Removed when the job
    has succeeded."""

    result: AnyJson = None
    """What the handler returned: any JSON value, at most 64 KiB. Set when the job has succeeded."""

    error: ErrorText | None = None
    """The error of the last attempt that did not succeed, at most 4096 characters; attempts has the earlier ones."""

    queued_time: Timestamp | None = None
    """When the broker confirmed the ticket of the current attempt."""

    start_time: Timestamp | None = None
    """When the current or last attempt's handler started. With microseconds; subtract metadata.creationTimestamp for
    the time that the job waited."""

    completion_time: Timestamp | None = None
    """When the job reached its final phase."""

    next_attempt_time: Timestamp | None = None
    """While the job is Retrying: when its next attempt may start."""

    epoch: Epoch | None = None
    """The epoch of the leader that wrote this status. Never falls, so a leader that was replaced can write nothing."""

    last_grant: Annotated[Grant, Field(json_schema_extra={"x-kubernetes-map-type": "atomic"})] | None = None
    """The highest grant of this job that is known to be over. Never falls; a report about a grant not above it is
    refused."""

    retry_generation: Annotated[Int64, Field(ge=0, le=limits.INT32_MAX)] | None = None
    """The spec.retryGeneration that the job was last run for."""

    retry_time: Timestamp | None = None
    """When it was taken up for that retry; its deadline counts from here."""

    observed_generation: ObservedGeneration | None = None
    """The metadata.generation that this status was decided on."""

    conditions: Conditions | None = None
    """Accepted: the leader took the job (True) or refused it (False). Suspended: no attempt starts. Complete: the
    job succeeded. Failed: the job ended without success; its reason says why. kubectl wait --for=condition=Complete
    djob/NAME waits for success."""


class DistributedJob(Resource):
    """A job: one piece of work that a worker runs, tried again when it fails, with its result in the status."""

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-validations": [{**rule} for rule in JOB_FENCE_RULES]})

    api_version: Literal["distriqueue.io/v1alpha1"] = API_VERSION
    kind: Literal["DistributedJob"] = JOB_KIND
    spec: JobSpec
    """What to run, and how: type, payload, priority, attempts, timeout; and what a person wants of it: suspend, cancel,
    retryGeneration."""

    status: JobStatus = JobStatus()
    """What became of the job: phase, attempts, result, error, conditions. Written by the operator alone."""
