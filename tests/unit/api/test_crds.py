"""The generated files: they are what the models say, and the generator notices when they are not."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from distriqueue.api import crds, limits
from distriqueue.api.admission import admission_manifests
from distriqueue.api.phases import JobPhase

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts/distriqueue/templates/crds"


def test_the_committed_files_are_what_the_models_say(capsys: pytest.CaptureFixture[str]) -> None:
    code = crds.main(["--check", "--out", str(ROOT / "crds"), "--helm", str(CHART)])
    assert code == 0, capsys.readouterr().err


def test_a_file_that_was_edited_is_found_and_written_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--out", str(tmp_path / "crds"), "--helm", str(tmp_path / "chart")]
    assert crds.main(arguments) == 0
    assert crds.main(["--check", *arguments]) == 0
    (tmp_path / "crds/distributedjobs.yaml").write_text("edited")
    (tmp_path / "chart/admission.yaml").unlink()
    (tmp_path / "crds/gone.yaml").write_text("from before")
    assert crds.main(["--check", *arguments]) == 1
    complaints = capsys.readouterr().err
    for name in ("crds/distributedjobs.yaml", "chart/admission.yaml", "crds/gone.yaml", f"run '{crds.COMMAND}"):
        assert name in complaints
    assert complaints.count("\n") == 4
    assert crds.main(arguments) == 0
    assert crds.main(["--check", *arguments]) == 0
    assert not (tmp_path / "crds/gone.yaml").exists()


def test_generating_twice_gives_the_same_text() -> None:
    assert dict(crds.plain_files()) == dict(crds.plain_files())


def test_the_chart_keeps_definitions_and_guards_every_file() -> None:
    for name, text in crds.chart_files():
        lines = text.splitlines()
        assert lines[1] == "{{- if .Values.crds.install }}"
        assert lines[-1] == "{{- end }}"
        documents = [document for document in yaml.safe_load_all("\n".join(lines[2:-1])) if document]
        kept = [
            (document["metadata"].get("annotations") or {}).get("helm.sh/resource-policy") for document in documents
        ]
        assert kept == (["keep"] if name != "admission.yaml" else [None] * 4)


def test_braces_are_quoted_for_helm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crds, "admission_manifests", lambda: [{"message": "write {{ this }}"}])
    text = dict(crds.chart_files())["admission.yaml"]
    assert 'message: write {{ "{{" }} this }}' in text


def _version(definition: crds.Definition) -> Any:
    return definition.manifest()["spec"]["versions"][0]


def test_what_kubectl_shows_of_a_job() -> None:
    columns = _version(crds.JOBS)["additionalPrinterColumns"]
    shown = [column["name"].upper() for column in columns if "priority" not in column]
    assert shown == ["TYPE", "PRIORITY", "PHASE", "ATTEMPT", "WORKER", "AGE"]
    assert [column["name"].upper() for column in columns if column.get("priority")] == [
        "REASON",
        "LAST-ATTEMPT",
        "PROGRESS",
        "FINISHED",
        "POOL",
    ]


@pytest.mark.parametrize("definition", crds.DEFINITIONS, ids=lambda definition: definition.kind)
def test_columns_and_selectable_fields_are_fields_of_the_schema(definition: crds.Definition) -> None:
    version = _version(definition)
    root = version["schema"]["openAPIV3Schema"]
    paths = [column["jsonPath"] for column in version["additionalPrinterColumns"]]
    paths += [field["jsonPath"] for field in version["selectableFields"]]
    for path in paths:
        if path.startswith(".metadata."):
            continue
        node = root
        for step in path[1:].replace('conditions[?(@.type=="Failed")]', "conditions").split("."):
            node = node.get("items", node)["properties"][step.split("[")[0]]


def test_nobody_writes_pending() -> None:
    status = _version(crds.JOBS)["schema"]["openAPIV3Schema"]["properties"]["status"]
    assert status["default"] == {"phase": JobPhase.PENDING}


def test_the_policies_name_the_limit_that_the_leader_holds() -> None:
    text = str(admission_manifests())
    assert f"<= {limits.PAYLOAD_LIMIT_BYTES}" in text
    assert f"64 KiB ({limits.PAYLOAD_LIMIT_BYTES} bytes)" in text
