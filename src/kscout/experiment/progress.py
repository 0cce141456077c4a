"""Progress bars for what Lightning does not show."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Show = Callable[[str, int, int], None]
"""Called with what is being done, how many steps are done, and of how many."""

PLAIN: Any = {"highlight": False, "soft_wrap": True}
"""Of lines that are printed: no colours, and no breaks where a terminal ends."""


@contextmanager
def progress_bar(console: Console, label: str) -> Iterator[Show]:
    """A bar that disappears when its work is done; none where nobody looks at a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(label, total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=f"{label}: {what}", completed=done, total=total)

        yield show
