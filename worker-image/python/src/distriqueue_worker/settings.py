"""The configuration of a worker, all of it from the environment.

Guarantees: every value is checked before anything starts, and what is wrong is said in one sentence per variable. The
broker's URL may hold a password: it is a secret here and is never printed. Fails with `SettingsError`.
"""

import os
import re
import socket
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from distriqueue_protocol.names import DEFAULT_POOL

PREFIX = "DISTRIQUEUE_"
BROKER_HEARTBEAT_SECONDS = 5
"""Put into the URL when it names none: the client's wish wins over the broker's configuration, and would be 60."""


class SettingsError(Exception):
    """The environment is wrong; the message has one line per variable."""


class Settings(BaseSettings):
    """What a worker can be told; each field is the environment variable `DISTRIQUEUE_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True)

    amqp_url: SecretStr | None = None
    """Where the broker is, `amqp://user:password@host:5672/vhost`."""
    amqp_url_file: Path | None = None
    """A file that holds the broker's URL, read at the start: for mounted Secrets. Not both."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe level that is logged."""
    log_format: Literal["json", "text"] = "json"
    """JSON lines, or text for a terminal."""
    http_host: str = "0.0.0.0"  # noqa: S104 - the kubelet and Prometheus come from outside of the pod
    """Where /metrics, /healthz and /readyz are served."""
    http_port: int = Field(default=8080, ge=0, le=65535)
    """0 takes any free port and logs it."""
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
        return tuple(filter(None, re.split(r"[\s,]+", value))) if isinstance(value, str) else value

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_url(self) -> Self:
        if (self.amqp_url is None) == (self.amqp_url_file is None):
            raise ValueError(f"set either {PREFIX}AMQP_URL or {PREFIX}AMQP_URL_FILE")
        _checked_url(self.broker_url)
        return self

    @property
    def broker_url(self) -> str:
        """The broker's URL with a heartbeat in it. It may hold a password.

        Raises:
            ValueError: The file cannot be read, or it is no AMQP URL.
        """
        if self.amqp_url is not None:
            url = self.amqp_url.get_secret_value()
        else:
            assert self.amqp_url_file is not None  # noqa: S101 - the validator above leaves no third case
            try:
                url = self.amqp_url_file.read_text()
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"{PREFIX}AMQP_URL_FILE cannot be read: {error}") from None
        return _checked_url(url.strip())

    @property
    def name(self) -> str:
        """The worker's name."""
        return self.worker_name or self.pod_name or f"{socket.gethostname()}-{os.getpid()}"


def load() -> Settings:
    """Read the environment.

    Raises:
        SettingsError: Something is missing or wrong.
    """
    try:
        return Settings()
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False, include_input=False, include_context=False):
            field = "_".join(str(part) for part in problem["loc"][:1]).upper()
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{PREFIX}{field}: {message}" if field else message)
        raise SettingsError("\n".join(lines)) from None


def _checked_url(url: str) -> str:
    message = f"{PREFIX}AMQP_URL is no broker URL: it must look like amqp://user:password@host:5672/vhost"
    try:
        parts = urlsplit(url)
        fine = parts.scheme in {"amqp", "amqps"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ValueError(message) from None
    if not fine:
        raise ValueError(message)
    if re.search(r"(^|&)heartbeat=", parts.query):
        return url
    query = f"{parts.query}&" if parts.query else ""
    return parts._replace(query=f"{query}heartbeat={BROKER_HEARTBEAT_SECONDS}").geturl()
