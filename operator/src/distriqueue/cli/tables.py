"""What is printed: tables in the manner of kubectl, JSON, YAML, names; colours on a terminal alone.

Guarantees: columns are never cut or wrapped, so that what is piped is whole; nothing that came from the cluster can
steer a terminal (control characters are shown, not obeyed); without a terminal, with NO_COLOR or TERM=dumb there is no
colour.
"""

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import orjson

_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_GAP: Final = "   "
_COLOURS: Final = {
    "Succeeded": "32",
    "Online": "32",
    "Running": "36",
    "Failed": "31",
    "Dead": "31",
    "Offline": "31",
    "Retrying": "33",
    "Draining": "33",
    "Cancelled": "2",
}


class Output(StrEnum):
    """Forms of output, `-o`."""

    TABLE = "table"
    WIDE = "wide"
    NAME = "name"
    JSON = "json"
    YAML = "yaml"


@dataclass(frozen=True)
class Column:
    """A column of a table: its head, and what stands in it for an item."""

    head: str
    cell: Callable[[Any], str]
    wide: bool = False


def coloured() -> bool:
    """Whether standard output takes colours."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def plain(text: str) -> str:
    """A text from the cluster, made harmless; line breaks and tabs stay."""
    return _STEERING.sub(lambda found: repr(found.group())[1:-1], text)


def cell(text: str) -> str:
    """The same for one line."""
    return plain(" ".join(text.split())) if text else "-"


def word(text: str) -> str:
    """A phase, in its colour if there are colours."""
    colour = _COLOURS.get(text) if coloured() else None
    return f"\x1b[{colour}m{text}\x1b[0m" if colour else text


def table(columns: Sequence[Column], items: Iterable[Any], *, wide: bool = False, heads: bool = True) -> Iterable[str]:
    """The lines of a table."""
    shown = [column for column in columns if wide or not column.wide]
    rows = [[cell(column.cell(item)) for column in shown] for item in items]
    if heads:
        rows.insert(0, [column.head for column in shown])
    widths = [max(map(len, texts)) for texts in zip(*rows, strict=True)]
    for row in rows:
        cells = (word(text) + " " * (width - len(text)) for text, width in zip(row, widths, strict=True))
        yield _GAP.join(cells).rstrip()


def say(text: str = "") -> None:
    """Print a line."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """Say something that is not the answer: to standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def dump(value: Any, output: Output) -> str:
    """A value as JSON or YAML."""
    if output is Output.YAML:
        import yaml  # noqa: PLC0415 - takes as long to load as all the rest

        bare = orjson.loads(orjson.dumps(value))  # YAML knows no enums
        return str(yaml.safe_dump(bare, sort_keys=False, allow_unicode=True)).rstrip()
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def show(
    items: Sequence[Mapping[str, Any]], columns: Sequence[Column], output: Output, *, single: bool = False
) -> None:
    """Print resources in the form that was asked for.

    Args:
        items: The resources.
        columns: Of the table.
        output: The form.
        single: One resource was asked for by name: it is printed as itself, not as a list of one.
    """
    if output in {Output.JSON, Output.YAML}:
        whole = items[0] if single and len(items) == 1 else {"apiVersion": "v1", "kind": "List", "items": [*items]}
        say(dump(whole, output))
    elif output is Output.NAME:
        for item in items:
            say(name_of(item))
    else:
        for line in table(columns, items, wide=output is Output.WIDE):
            say(line)


def name_of(item: Mapping[str, Any]) -> str:
    """A resource as kubectl names it."""
    kind = str(item.get("kind", "DistributedJob")).lower()
    return f"{kind}.distriqueue.io/{item['metadata']['name']}"
