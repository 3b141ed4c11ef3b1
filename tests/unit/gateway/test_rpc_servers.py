"""The gRPC server on loopback, without what is behind it: readers of streams that take nothing."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import grpc
from prometheus_client import CollectorRegistry

from distriqueue.gateway.identities import Access, Identity
from distriqueue.gateway.rest.limiting import RateLimiter
from distriqueue.gateway.rpc.answers import JobAnswers
from distriqueue.gateway.rpc.methods import call
from distriqueue.gateway.rpc.servers import RpcServer
from distriqueue.gateway.rpc.stubs import jobs_pb2
from distriqueue.gateway.settings import GatewaySettings
from distriqueue.telemetry.gateways import GatewayMetrics
from tests.support.waiting import until


class Endless(JobAnswers):
    """A stream of large changes without an end."""

    def __init__(self) -> None:
        super().__init__(cast("Any", None))
        self.closed = asyncio.Event()

    async def watch(self, caller: Identity, request: Any) -> AsyncGenerator[jobs_pb2.WatchResponse]:
        assert caller is not request
        try:
            while True:
                yield jobs_pb2.WatchResponse(position="x" * 100_000)
        finally:
            self.closed.set()


async def test_a_reader_that_takes_nothing_is_cut() -> None:
    settings = GatewaySettings.model_validate({"auth": "none", "stream_stall_seconds": 0.2})
    access = Access.create(cast("Any", None), settings)
    registry = CollectorRegistry()
    server = RpcServer(
        cast("Any", None),
        access,
        settings=settings,
        metrics=GatewayMetrics(registry),
        limiter=RateLimiter(rate=0, burst=1),
        ready=lambda: True,
    )
    endless = Endless()
    server._answers = endless
    await server.start(host="127.0.0.1", port=0)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stream: Any = call(channel, "Watch")(jobs_pb2.WatchRequest(), timeout=60)
            assert (await stream.read()).position
            async with asyncio.timeout(8):
                await endless.closed.wait()
            ended = "distriqueue_gateway_streams_ended_total"
            await until(lambda: registry.get_sample_value(ended, {"reason": "Stalled"}) == 1)
            assert registry.get_sample_value("distriqueue_gateway_streams") == 0
            code = None
            async with asyncio.timeout(8):
                try:
                    while await stream.read() is not grpc.aio.EOF:
                        pass
                except grpc.aio.AioRpcError as error:
                    code = error.code()
            assert code is grpc.StatusCode.UNAVAILABLE
    finally:
        access.close()
        await server.stop(grace=0.1)
