"""Schemas for kubeconform from a running API server's own OpenAPI, and the real definitions of monitors.

kubeconform wants one JSON Schema per kind. The API server serves OpenAPI documents per group and version, those of
CustomResourceDefinitions included, so what is checked is this very version of Kubernetes. Objects with named fields get
`additionalProperties: false`: a misspelled field is an error.
"""

import json
import re
from pathlib import Path
from typing import Any

from localcluster.binaries import go_program
from localcluster.commands import run

MONITORS_MODULE = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
MONITORS_SUM = "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s="
"""What go.sum would hold: the files are what their authors published."""

LOCATION = "{{ .Group }}_{{ .ResourceKind }}_{{ .ResourceAPIVersion }}.json"
"""The names of the files that `write_schemas` writes, as kubeconform's -schema-location wants it."""

_REFERENCE = "#/components/schemas/"
_REFERENCED = re.compile(r'"#/definitions/([^"]+)"')


def monitor_definitions() -> list[Path]:
    """Return the files with the CustomResourceDefinitions of ServiceMonitor and PodMonitor, from their own project."""
    answer = run([str(go_program()), "mod", "download", "-json", MONITORS_MODULE], timeout=300)
    module = json.loads(answer)
    assert module["Sum"] == MONITORS_SUM
    folder = Path(module["Dir"]) / "example" / "prometheus-operator-crd"
    return [folder / f"monitoring.coreos.com_{plural}.yaml" for plural in ("servicemonitors", "podmonitors")]


def write_schemas(document: dict[str, Any], folder: Path) -> int:
    """Write a file for each kind of one OpenAPI document, with the definitions that it refers to; return how many."""
    schemas = document.get("components", {}).get("schemas", {})
    definitions = {name: _standalone(schema) for name, schema in schemas.items()}
    references = {name: set(_REFERENCED.findall(json.dumps(made))) for name, made in definitions.items()}
    count = 0
    for name, schema in schemas.items():
        for kind in schema.get("x-kubernetes-group-version-kind", []):
            if "kind" not in schema.get("properties", {}) or kind["kind"] == "DeleteOptions":
                continue
            # The core group has no name, and kubeconform takes the version for it.
            file = folder / f"{kind['group'] or kind['version']}_{kind['kind'].lower()}_{kind['version']}.json"
            needed = {other: definitions[other] for other in _closure(name, references)}
            file.write_text(json.dumps({**definitions[name], "definitions": needed}))
            count += 1
    return count


def _closure(name: str, references: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        new = references[waiting.pop()] - found
        found |= new
        waiting.extend(new)
    return found


def _standalone(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_standalone(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: value.replace(_REFERENCE, "#/definitions/") if isinstance(value, str) else _standalone(value)
        for key, value in schema.items()
    }
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(made.get("properties"), dict) and schema.get("type") == "object" and not open_ended:
        made["additionalProperties"] = False
    return made
