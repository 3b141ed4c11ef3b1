"""AMQP by TLS, with the lines of the chart: who is trusted, who is not, and certificates that change."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from distriqueue.broker.errors import BrokerUnreachableError
from distriqueue.broker.links import LeaderLink
from distriqueue.operator.settings import OperatorSettings
from localcluster.certificates import Authority
from localcluster.ports import free_port
from localcluster.rabbitmq import Broker
from tests.integration.chart_rendering import template
from tests.support.jobs import Jobs
from tests.support.stages import Stages

pytestmark = pytest.mark.integration

MUTUAL = "ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n"
"""What a broker that wants to see certificates of its clients has in place of the chart's lines."""


def chart_lines(port: int) -> list[str]:
    """The chart's lines about TLS, for a broker that sees its certificate in another place."""
    rendered = template({"rabbitmq": {"tls": {"existingSecret": "broker-tls"}}})
    configuration = rendered.one("ConfigMap", "rabbitmq")["data"]["10-distriqueue.conf"]
    lines = [line for line in configuration.splitlines() if line.startswith("ssl_options")]
    assert len(lines) > 5
    here = [line.replace("/etc/distriqueue/tls", "/instance/tls") for line in lines]
    return [f"listeners.ssl.1 = 127.0.0.1:{port}", *here]


class TlsBroker:
    """A broker with TLS beside its plain port, and certificates that can be exchanged.

    Attributes:
        broker: The process.
        port: With TLS.
        ca_file: The authority that clients are told to trust: that of the broker's certificate.
    """

    def __init__(self, directory: Path, *, more: str = "") -> None:
        self.port = free_port()
        lines = [line for line in chart_lines(self.port) if line.partition(" =")[0] not in more]
        self._directory = directory
        self._tls = directory / "rabbitmq" / "tls"
        self._tls.mkdir(parents=True)
        self.ca_file = directory / "trusted.crt"
        self.authority = self.certify("first")
        self.broker = Broker(directory / "rabbitmq", configuration="\n".join(lines) + f"\n{more}")

    def certify(self, name: str) -> Authority:
        """Make an authority and a certificate of it, for the broker to show and its clients to trust."""
        authority = Authority(self._directory / name)
        certificate, key = authority.server("broker", hosts=["127.0.0.1", "localhost"])
        for source, target in ((certificate, "tls.crt"), (key, "tls.key"), (authority.certificate, "ca.crt")):
            shutil.copyfile(source, self._tls / target)
        shutil.copyfile(authority.certificate, self.ca_file)
        return authority

    def url(self, host: str = "127.0.0.1") -> str:
        return f"amqps://guest:guest@{host}:{self.port}/"

    def settings(self, **more: object) -> OperatorSettings:
        """What an operator is told, in the words of its settings."""
        return OperatorSettings.model_validate({"amqp_url": self.url(), "amqp_ca_file": self.ca_file, **more})


@pytest.fixture(name="tls", scope="module")
def tls_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsBroker]:
    made = TlsBroker(tmp_path_factory.mktemp("tls"))
    with made.broker:
        yield made


async def connect(settings: OperatorSettings) -> None:
    """Connect as a leader does, and leave."""
    link = await LeaderLink.connect(settings.broker_url(), name="tls test")
    await link.close()


async def test_operator_and_worker_run_jobs_by_tls_alone(tls: TlsBroker, stages: Stages) -> None:
    with stages.open(AMQP_URL=tls.url(), AMQP_CA_FILE=str(tls.ca_file)) as stage:
        await asyncio.to_thread(stage.start, operators=1, workers=1)
        async with await stage.client() as client:
            jobs = Jobs(client, stage.namespace)
            await jobs.create("by-tls", type="calculate", payload={"operation": "add", "operands": [2, 3]})
            done = await jobs.ended("by-tls")
        assert done["status"]["phase"] == "Succeeded"
        listeners = await asyncio.to_thread(tls.broker.ctl, "list_connections", "ssl", "--no-table-headers", "--silent")
        # Two of the operator, one of the worker.
        assert listeners.split() == ["true"] * 3


async def test_a_broker_of_another_authority_is_refused(tls: TlsBroker, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "stranger")
    with pytest.raises(BrokerUnreachableError, match="CERTIFICATE_VERIFY_FAILED"):
        await connect(tls.settings(amqp_ca_file=stranger.certificate))
    with pytest.raises(BrokerUnreachableError, match="CERTIFICATE_VERIFY_FAILED"):
        await connect(tls.settings(amqp_ca_file=None))


async def test_a_certificate_for_another_name_is_refused(tls: TlsBroker) -> None:
    await connect(tls.settings(amqp_url=tls.url("localhost")))
    with pytest.raises(BrokerUnreachableError, match="IP address mismatch"):
        await connect(tls.settings(amqp_url=tls.url("[::ffff:127.0.0.1]")))


async def test_without_tls_a_tls_port_says_nothing(tls: TlsBroker) -> None:
    with pytest.raises(BrokerUnreachableError):
        await connect(OperatorSettings.model_validate({"amqp_url": tls.url().replace("amqps", "amqp")}))


async def test_a_renewed_authority_counts_with_the_next_connection(tls: TlsBroker) -> None:
    settings = tls.settings()
    await connect(settings)
    before = tls.authority.certificate.read_bytes()
    tls.certify("second")
    # The broker looks at its files again by itself every two minutes.
    await asyncio.to_thread(tls.broker.ctl, "eval", "ssl:clear_pem_cache().")
    await connect(settings)
    tls.ca_file.write_bytes(before)
    with pytest.raises(BrokerUnreachableError, match="CERTIFICATE_VERIFY_FAILED"):
        await connect(settings)
    tls.certify("first")
    await asyncio.to_thread(tls.broker.ctl, "eval", "ssl:clear_pem_cache().")


async def test_a_broker_may_want_to_see_a_certificate(tmp_path: Path) -> None:
    made = TlsBroker(tmp_path, more=MUTUAL)
    certificate, key = made.authority.client("operator", user="operator")
    await asyncio.to_thread(made.broker.start)
    try:
        await connect(made.settings(amqp_cert_file=certificate, amqp_key_file=key))
        with pytest.raises(BrokerUnreachableError):
            await connect(made.settings())
    finally:
        await asyncio.to_thread(made.broker.close)
