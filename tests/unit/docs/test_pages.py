"""What the pages say is so: links lead somewhere, targets of make exist, every field and every reason is named."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from distriqueue.api.conditions import AttemptReason, JobCondition, JobReason, WorkerReason
from distriqueue.api.jobs import Attempt, Backoff, JobSpec, JobStatus
from distriqueue.api.models import Condition, Model
from distriqueue.api.phases import JobPhase, WorkerPhase
from distriqueue.api.workers import WorkerStatus
from docs.generating import DIRECTORY

ROOT = DIRECTORY.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DIRECTORY.rglob("*.md"))]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> Iterator[str]:
    """The anchors that GitHub makes of headings."""
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name(page)} links to {link}"
        if anchor:
            assert anchor in anchors(target), f"{name(page)} links to {link}, and there is no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_targets_of_make_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```(?:sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    code += "\n".join(re.findall(r"`([^`\n]+)`", prose(page)))
    rules = re.findall(r"^([a-z][a-z0-9 -]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    known = {target for rule in rules for target in rule.split()}
    for target in re.findall(r"\bmake (?:-s )?([a-z][a-z0-9-]*)\b", code):
        assert target in known, f"{name(page)} says make {target}"


@pytest.mark.parametrize(
    ("page", "models"),
    [
        ("jobs.md", (JobSpec, Backoff, JobStatus, Attempt)),
        ("workers.md", (WorkerStatus,)),
        ("jobs.md", (Condition,)),
    ],
)
def test_every_field_is_on_its_page(page: str, models: tuple[type[Model], ...]) -> None:
    text = (DIRECTORY / page).read_text(encoding="utf-8")
    for model in models:
        for key, field in model.model_fields.items():
            spelt = field.alias or key
            if (page, spelt) == ("workers.md", "observedGeneration"):
                continue  # means nothing to a reader of a resource without a spec
            assert re.search(rf"\b{spelt}:", text), f"docs/{page} has no example of {model.__name__}.{spelt}"


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("jobs.md", [*JobPhase, *JobCondition, *JobReason, *AttemptReason]),
        ("workers.md", [*WorkerPhase, *WorkerReason]),
    ],
)
def test_every_phase_and_reason_is_on_its_page(page: str, words: list[str]) -> None:
    text = (DIRECTORY / page).read_text(encoding="utf-8")
    missing = [str(word) for word in words if not re.search(rf"\b{word}\b", text)]
    assert not missing


def test_every_direct_dependency_has_its_reason() -> None:
    text = (DIRECTORY / "dependencies.md").read_text(encoding="utf-8")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = settings["project"]
    groups = [
        project["dependencies"],
        *project["optional-dependencies"].values(),
        *settings["dependency-groups"].values(),
    ]
    names = {re.split(r"[\[<>=~! ]", requirement)[0] for group in groups for requirement in group}
    assert len(names) > 15
    assert not [package for package in sorted(names) if not re.search(rf"(?<![\w-]){package}(?![\w-])", text)]
