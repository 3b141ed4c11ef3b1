"""The shape of the resources as plain dictionaries, which is how the hot paths read and write them.

These TypedDicts cost nothing at run time: they let the type checker see a misspelt key. A unit test holds their keys
against the pydantic models. They say what the schema allows, so every key that the API server does not fill is
optional.
"""

from typing import Any, TypedDict


class RawMetadata(TypedDict, total=False):
    """The part of ObjectMeta that the project reads."""

    name: str
    namespace: str
    uid: str
    resourceVersion: str
    generation: int
    creationTimestamp: str
    deletionTimestamp: str
    labels: dict[str, str]
    annotations: dict[str, str]
    ownerReferences: list[dict[str, Any]]
    finalizers: list[str]


class RawCondition(TypedDict, total=False):
    """An entry of `status.conditions`."""

    type: str
    status: str
    reason: str
    message: str
    observedGeneration: int
    lastTransitionTime: str


class RawBackoff(TypedDict, total=False):
    """`spec.backoff` of a DistributedJob."""

    initialSeconds: int
    factorPercent: int
    maxSeconds: int
    jitterPercent: int


class RawRetryBudget(TypedDict, total=False):
    """`spec.retryBudget` and `status.failures`: a number for each class of failure."""

    application: int
    timeout: int
    outOfMemory: int
    workerLost: int


class RawKeyReference(TypedDict):
    """One key of a ConfigMap or Secret."""

    name: str
    key: str


class RawPayloadSource(TypedDict, total=False):
    """`spec.payloadFrom` of a DistributedJob: one of the two."""

    configMapKeyRef: RawKeyReference
    secretKeyRef: RawKeyReference


class RawJobSpec(TypedDict, total=False):
    """`spec` of a DistributedJob; the API server has filled in every default."""

    type: str
    payload: dict[str, Any]
    payloadFrom: RawPayloadSource
    priority: str
    priorityValue: int
    poolName: str
    maxAttempts: int
    backoff: RawBackoff
    retryBudget: RawRetryBudget
    timeoutSeconds: int
    deadlineSeconds: int
    startAfter: str
    ttlSecondsAfterFinished: int
    dedupKey: str
    suspend: bool
    cancel: bool
    retryGeneration: int


class RawGrant(TypedDict):
    """`status.lastGrant`: a grant id, ordered by epoch and then by counter."""

    epoch: int
    counter: int


class RawAttempt(TypedDict, total=False):
    """An entry of `status.attempts`."""

    number: int
    worker: str
    incarnation: str
    startTime: str
    completionTime: str
    outcome: str
    reason: str
    error: str
    logTail: str


class RawProgress(TypedDict, total=False):
    """`status.progress`: how far a handler has come, by its own word."""

    percent: int
    message: str
    time: str


class RawJobStatus(TypedDict, total=False):
    """`status` of a DistributedJob."""

    phase: str
    attempt: int
    attempts: list[RawAttempt]
    worker: str
    failures: RawRetryBudget
    progress: RawProgress
    checkpoint: Any
    result: Any
    error: str
    queuedTime: str
    startTime: str
    completionTime: str
    nextAttemptTime: str
    epoch: int
    lastGrant: RawGrant
    retryGeneration: int
    retryTime: str
    observedGeneration: int
    conditions: list[RawCondition]


class RawJob(TypedDict, total=False):
    """A DistributedJob."""

    apiVersion: str
    kind: str
    metadata: RawMetadata
    spec: RawJobSpec
    status: RawJobStatus


class RawWorkerStatus(TypedDict, total=False):
    """`status` of a DistributedWorker."""

    phase: str
    incarnation: str
    poolName: str
    hostname: str
    podName: str
    podUID: str
    version: str
    concurrency: int
    running: int
    types: list[str]
    startTime: str
    lastHeartbeatTime: str
    epoch: int
    observedGeneration: int
    conditions: list[RawCondition]


class RawWorker(TypedDict, total=False):
    """A DistributedWorker. It has no spec: a worker says itself what it is."""

    apiVersion: str
    kind: str
    metadata: RawMetadata
    status: RawWorkerStatus
