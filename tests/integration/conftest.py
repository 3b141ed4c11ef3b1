"""What the integration tests share: one API server, one RabbitMQ, and stages on the two.

Modules that test the API server or the broker themselves have their own, under the same names.
"""

from collections.abc import AsyncIterator, Iterator

import pytest

from distriqueue.kube.client import KubeClient
from localcluster.control_plane import ControlPlane
from localcluster.rabbitmq import Broker
from localcluster.resources import install_definitions
from tests.support.jobs import Jobs
from tests.support.planes import shared_plane
from tests.support.stages import Stage, Stages


@pytest.fixture(name="plane", scope="session")
def plane_fixture() -> ControlPlane:
    """The API server of all tests, with the project's definitions and a namespace controller."""
    plane = shared_plane()
    install_definitions(plane.kubeconfig)
    return plane


@pytest.fixture(name="shared_broker", scope="session")
def broker_fixture() -> Iterator[Broker]:
    """The RabbitMQ of all tests; each stage has a virtual host of its own."""
    with Broker() as broker:
        yield broker


@pytest.fixture(name="stages", scope="session")
def stages_fixture(plane: ControlPlane, shared_broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Stages:
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
