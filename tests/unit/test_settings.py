"""What all programs' settings have in common: variables before the file, and a line for each wrong key."""

import os
from pathlib import Path

import pytest

from distriqueue.gateway.settings import GatewaySettings
from distriqueue.operator.settings import OperatorSettings
from distriqueue_protocol.settings import CONFIG_FILE, ProgramSettings, SettingsError, split_list
from distriqueue_worker.settings import Settings

PROGRAMS = (OperatorSettings, GatewaySettings, Settings)


@pytest.fixture(autouse=True, name="file")
def file_fixture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file that the variable names, empty; and no other variable of ours."""
    for name in list(os.environ):
        if name.startswith("DISTRIQUEUE_"):
            monkeypatch.delenv(name)
    file = tmp_path / "settings.toml"
    file.write_text("")
    monkeypatch.setenv(CONFIG_FILE, str(file))
    return file


def refusal(model: type[ProgramSettings] = OperatorSettings) -> list[str]:
    with pytest.raises(SettingsError) as info:
        model.load()
    return str(info.value).splitlines()


def test_a_key_of_the_file_counts_unless_there_is_the_variable(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('lease_name = "from-file"\nwrite_concurrency = 8\nnamespaces = ["a", "b"]\n')
    monkeypatch.setenv("DISTRIQUEUE_WRITE_CONCURRENCY", "4")
    settings = OperatorSettings.load()
    assert (settings.lease_name, settings.write_concurrency) == ("from-file", 4)
    assert settings.namespaces == ("a", "b")
    monkeypatch.setenv("DISTRIQUEUE_NAMESPACES", "c, d")
    assert OperatorSettings.load().namespaces == ("c", "d")


@pytest.mark.parametrize("model", PROGRAMS)
def test_every_program_takes_the_file(model: type[ProgramSettings], file: Path) -> None:
    file.write_text('amqp_url = "amqp://user:word@broker/"\nlog_level = "DEBUG"\nhttp_port = 0\n')
    settings = model.load()
    assert (settings.log_level, settings.http_port) == ("debug", 0)
    assert settings.broker_url().startswith("amqp://user:word@broker/?heartbeat=")
    assert "word" not in repr(settings)


def test_without_the_variable_no_file_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONFIG_FILE, "")
    assert OperatorSettings.load().lease_name == "distriqueue-shard-0"


def test_a_key_that_nobody_knows_is_refused_with_the_nearest(file: Path) -> None:
    file.write_text('lease_duration = 5\nLOG-LEVEL = "info"\nDISTRIQUEUE_KEEP_FINISHED = true\nxyzzy = 1\n')
    assert refusal() == [
        f"lease_duration in {file}: there is no such key; the nearest is lease_duration_seconds",
        f"LOG-LEVEL in {file}: there is no such key; the nearest is log_level",
        f"DISTRIQUEUE_KEEP_FINISHED in {file}: there is no such key; the nearest is keep_finished",
        f"xyzzy in {file}: there is no such key",
    ]


def test_a_key_of_another_program_is_refused(file: Path) -> None:
    file.write_text("worker_concurrency = 5\n")
    assert "there is no such key" in refusal()[0]


def test_a_variable_that_nobody_knows_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTRIQUEUE_GATEWAY_PORT_80_TCP_ADDR", "10.0.0.1")
    OperatorSettings.load()


def test_every_wrong_key_has_a_line_that_says_where_it_stands(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('http_port = "http"\nwrite_concurrency = 0\n')
    monkeypatch.setenv("DISTRIQUEUE_KEEP_FINISHED", "perhaps")
    monkeypatch.setenv("DISTRIQUEUE_HTTP_PORT", "70000")
    assert [line.split(": ")[0] for line in refusal()] == [
        "DISTRIQUEUE_HTTP_PORT",
        "DISTRIQUEUE_KEEP_FINISHED",
        f"write_concurrency in {file}",
    ]


def test_a_file_that_is_none_is_said(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("lease_name: x\n")
    assert f"{CONFIG_FILE}: {file} is no TOML: " in refusal()[0]
    monkeypatch.setenv(CONFIG_FILE, "/nowhere/settings.toml")
    assert f"{CONFIG_FILE}: the file cannot be read: " in refusal()[0]


def test_no_value_is_shown(file: Path) -> None:
    file.write_text('amqp_url = "http://user:hidden@broker"\nhttp_port = "hidden"\namqp_ca_file = 5\n')
    assert "hidden" not in "".join(refusal())
    file.write_text('amqp_url = "http://user:hidden@broker"\n')
    assert "hidden" not in "".join(refusal())


def test_what_contradicts_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTRIQUEUE_LEASE_RETRY_SECONDS", "5")
    (line,) = refusal()
    assert line.startswith("LEASE_RETRY_SECONDS (5) must be below LEASE_RENEW_DEADLINE_SECONDS (4), and that below ")
    monkeypatch.setenv("DISTRIQUEUE_TLS_KEY_FILE", "/tls/tls.key")
    assert refusal(GatewaySettings) == ["set DISTRIQUEUE_TLS_CERT_FILE and DISTRIQUEUE_TLS_KEY_FILE both, or neither"]


def test_the_files_of_tls_are_in_the_brokers_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTRIQUEUE_AMQP_CA_FILE", "/tls/ca of it.crt")
    assert refusal() == ["the files of TLS are for a broker with TLS: DISTRIQUEUE_AMQP_URL must begin with amqps://"]
    monkeypatch.setenv("DISTRIQUEUE_AMQP_URL", "amqps://user:pass%2Fword@broker/jobs?cafile=other&name=x")
    url = OperatorSettings.load().broker_url()
    assert url == "amqps://user:pass%2Fword@broker/jobs?name=x&heartbeat=3&cafile=/tls/ca%20of%20it.crt"
    monkeypatch.setenv("DISTRIQUEUE_AMQP_CERT_FILE", "/tls/tls.crt")
    assert refusal() == ["set DISTRIQUEUE_AMQP_CERT_FILE and DISTRIQUEUE_AMQP_KEY_FILE both, or neither"]
    monkeypatch.setenv("DISTRIQUEUE_AMQP_KEY_FILE", "/tls/tls.key")
    assert OperatorSettings.load().broker_url().endswith("&certfile=/tls/tls.crt&keyfile=/tls/tls.key")


def test_the_brokers_url_may_change_in_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = tmp_path / "url"
    url.write_text("amqp://a:1@broker/\n")
    monkeypatch.setenv("DISTRIQUEUE_AMQP_URL_FILE", str(url))
    settings = OperatorSettings.load()
    assert settings.broker_url() == "amqp://a:1@broker/?heartbeat=3"
    url.write_text("amqp://a:2@broker/\n")
    assert settings.broker_url() == "amqp://a:2@broker/?heartbeat=3"


def test_texts_become_lists() -> None:
    assert split_list(" a, b\nc,, ") == ("a", "b", "c")
    assert split_list(["a, b"]) == ["a, b"]
