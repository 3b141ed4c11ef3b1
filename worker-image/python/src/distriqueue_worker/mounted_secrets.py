"""Payloads that stand in mounted Secrets: where they are read from, and what keeps them out of logs and reports.

A Secret is mounted for the jobs of a namespace, at `<directory>/<namespace>/<name>/<key>`: a job cannot name what was
mounted for another namespace. Guarantees: what is read leaves this process by the handler's own doing only; no error
from here quotes it. Fails with `SecretNotMountedError`, or with the errors of `read_payload_text`.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

from pydantic import JsonValue

from distriqueue_protocol.messages import SecretReference
from distriqueue_protocol.payloads import read_payload_text

FILE_BYTES: Final = 1024 * 1024
"""Kubernetes keeps no larger Secrets; a longer file is no Secret and is read so far only."""
SHORTEST_MASKED: Final = 4
"""Shorter values are words like `on` and `25`: hiding them would hide everything else, too."""
DIGITS_MASKED: Final = 6
"""Numbers with fewer digits are not hidden."""
SHORTEST_PIECE: Final = 6
"""Of a value that was cut off at the end of a text so many characters are not shown."""
MASK: Final = "***"

_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


class SecretNotMountedError(Exception):
    """The worker has no such Secret for the namespace of the job; another one may have."""

    reason: ClassVar[str] = "SecretNotMounted"


def read_secret(directory: Path, *, namespace: str, reference: SecretReference) -> dict[str, JsonValue]:
    """The payload that a mounted Secret holds.

    Args:
        directory: Where Secrets are mounted.
        namespace: Of the job.
        reference: Name and key.

    Raises:
        SecretNotMountedError: There is no such file.
        PayloadTextError: It holds no payload.
    """
    name, key = reference.name, reference.key
    try:
        if not _NAMESPACE.fullmatch(namespace) or key in {".", ".."}:
            raise FileNotFoundError
        with (directory / namespace / name / key).open("rb") as file:
            text = file.read(FILE_BYTES)
    except OSError as error:
        why = "" if isinstance(error, FileNotFoundError) else f" ({error.strerror})"
        raise SecretNotMountedError(
            f'Secret "{name}" with the key "{key}" is not mounted into this worker for namespace "{namespace}"{why}: '
            f"list it with that namespace under worker.secrets of the chart, or mount it at "
            f"{directory}/{namespace}/{name}"
        ) from None
    return read_payload_text(text, what=f'spec.payloadFrom: key "{key}" of Secret "{name}"')


class Mask:
    """Hides the values of a payload in texts: each as it is, and as JSON and Python write it within quotes.

    What a handler makes of a value (upper case, Base64, a piece of it) is not recognised.
    """

    def __init__(self, payload: JsonValue) -> None:
        values = {form for value in _values(payload) for form in _forms(value)}
        self._values = sorted(values, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, self._values)) or r"(?!)")

    def __call__(self, text: str) -> str:
        """The text without the values; of one that was cut off at its end, without the beginning of it."""
        text = self._pattern.sub(MASK, text)
        piece = max((_overlap(text, value) for value in self._values), default=0)
        return text[: len(text) - piece] + MASK if piece else text


def _values(value: JsonValue) -> Iterator[str]:
    match value:
        case dict():
            for one in value.values():
                yield from _values(one)
        case list():
            for one in value:
                yield from _values(one)
        case str() if len(value) >= SHORTEST_MASKED:
            yield value
        case bool() | None:
            return
        case int() | float() if sum(map(str.isdigit, str(value))) >= DIGITS_MASKED:
            yield str(value)


def _forms(value: str) -> set[str]:
    """A value and what it looks like within quotes, and within the quotes of a text that quotes it."""
    forms = {value}
    if "\n" in value:  # logs are cut into lines
        forms |= {line for line in value.splitlines() if len(line.strip()) >= SHORTEST_MASKED}
    for _ in range(2):
        forms |= {quoted for form in forms for quoted in _quoted(form)}
    return forms


def _quoted(text: str) -> tuple[str, ...]:
    return repr(text)[1:-1], json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]


def _overlap(text: str, value: str) -> int:
    """How many characters of the beginning of a value stand at the end of a text, if they are worth hiding."""
    if len(value) <= SHORTEST_PIECE:
        return 0
    head = value[:SHORTEST_PIECE]
    at = text.find(head, max(0, len(text) - len(value)))
    while at >= 0 and not value.startswith(text[at:]):
        at = text.find(head, at + 1)
    return len(text) - at if at >= 0 else 0
