"""Suites: check, run, and one table over several."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from kscout.cli.common import Overrides, console, group
from kscout.cli.sweeps import Given, with_launch_options
from kscout.errors import UserError

app = group("Compare masks and reconstructors on equal terms, audited, with statistics.")

SuiteFile = Annotated[Path, typer.Argument(metavar="SUITE.yaml", help="see configs/suites/")]


@app.command("check")
def check(suite: SuiteFile, overrides: Overrides = None) -> None:
    """Audit a suite without running anything, and say how many runs it has.

    Example:

        kscout bench check configs/suites/noise_r8.yaml
    """
    from kscout.bench.run import check_suite
    from kscout.bench.suite import load_suite

    check_suite(load_suite(suite, overrides or ()), console())


@app.command("run")
@with_launch_options
def run(
    suite: SuiteFile,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="folder for the runs [bench/NAME]")] = None,
    results: Annotated[
        Path, typer.Option(help="folder for NAME.json, NAME.md and NAME.html")
    ] = Path("results/bench"),
    *,
    given: Given,
) -> None:
    """Run a suite: tune on validation data, run all seeds, audit, and compare.

    Stopped at any moment, the same command goes on and ends in the same table. On SLURM it hands
    the runs in and returns: call it again when they have ended.

    Examples:

        kscout bench run configs/suites/digits_r4.yaml

        kscout bench run configs/suites/noise_r8.yaml seeds=5 --on slurm --gpus 1 --time 2:00:00
    """
    from kscout.bench.folder import BenchFolder
    from kscout.bench.run import run_suite
    from kscout.bench.suite import load_suite
    from kscout.bench.tables import print_results
    from kscout.experiment.config import check as checked
    from kscout.sweep.launch import Launch

    loaded = load_suite(suite, overrides or ())
    launch = checked(Launch, given, "options")
    folder = BenchFolder(out or Path("bench") / loaded.name.replace(" ", "-"))
    command = shlex.join(["kscout", "bench", "run", _short(suite), *(overrides or ())])
    ended = run_suite(loaded, folder, results, launch, command, console())
    if ended.has_failed:
        raise typer.Exit(1)
    if ended.results is not None:
        print_results(ended.results, console())
        typer.echo(f"results: {ended.results}")
        typer.echo(f"page: {ended.results.with_suffix('.html')}")


def _short(path: Path) -> str:
    """As seen from here, where it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


@app.command("table")
def table(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULTS...", help="from kscout bench run: .json, or their folder"),
    ],
) -> None:
    """Print one Markdown table over suites: a row for each reconstructor and test condition.

    Example:

        kscout bench table results/bench/noise-20-dB-R8.json results/bench/noise-20-dB-R4.json
    """
    from kscout.bench.tables import summary

    typer.echo(summary([file for path in results for file in _results(path)]))


def _results(path: Path) -> list[Path]:
    """A file, or those of a folder."""
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("*.json"))
    if not found or (path / "suite.yaml").exists():  # a suite's own folder has other .json
        raise UserError(
            f"{path} holds no results of suites: valid are the .json files that kscout bench run "
            "writes into --results, or that folder"
        )
    return found
