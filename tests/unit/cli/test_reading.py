"""What is read from a command line, and what is made of a cluster's words before they are printed."""

import io
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from distriqueue.api.phases import JobPhase
from distriqueue.cli import durations, jobs, overviews, submitting, tables
from distriqueue.cli.errors import CliError, Exit, translated
from distriqueue.cli.jobs import Choice
from distriqueue.cli.submitting import Flags
from distriqueue.cli.tables import Column, Output
from distriqueue.kube import errors as kube

NOW = 1_764_000_000.0


def job(name: str = "a", phase: str = "Pending", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "distriqueue.io/v1alpha1",
        "kind": "DistributedJob",
        "metadata": {"name": name, "namespace": "default", "uid": name, "creationTimestamp": "2026-11-22T22:00:00Z"},
        "spec": {"type": "email", "poolName": "default", "priority": "Medium", **spec},
        "status": {"phase": phase},
    }


# --- times ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5s", 1.5), ("1h30m", 5400), ("2d", 172800), ("5ms", 0.005)]
)
def test_lengths_of_time(text: str, seconds: float) -> None:
    assert durations.seconds(text, option="--x") == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "m", "5 m", "5x", "-3s", "1h-2m"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(CliError, match="is no length of time") as caught:
        durations.seconds(text, option="--x")
    assert caught.value.code is Exit.USAGE


def test_half_a_second_is_no_timeout() -> None:
    with pytest.raises(CliError, match="whole number of seconds"):
        durations.whole_seconds("0.5s", option="--x")


def test_moments() -> None:
    assert durations.moment("+1m", option="--x", wall=NOW) == "2025-11-24T16:01:00Z"
    assert durations.moment("2026-12-01T06:00:00+02:00", option="--x", wall=NOW) == "2026-12-01T04:00:00Z"
    assert durations.moment("2026-12-01T06:00:00", option="--x", wall=NOW) == "2026-12-01T06:00:00Z"
    with pytest.raises(CliError, match="is no time"):
        durations.moment("tomorrow", option="--x", wall=NOW)


@pytest.mark.parametrize(("ago", "text"), [(-3, "0s"), (119, "119s"), (120, "2m"), (3 * 3600, "3h"), (48 * 3600, "2d")])
def test_ages(ago: int, text: str) -> None:
    assert durations.age("2025-11-24T16:00:00Z", wall=NOW + ago) == text


# --- jobs from flags and manifests ---------------------------------------------------------------------------------


def test_a_manifest_has_what_was_said_and_nothing_else() -> None:
    made = Flags(type="image.resize_x", payload='{"a": 1}', attempt_timeout="2m", labels=("app=web",)).manifest()
    assert made["metadata"] == {"labels": {"app": "web"}, "generateName": "image-resize-x-"}
    assert made["spec"] == {"type": "image.resize_x", "payload": {"a": 1}, "timeoutSeconds": 120}
    assert Flags(type="x", name="mine").manifest()["metadata"] == {"name": "mine"}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (Flags(), "--type"),
        (Flags(type="x", name="a", generate_name="b"), "not both"),
        (Flags(type="x", payload="[1]"), "JSON object"),
        (Flags(type="x", payload="{"), "is no JSON"),
        (Flags(type="x", payload="@/no/such/file"), "cannot be read"),
        (Flags(type="x", labels=("app",)), "key=value"),
    ],
)
def test_flags_that_make_no_sense(flags: Flags, said: str) -> None:
    with pytest.raises(CliError, match=said) as caught:
        flags.manifest()
    assert caught.value.code is Exit.USAGE


def test_a_payload_from_a_file_and_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.json").write_text('{"from": "file"}')
    assert submitting.payload(f"@{tmp_path / 'p.json'}") == {"from": "file"}
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"from": "stdin"}'))
    assert submitting.payload("-") == {"from": "stdin"}


def test_manifests_of_all_forms(tmp_path: Path) -> None:
    one = orjson.dumps(job("one")).decode()
    (tmp_path / "all.yaml").write_text(
        f"---\n{one}\n---\n---\napiVersion: v1\nkind: List\nitems:\n- {orjson.dumps(job('two')).decode()}\n"
    )
    assert [found["metadata"]["name"] for found in submitting.manifests(str(tmp_path / "all.yaml"))] == ["one", "two"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "holds no manifest"), ("kind: Pod", "only distriqueue.io"), ("{", "is no YAML"), ("- 1", "holds a list")],
)
def test_manifests_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(CliError, match=said) as caught:
        submitting.manifests(str(tmp_path / "x.yaml"))
    assert caught.value.code is Exit.USAGE


# --- choosing ------------------------------------------------------------------------------------------------------


def test_what_a_choice_takes() -> None:
    assert Choice(names=("djob/a", "b")).takes(job("a"))
    assert not Choice(names=("b",)).takes(job("a"))
    assert Choice(phases=(JobPhase.DEAD, JobPhase.FAILED)).takes(job(phase="Failed"))
    assert not Choice(type="fail").takes(job())
    assert not Choice(priority="High").takes(job())
    failed = job(phase="Dead")
    failed["status"]["attempts"] = [{"number": 1, "reason": "Timeout"}]
    assert Choice(reason="Timeout").takes(failed)
    assert not Choice(reason="Timeout").takes(job(phase="Dead"))


def test_what_the_api_server_can_select_it_selects() -> None:
    assert Choice(names=("djob/a",), type="email").fields() == "metadata.name=a,spec.type=email"
    assert (
        Choice(names=("a", "b"), pool="gpu", phases=(JobPhase.DEAD,)).fields() == "spec.poolName=gpu,status.phase=Dead"
    )
    assert Choice(phases=(JobPhase.DEAD, JobPhase.FAILED)).fields() == ""


def test_names_with_a_kind() -> None:
    assert jobs.bare("distributedjob.distriqueue.io/a") == "a"
    with pytest.raises(CliError, match="is no job"):
        jobs.bare("pod/a")


# --- printing ------------------------------------------------------------------------------------------------------


def test_a_table_has_even_columns_and_nothing_steers_the_terminal() -> None:
    columns = [
        Column("NAME", lambda item: item[0]),
        Column("WHAT", lambda item: item[1]),
        Column("MORE", lambda _: "x", wide=True),
    ]
    lines = list(tables.table(columns, [("a", "\x1b[31mred\x1b[0m"), ("long-name", "")]))
    assert lines == ["NAME        WHAT", "a           \\x1b[31mred\\x1b[0m", "long-name   -"]
    assert next(iter(tables.table(columns, [], wide=True))) == "NAME   WHAT   MORE"


def test_forms_of_output(capsys: pytest.CaptureFixture[str]) -> None:
    tables.show([job("a")], [], Output.NAME)
    tables.show([job("a")], [], Output.JSON, single=True)
    name, *rest = capsys.readouterr().out.splitlines()
    assert name == "distributedjob.distriqueue.io/a"
    assert orjson.loads("\n".join(rest))["metadata"]["name"] == "a"
    tables.show([job("a")], [], Output.YAML)
    assert "kind: List" in capsys.readouterr().out
    assert tables.dump({"phase": JobPhase.DEAD}, Output.YAML) == "phase: Dead"


def test_queues_are_counted_by_pool_and_priority() -> None:
    found = [
        job("w"),
        job("o", "Queued"),
        job("r", "Running"),
        job("s", suspend=True),
        job("e", "Succeeded"),
        job("g", poolName="gpu", priority="High"),
    ]
    rows = {(row.pool, row.priority): row for row in overviews.queues(found, ["idle"])}
    assert len(rows) == 9
    medium = rows["default", "Medium"]
    assert (medium.waiting, medium.out, medium.running, medium.resting) == (1, 1, 1, 1)
    assert rows["gpu", "High"].waiting == 1
    assert rows["idle", "Low"].waiting == 0


# --- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (kube.Forbidden("no", code=401), Exit.NO_ACCESS, "log in again"),
        (kube.Forbidden("you may not", code=403), Exit.NO_ACCESS, "you may not; ask for the role"),
        (kube.Unreachable("refused"), Exit.NO_ACCESS, "https://api does not answer"),
        (kube.NoCredentials("none at x"), Exit.NO_ACCESS, "--kubeconfig"),
        (kube.NotFound("the server could not find the requested resource", code=404), Exit.FAILED, "crds/"),
        (kube.Refused("spec.type:\n wrong", code=422), Exit.FAILED, "spec.type: wrong"),
    ],
)
def test_what_is_said_of_the_api_servers_errors(error: kube.KubeError, code: Exit, said: str) -> None:
    found = translated(error, server="https://api")
    assert found.code is code
    assert said.removeprefix("https://api ") in found.sentence
    assert "\n" not in found.sentence
