"""Streams of changes from a real gateway: nothing is missed over cuts and restarts, and nobody slows others down."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httpx
import orjson
import pytest

from distriqueue.kube.client import KubeClient
from tests.integration.tcp_relay import Relay
from tests.support.gateways import Gateway, bearer, make_caller, restart, start
from tests.support.jobs import Jobs
from tests.support.stages import CALM, Stage, Stages, sample
from tests.support.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

BATCHES = 20
BATCH = 25
FINAL = {"completed", "failed", "dead", "cancelled"}


@pytest.fixture(name="stage", scope="module")
def stage_fixture(stages: Stages) -> Iterator[Stage]:
    with stages.open(**CALM) as stage:
        stage.start(operators=1, workers=1, concurrency=8)
        yield stage


@pytest.fixture(name="gateway", scope="module")
def gateway_fixture(stage: Stage) -> Gateway:
    return start(stage.programs)


@pytest.fixture(name="token")
async def token_fixture(kube: KubeClient, stage: Stage) -> str:
    return await make_caller(kube, stage.namespace, "ann")


@dataclass(frozen=True)
class Event:
    """One event, as it came."""

    kind: str
    id: str
    data: dict[str, Any]


async def events(answer: httpx.Response) -> AsyncIterator[Event]:
    """The events of a stream; what is cut off in the middle of one is none."""
    text = b""
    async for part in answer.aiter_raw():
        text += part
        *blocks, text = text.split(b"\n\n")
        for block in blocks:
            fields = dict(line.partition(b": ")[::2] for line in block.split(b"\n") if line[:1] not in {b":", b""})
            if b"event" in fields:
                kind, position = fields[b"event"].decode(), fields.get(b"id", b"").decode()
                yield Event(kind, position, orjson.loads(fields[b"data"]))


@dataclass
class Reader:
    """Follows jobs as a client should: whenever it is cut, it goes on with the id of the last event."""

    url: str
    token: str
    query: dict[str, str]
    seen: list[Event] = field(default_factory=list)
    connections: int = 0
    last: str | None = None

    async def run(self) -> None:
        """Until cancelled."""
        async with httpx.AsyncClient(timeout=60) as client:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    await self._connect(client)
                await asyncio.sleep(0.05)  # as a client should: not in a busy loop

    async def _connect(self, client: httpx.AsyncClient) -> None:
        headers = bearer(self.token) | ({} if self.last is None else {"Last-Event-ID": self.last})
        url = f"{self.url}/api/jobs/stream"
        async with client.stream("GET", url, params=self.query, headers=headers) as answer:
            assert answer.status_code == HTTPStatus.OK, await answer.aread()
            self.connections += 1
            async for event in events(answer):
                self.seen.append(event)
                self.last = event.id or self.last

    def count(self, kind: str) -> int:
        """How many events of a kind it has seen."""
        return sum(event.kind == kind for event in self.seen)

    def final(self) -> Counter[str]:
        """How often it has seen each job in a final state."""
        return Counter(
            event.data["name"] for event in self.seen if event.kind == "job" and event.data["status"] in FINAL
        )


@contextlib.asynccontextmanager
async def reading(url: str, token: str, **query: str) -> AsyncIterator[Reader]:
    """A reader that has heard `synced`."""
    reader = Reader(url, token, query)
    running = asyncio.create_task(reader.run())
    try:
        await until(lambda: running.done() or reader.count("synced"))
        yield reader
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def submit(gateway: Gateway, token: str, namespace: str, names: list[str], **spec: Any) -> None:
    """Submit jobs in one batch."""
    jobs = [{"name": name, "type": "record", **spec} for name in names]
    async with httpx.AsyncClient(timeout=60) as client:
        body = {"namespace": namespace, "jobs": jobs}
        answer = await client.post(f"{gateway.url}/api/jobs/batch", json=body, headers=bearer(token))
    assert answer.json()["created"] == len(names), answer.text


async def test_a_reader_that_is_cut_again_and_again_sees_every_end_once(
    gateway: Gateway, stage: Stage, token: str
) -> None:
    names = [[f"cut-{batch:02}-{number:02}" for number in range(BATCH)] for batch in range(BATCHES)]
    async with Relay.to(gateway.url) as relay:
        async with reading(f"http://127.0.0.1:{relay.port}", token, namespace=stage.namespace) as reader:
            for batch in range(BATCHES):
                await submit(gateway, token, stage.namespace, names[batch])
                # In the middle of the batch, while events come.
                wanted = batch * BATCH + BATCH // 4
                await until(lambda wanted=wanted: len(reader.final()) >= wanted)  # type: ignore[misc]  # one for each
                if batch == BATCHES // 2:
                    await asyncio.to_thread(gateway.program.kill)
                    await asyncio.to_thread(restart, stage.programs, gateway)
                relay.cut()
            await until(lambda: len(reader.final()) >= BATCHES * BATCH, otherwise=lambda: len(reader.final()))
            # Once more: whoever has seen everything is told nothing again.
            synced = reader.count("synced")
            relay.cut()
            await until(lambda: reader.count("synced") > synced)
        assert reader.connections > BATCHES
        assert reader.final() == Counter({name: 1 for batch in names for name in batch})
        assert reader.count("reset") == 0


async def test_a_new_reader_hears_what_is_there_and_then_what_happens(
    gateway: Gateway, stage: Stage, token: str, jobs: Jobs
) -> None:
    await submit(gateway, token, stage.namespace, ["there-1"], labels={"set": "new"})
    await jobs.ended("there-1")
    query = {"namespace": stage.namespace, "labels": "set in (new)"}
    async with reading(gateway.url, token, **query) as reader:
        assert [(event.kind, event.data.get("name")) for event in reader.seen] == [
            ("job", "there-1"),
            ("synced", None),
        ]
        await submit(gateway, token, stage.namespace, ["later-1"], labels={"set": "new"})
        await submit(gateway, token, stage.namespace, ["other-1"], labels={"set": "old"})
        await until(lambda: reader.final()["later-1"])
        await jobs.ended("other-1")
        await jobs.delete("later-1")
        await until(lambda: reader.count("deleted"))
        assert reader.seen[-1].data["name"] == "later-1"
        assert "other-1" not in {event.data.get("name") for event in reader.seen}


async def test_a_filter_of_statuses_is_a_list(gateway: Gateway, stage: Stage, token: str, jobs: Jobs) -> None:
    await submit(gateway, token, stage.namespace, ["status-1"], labels={"set": "status"})
    await jobs.ended("status-1")
    params = {"namespace": stage.namespace, "labels": "set=status"}
    async with httpx.AsyncClient(headers=bearer(token)) as client:
        for status, expected in ((["failed", "dead"], 0), (["failed", "completed"], 1), (["failed,completed"], 1)):
            url = f"{gateway.url}/api/jobs/stream"
            async with client.stream("GET", url, params={**params, "status": status}) as answer:
                count = 0
                async for event in events(answer):
                    if event.kind == "synced":
                        break
                    count += 1
            assert count == expected, status


@pytest.mark.parametrize("position", ["nonsense", "b3RoZXI6MTI", "KjoxMDAwMDAwMDAwMDAw"])
async def test_a_position_that_cannot_be_served_begins_anew(
    gateway: Gateway, stage: Stage, token: str, position: str
) -> None:
    headers = {**bearer(token), "Last-Event-ID": position}
    async with (
        httpx.AsyncClient(headers=headers) as client,
        client.stream("GET", f"{gateway.url}/api/jobs/stream", params={"namespace": stage.namespace}) as answer,
    ):
        first = await anext(events(answer))
    assert first.kind == "reset"


async def test_a_slow_reader_is_cut_and_others_are_not(stage: Stage, token: str) -> None:
    gateway = await asyncio.to_thread(start, stage.programs, "slow", STREAM_QUEUE="64", STREAM_STALL_SECONDS="5")
    payload = {"blob": "x" * 60_000}
    names = [f"large-{number:03}" for number in range(200)]
    path = f"/api/jobs/stream?namespace={stage.namespace}&labels=set%3Dlarge"
    slow_reader, slow_writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    slow_writer.write(f"GET {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    assert await slow_reader.readuntil(b"event: synced")
    async with reading(gateway.url, token, namespace=stage.namespace, labels="set=large") as reader:
        for begin in range(0, len(names), 20):
            await submit(
                gateway,
                token,
                stage.namespace,
                names[begin : begin + 20],
                payload=payload,
                labels={"set": "large"},
                suspend=True,
            )
        heard = {"large"}

        def all_heard() -> bool:
            nonlocal heard
            heard = {event.data["name"] for event in reader.seen if event.kind == "job"}
            return len(heard) == len(names)

        await until(all_heard, otherwise=lambda: len(heard))

        def cut() -> float:
            ended = "distriqueue_gateway_streams_ended_total"
            return sum(sample(gateway.program, ended, reason=reason) for reason in ("Slow", "Stalled"))

        await until(cut)
        assert reader.connections == 1
    slow_writer.close()
    await asyncio.to_thread(gateway.program.stop)


async def test_too_many_streams_are_refused(stage: Stage, token: str) -> None:
    gateway = await asyncio.to_thread(start, stage.programs, "few", STREAMS="1")
    async with reading(gateway.url, token, namespace=stage.namespace):
        async with httpx.AsyncClient(headers=bearer(token)) as client:
            answer = await client.get(f"{gateway.url}/api/jobs/stream?namespace={stage.namespace}")
        assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE
        assert answer.json()["type"] == "urn:distriqueue:problem:unavailable"
        assert sample(gateway.program, "distriqueue_gateway_streams") == 1
    await until(lambda: sample(gateway.program, "distriqueue_gateway_streams") == 0)
    await asyncio.to_thread(gateway.program.stop)
