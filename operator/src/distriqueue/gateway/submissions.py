"""From a submission to the resource: its name, its JSON, and how a repeated request is known again.

Guarantees: pure but for the random part of names, which is passed in. The JSON has what the caller wrote and nothing
more: defaults are the API server's, and a payload is copied once, as text. The name of a submission with an
Idempotency-Key follows from namespace, caller and key alone, so the API server itself sees that there is one.
"""

import base64
import hashlib
import re
import secrets
from collections.abc import Mapping
from typing import Any, Final

import orjson

from distriqueue.api import limits
from distriqueue.api.names import API_VERSION, JOB_KIND
from distriqueue.api.raw import RawJob
from distriqueue.gateway.problems import FieldError, Unprocessable
from distriqueue.gateway.views import REQUEST_HASH, SUBMITTED_BY, JobSubmission

KEY_LIMIT: Final = 255
"""Most characters of an Idempotency-Key."""

_BESIDE: Final = {"namespace", "name", "labels"}
_KEY: Final = re.compile(r"[!-~]([ -~]*[!-~])?")
_NO_NAME: Final = re.compile(r"[^a-z0-9]+")
_HEAD: Final = f'{{"apiVersion":"{API_VERSION}","kind":"{JOB_KIND}","metadata":'.encode()


def random_part() -> str:
    """Return what makes a name unique: 60 bits."""
    return base64.b32encode(secrets.token_bytes(8)).decode().lower()[:12]


def made_name(submission: JobSubmission, unique: str) -> str:
    """Return a name for a job that was given none: its type, and what is unique."""
    return f"{_NO_NAME.sub('-', submission.type)}-{unique}"


def keyed_name(namespace: str, caller: str, key: str) -> str:
    """Return the name of the one job of a key.

    Raises:
        Unprocessable: It is no key.
    """
    if len(key) > KEY_LIMIT or not _KEY.fullmatch(key):
        raise Unprocessable(
            f"an Idempotency-Key has 1 to {KEY_LIMIT} visible ASCII characters, such as a UUID: send another one",
            errors=[FieldError("header/Idempotency-Key", f"write 1 to {KEY_LIMIT} visible ASCII characters")],
        )
    digest = hashlib.sha256(f"{namespace}\0{caller}\0{key}".encode()).digest()
    return f"once-{base64.b32encode(digest).decode().lower()[:32]}"


def spec_json(submission: JobSubmission) -> bytes:
    """Return the spec as JSON.

    Raises:
        Unprocessable: The payload is larger than a job's may be.
    """
    spec = submission.model_dump_json(exclude=_BESIDE, exclude_unset=True, exclude_none=True).encode()
    if len(spec) > limits.PAYLOAD_LIMIT_BYTES:  # as long as all of it is less, nobody has to measure
        size = len(orjson.dumps(submission.payload))
        if size > limits.PAYLOAD_LIMIT_BYTES:
            most = f"{limits.PAYLOAD_LIMIT_BYTES // limits.KIB} KiB ({limits.PAYLOAD_LIMIT_BYTES} bytes)"
            sentence = (
                f"Too large: {size} bytes as JSON text, and the limit is {most}: store large data outside and pass a "
                "reference to it"
            )
            raise Unprocessable(f"payload: {sentence}", errors=[FieldError("/payload", sentence)])
    return spec


def request_hash(submission: JobSubmission, spec: bytes) -> str:
    """Return what two requests have in common exactly if they ask for the same, in whatever order of keys."""
    asked = {"name": submission.name, "labels": submission.labels or {}, "spec": orjson.loads(spec)}
    return hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).hexdigest()


def job_json(submission: JobSubmission, spec: bytes, *, name: str, caller: str, asked: str | None) -> bytes:
    """Return the resource as JSON.

    Args:
        submission: Whose labels it gets.
        spec: As `spec_json` made it.
        name: Of the job.
        caller: Who submits.
        asked: The hash of the request, if it has a key.
    """
    annotations = {SUBMITTED_BY: caller} if asked is None else {SUBMITTED_BY: caller, REQUEST_HASH: asked}
    metadata: dict[str, Any] = {"name": name, "annotations": annotations}
    if submission.labels:
        metadata["labels"] = submission.labels
    return b"".join((_HEAD, orjson.dumps(metadata), b',"spec":', spec, b"}"))


def is_repeated(job: RawJob, *, caller: str, asked: str) -> bool:
    """Say whether a job is what an earlier, equal request of the caller made."""
    annotations: Mapping[str, str] = job["metadata"].get("annotations") or {}
    return annotations.get(REQUEST_HASH) == asked and annotations.get(SUBMITTED_BY) == caller
