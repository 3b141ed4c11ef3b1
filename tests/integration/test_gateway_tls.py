"""The certificate of a running gateway, renewed under it: REST and gRPC show the new one, and nobody is cut off."""

import asyncio
import shutil
import ssl
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health_pb2

from distriqueue.kube.client import KubeClient
from localcluster.certificates import Authority
from tests.support.gateways import Gateway, bearer, make_caller, start
from tests.support.stages import Stage, Stages
from tests.support.waiting import until

pytestmark = pytest.mark.integration


class Door:
    """A gateway with TLS.

    Attributes:
        authority: Of its first certificate.
        gateway: The process.
    """

    gateway: Gateway

    def __init__(self, stage: Stage, directory: Path) -> None:
        self.stage = stage
        self._directory = directory
        self.authority = self.certify("first")

    def certify(self, name: str) -> Authority:
        """Put a certificate of a new authority there, as the kubelet does when a Secret changes."""
        authority = Authority(self._directory / name)
        certificate, key = authority.server("gateway", hosts=["127.0.0.1", "localhost"])
        for source, target in ((certificate, "tls.crt"), (key, "tls.key")):
            shutil.copyfile(source, self._directory / f"{target}.new")
            (self._directory / f"{target}.new").rename(self._directory / target)
        return authority

    def start(self) -> None:
        files = {"TLS_CERT_FILE": self._directory / "tls.crt", "TLS_KEY_FILE": self._directory / "tls.key"}
        self.gateway = start(self.stage.programs, **{name: str(path) for name, path in files.items()})


@pytest.fixture(name="door", scope="module")
def door_fixture(stages: Stages, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with stages.open() as stage:
        door = Door(stage, tmp_path_factory.mktemp("door"))
        door.start()
        yield door


async def by_rest(door: Door, authority: Authority, *, token: str) -> int:
    """Ask by a new connection that trusts one authority."""
    context = ssl.create_default_context(cafile=str(authority.certificate))
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
        session.get(f"{door.gateway.url}/api/jobs?namespace={door.stage.namespace}", headers=bearer(token)) as answer,
    ):
        return answer.status


async def by_grpc(door: Door, authority: Authority) -> bool:
    """Likewise; whether it says that it serves."""
    credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes())
    async with grpc.aio.secure_channel(door.gateway.target, credentials) as channel:
        return await ask_health(channel)


async def ask_health(channel: grpc.aio.Channel) -> bool:
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    answer = await check(health_pb2.HealthCheckRequest(), timeout=30)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def test_both_doors_show_the_certificate_and_take_nothing_in_the_clear(door: Door, kube: KubeClient) -> None:
    token = await make_caller(kube, door.stage.namespace, "caller")
    assert await by_rest(door, door.authority, token=token) == HTTPStatus.OK
    await until(lambda: by_grpc(door, door.authority))
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"{door.gateway.url.replace('https', 'http')}/api/health")
    async with grpc.aio.insecure_channel(door.gateway.target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as info:
            await ask_health(channel)
        assert info.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_renewed_certificate_is_shown_to_who_connects_then(door: Door, kube: KubeClient) -> None:
    token = await make_caller(kube, door.stage.namespace, "caller")
    credentials = grpc.ssl_channel_credentials(door.authority.certificate.read_bytes())
    async with grpc.aio.secure_channel(door.gateway.target, credentials) as old:
        await until(lambda: ask_health(old))
        second = await asyncio.to_thread(door.certify, "second")
        assert await by_rest(door, second, token=token) == HTTPStatus.OK
        assert await by_grpc(door, second)
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await by_rest(door, door.authority, token=token)
        with pytest.raises(grpc.aio.AioRpcError):
            await by_grpc(door, door.authority)
        # Whoever was connected is still.
        assert await ask_health(old)
    assert "was renewed" in door.gateway.program.log.read_text()


async def test_a_gateway_without_a_certificate_that_can_be_used_does_not_start(door: Door, tmp_path: Path) -> None:
    (tmp_path / "tls.crt").write_text("none")
    (tmp_path / "tls.key").write_text("none")
    files = {"TLS_CERT_FILE": str(tmp_path / "tls.crt"), "TLS_KEY_FILE": str(tmp_path / "tls.key")}
    with pytest.raises(Exception, match=r"cannot be used"):
        await asyncio.to_thread(start, door.stage.programs, "faulty", **files)
