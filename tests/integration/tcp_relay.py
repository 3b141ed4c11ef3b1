"""A TCP relay in front of a real server, so that tests can slow, swallow and cut what goes through it."""

import asyncio
import contextlib
import json
import urllib.parse
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml


class Relay:
    """Passes bytes on between a loopback port of its own and a server, until told otherwise."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._requests_flow = asyncio.Event()
        self._answers_flow = asyncio.Event()
        self.go_on()
        self._connected = asyncio.Event()
        self._swallowing = False
        self._swallowed = asyncio.Event()

    @classmethod
    def to(cls, url: str) -> Self:
        """Return a relay to the server of a URL; enter it to start it."""
        parts = urllib.parse.urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        return cls(parts.hostname, parts.port)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def kubeconfig(self, original: Path) -> Path:
        """Write a kubeconfig that goes through the relay."""
        content = yaml.safe_load(original.read_text())
        content["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{self.port}"
        path = original.with_name(f"relay-{self.port}.kubeconfig")
        path.write_text(json.dumps(content))
        return path

    def hold(self) -> None:
        """Pass nothing on; new connections are accepted and get no further."""
        self.hold_requests()
        self.hold_answers()

    def hold_requests(self) -> None:
        """Pass nothing on to the server, as a network that is broken one way; what is sent meanwhile arrives late."""
        self._requests_flow.clear()

    def hold_answers(self) -> None:
        """Pass nothing on from the server."""
        self._answers_flow.clear()

    def go_on(self) -> None:
        """Pass on what was held."""
        self._requests_flow.set()
        self._answers_flow.set()

    def swallow_answers(self) -> None:
        """Let requests through and drop what comes back."""
        self._swallowing = True

    def answer_again(self) -> None:
        """Let answers through on connections that are made from now on; the others stay silent."""
        self._swallowing = False

    def cut(self) -> None:
        """Break all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def connected(self) -> None:
        """Wait until a connection was made."""
        async with asyncio.timeout(30):
            await self._connected.wait()

    async def swallowed(self) -> None:
        """Wait until an answer was dropped."""
        async with asyncio.timeout(30):
            await self._swallowed.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self._connected.set()
        try:
            with contextlib.suppress(OSError):  # a link that breaks is what this is for
                upstream_reader, upstream = await asyncio.open_connection(self._host, self._port)
                self._writers.add(upstream)
                try:
                    await self._pass_on_both_ways(reader, writer, upstream_reader, upstream)
                finally:
                    self._writers.discard(upstream)
                    upstream.transport.abort()
        except asyncio.CancelledError:
            pass  # the relay ends; asyncio's server would report a cancelled handler as an error
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pass_on_both_ways(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream_reader: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
    ) -> None:
        ways = [
            asyncio.create_task(self._pass_on(reader, upstream, answers=False)),
            asyncio.create_task(self._pass_on(upstream_reader, writer, answers=True)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool) -> None:
        silent = False
        flow = self._answers_flow if answers else self._requests_flow
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                await flow.wait()
                silent |= answers and self._swallowing
                if silent:
                    self._swallowed.set()
                    continue
                sink.write(data)
                await sink.drain()
