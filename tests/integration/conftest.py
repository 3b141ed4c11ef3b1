"""What the integration tests share: one API server, one RabbitMQ, and stages on the two.

Modules that test the API server or the broker themselves have their own, under the same names.
"""

from collections.abc import AsyncIterator, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from distriqueue.kube.client import KubeClient
from localcluster.control_plane import ControlPlane
from localcluster.rabbitmq import Broker
from localcluster.resources import install_definitions
from tests.support.jobs import Jobs
from tests.support.planes import shared_plane
from tests.support.stages import Stage, Stages


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failure what the programs of its stage had to say."""
    del call
    report = yield
    stage = getattr(item, "funcargs", {}).get("stage")
    if report.failed and isinstance(stage, Stage):
        report.sections.append(("the programs' last words", stage.last_words()))
    return report


@pytest.fixture(name="plane", scope="session")
def plane_fixture() -> ControlPlane:
    """The API server of all tests, with the project's definitions and a namespace controller."""
    plane = shared_plane()
    install_definitions(plane.kubeconfig)
    return plane


@pytest.fixture(name="shared_broker", scope="session")
def broker_fixture() -> Iterator[Broker]:
    """The RabbitMQ of all tests; each stage has a virtual host of its own."""
    with ThreadPoolExecutor() as pool:
        plane = pool.submit(shared_plane)  # whoever needs the one needs the other: they start side by side
        with Broker() as broker:
            plane.result()
            yield broker


@pytest.fixture(name="stages", scope="session")
def stages_fixture(shared_broker: Broker, plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """Opens stages."""
    return Stages(plane, shared_broker, tmp_path_factory.mktemp("stages"))


@pytest.fixture(name="kube")
async def kube_fixture(plane: ControlPlane) -> AsyncIterator[KubeClient]:
    """A client of an administrator."""
    async with await KubeClient.connect(plane.kubeconfig, user_agent="distriqueue-tests") as client:
        yield client


@pytest.fixture(name="jobs")
def jobs_fixture(kube: KubeClient, stage: Stage) -> Jobs:
    """The jobs of the module's stage."""
    return Jobs(kube, stage.namespace)
