"""The fences in the API server: CEL transition rules that no writer can pass, and how to recognise their refusal.

A leader that lost its lease and does not know it yet may still write. `resourceVersion` stops it where the new
leader wrote first (409); these rules stop it everywhere else (422), also when it replaces the whole status or
removes it. They stand at the root of the schema, because a rule under `status` is not evaluated when `status` itself
is removed.

A refusal carries the fence's marker in its message, so that `violated_fences` can tell the writer what to do: a refusal
for EPOCH means that the writer leads no longer and must go; one for PHASE or LAST_GRANT means that the report it wanted
to write came too late and is to be refused and settled.
"""

from enum import StrEnum
from typing import Final

from distriqueue.api.phases import FINAL_JOB_PHASES, JobPhase

Rule = dict[str, str]
"""An entry of `x-kubernetes-validations`."""

_FINAL_PHASES: Final = [phase.value for phase in JobPhase if phase in FINAL_JOB_PHASES]


class Fence(StrEnum):
    """A fence; its value is the marker with which the API server's message begins."""

    EPOCH = "fence/epoch"
    """`status.epoch` fell or vanished: a leader of an older epoch writes."""
    ATTEMPT = "fence/attempt"
    """`status.attempt` fell or vanished."""
    LAST_GRANT = "fence/lastGrant"
    """`status.lastGrant` (epoch, then counter) fell or vanished: the write knows less than the status."""
    PHASE = "fence/phase"
    """A final phase was to be left, and nobody had asked for a retry."""


def violated_fences(message: str) -> frozenset[Fence]:
    """Return the fences that a 422 answer names.

    Args:
        message: The `message` of the API server's Status, or its whole body as text.

    Returns:
        Every fence whose marker the message carries; empty when the refusal has another cause.
    """
    return frozenset(fence for fence in Fence if f"{fence.value}:" in message)


def _kept(field: str) -> str:
    """Return CEL that is true if `status.field` had no value, or still has one that is not lower."""
    return (
        f"!has(oldSelf.status) || !has(oldSelf.status.{field}) || "
        f"(has(self.status) && has(self.status.{field}) && self.status.{field} >= oldSelf.status.{field})"
    )


_LAST_GRANT_CEL: Final = (
    "!has(oldSelf.status) || !has(oldSelf.status.lastGrant) || (has(self.status) && has(self.status.lastGrant) && "
    "(self.status.lastGrant.epoch > oldSelf.status.lastGrant.epoch || "
    "(self.status.lastGrant.epoch == oldSelf.status.lastGrant.epoch && "
    "self.status.lastGrant.counter >= oldSelf.status.lastGrant.counter)))"
)

_PHASE_CEL: Final = (
    "!has(oldSelf.status) || !has(oldSelf.status.phase) || "
    f"!(oldSelf.status.phase in {_FINAL_PHASES}) || "
    "(has(self.status) && has(self.status.phase) && (self.status.phase == oldSelf.status.phase || "
    "(has(self.spec.retryGeneration) && has(self.status.retryGeneration) && "
    "self.status.retryGeneration == self.spec.retryGeneration && self.spec.retryGeneration > "
    "(has(oldSelf.status.retryGeneration) ? oldSelf.status.retryGeneration : 0))))"
)

EPOCH_RULE: Final[Rule] = {
    "rule": _kept("epoch"),
    "message": f"{Fence.EPOCH}: status.epoch never falls: a leader of a later epoch has written this status, "
    "so this writer leads no longer",
    "reason": "FieldValueForbidden",
    "fieldPath": ".status.epoch",
}

JOB_FENCE_RULES: Final[tuple[Rule, ...]] = (
    EPOCH_RULE,
    {
        "rule": _kept("attempt"),
        "message": f"{Fence.ATTEMPT}: status.attempt never falls: read the job again and decide again",
        "reason": "FieldValueForbidden",
        "fieldPath": ".status.attempt",
    },
    {
        "rule": _LAST_GRANT_CEL,
        "message": f"{Fence.LAST_GRANT}: status.lastGrant never falls: a later grant of this job is over already; "
        "read the job again and decide again",
        "reason": "FieldValueForbidden",
        "fieldPath": ".status.lastGrant",
    },
    {
        "rule": _PHASE_CEL,
        "message": f"{Fence.PHASE}: a final phase is final: to run the job again, raise spec.retryGeneration by one, "
        'for example with kubectl patch djob NAME --type=merge -p \'{"spec":{"retryGeneration":1}}\'',
        "reason": "FieldValueForbidden",
        "fieldPath": ".status.phase",
    },
)
"""`x-kubernetes-validations` for the root of the DistributedJob schema."""

WORKER_FENCE_RULES: Final[tuple[Rule, ...]] = (EPOCH_RULE,)
"""`x-kubernetes-validations` for the root of the DistributedWorker schema."""
