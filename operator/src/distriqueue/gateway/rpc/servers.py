"""The gRPC server of one gateway replica, in the gateway's own event loop.

Guarantees: what it answers comes from the same service layer as REST, for the caller whose token the call shows. Health
says SERVING exactly while the caches are synced. A stop refuses new calls, ends streams at once (their readers go on
from their position at another replica) and lets other calls end within the grace. An error that nobody expected is
logged, and says nothing of the inside. Fails with `OSError` at `start` when the port is taken.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import grpc
import structlog
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from distriqueue.gateway.identities import Access, Identity
from distriqueue.gateway.problems import Internal, Problem, TooManyRequests, TooSlow, Unavailable
from distriqueue.gateway.rest.callers import token_of
from distriqueue.gateway.rest.limiting import RateLimiter
from distriqueue.gateway.rpc.answers import JobAnswers
from distriqueue.gateway.rpc.methods import SERVICE_NAME, Context, Streaming, Unary, handlers, snake_case
from distriqueue.gateway.rpc.refusals import code_of, sentence_of, trailers_of
from distriqueue.gateway.services import JobService
from distriqueue.telemetry.gateways import GatewayMetrics

_LOG: Final = structlog.get_logger(__name__)

GRACE_SECONDS: Final = 5.0
HEALTH_SECONDS: Final = 0.5
"""How often readiness is looked at, for those who watch the health service."""
ANSWER_LIMIT_BYTES: Final = 128 * 1024 * 1024
"""Largest answer: what 1000 submissions became, with the largest payloads. Clients have a limit of their own."""
_CONCURRENT_STREAMS: Final = 1000
"""Calls at a time on one connection."""


class RpcSettings(Protocol):
    """What is read of the gateway's settings."""

    @property
    def request_limit_bytes(self) -> int:
        """Largest request."""

    @property
    def stream_keep_alive_seconds(self) -> float:
        """After so long without anything a connection is asked whether it is still there."""

    @property
    def stream_stall_seconds(self) -> float:
        """After so long without taking anything a reader is cut."""

    @property
    def streams(self) -> int:
        """Most streams of changes at a time."""

    @property
    def access_log(self) -> bool:
        """Whether a line is logged for each call."""


class _StalledError(TooSlow):
    """A reader takes nothing."""


@dataclass(slots=True)
class _Record:
    """What is told of a call."""

    caller: str = ""
    code: str = grpc.StatusCode.OK.name


class RpcServer:
    """Serves JobService, health and reflection."""

    def __init__(
        self,
        jobs: JobService,
        access: Access,
        *,
        settings: RpcSettings,
        metrics: GatewayMetrics,
        limiter: RateLimiter,
        ready: Callable[[], bool],
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        """Prepare the server; nothing listens yet.

        Args:
            jobs: What answers.
            access: Tells who calls.
            settings: Limits.
            metrics: What is counted; streams are counted together with those of REST.
            limiter: How often a caller may ask; the one of REST, so that both doors count together.
            ready: Whether the caches are synced; asked twice a second for the health service.
            credentials: For TLS; None for none.
        """
        self._answers = JobAnswers(jobs)
        self._access = access
        self._settings = settings
        self._metrics = metrics
        self._limiter = limiter
        self._ready = ready
        self._credentials = credentials
        self._health = health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None
        self._watching: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._streams: set[asyncio.Task[Any]] = set()
        self.port = 0

    async def start(self, *, host: str, port: int) -> None:
        """Listen.

        Args:
            host: The address to bind.
            port: The port; 0 for any, found in `port` afterwards.

        Raises:
            OSError: The port is taken.
        """
        server = grpc.aio.server(options=self._options())
        server.add_generic_rpc_handlers((handlers(unary=self._unary, streaming=self._streaming),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if self._credentials is None:
                self.port = server.add_insecure_port(address)
            else:
                self.port = server.add_secure_port(address, self._credentials)
        except RuntimeError as error:
            raise OSError(f"gRPC cannot listen at {address}: {error}") from error
        await self._tell(ready=self._ready())
        await server.start()
        self._server = server
        self._watching = asyncio.create_task(self._watch_readiness(), name="readiness of gRPC")

    async def stop(self, *, grace: float = GRACE_SECONDS) -> None:
        """Stop: no new calls; streams end, and other calls have `grace` seconds."""
        self._closing.set()
        for stream in self._streams:
            stream.cancel()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._server is not None:
            await self._health.enter_graceful_shutdown()
            await self._server.stop(grace)

    def _options(self) -> list[tuple[str, Any]]:
        keep_alive = round(1000 * self._settings.stream_keep_alive_seconds)
        return [
            ("grpc.so_reuseport", 0),  # a port that is taken is an error, not half of the calls
            ("grpc.max_receive_message_length", self._settings.request_limit_bytes),
            ("grpc.max_send_message_length", ANSWER_LIMIT_BYTES),
            ("grpc.max_concurrent_streams", _CONCURRENT_STREAMS),
            ("grpc.keepalive_time_ms", keep_alive),
            ("grpc.keepalive_timeout_ms", keep_alive),
            # Clients may ask as often as every 10 s whether we are there, also while nothing goes on.
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ]

    async def _watch_readiness(self) -> None:
        while True:
            await self._tell(ready=self._ready())
            await asyncio.sleep(HEALTH_SECONDS)

    async def _tell(self, *, ready: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", SERVICE_NAME):
            await self._health.set(name, status)

    async def _identify(self, context: Context, record: "_Record") -> Identity:
        metadata = dict(context.invocation_metadata() or ())
        shown = metadata.get("authorization")
        caller = await self._access.identify(token_of(None if shown is None else str(shown)))
        record.caller = caller.name
        wait = self._limiter.take(caller.name, mono=time.monotonic())
        if wait:
            self._metrics.limited.inc()
            raise TooManyRequests(
                "you ask more often than this gateway lets one caller ask: wait, and send many jobs by SubmitMany",
                retry_after=wait,
            )
        return caller

    def _unary(self, name: str) -> Unary:
        answer: Callable[[Identity, Any], Awaitable[Message]] = getattr(self._answers, snake_case(name))

        async def handle(request: Any, context: Context) -> Message:
            with self._recorded(name) as record:
                try:
                    return await answer(await self._identify(context, record), request)
                except Problem as problem:
                    refusal = problem
                except Exception:  # noqa: BLE001 - whatever it is, the caller gets an answer and the log the cause
                    refusal = _unexpected(name)
                record.code = code_of(refusal).name
                return await _refuse(context, refusal)

        return handle

    def _streaming(self, name: str) -> Streaming:
        answer: Callable[[Identity, Any], AsyncGenerator[Message]] = getattr(self._answers, snake_case(name))

        async def handle(request: Any, context: Context) -> None:
            refusal: Problem | None = None
            with self._recorded(name, stream=True) as record:
                try:
                    caller = await self._identify(context, record)
                    with self._one_more_stream():
                        async with contextlib.aclosing(answer(caller, request)) as messages:
                            async for message in messages:
                                await self._write(context, message)
                                self._metrics.events_sent.inc()
                except Problem as problem:
                    refusal = problem
                except asyncio.CancelledError:
                    if not self._closing.is_set():
                        raise  # the caller has gone
                    refusal = Unavailable("this replica of the gateway ends: go on from your position", retry_after=0.1)
                except Exception:  # noqa: BLE001 - as above
                    refusal = _unexpected(name)
                if refusal is not None:
                    record.code = code_of(refusal).name
                    await _refuse(context, refusal)

        return handle

    async def _write(self, context: Context, message: Message) -> None:
        """Hand a message to a reader; one that takes nothing for too long is cut, and told so if it ever reads on."""
        try:
            async with asyncio.timeout(self._settings.stream_stall_seconds):
                await context.write(message)
        except TimeoutError as error:
            raise _StalledError("nothing was read for too long: resume from your position") from error

    @contextlib.contextmanager
    def _recorded(self, name: str, *, stream: bool = False) -> Iterator["_Record"]:
        """Count and log a call, however it ends."""
        record = _Record()
        begun = time.monotonic()
        try:
            yield record
        except (asyncio.CancelledError, GeneratorExit):
            record.code = grpc.StatusCode.CANCELLED.name
            raise
        finally:
            seconds = time.monotonic() - begun
            if not stream:
                self._metrics.call_ended(call=name, code=record.code, seconds=seconds)
            if self._settings.access_log:
                _LOG.info("call", caller=record.caller, call=name, code=record.code, seconds=round(seconds, 4))

    @contextlib.contextmanager
    def _one_more_stream(self) -> Iterator[None]:
        task = asyncio.current_task()
        if task is None or self._closing.is_set() or self._metrics.open_streams >= self._settings.streams:
            raise Unavailable("this replica has as many streams open as it may: try again", retry_after=5.0)
        self._streams.add(task)
        self._metrics.stream_began()
        reason = "Error"
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            reason = "Stopping" if self._closing.is_set() else "Client"
            raise
        except TooSlow as slow:
            reason = "Stalled" if isinstance(slow, _StalledError) else "Slow"
            raise
        finally:
            self._streams.discard(task)
            self._metrics.stream_ended(reason)


def _unexpected(name: str) -> Problem:
    _LOG.exception("a call failed", call=name)
    return Internal("something went wrong in the gateway; its log says what")


async def _refuse(context: Context, problem: Problem) -> Message:
    await context.abort(code_of(problem), sentence_of(problem), trailers_of(problem))
