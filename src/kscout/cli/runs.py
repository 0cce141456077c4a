"""Commands that make runs and use them: train, report, evaluate."""

from pathlib import Path
from typing import Annotated

import typer

from kscout.cli.common import Config, Overrides, Run, console


def train(
    config: Config,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="run folder [runs/NAME of the config]")] = None,
) -> None:
    """Fit a sampler with its reconstructor, and everything it is compared with.

    Ends in a table and RUN/report.html. Stopped at any moment, the same command goes on where it
    was; what is finished is not done again.

    Examples:

        kscout train configs/demo.yaml

        kscout train configs/digits.yaml training.epochs=2 sampler.init=density --out runs/short
    """
    from kscout.experiment import load_experiment, run_experiment

    experiment = load_experiment(config, overrides or ())
    changed = {override.partition("=")[0] for override in overrides or ()}
    if changed & {"sampler", "sampler.kind"} and "name" not in changed:
        typer.echo(
            f"note: the {experiment.sampler.kind} sampler is called '{experiment.name}', as in "
            f"{config}: name=... calls it otherwise"
        )
    folder = out or Path("runs") / experiment.name.replace(" ", "-")
    run_experiment(experiment, folder, console())
    _show_report([folder], folder / "report.html")


def _show_report(runs: list[Path], out: Path) -> None:
    from kscout.report import load_runs
    from kscout.report.html import write_report
    from kscout.report.table import print_table, write_markdown

    path = write_report(runs, out)
    loaded = load_runs(runs)
    write_markdown(loaded, out.with_suffix(".md"))
    print_table(loaded, console())
    typer.echo(f"report: {path}")


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="run folders")],
    out: Annotated[Path | None, typer.Option(help="HTML file [RUN/report.html]")] = None,
) -> None:
    """Draw finished runs, each with what it was compared with, as one self-contained page.

    The table alone is written beside the page, as Markdown.

    Example:

        kscout report runs/demo runs/digits --out both.html
    """
    _show_report(runs, out or runs[0] / "report.html")


def evaluate(run: Run, overrides: Overrides = None) -> None:
    """Test a finished run again, on its own test data or on changed data.

    Examples:

        kscout evaluate runs/demo

        kscout evaluate runs/demo data.snr_db=20 data.test_coil_turn=15
    """
    from kscout.experiment.fitted import evaluate_again
    from kscout.report.table import print_summary

    print_summary(evaluate_again(run, overrides or [], console()), console())
