"""The operator's settings, from environment or file: validated once at start, every key with unit, default and reason.

Fails with `SettingsError` before anything is started, with one line for each wrong key.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from distriqueue.api.limits import DEFAULT_TTL_SECONDS, PAYLOAD_LIMIT_BYTES, TTL_LIMIT_SECONDS
from distriqueue.broker.links import HEARTBEAT_SECONDS
from distriqueue_protocol.settings import ProgramSettings, split_list


class OperatorSettings(ProgramSettings):
    """What an operator can be told."""

    broker_heartbeat_seconds: ClassVar[int] = HEARTBEAT_SECONDS

    amqp_url: SecretStr | None = SecretStr("amqp://guest:guest@127.0.0.1:5672/")
    """Where RabbitMQ is: amqp:// or amqps://, with user and password. Never logged."""

    amqp_url_file: Path | None = None
    """A file with that URL, for a mounted Secret; it wins over the variable."""

    kubeconfig: Path | None = None
    """A kubeconfig; without it the pod's service account is used, or kubectl's own rules outside of a pod."""

    namespaces: Annotated[tuple[str, ...], NoDecode] = ()
    """Namespaces whose jobs are run, separated by commas. Empty: all."""

    pod_namespace: str = "default"
    """Where the Lease and the DistributedWorkers are: the operator's own namespace."""

    pod_name: str | None = None
    """The name by which this replica is known; the host's name by default."""

    lease_name: str = "distriqueue-shard-0"
    """The Lease that is led by."""

    lease_duration_seconds: Annotated[int, Field(ge=2, le=300)] = 6
    """After so long without a renewal another replica takes over."""

    lease_renew_deadline_seconds: Annotated[float, Field(gt=0, le=300)] = 4.0
    """A leader that could not renew for so long stops leading. Below the duration."""

    lease_retry_seconds: Annotated[float, Field(gt=0, le=60)] = 1.0
    """Pause between renewals."""

    payload_limit_bytes: Annotated[int, Field(ge=1, le=1024 * 1024)] = PAYLOAD_LIMIT_BYTES
    """Largest payload that is run. Larger ones are refused with the reason PayloadTooLarge."""

    default_ttl_seconds: Annotated[int, Field(ge=0, le=TTL_LIMIT_SECONDS)] = DEFAULT_TTL_SECONDS
    """Seconds after its end when a job is deleted that names no ttlSecondsAfterFinished. 7 days by default."""

    keep_finished: bool = False
    """Keep finished jobs that name no ttlSecondsAfterFinished for ever."""

    reopened_per_second: Annotated[float, Field(gt=0, le=10_000)] = 50.0
    """Finished jobs that a retry by hand (spec.retryGeneration) puts back into the queue in a second; others wait."""

    write_concurrency: Annotated[int, Field(ge=1, le=256)] = 32
    """Status writes under way at a time; what an API server takes before it only gets slower."""

    @field_validator("namespaces", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return split_list(value)

    @model_validator(mode="after")
    def _lease_times(self) -> Self:
        retry, renew, lease = (
            self.lease_retry_seconds,
            self.lease_renew_deadline_seconds,
            self.lease_duration_seconds,
        )
        if not retry < renew < lease:
            raise ValueError(
                f"LEASE_RETRY_SECONDS ({retry:g}) must be below LEASE_RENEW_DEADLINE_SECONDS ({renew:g}), and that "
                f"below LEASE_DURATION_SECONDS ({lease})"
            )
        return self
