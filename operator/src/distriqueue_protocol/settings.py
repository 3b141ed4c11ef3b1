"""What the settings of all programs have in common: where they come from, how wrong ones are named, and the broker.

Guarantees: a setting is the environment variable `DISTRIQUEUE_<KEY>`, or else the key of that name, in small letters,
in the TOML file that `DISTRIQUEUE_CONFIG_FILE` names; the variable wins. Everything is checked once, at the start, and
each wrong key gets a line of its own that says where it stands. A key of the file that nobody knows is wrong, too: it
is a mistyped one. Variables that nobody knows are left alone, since Kubernetes adds some. No value is ever shown: it
may be a password. Fails with `SettingsError`.
"""

import difflib
import os
import re
import tomllib
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX: Final = "DISTRIQUEUE_"
CONFIG_FILE: Final = f"{PREFIX}CONFIG_FILE"
"""The variable that names the file."""

_LIST: Final = re.compile(r"[\s,]+")


class SettingsError(Exception):
    """The settings are wrong; the message has a line for each key."""


class ProgramSettings(BaseSettings):
    """The settings that every program has. Read them with `load`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True, use_attribute_docstrings=True
    )

    broker_heartbeat_seconds: ClassVar[int] = 5
    """Put into the broker's URL when it names none: the client's wish wins over the broker's configuration."""

    amqp_url: SecretStr | None = None
    """Where the broker is, `amqp://user:password@host:5672/vhost`; `amqps://` with TLS. Never logged."""

    amqp_url_file: Path | None = None
    """A file that holds that URL, for mounted Secrets."""

    amqp_ca_file: Path | None = None
    """With `amqps://`: the authorities, as PEM, that the broker's certificate has to come from; without it those that
    the image trusts. Read with every connection, and so may be renewed."""

    amqp_cert_file: Path | None = None
    """With `amqps://`: a certificate, as PEM, for a broker that wants to see one."""

    amqp_key_file: Path | None = None
    """The key of that certificate, as PEM."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe level that is logged."""

    log_format: Literal["json", "text"] = "json"
    """JSON lines, or text for a terminal."""

    http_host: str = "0.0.0.0"  # noqa: S104 - the kubelet and Prometheus come from outside of the pod
    """Address of /metrics, /healthz and /readyz."""

    http_port: int = Field(default=8080, ge=0, le=65535)
    """Port of /metrics, /healthz and /readyz; 0 for any, which is logged."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic names them
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic names them
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment, and behind it the file."""
        return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=_read(settings_cls))

    @classmethod
    def load(cls) -> Self:
        """Read the settings.

        Raises:
            SettingsError: Something is missing or wrong.
        """
        try:
            return cls()
        except ValidationError as error:
            lines = []
            for problem in error.errors(include_url=False, include_input=False, include_context=False):
                message = problem["msg"].removeprefix("Value error, ")
                key = str(problem["loc"][0]) if problem["loc"] else ""
                lines.append(f"{_place(key)}: {message}" if key else message)
            raise SettingsError("\n".join(lines)) from None

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _broker(self) -> Self:
        both_or_neither(self, "amqp_cert_file", "amqp_key_file")
        self.broker_url()
        return self

    def broker_url(self) -> str:
        """The broker's URL, with a heartbeat and the files of TLS in it. It may hold a password.

        Raises:
            ValueError: It cannot be read, or is no AMQP URL.
        """
        if self.amqp_url_file is not None:
            try:
                url = self.amqp_url_file.read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"{PREFIX}AMQP_URL_FILE cannot be read: {error}") from None
        else:
            url = self.amqp_url.get_secret_value() if self.amqp_url is not None else ""
        files = {"cafile": self.amqp_ca_file, "certfile": self.amqp_cert_file, "keyfile": self.amqp_key_file}
        return _completed(
            url,
            heartbeat=self.broker_heartbeat_seconds,
            files={key: path for key, path in files.items() if path is not None},
        )


def split_list(value: object) -> object:
    """Take a text apart at commas and white space; what is no text is left as it is, such as a list of the file."""
    return tuple(filter(None, _LIST.split(value))) if isinstance(value, str) else value


def both_or_neither(settings: BaseSettings, one: str, other: str) -> None:
    """Hold two keys together, such as a certificate and its key.

    Raises:
        ValueError: One of them is set.
    """
    if (getattr(settings, one) is None) != (getattr(settings, other) is None):
        raise ValueError(f"set {PREFIX}{one.upper()} and {PREFIX}{other.upper()} both, or neither")


def _completed(url: str, *, heartbeat: int, files: dict[str, Path]) -> str:
    """Put into the URL what the client reads from there."""
    message = f"{PREFIX}AMQP_URL is no broker URL: it must look like amqp://user:password@host:5672/vhost"
    try:
        parts = urlsplit(url)
        fine = parts.scheme in {"amqp", "amqps"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ValueError(message) from None
    if not fine:
        raise ValueError(message)
    if files and parts.scheme != "amqps":
        raise ValueError(f"the files of TLS are for a broker with TLS: {PREFIX}AMQP_URL must begin with amqps://")
    words = [word for word in parts.query.split("&") if word and word.partition("=")[0] not in files]
    if not any(word.startswith("heartbeat=") for word in words):
        words.append(f"heartbeat={heartbeat}")
    words.extend(f"{key}={quote(str(path))}" for key, path in files.items())
    return parts._replace(query="&".join(words)).geturl()


def _read(model: type[BaseSettings]) -> dict[str, Any]:
    """The keys of the file, if there is one, all of which the model knows."""
    name = os.environ.get(CONFIG_FILE)
    if not name:
        return {}
    try:
        keys = tomllib.loads(Path(name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{CONFIG_FILE}: the file cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{CONFIG_FILE}: {name} is no TOML: {error}") from None
    unknown = [key for key in keys if key not in model.model_fields]
    if unknown:
        raise SettingsError("\n".join(f"{key} in {name}: {_advice(key, model)}" for key in unknown))
    return keys


def _advice(key: str, model: type[BaseSettings]) -> str:
    plain = key.lower().replace("-", "_").removeprefix(PREFIX.lower())
    near = difflib.get_close_matches(plain, model.model_fields, n=1, cutoff=0.5)
    return f"there is no such key; the nearest is {near[0]}" if near else "there is no such key"


def _place(key: str) -> str:
    """Where a key stands that is wrong."""
    variable = f"{PREFIX}{key.upper()}"
    name = os.environ.get(CONFIG_FILE)
    return variable if not name or any(known.upper() == variable for known in os.environ) else f"{key} in {name}"
