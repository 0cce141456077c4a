"""Active acquisition: policies trained, and judged."""

from pathlib import Path
from typing import Annotated

import typer

from kscout.cli.common import Config, Overrides, console, group

app = group("Learn which line to acquire next from what was seen so far.")


@app.command("train")
def train(
    config: Config,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="folder [acquire/NAME of the config]")] = None,
) -> None:
    """Train a reconstructor for every number of lines, then every policy that learns.

    Stopped at any moment, the same command goes on where it was; what is done is not done again.

    Examples:

        kscout acquire train configs/acquire/digits.yaml

        kscout acquire train configs/acquire/digits.yaml learning.epochs=2 --out acquire/short
    """
    from kscout.experiment.active import ActiveFolder, load_active
    from kscout.experiment.trained import train_policies

    active = load_active(config, overrides or [])
    folder = out or Path("acquire") / active.name.replace(" ", "-")
    train_policies(active, ActiveFolder(folder), console())
    typer.echo(f"trained: kscout acquire eval {folder} judges them")


@app.command("eval")
def judge(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="of kscout acquire train")],
) -> None:
    """Acquire every test slice by every policy: curves, areas, and paired differences.

    Ends in a table, FOLDER/report.html, and records.csv with one row for every slice and step.

    Example:

        kscout acquire eval acquire/digits-lines
    """
    from kscout.experiment.judge import judge_policies
    from kscout.report.active import print_active, write_active_report

    judge_policies(folder, console())
    page = write_active_report(folder)
    print_active(folder, console())
    typer.echo(f"report: {page}")
