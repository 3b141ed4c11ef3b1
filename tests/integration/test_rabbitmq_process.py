"""The broker that every other test leans on: it serves, it survives, and it leaves nothing behind."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractQueue
from pamqp.common import FieldTable

from localcluster.amqp import serves
from localcluster.rabbitmq import Broker, BrokerError
from tests.support.brokers import write_out

pytestmark = pytest.mark.integration

QUORUM: FieldTable = {"x-queue-type": "quorum"}


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker() as running:
        yield running


@contextlib.asynccontextmanager
async def opened(broker: Broker) -> AsyncIterator[AbstractChannel]:
    async with (
        asyncio.timeout(60),
        await aio_pika.connect(f"{broker.url}?heartbeat=5") as connection,
        connection.channel(on_return_raises=True) as channel,
    ):
        yield channel


async def publish(channel: AbstractChannel, queue: AbstractQueue, body: bytes) -> None:
    message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
    await channel.default_exchange.publish(message, routing_key=queue.name, mandatory=True)


async def take(queue: AbstractQueue) -> bytes:
    async with queue.iterator(timeout=30) as messages:
        message = await anext(messages)
        await message.ack()
        return message.body


def processes(text: str) -> list[int]:
    """The processes with this in their command line or environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if text.encode() in (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def mark(pid: int) -> str:
    """What the environment of all that belongs to one broker has: the port of its own epmd."""
    folder = Path(f"/proc/{pid}")
    entries = ((folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()).decode().split("\0")
    return next(entry for entry in entries if entry.startswith("ERL_EPMD_PORT="))


def command_line(directory: Path) -> list[str]:
    return [sys.executable, "-m", "localcluster.rabbitmq", "--directory", str(directory)]


async def test_publishes_with_confirms_and_consumes_in_order(broker: Broker) -> None:
    async with opened(broker) as channel:
        queue = await channel.declare_queue("order", durable=True, arguments=QUORUM)
        for number in range(20):
            await publish(channel, queue, b"%d" % number)
        assert [await take(queue) for _ in range(20)] == [b"%d" % number for number in range(20)]


async def test_a_confirmed_message_survives_a_kill_and_a_clean_restart(broker: Broker) -> None:
    url = broker.url
    async with opened(broker) as channel:
        queue = await channel.declare_queue("custody", durable=True, arguments=QUORUM)
        await publish(channel, queue, b"first")
        await asyncio.to_thread(write_out, broker)
    killed = broker.pid
    await asyncio.to_thread(broker.kill)
    assert not broker.running
    assert not serves(broker.port)
    await asyncio.to_thread(broker.start)
    assert (broker.url, broker.pid != killed) == (url, True)
    async with opened(broker) as channel:
        queue = await channel.get_queue("custody")
        await publish(channel, queue, b"second")
        assert await take(queue) == b"first"
    await asyncio.to_thread(broker.restart)
    async with opened(broker) as channel:
        assert await take(await channel.get_queue("custody")) == b"second"


async def test_reset_forgets_everything_and_keeps_the_url(broker: Broker) -> None:
    url = broker.url
    async with opened(broker) as channel:
        await channel.declare_queue("forgotten", durable=True, arguments=QUORUM)
    await asyncio.to_thread(broker.reset)
    assert broker.url == url
    async with opened(broker) as channel:
        with pytest.raises(aio_pika.exceptions.ChannelNotFoundEntity):
            await channel.get_queue("forgotten")


def test_commands_answer_and_refusals_are_errors(broker: Broker) -> None:
    assert "guest" in broker.ctl("list_users", "--quiet")
    with pytest.raises(BrokerError, match="nobody"):
        broker.ctl("change_password", "nobody", "secret")
    with pytest.raises(BrokerError, match="runs already"):
        broker.start()


def test_two_run_side_by_side_but_never_on_one_directory(tmp_path: Path, broker: Broker) -> None:
    with Broker(tmp_path) as second:
        assert serves(second.port)
        assert serves(broker.port)
        with pytest.raises(BrokerError, match="another broker runs"):
            Broker(tmp_path).start()
    assert (tmp_path / "data").is_dir(), "a directory that was given is kept"


def test_no_process_and_no_open_port_is_left() -> None:
    with Broker() as broker:
        trace = mark(broker.pid)
        assert len(processes(trace)) >= 3, "the Erlang VM, its helpers and epmd were to be found"
        broker.kill()
        assert processes(trace) == []
        assert not serves(broker.port)
        broker.start()
        os.kill(broker.pid, signal.SIGSTOP)
        assert not serves(broker.port, timeout=0.5), "a frozen one accepts connections and answers nothing"
        assert broker.running
        broker.stop()
        assert processes(trace) == []
    assert not broker.directory.exists()


def test_the_broker_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    with subprocess.Popen(command_line(tmp_path), stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().startswith("amqp://guest:guest@127.0.0.1:")
        trace = mark(processes(f"DIRECTORY={tmp_path}")[0])
        assert len(processes(trace)) >= 3, "the Erlang VM, its helpers and epmd were to be found"
        parent.kill()
    deadline = time.monotonic() + 30
    while left := processes(trace):
        assert time.monotonic() < deadline, f"processes {left} outlived the one that started them"
        time.sleep(0.05)


def test_the_command_line_runs_until_sigterm(tmp_path: Path) -> None:
    with subprocess.Popen(command_line(tmp_path), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().split(":")[-1].strip("/\n"))
        assert serves(port)
        process.terminate()
        assert process.wait(timeout=60) == 0
    assert not serves(port)
