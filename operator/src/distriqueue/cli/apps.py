"""The commands, their options, and nothing else: what they do is imported when they are called.

Guarantees: `--namespace`, `--context` and `--kubeconfig` may stand before or after a command, and mean what they mean
to kubectl; a `CliError` becomes a sentence on standard error and its exit code.
"""

import asyncio
import functools
import inspect
import sys
from collections.abc import Callable
from typing import Annotated, Any, Final

import typer

from distriqueue.api.phases import JobPhase
from distriqueue.cli import completing
from distriqueue.cli.completing import Shell
from distriqueue.cli.errors import CliError, Exit
from distriqueue.cli.places import Place
from distriqueue.cli.tables import Output
from distriqueue_protocol.names import Priority

# ruff: noqa: PLC0415  (a command imports what it needs)
# ruff: noqa: PLR0913  (typer makes options of parameters)

app: Final = typer.Typer(
    name="kubectl djobs",
    help="Distributed jobs: submit them, see what they do and why they wait, and change your mind.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

NamespaceOption = Annotated[str | None, typer.Option("--namespace", "-n", help="Instead of the context's namespace.")]
ContextOption = Annotated[str | None, typer.Option("--context", help="The context of the kubeconfig.")]
KubeconfigOption = Annotated[str | None, typer.Option("--kubeconfig", help="The kubeconfig, instead of KUBECONFIG.")]
_PLACE: Final = {"namespace": NamespaceOption, "context": ContextOption, "kubeconfig": KubeconfigOption}

OutputOption = Annotated[Output, typer.Option("--output", "-o", help="The form of what is printed.")]
NamesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="NAME...", help="Jobs.", autocompletion=completing.names)
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The job.", autocompletion=completing.names)]
SelectorOption = Annotated[str, typer.Option("--selector", "-l", help="A label selector, as in app=web,tier!=test.")]
EverywhereOption = Annotated[bool, typer.Option("--all-namespaces", "-A", help="In all namespaces.")]
AllOption = Annotated[bool, typer.Option("--all", help="All of the namespace.")]
TypeOption = Annotated[str | None, typer.Option("--type", help="Of this job type.")]
PoolOption = Annotated[str | None, typer.Option("--pool", help="For this pool.")]
PhaseOption = Annotated[
    list[JobPhase] | None, typer.Option("--phase", case_sensitive=False, help="In this phase; may be repeated.")
]
PriorityOption = Annotated[Priority | None, typer.Option("--priority", case_sensitive=False, help="Of this priority.")]


@app.callback()
def root(
    ctx: typer.Context,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Distributed jobs: submit them, see what they do and why they wait, and change your mind."""
    ctx.obj = Place(namespace, context, kubeconfig)


def command(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a command: its first parameter is the `Place`, whose options it gets; its errors are told."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(ctx: typer.Context, **given: Any) -> None:
            words = {key: given.pop(key) or getattr(ctx.obj, key) for key in _PLACE}
            try:
                code = function(Place(**words), **given)
                sys.stdout.flush()
            except CliError as error:
                sys.stdout.flush()
                sys.stderr.write(f"error: {error.sentence}\n")
                raise typer.Exit(error.code) from None
            if code:
                raise typer.Exit(code)

        own = list(inspect.signature(function).parameters.values())[1:]
        keyword = inspect.Parameter.KEYWORD_ONLY
        context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        parameters = [one.replace(kind=keyword) for one in own]
        parameters += [inspect.Parameter(key, keyword, default=None, annotation=_PLACE[key]) for key in _PLACE]
        signature = inspect.Signature([context, *parameters])
        vars(run)["__signature__"] = signature
        run.__annotations__ = {one.name: one.annotation for one in signature.parameters.values()}
        app.command(name)(run)
        return function

    return register


# --- making jobs ---------------------------------------------------------------------------------------------------


@command("submit")
def submit(
    place: Place,
    *,
    job_type: Annotated[str | None, typer.Option("--type", help="The job type: which handler runs it.")] = None,
    payload: Annotated[
        str | None, typer.Option(help="The handler's input: a JSON object, @FILE, or - for stdin.")
    ] = None,
    file: Annotated[
        str | None, typer.Option("--filename", "-f", help="Manifests instead of flags; - for stdin.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The job's name.")] = None,
    generate_name: Annotated[
        str | None, typer.Option(help="What a made-up name begins with; the type if not given.")
    ] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="A label; may be repeated.")] = None,
    priority: Annotated[Priority | None, typer.Option(case_sensitive=False, help="Medium if not given.")] = None,
    priority_value: Annotated[int | None, typer.Option(help="0 to 100: the order inside of the priority.")] = None,
    pool: Annotated[str | None, typer.Option(help="Whose workers may run it.")] = None,
    max_attempts: Annotated[int | None, typer.Option(help="How often it is tried, the first time included.")] = None,
    attempt_timeout: Annotated[str | None, typer.Option(help="How long an attempt may run, as in 10m.")] = None,
    deadline: Annotated[str | None, typer.Option(help="How long the whole job may take.")] = None,
    start_after: Annotated[str | None, typer.Option(help="Not before this time, or so long from now: +10m.")] = None,
    ttl: Annotated[str | None, typer.Option(help="Deleted so long after its end.")] = None,
    dedup_key: Annotated[str | None, typer.Option(help="At most one unfinished job has this key.")] = None,
    suspend: Annotated[bool, typer.Option("--suspend", help="Create it suspended.")] = False,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for its end; the exit code tells it.")] = False,
    timeout: Annotated[str | None, typer.Option(help="How long --wait waits, as in 5m; for ever if not given.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Create nothing: say what it would wait for.")] = False,
    output: OutputOption = Output.TABLE,
) -> Exit:
    """Create a job from flags, or jobs from manifests."""
    from distriqueue.cli import durations, submitting, tables
    from distriqueue.cli.clusters import Cluster, run
    from distriqueue.cli.errors import usage

    flags = submitting.Flags(
        type=job_type,
        payload=payload,
        name=name,
        generate_name=generate_name,
        labels=label or (),
        priority=priority,
        priority_value=priority_value,
        pool=pool,
        max_attempts=max_attempts,
        attempt_timeout=attempt_timeout,
        deadline=deadline,
        start_after=start_after,
        ttl=ttl,
        dedup_key=dedup_key,
        suspend=suspend,
    )
    if file is not None and flags != submitting.Flags():
        raise usage("-f takes whole manifests: write the other fields into them")
    wanted = [flags.manifest()] if file is None else submitting.manifests(file)
    seconds = None if timeout is None else durations.seconds(timeout, option="--timeout")

    async def work(cluster: Cluster) -> Exit:
        made = await submitting.submit(cluster, wanted, dry_run=dry_run)
        if dry_run:
            await submitting.explain_all(cluster, made, output)
            return Exit.FINE
        if not wait:
            submitting.say_made(made, output)
            return Exit.FINE
        if output is Output.TABLE and len(made) == 1:
            tables.note(f"{tables.name_of(made[0])} created")
        return await submitting.wait(cluster, made, seconds=seconds, output=output)

    return run(place, work)


# --- looking -------------------------------------------------------------------------------------------------------


@command("list")
def list_jobs(
    place: Place,
    *,
    selector: SelectorOption = "",
    everywhere: EverywhereOption = False,
    job_type: TypeOption = None,
    pool: PoolOption = None,
    priority: PriorityOption = None,
    phase: PhaseOption = None,
    sort_by: Annotated[str, typer.Option(help="name, age, start, end or phase.")] = "name",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on with every change.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """List jobs."""
    from distriqueue.cli import jobs, tables
    from distriqueue.cli.clusters import Cluster, run

    choice = jobs.Choice(
        labels=selector, phases=phase or (), type=job_type, pool=pool, priority=priority, everywhere=everywhere
    )

    async def work(cluster: Cluster) -> None:
        if watch:
            from distriqueue.cli import watching

            await watching.print_changes(cluster, choice)
        found = jobs.sorted_by(await jobs.chosen(cluster, choice), sort_by)
        if not found and output in {Output.TABLE, Output.WIDE}:
            tables.note("no jobs" if everywhere else f"no jobs in the namespace '{cluster.namespace}'")
            return
        tables.show(found, jobs.columns(namespaced=everywhere), output)

    run(place, work)


@command("get")
def get(place: Place, *, names: NamesArgument = None, output: OutputOption = Output.TABLE) -> None:
    """Print jobs by name; without names, all of the namespace."""
    from distriqueue.cli import jobs, tables
    from distriqueue.cli.clusters import Cluster, run

    async def work(cluster: Cluster) -> None:
        found = await jobs.chosen(cluster, jobs.Choice(names=names or ()))
        tables.show(found, jobs.columns(namespaced=False), output, single=len(names or ()) == 1)

    run(place, work)


@command("describe")
def describe(place: Place, *, name: NameArgument) -> None:
    """Everything about a job: times, attempts, errors, log, payload, result, events."""
    from distriqueue.cli import describing, jobs
    from distriqueue.cli.clusters import Cluster, run

    async def work(cluster: Cluster) -> None:
        job = (await jobs.chosen(cluster, jobs.Choice(names=(name,))))[0]
        describing.describe(job, await describing.events(cluster, job))

    run(place, work)


@command("watch")
def watch(
    place: Place,
    *,
    names: NamesArgument = None,
    selector: SelectorOption = "",
    everywhere: EverywhereOption = False,
    job_type: TypeOption = None,
    pool: PoolOption = None,
    phase: PhaseOption = None,
) -> None:
    """Show jobs as they go, with progress bars, until all are over."""
    from distriqueue.cli import jobs, watching
    from distriqueue.cli.clusters import Cluster, run

    choice = jobs.Choice(
        names=names or (), labels=selector, phases=phase or (), type=job_type, pool=pool, everywhere=everywhere
    )

    async def work(cluster: Cluster) -> None:
        await watching.watch(cluster, choice)

    run(place, work)


@command("logs")
def logs(
    place: Place,
    *,
    name: NameArgument,
    attempt: Annotated[int | None, typer.Option(help="Of this attempt, instead of the last one.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job is over.")] = False,
) -> None:
    """What a job's handler says: from its worker's pod, or, of a failed attempt, the end that was kept."""
    from distriqueue.cli import logs as reading
    from distriqueue.cli.clusters import Cluster, run

    async def work(cluster: Cluster) -> None:
        await reading.show(cluster, name, attempt=attempt, follow=follow)

    run(place, work)


@command("explain")
def explain(place: Place, *, name: NameArgument, output: OutputOption = Output.TABLE) -> None:
    """What a job waits for, its place in the queue, when it may start, and what to do."""
    from distriqueue.cli import explanations, jobs
    from distriqueue.cli.clusters import Cluster, run

    async def work(cluster: Cluster) -> None:
        job = (await jobs.chosen(cluster, jobs.Choice(names=(name,))))[0]
        explanations.print_explanation(job, await explanations.explanation(cluster, job), output)

    run(place, work)


# --- changing ------------------------------------------------------------------------------------------------------


def _change(place: Place, wish: str, **chosen: Any) -> Exit:
    from distriqueue.cli import changing, jobs
    from distriqueue.cli.clusters import Cluster, run

    chosen = {key: value for key, value in chosen.items() if value is not None}

    async def work(cluster: Cluster) -> Exit:
        return await changing.change(cluster, jobs.Choice(**chosen), getattr(changing, wish))

    return run(place, work)


@command("cancel")
def cancel(
    place: Place,
    *,
    names: NamesArgument = None,
    selector: SelectorOption = "",
    job_type: TypeOption = None,
    pool: PoolOption = None,
    phase: PhaseOption = None,
    everything: AllOption = False,
) -> Exit:
    """Cancel jobs: one that waits never starts, the handler of one that runs is stopped. Cannot be taken back."""
    return _change(
        place, "CANCEL", names=names, labels=selector, type=job_type, pool=pool, phases=phase, all=everything
    )


@command("retry")
def retry(
    place: Place,
    *,
    names: NamesArgument = None,
    selector: SelectorOption = "",
    job_type: TypeOption = None,
    pool: PoolOption = None,
    phase: PhaseOption = None,
    everything: AllOption = False,
) -> Exit:
    """Run jobs again, whatever their phase (but Cancelled), with their whole budget of attempts."""
    return _change(place, "RETRY", names=names, labels=selector, type=job_type, pool=pool, phases=phase, all=everything)


@command("redrive")
def redrive(
    place: Place,
    *,
    names: NamesArgument = None,
    selector: SelectorOption = "",
    everywhere: EverywhereOption = False,
    job_type: TypeOption = None,
    pool: PoolOption = None,
    reason: Annotated[str | None, typer.Option(help="Whose last attempt has this reason, as in Timeout.")] = None,
    everything: AllOption = False,
    rate: Annotated[float, typer.Option(min=0.1, max=1000, help="So many a second, at most.")] = 50,
    limit: Annotated[int | None, typer.Option(min=1, help="No more than so many, the oldest first.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which.")] = False,
) -> Exit:
    """Run dead letters (jobs that are Dead) again, at a rate."""
    from distriqueue.cli import changing, jobs
    from distriqueue.cli.clusters import Cluster, run

    choice = jobs.Choice(
        names=names or (),
        labels=selector,
        everywhere=everywhere,
        type=job_type,
        pool=pool,
        reason=reason,
        all=everything,
    )

    async def work(cluster: Cluster) -> Exit:
        return await changing.redrive(cluster, choice, rate=rate, limit=limit, dry_run=dry_run)

    return run(place, work)


@command("suspend")
def suspend(
    place: Place,
    *,
    names: NamesArgument = None,
    selector: SelectorOption = "",
    job_type: TypeOption = None,
    pool: PoolOption = None,
    everything: AllOption = False,
) -> Exit:
    """Let no attempt of these jobs start; one that runs goes on to its end."""
    return _change(place, "SUSPEND", names=names, labels=selector, type=job_type, pool=pool, all=everything)


@command("resume")
def resume(
    place: Place,
    *,
    names: NamesArgument = None,
    selector: SelectorOption = "",
    job_type: TypeOption = None,
    pool: PoolOption = None,
    everything: AllOption = False,
) -> Exit:
    """Let suspended jobs start again."""
    return _change(place, "RESUME", names=names, labels=selector, type=job_type, pool=pool, all=everything)


# --- the cluster ---------------------------------------------------------------------------------------------------


@command("status")
def status(place: Place, *, output: OutputOption = Output.TABLE) -> None:
    """Who leads, which workers there are, how many jobs in which phase."""
    from distriqueue.cli import overviews
    from distriqueue.cli.clusters import Cluster, run

    async def work(cluster: Cluster) -> None:
        await overviews.show_status(cluster, output)

    run(place, work)


@command("workers")
def workers(place: Place, *, pool: PoolOption = None, output: OutputOption = Output.TABLE) -> None:
    """The workers: phase, pool, load, types."""
    from distriqueue.cli import overviews
    from distriqueue.cli.clusters import Cluster, run

    async def work(cluster: Cluster) -> None:
        await overviews.show_workers(cluster, pool=pool, output=output)

    run(place, work)


@command("queues")
def queues(place: Place, *, output: OutputOption = Output.TABLE) -> None:
    """What waits, is out with RabbitMQ, runs and rests, by pool and priority."""
    from distriqueue.cli import overviews
    from distriqueue.cli.clusters import Cluster, run

    async def work(cluster: Cluster) -> None:
        await overviews.show_queues(cluster, output)

    run(place, work)


@command("top")
def top(
    place: Place,
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again every two seconds.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """The load of workers, and the backlog of pools: how fast it drains, and when it is clear."""
    from distriqueue.cli import overviews, tables
    from distriqueue.cli.clusters import Cluster, run

    async def work(cluster: Cluster) -> None:
        while True:
            await overviews.top(cluster, output)
            if not watch:
                return
            sys.stdout.flush()
            await asyncio.sleep(2.0)
            tables.say()

    run(place, work)


@app.command("completion")
def completion(shell: Annotated[Shell, typer.Argument(help="The shell.")]) -> None:
    """Print the completion script for a shell; see docs/cli.md for kubectl's own completion."""
    completing.print_script(shell)


@app.command("version")
def version() -> None:
    """Print the version."""
    import importlib.metadata

    try:
        sys.stdout.write(importlib.metadata.version("distriqueue") + "\n")
    except importlib.metadata.PackageNotFoundError:  # from a checkout
        sys.stdout.write("0.0.0 (a checkout)\n")
