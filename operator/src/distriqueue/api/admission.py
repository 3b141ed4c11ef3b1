"""What the schema cannot see, as a ValidatingAdmissionPolicy: the size of a payload, and whether its keys changed.

Rules in a CRD are blind inside a free JSON object: they cannot measure it, and their `==` takes two free objects of
the same number of keys for equal when no key that both have differs. An admission policy sees the object as it is.

The policy runs inside the API server, so there is nothing that could be away; where it fails all the same (its cost
limit), it lets the request pass. The leader checks the size again, exactly, and its verdict is final. The policy never
refuses a payload that the leader would take; of those that are slightly too large it lets some pass.
"""

from typing import Any, Final

from distriqueue.api import names
from distriqueue.api.limits import KIB, PAYLOAD_LIMIT_BYTES

POLICY_NAME: Final = f"{names.JOB_PLURAL}.{names.GROUP}"

SPEC_IS_IMMUTABLE_MESSAGE: Final = (
    "the spec of a job cannot change once the job is made: create a new job under another name, or run it anew under "
    "this name with 'kubectl replace --force -f FILE', which deletes the old job first"
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

_SMALL: Final = f"variables.text.size() * 4 <= {PAYLOAD_LIMIT_BYTES}"
"""True for nearly all payloads: so few characters that nothing needs measuring."""

_HUGE_NUMBER: Final = "variables.measured.matches(r'[:, [](-[0-9]{19}|[0-9]{20})')"
"""True if there is a number that JSON may write with an exponent, in far fewer digits than here: left to the leader."""


def admission_manifests() -> list[dict[str, Any]]:
    """Return the ValidatingAdmissionPolicy and its binding, which denies and covers every namespace."""
    limit = f"{PAYLOAD_LIMIT_BYTES // KIB} KiB ({PAYLOAD_LIMIT_BYTES} bytes)"
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": POLICY_NAME},
        "spec": {
            "failurePolicy": "Ignore",
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": [names.GROUP],
                        "apiVersions": [names.VERSION],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": [names.JOB_PLURAL],
                    }
                ]
            },
            "variables": [
                {"name": "text", "expression": _TEXT},
                {"name": "measured", "expression": _MEASURED},
                {"name": "atLeast", "expression": _AT_LEAST},
            ],
            "validations": [
                {
                    # Only new jobs: one that is too large already must still lose its finalizers and gain labels.
                    "expression": f"oldObject != null || {_SMALL} || variables.atLeast <= {PAYLOAD_LIMIT_BYTES} || "
                    f"{_HUGE_NUMBER}",
                    "messageExpression": "'spec.payload: Too large: at least ' + string(variables.atLeast) + "
                    f"' bytes as JSON text, and the limit is {limit}: {_ADVICE}'",
                    "message": f"spec.payload: Too large: the limit is {limit} as JSON text: {_ADVICE}",
                },
                {
                    "expression": "oldObject == null || object.spec.payload == oldObject.spec.payload",
                    "message": f"spec.payload: Forbidden: {SPEC_IS_IMMUTABLE_MESSAGE}",
                },
            ],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": POLICY_NAME},
        "spec": {"policyName": POLICY_NAME, "validationActions": ["Deny"]},
    }
    return [policy, binding]
