"""Payloads in mounted Secrets: handlers of every kind get them, and nothing that is said of an attempt shows them."""

import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, field_validator

from distriqueue_protocol.messages import Outcome, SecretReference, Ticket
from distriqueue_protocol.payloads import PayloadTextError, PayloadTextTooLargeError, read_payload_text
from distriqueue_worker import logs
from distriqueue_worker.clocks import monotonic
from distriqueue_worker.commands import Progressed
from distriqueue_worker.mounted_secrets import MASK, Mask, SecretNotMountedError, read_secret
from distriqueue_worker.tasks import Task, TaskContext, marked, task
from tests.unit.worker.test_runtime import PATIENCE, Running

CANARY = 'canary-5up3r/"s3cret"\nsecond-line-of-it'
PAYLOAD = {"password": CANARY, "port": 25, "list": [{"pin": 424242}]}
REFERENCE = SecretReference(name="smtp", key="payload.json")


def _gives_away(payload: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    """Do what nobody should: log it, print it, say it, raise it."""
    context.log.warning("payload %s", payload)
    context.log.error("pin %s", payload["list"][0]["pin"], extra={"password": payload["password"]})
    print("printed", payload["password"])  # noqa: T201
    context.progress(1, f"with {payload['password']}")
    if payload["port"] != 25:
        return {"keys": sorted(payload)}
    raise RuntimeError(f"{'x' * 4080} {payload['password']!r}" if context.type.startswith("long") else str(payload))


@task("gives-away")
async def gives_away(payload: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    return _gives_away(payload, context)


@task("long-gives-away")
async def gives_away_at_length(payload: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    return _gives_away(payload, context)


@task("gives-away-in-a-thread")
def gives_away_in_a_thread(payload: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    return _gives_away(payload, context)


@task("gives-away-in-a-process", isolation="process")
def gives_away_in_a_process(payload: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    return _gives_away(payload, context)


@task("long-gives-away-in-a-process", isolation="process")
def gives_away_in_a_process_at_length(payload: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    return _gives_away(payload, context)


KINDS = [
    "gives-away",
    "long-gives-away",
    "gives-away-in-a-thread",
    "gives-away-in-a-process",
    "long-gives-away-in-a-process",
]


class Strict(BaseModel):
    port: Literal[587]
    password: str

    @field_validator("password")
    @classmethod
    def _checked(cls, value: str) -> str:
        raise ValueError(f"{value} is too weak")


@task("strict")
async def strict(_payload: Strict, _context: TaskContext) -> None:
    raise AssertionError("never called")


def _tasks() -> list[Task]:
    return [one for one in map(marked, globals().values()) if one]


def _mount(directory: Path, value: object, *, namespace: str = "n") -> None:
    """As the kubelet does: the key is a link into a directory of which the name begins with two dots."""
    place = directory / namespace / "smtp"
    (place / "..data").mkdir(parents=True)
    (place / "..data" / "payload.json").write_text(value if isinstance(value, str) else json.dumps(value))
    (place / "payload.json").symlink_to("..data/payload.json")


def _shows(text: str) -> bool:
    """Whether any recognisable piece of what is secret stands in a text."""
    return any(piece in text for piece in ("canary", "5up3r", "s3cret", "second-line", "424242"))


@pytest.fixture(autouse=True)
def logging_as_in_a_worker() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    logs.configure("debug", "json")
    yield
    root.handlers[:] = before
    root.setLevel(level)


@pytest.fixture(name="running")
async def running_fixture(tmp_path: Path) -> AsyncIterator[Running]:
    running = Running(*_tasks(), lease=lambda: monotonic() + PATIENCE, secrets=tmp_path)
    yield running
    assert len(running.runtime) == 0


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("kind", KINDS)
async def test_what_a_handler_gives_away_is_hidden(
    running: Running, tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str, form: str
) -> None:
    logs.configure("debug", form)
    _mount(tmp_path, PAYLOAD)
    with logs.captured_output():
        result = await running.result(kind, payload_secret=REFERENCE)
    assert (result.outcome, result.reason, result.permanent) == (Outcome.FAILED, "RuntimeError", False)
    written = capfd.readouterr()
    said = [word.message for _, word in running.words if isinstance(word, Progressed)]
    for text in (result.error, result.log_tail, written.out, written.err, *said):
        assert MASK in text or not text
        assert not _shows(text), text
    assert "printed" in result.log_tail or "long" in kind
    assert len(said) == 1


async def test_every_kind_of_handler_gets_the_payload(running: Running, tmp_path: Path) -> None:
    _mount(tmp_path, {**PAYLOAD, "port": 587})
    for kind in KINDS:
        result = await running.result(kind, payload_secret=REFERENCE)
        assert result.value == {"keys": ["list", "password", "port"]}, kind


async def test_a_refused_payload_is_not_quoted(
    running: Running, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _mount(tmp_path, PAYLOAD)
    result = await running.result("strict", payload_secret=REFERENCE)
    assert (result.reason, result.permanent) == ("InvalidPayload", True)
    assert "port: Input should be 587" in result.error
    assert "is too weak" in result.error
    assert not _shows(result.error + result.log_tail + "".join(capfd.readouterr()))


async def test_a_secret_that_is_not_mounted_fails_the_attempt(running: Running, tmp_path: Path) -> None:
    _mount(tmp_path, PAYLOAD, namespace="other")
    result = await running.result("gives-away", payload_secret=REFERENCE)
    assert (result.outcome, result.reason, result.permanent) == (Outcome.FAILED, "SecretNotMounted", False)
    assert 'Secret "smtp" with the key "payload.json" is not mounted into this worker for namespace "n"' in result.error
    assert "worker.secrets" in result.error


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"password": "canary', "InvalidPayload"),
        ('["canary"]', "InvalidPayload"),
        ('{"canary": NaN}', "InvalidPayload"),
        ("canary", "InvalidPayload"),
        ("", "InvalidPayload"),
        ('{"canary": ' + "[" * 195 + "]" * 195 + "}", "InvalidPayload"),
        ('{"canary": "' + "x" * 65536 + '"}', "PayloadTooLarge"),
    ],
)
async def test_what_is_no_payload_ends_the_job_and_is_not_quoted(
    running: Running, tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str, reason: str
) -> None:
    _mount(tmp_path, text)
    result = await running.result("gives-away", payload_secret=REFERENCE)
    assert (result.outcome, result.reason, result.permanent) == (Outcome.FAILED, reason, True)
    assert not _shows(result.error + result.log_tail + "".join(capfd.readouterr()))


@pytest.mark.parametrize("namespace", ["..", "n/../n", "", ".", "N", "/n", "../n"])
def test_a_namespace_leads_nowhere_else(tmp_path: Path, namespace: str) -> None:
    _mount(tmp_path, PAYLOAD)
    with pytest.raises(SecretNotMountedError):
        read_secret(tmp_path, namespace=namespace, reference=REFERENCE)


def test_a_key_leads_nowhere_else(tmp_path: Path) -> None:
    _mount(tmp_path, PAYLOAD)
    for key in ("..", ".", "..data"):
        with pytest.raises(SecretNotMountedError):
            read_secret(tmp_path, namespace="n", reference=SecretReference(name="smtp", key=key))
    for name, key in (("..", "x"), ("a/b", "x"), ("smtp", "../x"), ("smtp", "/etc/passwd")):
        with pytest.raises(ValueError, match="pattern"):
            SecretReference(name=name, key=key)


async def test_a_changed_secret_is_read_anew_for_each_attempt(running: Running, tmp_path: Path) -> None:
    _mount(tmp_path, {**PAYLOAD, "port": 587})
    file = tmp_path / "n/smtp/..data/payload.json"
    assert (await running.result("gives-away", payload_secret=REFERENCE)).value is not None
    file.write_text(json.dumps({**PAYLOAD, "port": 1, "more": 1}))
    result = await running.result("gives-away", payload_secret=REFERENCE)
    assert result.value == {"keys": ["list", "more", "password", "port"]}


def test_a_ticket_names_the_secret_and_nothing_of_it() -> None:
    ticket = Ticket(namespace="n", name="j", uid="u", type="x", attempt=1, epoch=1, payload_secret=REFERENCE)
    assert json.loads(ticket.encode())["payloadSecret"] == {"name": "smtp", "key": "payload.json"}
    assert Ticket.decode(ticket.encode()) == ticket


@given(st.text(min_size=8, max_size=60), st.text(max_size=30), st.text(max_size=30), st.integers(0, 90))
def test_a_value_is_hidden_however_a_text_ends(value: str, before: str, after: str, cut: int) -> None:
    mask = Mask({"a": [value]})
    for whole in (before + value + after, before + repr(value) + after, before + json.dumps(value) + after):
        assert value not in mask(whole) or value in MASK
    shown = mask((before + value)[: len(before) + cut % len(value)])
    assert value[: cut % len(value)] not in shown[len(before) :] or cut % len(value) < 6


def test_the_size_of_a_payload_is_that_of_its_json_without_spaces() -> None:
    padded = '{"a":' + " " * 70_000 + '"' + "x" * (65536 - 8) + '"}'
    assert len(read_payload_text(padded, what="it")["a"]) == 65536 - 8  # type: ignore[arg-type]  # it is a text
    with pytest.raises(PayloadTextTooLargeError, match="it has 65537 bytes, the limit is 65536: store the data"):
        read_payload_text(padded.replace("x", "xx", 1), what="it")
    with pytest.raises(PayloadTextError, match=r"^it is not JSON \(at line 2 column 1\): write a JSON object there$"):
        read_payload_text('{"a":1}\n}', what="it")
