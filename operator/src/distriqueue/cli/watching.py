"""`watch`: jobs as they go, with bars for what their handlers say, until all are over; and `list --watch`.

Guarantees: on a terminal a table that is drawn anew a few times a second, cut to its height, the running jobs first;
elsewhere a line for each change. Names and messages are shown as text, whatever is in them.
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from distriqueue.api.phases import JobPhase
from distriqueue.cli import jobs, tables
from distriqueue.cli.clusters import Cluster, Item
from distriqueue.cli.errors import CliError
from distriqueue.cli.following import Change, follow
from distriqueue.cli.jobs import Choice

_DRAWN_EVERY: Final = 0.25
_BAR_WIDTH: Final = 24
_ORDER: Final = [
    JobPhase.RUNNING,
    JobPhase.RETRYING,
    JobPhase.QUEUED,
    JobPhase.PENDING,
    JobPhase.DEAD,
    JobPhase.FAILED,
    JobPhase.CANCELLED,
    JobPhase.SUCCEEDED,
]
_STYLES: Final = {
    JobPhase.SUCCEEDED: "green",
    JobPhase.RUNNING: "cyan",
    JobPhase.RETRYING: "yellow",
    JobPhase.FAILED: "red",
    JobPhase.DEAD: "red",
    JobPhase.CANCELLED: "dim",
}


class Picture:
    """The jobs that are watched."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self.jobs: dict[str, Item] = {}
        self.synced = False

    def take(self, change: Change) -> bool:
        """Take in a change; says whether it is one of a job that was chosen."""
        if change.type == "SYNCED":
            self.synced = True
            return False
        uid = change.job["metadata"]["uid"]
        if change.type == "DELETED":
            return self.jobs.pop(uid, None) is not None
        # A job that was shown stays, though it has left the phase by which it was chosen.
        if uid not in self.jobs and not self._choice.takes(change.job):
            return False
        self.jobs[uid] = change.job
        return True

    @property
    def over(self) -> bool:
        """Whether all are over, and everything was seen once."""
        return self.synced and all(map(jobs.is_final, self.jobs.values()))

    def summary(self) -> str:
        """Counts by phase."""
        counts = Counter(map(jobs.phase, self.jobs.values()))
        return ", ".join(f"{counts[phase]} {phase.value}" for phase in _ORDER if counts[phase]) or "no jobs"

    def drawn(self, *, height: int) -> Group:
        """The table, cut to a height."""
        wall = time.time()
        table = Table(box=None, pad_edge=False, expand=False)
        for head in ("NAME", "TYPE", "PHASE", "PROGRESS", "", "WORKER", "RAN", "MESSAGE"):
            table.add_column(head, no_wrap=True, overflow="ellipsis")
        shown = sorted(self.jobs.values(), key=_rank)
        room = max(3, height - 3)
        for job in shown[:room]:
            status, phase = jobs.status(job), jobs.phase(job)
            done = jobs.percent(job)
            running = phase == JobPhase.RUNNING
            bar = ProgressBar(total=100, completed=done or 0, width=_BAR_WIDTH, pulse=done is None)
            table.add_row(
                _text(job["metadata"]["name"]),
                _text(job["spec"]["type"]),
                Text(phase, style=_STYLES.get(JobPhase(phase), "")),
                bar if running or done is not None else "",
                "" if done is None else f"{done}%",
                _text(status.get("worker", "")),
                jobs.took(status.get("startTime"), status.get("completionTime"), wall=wall),
                _text(jobs.message(job) or status.get("progress", {}).get("message", "")),
            )
        hidden = len(shown) - room
        foot = self.summary() + (f" ({hidden} more than fit here)" if hidden > 0 else "")
        return Group(table, Text(foot, style="bold"))


def _rank(job: Item) -> tuple[int, str]:
    phase = jobs.phase(job)
    return _ORDER.index(JobPhase(phase)), job["metadata"]["name"]


def _text(text: str) -> Text:
    return Text(tables.plain(" ".join(text.split())))


async def watch(cluster: Cluster, choice: Choice) -> None:
    """Show jobs until all of them are over.

    Raises:
        CliError: One that was named is not there.
    """
    picture = Picture(choice)
    namespace = None if choice.everywhere else cluster.namespace
    changes = follow(cluster, namespace, fields=_lasting(choice).fields(), labels=choice.labels)
    if not sys.stdout.isatty():
        await _lines(changes, picture, choice)
        return
    console = Console(no_color=not tables.coloured(), highlight=False)
    # The API server may send thousands of changes a second; what is drawn a few times is enough.
    with Live(console=console, auto_refresh=False, transient=False) as live:

        def draw() -> None:
            live.update(picture.drawn(height=console.size.height), refresh=True)

        following = asyncio.ensure_future(_until_over(changes, picture, choice))
        while not following.done():
            draw()
            await asyncio.wait({following}, timeout=_DRAWN_EVERY)
        draw()
        following.result()


def _lasting(choice: Choice) -> Choice:
    """A choice without the phases, which change: a job is watched to its end."""
    return Choice(names=choice.names, type=choice.type, pool=choice.pool)


def _see(picture: Picture, choice: Choice) -> None:
    there = {job["metadata"]["name"] for job in picture.jobs.values()}
    missing = [name for name in map(jobs.bare, choice.names) if name not in there]
    if missing:
        raise CliError(f"there is no job {', '.join(missing)} here: see kubectl djobs list, or name another namespace")


async def _until_over(changes: AsyncGenerator[Change, None], picture: Picture, choice: Choice) -> None:
    async with aclosing(changes):
        async for change in changes:
            picture.take(change)
            if change.type == "SYNCED":
                _see(picture, choice)
            if picture.over:
                return


async def _lines(changes: AsyncGenerator[Change, None], picture: Picture, choice: Choice) -> None:
    async with aclosing(changes):
        async for change in changes:
            before = picture.jobs.get(change.job["metadata"]["uid"]) if change.job else None
            if picture.take(change):
                _line(change, before)
            if change.type == "SYNCED":
                _see(picture, choice)
            if picture.over:
                tables.say(picture.summary())
                return


def _line(change: Change, before: Item | None) -> None:
    job = change.job
    said = "deleted" if change.type == "DELETED" else jobs.phase(job)
    progress = jobs.status(job).get("progress", {})
    if said == JobPhase.RUNNING and "percent" in progress:
        said = f"{said} {progress['percent']}%"
    elif before is not None and jobs.phase(before) == said:
        return
    worker = jobs.status(job).get("worker")
    where = f" on {worker}" if worker and change.type != "DELETED" else ""
    why = jobs.message(job) or (progress.get("message", "") if said.startswith(JobPhase.RUNNING) else "")
    tables.say(tables.plain(f"{job['metadata']['name']}: {said}{where}" + (f": {why}" if why else "")))
    sys.stdout.flush()


async def print_changes(cluster: Cluster, choice: Choice) -> None:
    """Print a row for each job and each change, for ever: `list --watch`."""
    namespace = None if choice.everywhere else cluster.namespace
    columns = jobs.columns(namespaced=choice.everywhere)
    widths = [max(len(column.head), 8) for column in columns if not column.wide]
    shown = [column for column in columns if not column.wide]
    picture = Picture(choice)
    tables.say(_row([column.head for column in shown], widths))
    async with aclosing(follow(cluster, namespace, fields=_lasting(choice).fields(), labels=choice.labels)) as changes:
        async for change in changes:
            if picture.take(change):
                cells = [tables.cell(column.cell(change.job)) for column in shown]
                widths[:] = [max(width, len(cell)) for width, cell in zip(widths, cells, strict=True)]
                tables.say(_row(cells, widths))
            sys.stdout.flush()


def _row(cells: list[str], widths: list[int]) -> str:
    padded = (tables.word(cell) + " " * (width - len(cell)) for cell, width in zip(cells, widths, strict=True))
    return "   ".join(padded).rstrip()
