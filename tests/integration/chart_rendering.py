"""The chart as tests see it: helm run for real, and what it renders as plain dictionaries.

Guarantees: helm is the project's own (localcluster.binaries), its cache and configuration lie in no home directory, and
every rendering is for the Kubernetes version of the local cluster. A command that fails raises HelmError with what helm
said.
"""

import base64
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from localcluster.binaries import KUBERNETES_VERSION, ensure

CHECKOUT = Path(__file__).resolve().parents[2]
CHART = CHECKOUT / "charts" / "distriqueue"
VALUES_FILES = [*sorted((CHART / "ci").glob("*-values.yaml")), CHECKOUT / "localcluster" / "values.yaml"]
"""Sets of values that every check is made with."""

NAMESPACE = "jobs"
RELEASE = "dq"

Manifest = dict[str, Any]
Labels = Mapping[str, str]


class HelmError(Exception):
    """Helm refused; carries what it wrote to standard error."""


@cache
def _helm_home() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="distriqueue-helm-")


def helm(*args: str, kubeconfig: Path | None = None, values: Mapping[str, Any] | None = None) -> str:
    """Run helm and return its standard output.

    Args:
        *args: As on its command line.
        kubeconfig: The cluster to talk to; without one it can reach none.
        values: Handed over as a file, after those that the arguments name.

    Raises:
        HelmError: It failed.
    """
    home = _helm_home().name
    environment = {**os.environ, "HELM_CACHE_HOME": home, "HELM_CONFIG_HOME": home, "HELM_DATA_HOME": home}
    environment["KUBECONFIG"] = str(kubeconfig or "/nonexistent")
    stdin = None
    if values is not None:
        args = (*args, "--values", "-")
        stdin = json.dumps(values)
    done = subprocess.run(
        [str(ensure("helm")), *args],
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        raise HelmError(done.stderr or done.stdout)
    return done.stdout


@dataclass(frozen=True)
class Rendered:
    """The objects of one rendering, hooks included."""

    objects: Sequence[Manifest]

    def of(self, kind: str, component: str | None = None) -> list[Manifest]:
        """Return the objects of a kind, all or those of one component."""
        return [
            item
            for item in self.objects
            if item["kind"] == kind and component in {None, labels_of(item).get("app.kubernetes.io/component")}
        ]

    def one(self, kind: str, component: str | None = None) -> Manifest:
        """Return the only object of a kind (and component)."""
        (only,) = self.of(kind, component)
        return only

    def pods(self) -> dict[str, Manifest]:
        """Return every pod that these objects make, by component: metadata (with the namespace) and spec."""
        found = {}
        for item in self.objects:
            component = labels_of(item).get("app.kubernetes.io/component", "")
            if item["kind"] == "Pod":
                found[component] = item
            elif item["kind"] in {"Deployment", "StatefulSet"}:
                template = item["spec"]["template"]
                metadata = {"namespace": item["metadata"]["namespace"], **template["metadata"]}
                found[component] = {"metadata": metadata, "spec": template["spec"]}
        return found


def template(values: Mapping[str, Any] | None = None, *args: str) -> Rendered:
    """Render the chart without a cluster."""
    text = helm(
        *("template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--kube-version", KUBERNETES_VERSION),
        *args,
        values=values or {},
    )
    return Rendered(parse(text))


def template_file(values_file: Path) -> Rendered:
    """Render the chart with a file of values."""
    return template(None, "--values", str(values_file))


def parse(text: str) -> list[Manifest]:
    """Return the objects in a stream of YAML documents."""
    return [document for document in yaml.safe_load_all(text) if document]


def labels_of(item: Manifest) -> Labels:
    """Return an object's labels."""
    labels: Labels = item["metadata"].get("labels", {})
    return labels


def selects(selector: Labels, labels: Labels) -> bool:
    """Say whether a selector of equalities selects something with these labels; an empty one is a mistake."""
    assert selector
    return all(labels.get(key) == value for key, value in selector.items())


def selected(selector: Labels, items: Iterable[Manifest]) -> list[Manifest]:
    """Return those of `items` that the selector selects."""
    return [item for item in items if selects(selector, labels_of(item))]


def secret_texts(secret: Manifest) -> dict[str, str]:
    """Return the decoded data of a Secret."""
    return {key: base64.b64decode(text).decode() for key, text in secret["data"].items()}


def environment(pod: Manifest) -> dict[str, Any]:
    """Return the variables of a pod's only container; None for those whose value stands elsewhere."""
    (container,) = pod["spec"]["containers"]
    return {variable["name"]: variable.get("value") for variable in container.get("env", [])}


def mounted_keys(pod: Manifest, name: str) -> dict[str, str]:
    """Return which key of the Secret `name` lies at which path in a pod's only container."""
    (container,) = pod["spec"]["containers"]
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    found: dict[str, str] = {}
    for mount in container["volumeMounts"]:
        volume = volumes.get(mount["name"], {})  # a claim is none of the template
        for source in (*volume.get("projected", {}).get("sources", []), volume):
            secret = source.get("secret", {})
            if name in {secret.get("name"), secret.get("secretName")}:
                found |= {f"{mount['mountPath']}/{item['path']}": item["key"] for item in secret["items"]}
    return found


def eventually(check: Callable[[], object], *, ignoring: type[Exception] | None = None, seconds: float = 30) -> None:
    """Wait until `check` returns something true; errors of the kind `ignoring` count as not yet."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if check():
                return
        except Exception as error:
            if ignoring is None or not isinstance(error, ignoring) or time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)
