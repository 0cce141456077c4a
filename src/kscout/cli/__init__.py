"""The command line: the only place that parses one.

Everything heavy is imported inside the commands, so that ``kscout --help`` answers at once.
"""

import sys
from typing import Annotated

import typer

from kscout import __version__
from kscout.cli import acquire, bench, data, masks, recon, runs, sweeps
from kscout.errors import UserError

INTERRUPTED = 130
"""Exit code after Ctrl-C."""

RESUMES = {
    "train": "kscout train goes on from here when called again",
    "sweep run": "kscout sweep resume goes on from here",
    "sweep resume": "kscout sweep resume goes on from here when called again",
    "acquire train": "kscout acquire train goes on from here when called again",
    "bench run": "kscout bench run goes on from here when called again",
}
"""What is said after Ctrl-C, for the commands (by all their words) that can be continued."""

app = typer.Typer(
    help="Learn where to sample k-space and how to reconstruct from what was sampled.",
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
for command in (runs.train, runs.report, runs.evaluate, recon.recon):
    app.command()(command)
app.add_typer(sweeps.app, name="sweep")
app.add_typer(bench.app, name="bench")
app.add_typer(acquire.app, name="acquire")
app.add_typer(masks.app, name="mask")
app.add_typer(data.app, name="data")


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if show:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; bad input ends in one line and exit code 2."""
    try:
        app()
    except UserError as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        sys.exit(2)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:  # typer ends so on Ctrl-C, without a word
            typer.echo("interrupted" + _how_to_resume(sys.argv[1:]), err=True)
        raise


def _how_to_resume(words: list[str]) -> str:
    for command, said in RESUMES.items():
        if words[: len(command.split())] == command.split():
            return f": {said}"
    return ""
