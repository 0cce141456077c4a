"""What several commands share: arguments, the terminal, and how a group of commands is made."""

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file; see configs/")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY.PATH=VALUE]...", help="changes to the configuration"),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="folder of a finished run")]


def clean_up_when_ended() -> None:
    """Let what is half written be removed where the command is told to end, as by a closed line."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))


def console() -> "Console":
    from rich.console import Console

    return Console()


def group(summary: str) -> typer.Typer:
    """Commands that share their first word, as in ``kscout mask make``."""
    return typer.Typer(help=summary, no_args_is_help=True, rich_markup_mode="markdown")
