"""The configuration of a worker, from the environment or a file.

Guarantees: every value is checked before anything starts, and what is wrong is said in one sentence per key. The
broker's URL may hold a password: it is a secret here and is never printed. Fails with `SettingsError`.
"""

import os
import socket
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from distriqueue_protocol.names import DEFAULT_POOL
from distriqueue_protocol.settings import PREFIX, ProgramSettings, split_list


class Settings(ProgramSettings):
    """What a worker can be told."""

    amqp_url: SecretStr | None = None
    """Where the broker is, `amqp://user:password@host:5672/vhost`; `amqps://` with TLS."""
    amqp_url_file: Path | None = None
    """A file that holds the broker's URL, read at the start: for mounted Secrets. Not both."""
    worker_pool: str = Field(
        default=DEFAULT_POOL, min_length=1, max_length=40, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
    )
    """Whose tickets the worker takes."""
    worker_concurrency: int = Field(default=4, ge=1, le=10_000)
    """How many handlers run at once."""
    worker_name: str = Field(default="", max_length=253)
    """Its name in `kubectl get dworkers`; by default the pod's, or host name and process id."""
    worker_tasks: Annotated[tuple[str, ...], NoDecode] = ()
    """Modules with tasks to import, separated by commas, beside those that installed packages announce."""
    worker_default_task: bool = True
    """Whether the built-in `*` takes the types that nobody else does."""
    worker_shutdown_grace_seconds: float = Field(default=25.0, ge=0, le=86_400)
    """How long handlers may go on after SIGTERM; less than the pod's terminationGracePeriodSeconds."""
    worker_stop_grace_seconds: float = Field(default=5.0, ge=0, le=3600)
    """How long a handler that is asked to stop (cancelled, timed out) may take before it is killed; and how long, but
    at least 2 s, one that survives even that is waited for before the worker shuts down to be rid of it."""
    worker_secrets_directory: Path = Path("/etc/distriqueue/secrets")
    """Where Secrets are mounted that jobs may name as their payload (spec.payloadFrom), each at
    `<namespace of the job>/<name>/<key>`."""
    smtp_url: SecretStr | None = None
    """Where `email` sends to, `smtp://user:password@host:587` (smtps:// for TLS from the start); simulated without."""
    pod_name: str = Field(default="", max_length=253)
    """The pod that the worker runs in; the chart sets it."""
    pod_namespace: str = Field(default="", max_length=63)
    """Where that pod is; the chart sets it."""
    pod_uid: str = Field(default="", max_length=64)
    """Of that pod; the chart sets it. By it the leader knows at once that the worker's containers have ended."""

    @field_validator("worker_tasks", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return split_list(value)

    @model_validator(mode="before")
    @classmethod
    def _one_url(cls, values: dict[str, object]) -> dict[str, object]:
        if (values.get("amqp_url") is None) == (values.get("amqp_url_file") is None):
            raise ValueError(f"set either {PREFIX}AMQP_URL or {PREFIX}AMQP_URL_FILE")
        return values

    @property
    def name(self) -> str:
        """The worker's name."""
        return self.worker_name or self.pod_name or f"{socket.gethostname()}-{os.getpid()}"
