"""What the schema cannot see, as ValidatingAdmissionPolicies: the size of a payload, and whether its keys changed.

Rules in a CRD are blind inside a free JSON object: they cannot measure it, and their `==` takes two free objects of
the same number of keys for equal when no key that both have differs. An admission policy sees the object as it is.

Policies run inside the API server, so there is nothing that could be away; where one fails all the same (its cost
limit), it lets the request pass. The leader checks the size again, exactly, and its verdict is final. No policy
refuses a payload that the leader would take; of those that are slightly too large some pass.

Every create pays for the first, so what it asks of all is one match condition, which costs a tenth of a millisecond;
the same as a validation costs three times that, and a message expression is evaluated even where nothing is refused.
"""

from typing import Any, Final

from distriqueue.api import names
from distriqueue.api.limits import KIB, PAYLOAD_LIMIT_BYTES

SIZE_POLICY: Final = f"{names.JOB_PLURAL}-payload-size.{names.GROUP}"
CHANGE_POLICY: Final = f"{names.JOB_PLURAL}-payload-change.{names.GROUP}"

SPEC_IS_IMMUTABLE_MESSAGE: Final = (
    "what a job does cannot change once it is made (only priority, priorityValue, startAfter, deadlineSeconds, "
    "ttlSecondsAfterFinished, suspend, cancel and retryGeneration can): create a new job under another name, or run it "
    "anew under this name with 'kubectl replace --force -f FILE', which deletes the old job first"
)

_ADVICE: Final = "store large data outside and pass a reference to it"

_TEXT: Final = "'%s'.format([object.spec.payload])"
"""The payload as text. It is JSON but for four things: a blank after each comma, six decimals for every fraction, no
exponents, and other escapes for what cannot be printed."""

_PREFIX: Final = 4 * PAYLOAD_LIMIT_BYTES

_MEASURED: Final = f"variables.text.size() <= {_PREFIX} ? variables.text : variables.text.substring(0, {_PREFIX})"
"""As much of the text as is needed to know that it is too long. All of it could exceed the cost limit."""


def _times(text: str) -> str:
    """Return CEL for the number of times that `text` occurs in what is measured."""
    return f"(variables.measured.split(r'{text}').size() - 1)"


_FRACTIONS: Final = r"variables.measured.findAll(r'[.][0-9]{6}[],}]').size()"

_AT_LEAST: Final = (
    f"bytes(variables.measured).size() - {_times(', ')} - 7 * {_FRACTIONS} - 4 * {_times(chr(92) + 'u')}"
    f" - 6 * {_times(chr(92) + 'U')} - 3 * {_times(chr(92) + 'x7f')}"
)
"""A number of bytes that the payload has at the least: the bytes of the text, less the most by which each of those four
can make it longer than JSON (the blank; the decimals; an escape of 6, 10 or 4 bytes for a character of 2, 4 or 1)."""

_MAY_BE_LARGE: Final = f"{_TEXT}.size() * 4 > {PAYLOAD_LIMIT_BYTES}"
"""False for nearly all payloads: so few characters that nothing needs measuring."""

_HUGE_NUMBER: Final = "variables.measured.matches(r'[:, [](-[0-9]{19}|[0-9]{20})')"
"""True if there is a number that JSON may write with an exponent, in far fewer digits than here: left to the leader."""


def admission_manifests() -> list[dict[str, Any]]:
    """Return the policies, each with its binding, which denies and covers every namespace."""
    limit = f"{PAYLOAD_LIMIT_BYTES // KIB} KiB ({PAYLOAD_LIMIT_BYTES} bytes)"
    size = {
        "matchConditions": [{"name": "may-be-large", "expression": _MAY_BE_LARGE}],
        "variables": [
            {"name": "text", "expression": _TEXT},
            {"name": "measured", "expression": _MEASURED},
            {"name": "atLeast", "expression": _AT_LEAST},
        ],
        "validations": [
            {
                "expression": f"variables.atLeast <= {PAYLOAD_LIMIT_BYTES} || {_HUGE_NUMBER}",
                "messageExpression": "'spec.payload: Too large: at least ' + string(variables.atLeast) + "
                f"' bytes as JSON text, and the limit is {limit}: {_ADVICE}'",
                "message": f"spec.payload: Too large: the limit is {limit} as JSON text: {_ADVICE}",
            }
        ],
    }
    change = {
        "matchConditions": [{"name": "changed", "expression": "object.spec.payload != oldObject.spec.payload"}],
        "validations": [
            {
                "expression": "false",
                "message": f"spec.payload: Forbidden: {SPEC_IS_IMMUTABLE_MESSAGE}",
            }
        ],
    }
    # Size is asked of new jobs alone: one that is too large already must still lose its finalizers and gain labels.
    return [*_policy(SIZE_POLICY, "CREATE", size), *_policy(CHANGE_POLICY, "UPDATE", change)]


def _policy(name: str, operation: str, rules: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a policy for DistributedJobs and its binding."""
    group = "admissionregistration.k8s.io/v1"
    resource_rule = {
        "apiGroups": [names.GROUP],
        "apiVersions": [names.VERSION],
        "operations": [operation],
        "resources": [names.JOB_PLURAL],
    }
    return [
        {
            "apiVersion": group,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {"failurePolicy": "Ignore", "matchConstraints": {"resourceRules": [resource_rule]}, **rules},
        },
        {
            "apiVersion": group,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        },
    ]
