"""`submit`: jobs from flags or from manifests, to the API server; waiting for their ends.

Guarantees: what the API server refuses is said in its words, before anything else is created where several are asked
for (all are tried with dry run first). A create waits for no leader and no broker.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import yaml

from distriqueue.api.names import API_VERSION, JOB_KIND
from distriqueue.api.phases import JobPhase
from distriqueue.cli import durations, explanations, jobs, tables
from distriqueue.cli.clusters import Cluster, Item, many
from distriqueue.cli.errors import CliError, Exit, translated, usage
from distriqueue.cli.following import until_over
from distriqueue.cli.tables import Output
from distriqueue.kube.errors import KubeError
from distriqueue.kube.resources import JOBS

_CODES: Final = {
    JobPhase.SUCCEEDED: Exit.FINE,
    JobPhase.FAILED: Exit.FAILED,
    JobPhase.DEAD: Exit.DEAD,
    JobPhase.CANCELLED: Exit.CANCELLED,
}


@dataclass(frozen=True, kw_only=True)
class Flags:
    """A job as it is written on a command line; None for what was left out."""

    type: str | None = None
    payload: str | None = None
    name: str | None = None
    generate_name: str | None = None
    labels: Sequence[str] = ()
    priority: str | None = None
    priority_value: int | None = None
    pool: str | None = None
    max_attempts: int | None = None
    attempt_timeout: str | None = None
    deadline: str | None = None
    start_after: str | None = None
    ttl: str | None = None
    dedup_key: str | None = None
    suspend: bool = False

    def manifest(self) -> Item:
        """Make the manifest.

        Raises:
            CliError: A flag makes no sense.
        """
        if self.type is None:
            raise usage("name the type of the job with --type, as in --type email, or a manifest with -f")
        if self.name and self.generate_name:
            raise usage("give --name or --generate-name, not both")
        spec: dict[str, Any] = {
            "type": self.type,
            "payload": None if self.payload is None else payload(self.payload),
            "priority": self.priority,
            "priorityValue": self.priority_value,
            "poolName": self.pool,
            "maxAttempts": self.max_attempts,
            "timeoutSeconds": _whole(self.attempt_timeout, "--attempt-timeout"),
            "deadlineSeconds": _whole(self.deadline, "--deadline"),
            "ttlSecondsAfterFinished": _whole(self.ttl, "--ttl"),
            "dedupKey": self.dedup_key,
            "suspend": True if self.suspend else None,
        }
        if self.start_after is not None:
            spec["startAfter"] = durations.moment(self.start_after, option="--start-after", wall=time.time())
        metadata: dict[str, Any] = {"labels": jobs.labels(self.labels)} if self.labels else {}
        if self.name:
            metadata["name"] = self.name
        else:
            prefix = self.type.replace("_", "-").replace(".", "-")
            metadata["generateName"] = self.generate_name or f"{prefix}-"
        return {
            "apiVersion": API_VERSION,
            "kind": JOB_KIND,
            "metadata": metadata,
            "spec": {key: value for key, value in spec.items() if value is not None},
        }


def _whole(text: str | None, option: str) -> int | None:
    return None if text is None else durations.whole_seconds(text, option=option)


def _read(source: str) -> str:
    """The text of a file, or of standard input for `-`."""
    if source == "-":
        return sys.stdin.read()
    try:
        return Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise usage(f"{source} cannot be read: {error}") from None


def payload(text: str) -> dict[str, Any]:
    """Read a payload: JSON itself, `@file`, or `-` for standard input.

    Raises:
        CliError: It is no JSON object.
    """
    if text == "-" or text.startswith("@"):
        text = _read(text.removeprefix("@"))
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise usage(f'--payload is no JSON ({error}): write an object as in --payload \'{{"to": "a@b.c"}}\'') from None
    if not isinstance(found, dict):
        raise usage("--payload must be a JSON object, as in --payload '{\"items\": [1, 2]}'")
    return found


def manifests(source: str) -> list[Item]:
    """Read manifests: YAML or JSON, several documents or a List of them.

    Raises:
        CliError: What is there is no manifest of a job.
    """
    try:
        documents = [document for document in yaml.safe_load_all(_read(source)) if document is not None]
    except yaml.YAMLError as error:
        raise usage(f"{source} is no YAML: {' '.join(str(error).split())}") from None
    found = list(_flat(documents))
    for one in found:
        kind = f"{one.get('apiVersion')} {one.get('kind')}" if isinstance(one, dict) else type(one).__name__
        if kind != f"{API_VERSION} {JOB_KIND}" or not isinstance(one.get("metadata"), dict):
            raise usage(f"{source} holds a {kind}: only {API_VERSION} {JOB_KIND} with metadata can be submitted")
    if not found:
        raise usage(f"{source} holds no manifest")
    return found


def _flat(documents: list[Any]) -> Iterator[Any]:
    for document in documents:
        if isinstance(document, dict) and str(document.get("kind", "")).endswith("List"):
            yield from document.get("items") or []
        else:
            yield document


async def submit(cluster: Cluster, wanted: list[Item], *, dry_run: bool) -> list[Item]:
    """Create jobs, or only ask whether they could be.

    Raises:
        CliError: The API server refuses one, or they are for other namespaces than the one that was named.
    """
    for manifest in wanted:
        named = manifest["metadata"].get("namespace", cluster.namespace)
        if cluster.explicit and named != cluster.namespace:
            raise usage(f"the manifest says namespace '{named}' and --namespace says '{cluster.namespace}'")

    async def create(manifest: Item, *, dry: bool) -> Item:
        namespace = manifest["metadata"].get("namespace", cluster.namespace)
        params = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry else {})
        return await cluster.client.request("POST", JOBS.collection(namespace), body=manifest, params=params)

    if dry_run or len(wanted) > 1:
        tried = await many(wanted, lambda manifest: create(manifest, dry=True))
        _complain(wanted, tried, created=False)
        if dry_run:
            return [one for one in tried if not isinstance(one, KubeError)]
    made = await many(wanted, lambda manifest: create(manifest, dry=False))
    for one in made:
        if not isinstance(one, KubeError) and len(wanted) > 1:
            tables.note(f"{tables.name_of(one)} created")
    _complain(wanted, made, created=True)
    return [one for one in made if not isinstance(one, KubeError)]


def _complain(wanted: list[Item], found: list[Item | KubeError], *, created: bool) -> None:
    errors = [(manifest, one) for manifest, one in zip(wanted, found, strict=True) if isinstance(one, KubeError)]
    if not errors:
        return
    manifest, first = errors[0]
    said = translated(first)
    name = manifest["metadata"].get("name") or manifest["metadata"].get("generateName", "")
    more = f" (and {len(errors) - 1} more of {len(wanted)} were refused)" if len(errors) > 1 else ""
    nothing = "" if created or len(wanted) == 1 else "; nothing was created"
    raise CliError(f"{name}: {said.sentence}{more}{nothing}", said.code)


def say_made(made: list[Item], output: Output) -> None:
    """Print what was created."""
    if output is Output.TABLE and len(made) == 1:
        tables.say(f"{tables.name_of(made[0])} created")
    elif output is Output.TABLE:
        tables.say(f"{len(made)} jobs created")
    else:
        tables.show(made, jobs.columns(namespaced=False), output, single=True)


async def explain_all(cluster: Cluster, dry: list[Item], output: Output) -> None:
    """Say of jobs that were not created what they would wait for."""
    for job in dry:
        found = await explanations.explanation(cluster, job)
        if output is Output.TABLE:
            tables.say(f"{tables.name_of(job)} can be created (dry run)")
        explanations.print_explanation(job, found, output)


async def wait(cluster: Cluster, made: list[Item], *, seconds: float | None, output: Output) -> Exit:
    """Wait until jobs are over, and say what became of them."""
    many_of_them = len(made) > 1

    def told(job: Item) -> None:
        if output is Output.TABLE and not jobs.is_final(job):
            worker = jobs.status(job).get("worker")
            tables.note(f"{job['metadata']['name']}: {jobs.phase(job)}" + (f" on {worker}" if worker else ""))

    ended = await until_over(cluster, made, seconds=seconds, told=told)
    if output in {Output.JSON, Output.YAML}:
        tables.show(ended, [], output, single=not many_of_them)
    elif output is Output.NAME:
        tables.show(ended, [], output)
    else:
        for job in ended:
            _say_end(job)
    return next((code for code in (_CODES[JobPhase(jobs.phase(job))] for job in ended) if code), Exit.FINE)


def _say_end(job: Item) -> None:
    status, why = jobs.status(job), jobs.message(job)
    took = jobs.took(job["metadata"]["creationTimestamp"], status.get("completionTime"), wall=time.time())
    worker = f" on {status['worker']}" if status.get("worker") else ""
    said = f"{job['metadata']['name']}: {jobs.phase(job)} after {took}{worker}"
    tables.say(tables.plain(f"{said}: {why}" if why else said))
    if "result" in status:
        tables.say(tables.plain(tables.dump(status["result"], Output.JSON)))
