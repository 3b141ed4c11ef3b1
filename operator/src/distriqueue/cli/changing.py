"""What people want of jobs that exist: cancel, retry, redrive, suspend, resume. Each is a change of the spec.

Guarantees: what would make no sense is refused with a sentence before anything is written; a retry raises
`retryGeneration` from what was read, so that two who ask at the same time get one run. Many are changed some at a time,
and what failed is counted.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from distriqueue.api.phases import JobPhase
from distriqueue.cli import jobs, tables
from distriqueue.cli.clusters import Cluster, Item, many
from distriqueue.cli.errors import CliError, Exit, translated, usage
from distriqueue.cli.jobs import Choice
from distriqueue.kube.client import MERGE_PATCH
from distriqueue.kube.errors import KubeError
from distriqueue.kube.resources import JOBS

_NAMED: Final = 20
"""So many jobs are named when they are changed; of more, only the count is told."""


@dataclass(frozen=True)
class Wish:
    """Something that may be wanted of a job.

    Attributes:
        done: What is said of a job for which it was written.
        spec: What is written.
        objection: Why it makes no sense for a job, if it makes none.
    """

    done: str
    spec: Callable[[Item], dict[str, Any]]
    objection: Callable[[Item], str | None]


def _not_over(job: Item) -> str | None:
    return f"it is over ({jobs.phase(job)})" if jobs.is_final(job) else None


def _may_run_again(job: Item) -> str | None:
    if job["spec"].get("cancel"):
        return "it was cancelled, and a cancelled job cannot be run again: create a new one"
    return None


def _retried(job: Item) -> dict[str, Any]:
    return {"retryGeneration": job["spec"].get("retryGeneration", 0) + 1}


CANCEL: Final = Wish("will be cancelled", lambda _: {"cancel": True}, _not_over)
RETRY: Final = Wish("will run again", _retried, _may_run_again)
SUSPEND: Final = Wish("suspended", lambda _: {"suspend": True}, _not_over)
RESUME: Final = Wish(
    "resumed",
    lambda _: {"suspend": False},
    lambda job: _not_over(job) or (None if job["spec"].get("suspend") else "it is not suspended"),
)


async def change(cluster: Cluster, choice: Choice, wish: Wish) -> Exit:
    """Write a wish into the jobs that were chosen, and say what was done.

    Raises:
        CliError: Nothing was chosen, or the one that was named cannot have it.
    """
    if not choice.anything and not choice.all:
        raise usage("name the jobs, or choose them with -l, --type, --pool or --phase, or take --all of the namespace")
    found = await jobs.chosen(cluster, choice)
    objections = [(job, wish.objection(job)) for job in found]
    refused = [(job, why) for job, why in objections if why is not None]
    if choice.names:
        for job, why in refused:
            tables.note(f"error: {job['metadata']['name']}: {why}")
    wanted = [job for job, why in objections if why is None]
    failed = await write(cluster, wanted, wish, alone=len(wanted) == 1)
    if not choice.names and len(wanted) != 1:
        tables.say(f"{len(wanted) - failed} {'job' if len(wanted) - failed == 1 else 'jobs'} {wish.done}")
    return Exit.FAILED if failed or (choice.names and refused) else Exit.FINE


async def write(cluster: Cluster, wanted: Sequence[Item], wish: Wish, *, alone: bool) -> int:
    """Write a wish into these jobs; returns how many could not be written, and says why.

    Raises:
        CliError: It could not be written, and it is `alone`: all that was chosen is this one job.
    """

    async def one(job: Item) -> Item:
        path = JOBS.path(job["metadata"]["namespace"], job["metadata"]["name"])
        # The uid makes it the job that was looked at, and not a later one of its name.
        body = {"metadata": {"uid": job["metadata"]["uid"]}, "spec": wish.spec(job)}
        return await cluster.client.request("PATCH", path, body=body, content_type=MERGE_PATCH)

    errors: Counter[str] = Counter()
    answers = await many(wanted, one)
    for job, answer in zip(wanted, answers, strict=True):
        if isinstance(answer, KubeError):
            said = translated(answer)
            if alone:
                raise CliError(f"{job['metadata']['name']}: {said.sentence}", said.code)
            errors[said.sentence] += 1
        elif len(wanted) <= _NAMED:
            tables.say(f"{tables.name_of(job)} {wish.done}")
    for sentence, count in errors.most_common(3):
        whose = wanted[0]["metadata"]["name"] if len(wanted) == 1 else f"{count} of {len(wanted)} jobs"
        tables.note(f"error: {whose}: {sentence}")
    return errors.total()


async def redrive(cluster: Cluster, choice: Choice, *, rate: float, limit: int | None, dry_run: bool) -> Exit:
    """Run dead letters again, the oldest first, so many a second.

    Raises:
        CliError: Nothing was chosen, one that was named is not there, or the only one could not be written.
    """
    if not choice.anything and not choice.all:
        raise usage(
            "choose the dead letters with -l, --type, --pool, --reason or by name, or take --all of the namespace"
        )
    # What is named is read whatever its phase, so that it can be said why it does not run again.
    asked = choice if choice.names else replace(choice, phases=(JobPhase.DEAD,))
    objections = [(job, _no_letter(job)) for job in jobs.sorted_by(await jobs.chosen(cluster, asked), "end")]
    refused = [(job, why) for job, why in objections if why is not None] if choice.names else []
    for job, why in refused:
        tables.note(f"error: {job['metadata']['name']}: {why}")
    found = [job for job, why in objections if why is None][:limit]
    if dry_run:
        for job in found:
            last = jobs.last_attempt(job)
            said = f"{last.get('reason', '')}: {last.get('error', '')}"
            tables.say(f"{job['metadata']['namespace']}/{job['metadata']['name']}   {tables.cell(said)}")
        tables.say(f"{_letters(len(found))} would run again (dry run)")
        return Exit.FAILED if refused else Exit.FINE
    failed = 0
    loop = asyncio.get_running_loop()
    begin = loop.time()
    step = max(1, int(rate))
    for start in range(0, len(found), step):
        await asyncio.sleep(max(0.0, begin + start / rate - loop.time()))
        failed += await write(cluster, found[start : start + step], RETRY, alone=len(found) == 1)
    tables.say(f"{_letters(len(found) - failed)} will run again")
    return Exit.FAILED if failed or refused else Exit.FINE


def _no_letter(job: Item) -> str | None:
    phase = jobs.phase(job)
    return _may_run_again(job) if phase == JobPhase.DEAD else f"it is no dead letter ({phase}): see kubectl djobs retry"


def _letters(count: int) -> str:
    return f"{count} dead {'letter' if count == 1 else 'letters'}"
