"""The gateway's settings, from environment or file: validated once at start, every key with unit, default and reason.

Fails with `SettingsError` before anything is started, with one line for each wrong key.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from distriqueue_protocol.settings import ProgramSettings, both_or_neither, split_list


class GatewaySettings(ProgramSettings):
    """What a gateway can be told."""

    amqp_url: SecretStr | None = SecretStr("amqp://guest:guest@127.0.0.1:5672/")
    """Where RabbitMQ is, for the sake of HTTP workers: amqp:// or amqps://, with user and password. Never logged."""

    amqp_url_file: Path | None = None
    """A file with that URL, for a mounted Secret; it wins over the variable."""

    kubeconfig: Path | None = None
    """A kubeconfig; without it the pod's service account is used, or kubectl's own rules outside of a pod."""

    namespaces: Annotated[tuple[str, ...], NoDecode] = ()
    """Namespaces whose jobs are served, separated by commas: those of the operator. Empty: all."""

    pod_namespace: str = "default"
    """Where the Lease and the DistributedWorkers are: the operator's own namespace."""

    pod_name: str | None = None
    """The name by which this replica is known; the host's name by default."""

    pod_ip: str = "127.0.0.1"
    """The address at which the other replicas reach this one, to hand on the requests of the HTTP workers it keeps."""

    lease_name: str = "distriqueue-shard-0"
    """The Lease that is led by."""

    rest_host: str = "0.0.0.0"  # noqa: S104 - callers come from outside of the pod
    """Address of the REST interface."""

    rest_port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Port of the REST interface; 0 for any."""

    grpc_host: str = "0.0.0.0"  # noqa: S104 - callers come from outside of the pod
    """Address of the gRPC interface."""

    grpc_port: Annotated[int, Field(ge=0, le=65535)] = 9000
    """Port of the gRPC interface; 0 for any."""

    tls_cert_file: Path | None = None
    """The certificate of REST and gRPC, as PEM with its chain. With the key: TLS; with neither: none."""

    tls_key_file: Path | None = None
    """The key of that certificate, as PEM."""

    auth: Literal["kubernetes", "none"] = "kubernetes"
    """`kubernetes`: callers show a bearer token, and may do what the cluster's RBAC lets them do. `none`: everybody may
    do everything, for a demonstration on a machine of one's own."""

    auth_audiences: Annotated[tuple[str, ...], NoDecode] = ()
    """Audiences, separated by commas, one of which a token must be made for. Empty: the API server's own."""

    auth_cache_seconds: Annotated[float, Field(ge=0, le=300)] = 10.0
    """How long a token, and a right that the API server has confirmed, are believed without asking again: a right that
    is taken away lasts so long."""

    auth_cache_entries: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Most tokens, and most rights, that are remembered; the oldest leave first."""

    write_concurrency: Annotated[int, Field(ge=1, le=256)] = 32
    """Writes to the API server under way at a time; others wait for their turn."""

    request_limit_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 8 * 1024 * 1024
    """Largest body of a request. A batch of submissions is one request."""

    requests_per_second: Annotated[float, Field(ge=0, le=1_000_000)] = 2000.0
    """Requests that one identity may make in a second at each replica, in the long run; 0: as many as it likes."""

    request_burst: Annotated[int, Field(ge=1, le=1_000_000)] = 4000
    """Requests that one identity may make at once after a pause."""

    streams: Annotated[int, Field(ge=1, le=100_000)] = 2000
    """Most streams of changes that are open at a time."""

    streams_per_caller: Annotated[int, Field(ge=1, le=100_000)] = 200
    """Most of them that one identity may have open at each replica. With `auth: none` it does not count."""

    stream_queue: Annotated[int, Field(ge=16, le=1_000_000)] = 4096
    """Changes that may wait for a slow reader of a stream; with more it is cut, and resumes where it was."""

    stream_keep_alive_seconds: Annotated[float, Field(gt=0, le=300)] = 15.0
    """After so long without a change a stream sends a comment, so that nobody in between thinks it dead."""

    stream_stall_seconds: Annotated[float, Field(gt=0, le=600)] = 30.0
    """After so long without taking anything a reader of a stream is cut."""

    shutdown_seconds: Annotated[float, Field(ge=0, le=300)] = 10.0
    """How long requests under way may take after SIGTERM. Streams end at once: their readers resume elsewhere."""

    shutdown_delay_seconds: Annotated[float, Field(ge=0, le=60)] = 0.0
    """How long connections are still accepted after SIGTERM, while the Service takes this replica out."""

    access_log: bool = True
    """Log a line for each request."""

    @field_validator("namespaces", "auth_audiences", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return split_list(value)

    @model_validator(mode="after")
    def _certificate_and_key(self) -> Self:
        both_or_neither(self, "tls_cert_file", "tls_key_file")
        return self
