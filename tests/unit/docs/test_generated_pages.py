"""The generated pages are what the code says, and the AsyncAPI document is whole in itself."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distriqueue.gateway.settings import GatewaySettings
from distriqueue.operator.settings import OperatorSettings
from distriqueue_protocol.asyncapi import document
from distriqueue_protocol.messages import EPOCH_LIMIT, json_schema
from distriqueue_protocol.names import MessageType
from distriqueue_protocol.settings import ProgramSettings
from distriqueue_worker.settings import Settings
from docs import generating


@pytest.mark.parametrize("name", generating.PAGES)
def test_a_committed_page_is_what_the_code_says(name: str) -> None:
    committed = (generating.DIRECTORY / name).read_text(encoding="utf-8")
    assert committed == generating.PAGES[name](), f"docs/{name} is not current: run 'make docs' and commit the result"


def test_every_variable_has_a_row() -> None:
    page = generating.configuration()
    _, operator, gateway, worker = page.split("\n## ")[1:]
    models: tuple[tuple[str, type[ProgramSettings]], ...]
    models = ((operator, OperatorSettings), (gateway, GatewaySettings), (worker, Settings))
    for text, model in models:
        for name in model.model_fields:
            assert text.count(f"| `DISTRIQUEUE_{name.upper()}` |") == 1


def test_bounds_and_choices_are_shown() -> None:
    page = generating.configuration()
    assert "| `DISTRIQUEUE_HTTP_PORT` | whole number, from 0 to 65535 | `8080` |" in page
    assert "| `DISTRIQUEUE_LOG_FORMAT` | `json`, `text` | `json` |" in page
    assert "| `DISTRIQUEUE_WORKER_SHUTDOWN_GRACE_SECONDS` | number, from 0 to 86400 | `25` |" in page


def test_generating_writes_every_page(tmp_path: Path) -> None:
    generating.write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(generating.PAGES)


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def test_every_reference_of_the_document_leads_somewhere() -> None:
    whole = document()
    found = list(references(whole))
    assert len(found) > 20
    for reference in found:
        part = whole
        for step in reference.removeprefix("#/").split("/"):
            part = part[step]


def test_every_message_is_in_the_document_with_its_type() -> None:
    messages = document()["components"]["messages"]
    assert set(messages) == set(json_schema())
    assert {message["name"] for message in messages.values()} == {kind.value for kind in MessageType}
    for message in messages.values():
        assert message["bindings"]["amqp"]["messageType"] == message["name"]


def test_schemas_are_of_draft_7() -> None:
    schemas = document()["components"]["schemas"]
    assert schemas["GrantId"] == {
        "type": "array",
        "items": [{"maximum": EPOCH_LIMIT, "type": "integer"}] * 2,
        "minItems": 2,
        "maxItems": 2,
    }
    assert "$defs" not in str(schemas)
    assert "prefixItems" not in str(schemas)
