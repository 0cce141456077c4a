"""Many runs: plan, run, look on, go on, cancel, read."""

from collections.abc import Callable
from functools import wraps
from inspect import Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kscout.cli.common import Overrides, console, group

if TYPE_CHECKING:
    from kscout.sweep.launch import Launch

app = group("Run many experiments, here or on SLURM, that end in one table.")

SweepFile = Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="see configs/sweeps/")]
Folder = Annotated[Path, typer.Argument(metavar="SWEEP", help="folder of a sweep")]
Given = dict[str, Any]
"""The options of a launch that were given."""


def launch_options(
    on: Annotated[str | None, typer.Option("--on", help="local or slurm [local]")] = None,
    at_once: Annotated[
        int | None, typer.Option(min=1, help="runs at a time [one a core; SLURM: all it lets]")
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="limit of a run: minutes, 2:30:00 or 1-12:00 [SLURM: 60]")
    ] = None,
    mem: Annotated[str | None, typer.Option(help="memory of a run, such as 4G")] = None,
    max_mem: Annotated[
        str | None, typer.Option(help="most for a run that had too little [--mem]")
    ] = None,
    cpus: Annotated[int | None, typer.Option(min=1, help="SLURM: cores a process")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="SLURM: GPUs a machine")] = None,
    partition: Annotated[str | None, typer.Option(help="SLURM's")] = None,
    account: Annotated[str | None, typer.Option(help="SLURM's")] = None,
    slurm: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY[=VALUE]", help="any other option of sbatch; repeatable"),
    ] = None,
) -> Given:
    """What ``run`` and ``resume`` both take."""
    from kscout.sweep.launch import megabytes, minutes

    extra: dict[str, Any] = {}
    for option in slurm or []:
        name, equals, value = option.partition("=")
        extra[name.lstrip("-")] = value if equals else True  # as in --slurm no-requeue
    options = {
        "on": on,
        "at_once": at_once,
        "minutes": minutes(time) if time else None,
        "memory_mb": megabytes(mem) if mem else None,
        "max_memory_mb": megabytes(max_mem) if max_mem else None,
        "cpus": cpus,
        "gpus": gpus,
        "partition": partition,
        "account": account,
        "slurm": extra or None,
    }
    return {name: value for name, value in options.items() if value is not None}


def with_launch_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with :func:`launch_options` as its own, which it gets as ``given``."""
    own, shared = signature(command).parameters, signature(launch_options).parameters

    @wraps(command)
    def run(**options: Any) -> None:
        given = launch_options(**{name: options.pop(name) for name in shared})
        command(**options, given=given)

    parameters = [p for name, p in own.items() if name != "given"] + [*shared.values()]
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return run


@app.command("plan")
def plan(
    sweep: SweepFile,
    overrides: Overrides = None,
    probe: Annotated[int, typer.Option(min=0, help="how many runs to time shortly")] = 4,
) -> None:
    """Say how many runs a sweep has, whether all are possible, and what they will cost.

    Example:

        kscout sweep plan configs/sweeps/learned_small.yaml
    """
    from kscout.sweep.plan import print_plan
    from kscout.sweep.spec import load_sweep

    print_plan(load_sweep(sweep, overrides or ()), probe, console())


@app.command("run")
@with_launch_options
def run(
    sweep: SweepFile,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="sweep folder [sweeps/NAME]")] = None,
    *,
    given: Given,
) -> None:
    """Run every experiment of a sweep; what is finished is not done again.

    Examples:

        kscout sweep run configs/sweeps/learned_small.yaml

        kscout sweep run grid.yaml base.training.epochs=20 --on slurm --at-once 9 --time 2:00:00
        --mem 4G --max-mem 16G --gpus 1 --partition gpu
    """
    from kscout.sweep.coordinate import start
    from kscout.sweep.folder import SweepFolder
    from kscout.sweep.launch import Launch
    from kscout.sweep.spec import load_sweep

    loaded = load_sweep(sweep, overrides or ())
    folder = out or Path("sweeps") / loaded.name.replace(" ", "-")
    _exit(start(SweepFolder(folder), loaded, _launch(Launch(), given), console()))


@app.command("resume")
@with_launch_options
def resume(
    folder: Folder,
    errors_too: Annotated[
        bool, typer.Option("--errors-too", help="try again what ended with an error")
    ] = False,
    *,
    given: Given,
) -> None:
    """Go on with a sweep: rerun what was interrupted, and give more memory to what ran out of it.

    Options that are not given are those of the last time.

    Examples:

        kscout sweep resume sweeps/grid

        kscout sweep resume sweeps/grid --max-mem 32G --errors-too
    """
    from kscout.sweep.coordinate import resume as go_on
    from kscout.sweep.folder import SweepFolder

    sweep = SweepFolder(folder)
    _exit(go_on(sweep, _launch(sweep.launch(), given | {"errors_too": errors_too}), console()))


@app.command("status")
def status(
    folder: Folder,
    watch: Annotated[bool, typer.Option("--watch", help="look again until all is done")] = False,
) -> None:
    """Say which runs are done, at work, waiting or failed, and why.

    Example:

        kscout sweep status sweeps/grid --watch
    """
    from kscout.sweep.coordinate import show_status
    from kscout.sweep.folder import SweepFolder

    show_status(SweepFolder(folder), watch, console())


@app.command("cancel")
def cancel(folder: Folder) -> None:
    """Stop what is at work, here or on SLURM, and take back what is queued.

    Example:

        kscout sweep cancel sweeps/grid
    """
    from kscout.sweep.coordinate import cancel as stop
    from kscout.sweep.folder import SweepFolder

    n = stop(SweepFolder(folder))
    typer.echo(f"{n} runs cancelled: kscout sweep resume goes on" if n else "nothing is running")


@app.command("logs")
def logs(
    folder: Folder,
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="id of a run, or its beginning")],
) -> None:
    """Print what a run has printed, in all its tries.

    Example:

        kscout sweep logs sweeps/grid 3f9a
    """
    from kscout.sweep.folder import SweepFolder
    from kscout.sweep.status import read_logs

    typer.echo(read_logs(SweepFolder(folder), run_id))


@app.command("table")
def table(
    folder: Folder,
    by: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="best run for each value of a setting; repeatable"),
    ] = None,
    metric: Annotated[str | None, typer.Option(help="to rank by [the sweep's]")] = None,
    top: Annotated[int, typer.Option(min=1, help="runs to print")] = 20,
) -> None:
    """Print the best runs, and write all as CSV and Parquet, with a report; at any time.

    Example:

        kscout sweep table sweeps/grid --by sampler.kind --by budget.acceleration
    """
    from kscout.sweep.folder import SweepFolder
    from kscout.sweep.summary import summarise

    page = summarise(SweepFolder(folder), by or [], metric, top, console())
    typer.echo(f"table: {folder / 'table.csv'}")
    typer.echo(f"report: {page}")


def _exit(well: bool) -> None:
    """End with code 1 where runs have failed, so that a script does not go on as if nothing had."""
    if not well:
        raise typer.Exit(1)


def _launch(before: "Launch", given: Given) -> "Launch":
    """The last launch with the options that were given; elsewhere, those alone."""
    from kscout.experiment.config import check
    from kscout.sweep.launch import Launch

    kept = before.model_dump() if given.get("on", before.on) == before.on else {}
    return check(Launch, kept | given, "options")
