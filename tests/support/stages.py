"""A stage: a namespace, a virtual host of the broker, and the processes that a test starts between the two.

All stages share one API server and one RabbitMQ. Guarantees: an operator of one stage sees no job, Lease, worker or
message of another one. Everything that was started ends with the stage.
"""

import contextlib
import itertools
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from distriqueue.kube.client import KubeClient
from localcluster.control_plane import ControlPlane
from localcluster.programs import Program, Programs
from localcluster.rabbitmq import Broker
from localcluster.resources import kubectl, make_namespace
from localcluster.waiting import tail
from tests.support.recording_tasks import RECORDS_VARIABLE
from tests.support.records import Records

VIRTUAL_HOSTS_AT_A_TIME = 8
LAST_WORDS = 4000
"""Characters of each log that are shown with a failure."""
TASKS = "tests.support.recording_tasks"

CALM = {"LEASE_DURATION_SECONDS": "40", "LEASE_RENEW_DEADLINE_SECONDS": "30"}
"""For stages whose tests are not about leaders: a busy machine should not bring them a new one."""

_MAKE_VIRTUAL_HOSTS = """
lists:foreach(fun(Number) ->
  Name = list_to_binary("stage-" ++ integer_to_list(Number)),
  ok = rabbit_vhost:add(Name, <<"tests">>),
  ok = rabbit_auth_backend_internal:set_permissions(
    <<"guest">>, Name, <<".*">>, <<".*">>, <<".*">>, <<"tests">>)
end, lists:seq({first}, {last})).
"""


def sample(program: Program, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels; 0 when there is none."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(program.get("/metrics"))
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


class Stage:
    """See the module; made by `Stages.open`.

    Attributes:
        namespace: Of the jobs, the Lease and the workers.
        programs: Starts further operators and workers.
        records: What handlers did.
        operators: Those started by `start`.
        workers: Likewise, by name.
        amqp_url: The virtual host of this stage.
    """

    def __init__(
        self, plane: ControlPlane, broker: Broker, programs: Programs, records: Records, namespace: str
    ) -> None:
        self.plane = plane
        self.broker = broker
        self.programs = programs
        self.records = records
        self.namespace = namespace
        self.operators: list[Program] = []
        self.workers: dict[str, Program] = {}

    @property
    def amqp_url(self) -> str:
        """The URL of this stage's virtual host."""
        return f"{self.broker.url}{self.namespace}"

    def start(self, *, operators: int = 2, workers: int = 1, concurrency: int = 4) -> None:
        """Start operators and workers side by side, and return when all are ready."""
        with ThreadPoolExecutor() as pool:
            leading = [pool.submit(self.operator, f"operator-{number}") for number in range(operators)]
            working = [
                pool.submit(self.worker, f"worker-{number}", concurrency=concurrency) for number in range(workers)
            ]
            self.operators.extend(future.result() for future in leading)
            for future in working:
                future.result()

    def operator(self, name: str, **environment: str) -> Program:
        """Start an operator."""
        return self.programs.operator(name, **environment)

    def worker(self, name: str, *, concurrency: int = 4, **environment: str) -> Program:
        """Start a worker with the recording tasks."""
        self.workers[name] = self.programs.worker(name, concurrency=concurrency, tasks=TASKS, **environment)
        return self.workers[name]

    def leader(self) -> Program | None:
        """The operator that leads, if one does; frozen and dead ones do not count."""
        for operator in self.operators:
            with contextlib.suppress(OSError):
                if operator.process.alive() and operator.metric("distriqueue_leader") == 1:
                    return operator
        return None

    def last_words(self) -> str:
        """The ends of the logs of everything that was started here."""
        logs = sorted(self.programs.directory.glob("*.log"))
        return "\n".join(f"{log}:\n{tail(log, characters=LAST_WORDS)}" for log in logs)

    async def client(self) -> KubeClient:
        """Connect as an administrator, for a test that has no fixture for it."""
        return await KubeClient.connect(self.plane.kubeconfig, user_agent="distriqueue-tests")

    def kubectl(self, *arguments: str, stdin: str | None = None, **options: Any) -> str:
        """Run kubectl in the namespace."""
        return kubectl(self.plane.kubeconfig, f"--namespace={self.namespace}", *arguments, stdin=stdin, **options)


class Stages:
    """Opens stages on one API server and one broker.

    Args:
        plane: Has the project's definitions.
        broker: Its guest user gets the virtual hosts.
        directory: For logs and records.
    """

    def __init__(self, plane: ControlPlane, broker: Broker, directory: Path) -> None:
        self._plane = plane
        self._broker = broker
        self._directory = directory
        self._numbers = itertools.count(1)
        self._made = 0

    @contextlib.contextmanager
    def open(self, **environment: str) -> Iterator[Stage]:
        """Open a stage.

        Args:
            environment: Further variables for all its processes, without the prefix `DISTRIQUEUE_`.
        """
        number = next(self._numbers)
        name = f"stage-{number}"
        if number > self._made:
            self._made += VIRTUAL_HOSTS_AT_A_TIME
            self._broker.ctl("eval", _MAKE_VIRTUAL_HOSTS.format(first=number, last=self._made))
        make_namespace(self._plane.kubeconfig, name)
        directory = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._directory))
        records = Records.at(directory)
        variables = {
            "NAMESPACES": name,
            "POD_NAMESPACE": name,
            **environment,
        }
        with Programs(
            directory,
            kubeconfig=self._plane.kubeconfig,
            amqp_url=f"{self._broker.url}{name}",
            environment={
                RECORDS_VARIABLE: str(records.path),
                **{f"DISTRIQUEUE_{key}": value for key, value in variables.items()},
            },
        ) as programs:
            yield Stage(self._plane, self._broker, programs, records, name)
