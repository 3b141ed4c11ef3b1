"""The CustomResourceDefinitions, generated from the models: ``python -m distriqueue.api.crds``.

Writes ``crds/*.yaml`` (and with ``--helm DIR`` the same as parts of a Helm chart). The output depends on the models
alone, so ``--check`` can tell whether the committed files are what the models say; it changes nothing and exits with 1
when they are not. Everything that `kubectl` shows of a resource beside its fields is here: names, columns, selectable
fields.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from distriqueue.api import names
from distriqueue.api.admission import admission_manifests
from distriqueue.api.jobs import DistributedJob
from distriqueue.api.models import Resource
from distriqueue.api.schemas import structural_schema
from distriqueue.api.workers import DistributedWorker

COMMAND: Final = "python -m distriqueue.api.crds"

Manifest = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of ``kubectl get``; a wide one is shown by ``-o wide`` alone."""

    name: str
    path: str
    description: str
    type: Literal["string", "integer", "date"] = "string"
    wide: bool = False

    def manifest(self) -> Manifest:
        """Return the entry of `additionalPrinterColumns`."""
        entry: Manifest = {
            "name": self.name,
            "type": self.type,
            "description": self.description,
            "jsonPath": self.path,
        }
        return {**entry, "priority": 1} if self.wide else entry


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A kind of resource: its model, its names and what kubectl shows of it."""

    model: type[Resource]
    kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...]
    columns: tuple[Column, ...]
    selectable: tuple[str, ...]

    def manifest(self, annotations: Mapping[str, str] | None = None) -> Manifest:
        """Return the CustomResourceDefinition.

        Raises:
            SchemaError: The model cannot be said in a structural schema.
        """
        metadata: Manifest = {"name": f"{self.plural}.{names.GROUP}"}
        if annotations:
            metadata["annotations"] = dict(annotations)
        return {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": metadata,
            "spec": {
                "group": names.GROUP,
                "scope": "Namespaced",
                "names": {
                    "kind": self.kind,
                    "listKind": f"{self.kind}List",
                    "plural": self.plural,
                    "singular": self.singular,
                    "shortNames": list(self.short_names),
                    "categories": [names.CATEGORY],
                },
                "versions": [
                    {
                        "name": names.VERSION,
                        "served": True,
                        "storage": True,
                        "subresources": {"status": {}},
                        "selectableFields": [{"jsonPath": path} for path in self.selectable],
                        "additionalPrinterColumns": [column.manifest() for column in self.columns],
                        "schema": {"openAPIV3Schema": structural_schema(self.model)},
                    }
                ],
            },
        }


_AGE: Final = Column(
    name="Age", path=".metadata.creationTimestamp", type="date", description="Time since the resource was created."
)

JOBS: Final = Definition(
    model=DistributedJob,
    kind=names.JOB_KIND,
    plural=names.JOB_PLURAL,
    singular=names.JOB_SINGULAR,
    short_names=names.JOB_SHORT_NAMES,
    columns=(
        Column(name="Type", path=".spec.type", description="The kind of work."),
        Column(name="Priority", path=".spec.priority", description="High, Medium or Low."),
        Column(name="Phase", path=".status.phase", description="What became of the job."),
        Column(
            name="Attempt", path=".status.attempt", type="integer", description="The current attempt, or the last one."
        ),
        Column(name="Worker", path=".status.worker", description="The worker that has the job, or had it last."),
        _AGE,
        Column(
            name="Reason",
            path='.status.conditions[?(@.type=="Failed")].reason',
            description="Why the job ended without success.",
            wide=True,
        ),
        Column(
            name="Last-Attempt",
            path=".status.attempts[-1:].reason",
            description="Why the last attempt did not succeed.",
            wide=True,
        ),
        Column(
            name="Progress",
            path=".status.progress.percent",
            type="integer",
            description="How far the handler has come, in percent.",
            wide=True,
        ),
        Column(
            name="Finished",
            path=".status.completionTime",
            type="date",
            description="Time since the job reached its final phase.",
            wide=True,
        ),
        Column(name="Pool", path=".spec.poolName", description="The pool whose workers may run the job.", wide=True),
    ),
    selectable=(".spec.type", ".spec.poolName", ".status.phase"),
)

WORKERS: Final = Definition(
    model=DistributedWorker,
    kind=names.WORKER_KIND,
    plural=names.WORKER_PLURAL,
    singular=names.WORKER_SINGULAR,
    short_names=names.WORKER_SHORT_NAMES,
    columns=(
        Column(name="Pool", path=".status.poolName", description="The pool whose jobs it runs."),
        Column(name="Phase", path=".status.phase", description="Online, Draining or Offline."),
        Column(name="Running", path=".status.running", type="integer", description="Slots in use."),
        Column(
            name="Slots", path=".status.concurrency", type="integer", description="Attempts that it can run at once."
        ),
        Column(name="Version", path=".status.version", description="The version of the worker program."),
        _AGE,
        Column(name="Pod", path=".status.podName", description="The pod that it runs in.", wide=True),
        Column(name="Types", path=".status.types", description="The job types that it has handlers for.", wide=True),
        Column(
            name="Incarnation", path=".status.incarnation", description="Which life of the worker this is.", wide=True
        ),
    ),
    selectable=(".status.phase", ".status.poolName"),
)

DEFINITIONS: Final = (JOBS, WORKERS)


def plain_files() -> Iterator[tuple[str, str]]:
    """Yield name and text of each file of ``crds/``."""
    header = f"# Generated from the models in operator/src/distriqueue/api by '{COMMAND}'. Do not edit.\n"
    for definition in DEFINITIONS:
        yield f"{definition.plural}.yaml", header + _yaml([definition.manifest()])
    yield "admission.yaml", header + _yaml(admission_manifests())


def chart_files() -> Iterator[tuple[str, str]]:
    """Yield name and text of each file for a chart's templates, behind the value `crds.install`.

    The definitions are kept when the chart is uninstalled, since removing one removes every resource of its kind; the
    admission policy goes with the chart.
    """
    keep = {"helm.sh/resource-policy": "keep"}
    for definition in DEFINITIONS:
        yield f"{definition.plural}.yaml", _template([definition.manifest(keep)])
    yield "admission.yaml", _template(admission_manifests())


def _template(manifests: Sequence[Manifest]) -> str:
    """Return manifests as a Helm template; braces that Helm would read as its own are quoted."""
    header = f"{{{{- /* Generated by '{COMMAND} --helm'. Do not edit. */}}}}\n{{{{- if .Values.crds.install }}}}\n"
    body = _yaml(manifests).replace("{{", '{{ "{{" }}')
    return f"{header}{body}{{{{- end }}}}\n"


def _yaml(manifests: Sequence[Manifest]) -> str:
    """Return manifests as YAML documents, the same text for the same manifests."""
    import yaml  # noqa: PLC0415 - a development dependency: generating needs it, running the operator does not

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - a manifest has no shared parts
            return True

    return "".join(
        f"---\n{yaml.dump(manifest, Dumper=Dumper, sort_keys=False, width=110, allow_unicode=True)}"
        for manifest in manifests
    )


def _sync(directory: Path, files: dict[str, str], *, check: bool) -> list[str]:
    """Write `files` to `directory`, or only compare; return what differed, one line each."""
    differences = [
        f"{directory / name} is not what the models say"
        for name, text in files.items()
        if not (directory / name).is_file() or (directory / name).read_text(encoding="utf-8") != text
    ]
    extra = [path for path in sorted(directory.glob("*.yaml")) if path.name not in files]
    differences += [f"{path} is generated no longer" for path in extra]
    if not check:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (directory / name).write_text(text, encoding="utf-8")
        for path in extra:
            path.unlink()
    return differences


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the generated files; return the exit code."""
    parser = argparse.ArgumentParser(
        prog=COMMAND, description="Generate the CustomResourceDefinitions from the models."
    )
    parser.add_argument("--out", type=Path, default=Path("crds"), metavar="DIR", help="where to write (default: crds)")
    parser.add_argument("--helm", type=Path, metavar="DIR", help="also write them as templates of a chart to DIR")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is not up to date")
    options = parser.parse_args(arguments)
    differences = _sync(options.out, dict(plain_files()), check=options.check)
    if options.helm is not None:
        differences += _sync(options.helm, dict(chart_files()), check=options.check)
    if options.check and differences:
        sys.stderr.write("".join(f"{line}\n" for line in differences))
        helm = f" --helm {options.helm}" if options.helm else ""
        sys.stderr.write(f"run '{COMMAND}{helm}' and commit the result\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
