"""Label selectors, as Kubernetes writes them: ``a=b``, ``a!=b``, ``a in (b, c)``, ``a notin (b, c)``, ``a``, ``!a``.

Guarantees: read in one pass; bounded in length and in the number of requirements. ``!=`` and ``notin`` hold for a job
that has no such label, as everywhere in Kubernetes. Fails with `UnreadableError`, whose text says what to write.
"""

import re
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from distriqueue.gateway.views import LABEL_KEY_LIMIT, LABEL_KEY_PATTERN, LABEL_VALUE_LIMIT, LABEL_VALUE_PATTERN

SELECTOR_LIMIT: Final = 2000
"""Most characters of a label selector."""
REQUIREMENTS_LIMIT: Final = 50
"""Most parts of a label selector."""


_KEY: Final = re.compile(LABEL_KEY_PATTERN)
_VALUE: Final = re.compile(LABEL_VALUE_PATTERN)
_SELECTOR_TOKEN: Final = re.compile(r"\s*(!=|==|=|!|\(|\)|,|[^\s!=(),]+)\s*")


class UnreadableError(Exception):
    """A parameter is not what it has to be; the text says what to write."""


class Operator(StrEnum):
    """What a requirement of a selector asks of a label."""

    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One part of a label selector."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def holds(self, labels: dict[str, str]) -> bool:
        """Say whether labels fulfil it."""
        match self.operator:
            case Operator.IN:
                return labels.get(self.key) in self.values
            case Operator.NOT_IN:
                return labels.get(self.key) not in self.values
            case Operator.EXISTS:
                return self.key in labels
            case Operator.MISSING:
                return self.key not in labels


_EXPLANATION: Final = (
    "write requirements with commas between them, each one of a=b, a!=b, 'a in (b, c)', 'a notin (b, c)', a, !a"
)


def selector(text: str) -> tuple[Requirement, ...]:
    """Read a label selector.

    Raises:
        UnreadableError: It is none.
    """
    if len(text) > SELECTOR_LIMIT:
        raise UnreadableError(f"a label selector has at most {SELECTOR_LIMIT} characters")
    tokens = _tokens(text)
    found: list[Requirement] = []
    while True:
        found.append(_requirement(tokens))
        if len(found) > REQUIREMENTS_LIMIT:
            raise UnreadableError(f"a label selector has at most {REQUIREMENTS_LIMIT} requirements")
        if not tokens:
            return tuple(found)
        _expect(tokens, ",")


def _tokens(text: str) -> deque[str]:
    found: deque[str] = deque()
    at = 0
    while at < len(text):
        token = _SELECTOR_TOKEN.match(text, at)
        if token is None:
            raise UnreadableError(_EXPLANATION)
        found.append(token[1])
        at = token.end()
    return found


def _requirement(tokens: deque[str]) -> Requirement:
    if tokens and tokens[0] == "!":
        tokens.popleft()
        return Requirement(_key(tokens), Operator.MISSING)
    key = _key(tokens)
    if not tokens or tokens[0] == ",":
        return Requirement(key, Operator.EXISTS)
    word = tokens.popleft()
    if word in {"=", "==", "!="}:
        value = "" if not tokens or tokens[0] == "," else tokens.popleft()
        return Requirement(key, Operator.NOT_IN if word == "!=" else Operator.IN, frozenset({_value(value)}))
    if word in {"in", "notin"}:
        return Requirement(key, Operator(word), _values(tokens))
    raise UnreadableError(_EXPLANATION)


def _values(tokens: deque[str]) -> frozenset[str]:
    _expect(tokens, "(")
    found = {_value(tokens.popleft()) if tokens else ""}
    while tokens and tokens[0] == ",":
        tokens.popleft()
        found.add(_value(tokens.popleft()) if tokens else "")
    _expect(tokens, ")")
    return frozenset(found)


def _expect(tokens: deque[str], wanted: str) -> None:
    if not tokens or tokens.popleft() != wanted:
        raise UnreadableError(_EXPLANATION)


def _key(tokens: deque[str]) -> str:
    key = tokens.popleft() if tokens else ""
    if len(key) > LABEL_KEY_LIMIT or not _KEY.fullmatch(key):
        raise UnreadableError(_EXPLANATION)
    return key


def _value(value: str) -> str:
    if len(value) > LABEL_VALUE_LIMIT or not _VALUE.fullmatch(value):
        raise UnreadableError(f"{_EXPLANATION}; '{value[:80]}' is no label value")
    return value
