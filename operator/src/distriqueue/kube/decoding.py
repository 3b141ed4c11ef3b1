"""JSON from the API server, whatever is in it.

Guarantees: an object that is nested deeper than the parser goes is read nevertheless, so that one object which somebody
stored cannot keep a list or a watch from all others. What is deeper than `DEEPEST` levels comes as null; all the rest,
names and versions above all, is as it was sent. That much is left is on purpose: readers that have less patience with a
payload still find it too deep, and do not take it for a whole one. Fails with `orjson.JSONDecodeError` on what is no
JSON.
"""

import logging
import re
from typing import Any, Final

import orjson

_LOG: Final = logging.getLogger(__name__)

DEEPEST: Final = 1000
"""Levels that are read; orjson goes to 1024, and the API server stores up to 10,000."""

_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)


def decode(text: bytes) -> Any:
    """Return what a JSON text says.

    Raises:
        orjson.JSONDecodeError: It is no JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        shallow = _cut(text)
        if shallow is None:
            raise
    _LOG.warning("an object of the API server is nested more than %d deep: what is below is not read", DEEPEST)
    return orjson.loads(shallow)


def _cut(text: bytes) -> bytes | None:
    """Return the text with null for all that is too deep; None if nothing is."""
    kept: list[bytes] = []
    depth = since = 0
    for token in _TOKEN.finditer(text):
        match token.group():
            case b"{" | b"[":
                depth += 1
                if depth == DEEPEST + 1:
                    kept.append(text[since : token.start()])
            case b"}" | b"]":
                if depth == DEEPEST + 1:
                    kept.append(b"null")
                    since = token.end()
                depth -= 1
    return b"".join((*kept, text[since:])) if kept else None
