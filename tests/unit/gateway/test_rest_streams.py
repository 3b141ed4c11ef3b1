"""Event streams at the seam to the server: frames, silences, readers that take nothing, and every end."""

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from distriqueue.gateway.changes import Change, ChangeKind
from distriqueue.gateway.problems import Forbidden, TooSlow
from distriqueue.gateway.rest.streams import EventStream, frame
from distriqueue.telemetry.gateways import GatewayMetrics

JOB = Change(ChangeKind.JOB, "7", b'{"id":"a"}')
SYNCED = Change(ChangeKind.SYNCED, "9")


@dataclass
class Settings:
    """Only what these tests are about is short."""

    stream_keep_alive_seconds: float = 60.0
    stream_stall_seconds: float = 60.0


@dataclass
class Reader:
    """The other side of a stream: what it was sent, whether it takes anything, when it goes."""

    takes: asyncio.Event = field(default_factory=asyncio.Event)
    goes: asyncio.Event = field(default_factory=asyncio.Event)
    heard: asyncio.Condition = field(default_factory=asyncio.Condition)
    body: bytes = b""
    head: MutableMapping[str, Any] = field(default_factory=dict)
    complete: bool = False
    cut: bool = False

    def __post_init__(self) -> None:
        self.takes.set()

    def abort(self) -> None:
        """What a transport has."""
        self.cut = True

    async def receive(self) -> dict[str, Any]:
        await self.goes.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.head = message
            return
        await self.takes.wait()
        async with self.heard:
            self.body += message["body"]
            self.complete = not message["more_body"]
            self.heard.notify_all()

    async def until(self, words: bytes) -> None:
        """Wait until something was heard."""
        async with asyncio.timeout(10), self.heard:
            await self.heard.wait_for(lambda: words in self.body)


class Stage:
    """A stream between changes and a reader."""

    def __init__(self, changes: AsyncIterator[Change], settings: Settings | None = None) -> None:
        self.registry = CollectorRegistry()
        self.reader = Reader()
        self.closing = asyncio.Event()
        self._changes = changes
        self._settings = settings or Settings()
        self._metrics = GatewayMetrics(self.registry)

    async def run(self) -> None:
        """Until it ends."""
        scope = {"type": "http", "extensions": {"distriqueue.cut": {"transport": self.reader}}}
        async with asyncio.timeout(10):
            stream = await EventStream.begin(
                self._changes, settings=self._settings, metrics=self._metrics, closing=self.closing
            )
            await stream(scope, self.reader.receive, self.reader.send)

    def ended(self, reason: str) -> float | None:
        """Streams that ended so."""
        return self.registry.get_sample_value("distriqueue_gateway_streams_ended_total", {"reason": reason})

    @property
    def open(self) -> float | None:
        """Streams that are open."""
        return self.registry.get_sample_value("distriqueue_gateway_streams")


class Changes:
    """Changes that are said, and then silence; knows whether it was closed."""

    def __init__(self, *changes: Change) -> None:
        self._changes = changes
        self.closed = False

    async def __call__(self) -> AsyncIterator[Change]:
        try:
            for change in self._changes:
                yield change
            await asyncio.Event().wait()
        finally:
            self.closed = True


def test_a_change_is_an_event() -> None:
    assert frame(JOB) == b'event: job\nid: 7\ndata: {"id":"a"}\n\n'
    assert frame(SYNCED) == b"event: synced\nid: 9\ndata: {}\n\n"


async def test_a_reader_hears_everything_in_order_and_goes() -> None:
    changes = Changes(JOB, SYNCED)
    stage = Stage(changes())
    running = asyncio.create_task(stage.run())
    await stage.reader.until(frame(SYNCED))
    assert stage.open == 1
    stage.reader.goes.set()
    await running
    assert stage.reader.body == b"retry: 1000\n\n" + frame(JOB) + frame(SYNCED)
    headers = dict(stage.reader.head["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert b"content-length" not in headers
    assert (stage.ended("Client"), stage.open, changes.closed) == (1, 0, True)


async def test_a_silence_is_filled() -> None:
    stage = Stage(Changes(JOB)(), Settings(stream_keep_alive_seconds=0.02))
    running = asyncio.create_task(stage.run())
    await stage.reader.until(b": keep-alive\n\n: keep-alive\n\n")
    stage.reader.goes.set()
    await running


async def test_a_reader_that_takes_nothing_is_cut() -> None:
    changes = Changes(JOB)
    stage = Stage(changes(), Settings(stream_stall_seconds=0.05))
    stage.reader.takes.clear()
    await stage.run()
    assert (stage.reader.cut, stage.ended("Stalled"), stage.open, changes.closed) == (True, 1, 0, True)


async def test_a_reader_that_stops_to_take_in_a_silence_is_cut() -> None:
    stage = Stage(Changes(JOB)(), Settings(stream_stall_seconds=0.05, stream_keep_alive_seconds=0.05))
    running = asyncio.create_task(stage.run())
    await stage.reader.until(frame(JOB))
    stage.reader.takes.clear()
    await running
    assert (stage.reader.cut, stage.ended("Stalled")) == (True, 1)


async def test_a_stream_ends_with_its_replica() -> None:
    changes = Changes(JOB)
    stage = Stage(changes())
    running = asyncio.create_task(stage.run())
    await stage.reader.until(frame(JOB))
    stage.closing.set()
    await running
    assert stage.reader.complete
    assert (stage.ended("Stopping"), changes.closed) == (1, True)


@pytest.mark.parametrize(
    ("problem", "reason"),
    [(TooSlow("resume by your last id"), "Slow"), (Forbidden("you may not watch jobs any more"), "Error")],
)
async def test_a_problem_is_the_last_event(problem: Exception, reason: str) -> None:
    async def changes() -> AsyncIterator[Change]:
        yield JOB
        raise problem

    stage = Stage(changes())
    await stage.run()
    assert stage.reader.complete
    assert stage.ended(reason) == 1
    head, _, data = stage.reader.body.rpartition(b"event: problem\ndata: ")
    assert head.endswith(frame(JOB))
    assert orjson.loads(data)["detail"] == str(problem)


async def test_what_nobody_expected_is_a_problem_without_its_text() -> None:
    async def changes() -> AsyncIterator[Change]:
        yield JOB
        raise RuntimeError("the password is swordfish")

    stage = Stage(changes())
    await stage.run()
    assert stage.reader.complete
    assert b"swordfish" not in stage.reader.body
    assert b"urn:distriqueue:problem:internal" in stage.reader.body


async def test_a_refusal_before_the_first_change_is_raised() -> None:
    async def changes() -> AsyncIterator[Change]:
        raise Forbidden("you may not watch jobs")
        yield JOB

    stage = Stage(changes())
    with pytest.raises(Forbidden):
        await stage.run()
    assert stage.reader.head == {}


def test_a_position_is_an_id_without_data() -> None:
    assert frame(Change(ChangeKind.POSITION, "*-28")) == b": keep-alive\nid: *-28\n\n"
