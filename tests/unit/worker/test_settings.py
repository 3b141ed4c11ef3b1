"""What a worker can be told, and how it says that it was told nonsense."""

from pathlib import Path

import pytest

from distriqueue_protocol.settings import SettingsError
from distriqueue_worker.settings import Settings

URL = "amqp://user:pass%2Fword@broker:5672/vhost"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTRIQUEUE_AMQP_URL", URL)


def test_defaults() -> None:
    settings = Settings.load()
    assert (settings.worker_pool, settings.worker_concurrency, settings.http_port) == ("default", 4, 8080)
    assert (settings.worker_shutdown_grace_seconds, settings.worker_default_task) == (25.0, True)


def test_a_heartbeat_is_put_into_the_url_unless_it_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load().broker_url() == f"{URL}?heartbeat=5"
    monkeypatch.setenv("DISTRIQUEUE_AMQP_URL", f"{URL}?name=x")
    assert Settings.load().broker_url() == f"{URL}?name=x&heartbeat=5"
    monkeypatch.setenv("DISTRIQUEUE_AMQP_URL", f"{URL}?heartbeat=30")
    assert Settings.load().broker_url() == f"{URL}?heartbeat=30"


def test_the_url_may_lie_in_a_file_but_not_in_both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(f"{URL}\n")
    monkeypatch.setenv("DISTRIQUEUE_AMQP_URL_FILE", str(file))
    with pytest.raises(SettingsError, match="set either DISTRIQUEUE_AMQP_URL or DISTRIQUEUE_AMQP_URL_FILE"):
        Settings.load()
    monkeypatch.delenv("DISTRIQUEUE_AMQP_URL")
    assert Settings.load().broker_url() == f"{URL}?heartbeat=5"
    monkeypatch.setenv("DISTRIQUEUE_AMQP_URL_FILE", str(tmp_path / "missing"))
    with pytest.raises(SettingsError, match="AMQP_URL_FILE cannot be read"):
        Settings.load()


def test_the_url_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISTRIQUEUE_AMQP_URL")
    with pytest.raises(SettingsError, match="set either"):
        Settings.load()


@pytest.mark.parametrize("url", ["http://broker", "broker:5672", "amqp://", "amqp://h:notaport", "amqp://:secret@", ""])
def test_a_url_that_is_none_is_refused_without_showing_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTRIQUEUE_AMQP_URL", url)
    with pytest.raises(SettingsError, match="must look like amqp://") as info:
        Settings.load()
    assert "secret" not in str(info.value)


def test_every_wrong_value_has_a_line_that_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTRIQUEUE_WORKER_CONCURRENCY", "0")
    monkeypatch.setenv("DISTRIQUEUE_HTTP_PORT", "http")
    monkeypatch.setenv("DISTRIQUEUE_LOG_LEVEL", "loud")
    with pytest.raises(SettingsError) as info:
        Settings.load()
    lines = str(info.value).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "DISTRIQUEUE_LOG_LEVEL",
        "DISTRIQUEUE_HTTP_PORT",
        "DISTRIQUEUE_WORKER_CONCURRENCY",
    ]


def test_modules_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTRIQUEUE_WORKER_TASKS", " one.tasks, two ,")
    assert Settings.load().worker_tasks == ("one.tasks", "two")
    monkeypatch.setenv("DISTRIQUEUE_WORKER_TASKS", "")
    assert Settings.load().worker_tasks == ()


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load().name.rpartition("-")[2].isdigit()
    monkeypatch.setenv("DISTRIQUEUE_POD_NAME", "pod-7")
    assert Settings.load().name == "pod-7"
    monkeypatch.setenv("DISTRIQUEUE_WORKER_NAME", "mine")
    assert Settings.load().name == "mine"


def test_the_password_is_in_no_representation() -> None:
    assert "word" not in repr(Settings.load())
