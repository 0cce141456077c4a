"""The table of a sweep: every run with its settings and scores, in a file and on the terminal."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kscout.atomic import atomic_path
from kscout.errors import UserError
from kscout.report import Run, load_runs
from kscout.report.grid import Grid, Heading
from kscout.report.table import METRICS, WIDE, Cell, plural, splits
from kscout.sweep.causes import PRUNED
from kscout.sweep.folder import SweepFolder, validation_losses
from kscout.sweep.grid import best_groups, best_runs
from kscout.sweep.ranking import MAIN, VAL_LOSS, check_groups, describe, metric_column, ranked
from kscout.sweep.status import FAILED, FINISHED, STATES, RunStatus
from kscout.sweep.text import NONE

if TYPE_CHECKING:
    import pandas as pd

UNREADABLE = "unreadable results"
"""The cause of a run that says it is finished but has no results that can be read."""

ATTEMPT_COLUMNS = ("id", "number", "where", "cause", "memory_mb", "micro_batch", "seconds")
"""Columns of ``attempts.csv``.

``seconds`` are those of the last session only of a SLURM job that was requeued.
"""


def frame(folder: SweepFolder, states: Sequence[RunStatus]) -> "pd.DataFrame":
    """One row for each run, in the order given.

    Columns: ``run``, ``state``, ``cause``; the settings by their dotted paths; ``n_samples``,
    ``acceleration``; ``val_loss``, the lowest of all epochs; the metrics on ``test``, each with the
    bounds of its 95 % interval (``nmse_low``, ``nmse_high``); then those on every other test
    condition (``test_x.nmse``). No times: a sweep that was interrupted gives the same table as one
    that was left alone.

    A setting that is a number in some runs and a word or a list in others is text in all. Runs that
    have not finished have no scores; one whose results cannot be read counts as failed.
    """
    import pandas as pd

    rows = [_read(folder.run(status.id).path, status) for status in states]
    found = [row.run and row.run.results for row in rows]
    columns: dict[str, Any] = {
        "run": pd.Series([status.id for status in states], dtype="str"),
        "state": pd.Series([row.state for row in rows], dtype="str"),
        "cause": pd.Series([row.cause for row in rows], dtype="str"),
    }
    chosen = [status.planned.settings for status in states]
    for path in dict.fromkeys(path for settings in chosen for path in settings):
        columns[path] = _typed([settings.get(path) for settings in chosen])
    columns["n_samples"] = pd.Series([r and r.n_samples for r in found], dtype="Int64")
    columns["acceleration"] = pd.Series([r and r.acceleration for r in found], dtype="float64")
    columns[VAL_LOSS] = pd.Series([row.val_loss for row in rows], dtype="float64")
    conditions = splits([row.run for row in rows if row.run])
    for split in dict.fromkeys((MAIN, *conditions)):
        for metric in METRICS:
            name = metric.key if split == MAIN else f"{split}.{metric.key}"
            scores = [r and r.interval(split, metric.key) for r in found]
            for end, part in (("", "mean"), ("_low", "low"), ("_high", "high")):
                columns[name + end] = pd.Series(
                    [score and getattr(score, part) for score in scores], dtype="float64"
                )
    return pd.DataFrame(columns)


class _Row(NamedTuple):
    """A run as the table states it."""

    state: str
    cause: str | None = None
    run: Run | None = None
    val_loss: float | None = None


def _read(run: Path, status: RunStatus) -> _Row:
    if status.state != FINISHED:
        return _Row(status.state, status.cause)
    try:
        found, val_loss = load_runs([run])[0], _val_loss(run)
    except (UserError, OSError, ValueError):
        return _Row(FAILED, UNREADABLE)
    return _Row(FINISHED, None, found, val_loss) if found.results else _Row(FAILED, UNREADABLE)


def _val_loss(run: Path) -> float | None:
    """The lowest; endless if none was a number."""
    losses = validation_losses(run)
    numbers = (loss for loss in losses if not math.isnan(loss))
    return min(numbers, default=math.inf) if losses else None


def _typed(values: Sequence[Any]) -> "pd.Series":
    """A column of settings in the one type that they share, or as text."""
    import pandas as pd

    types = {type(value) for value in values if value is not None}
    if types == {bool}:
        return pd.Series(values, dtype="boolean")
    if types == {int} and all(abs(value or 0) < 2**63 for value in values):
        return pd.Series(values, dtype="Int64")
    if types in ({float}, {float, int}):
        return pd.Series(values, dtype="float64")
    texts = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
    return pd.Series(texts, dtype="str")


def write_table(table: "pd.DataFrame", attempts: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write ``table.csv``, ``table.parquet`` and ``attempts.csv``, each whole or not at all.

    Parameters
    ----------
    table : from :func:`frame`
    attempts : one mapping with :data:`ATTEMPT_COLUMNS` for each try of a run; more keys are ignored
    folder : of the sweep

    Raises
    ------
    UserError
        if a file cannot be written
    """
    import pandas as pd

    with atomic_path(folder / "table.csv") as temporary:
        table.to_csv(temporary, index=False)
    with atomic_path(folder / "table.parquet") as temporary:
        table.to_parquet(temporary, index=False)
    columns = {name: _typed([row.get(name) for row in attempts]) for name in ATTEMPT_COLUMNS}
    with atomic_path(folder / "attempts.csv") as temporary:
        pd.DataFrame(columns).to_csv(temporary, index=False)


def counted(table: "pd.DataFrame") -> str:
    """``9 runs: 6 finished, 1 pruned, 2 failed (1 out of memory, 1 error)``."""
    given_up = table["cause"] == PRUNED
    states = Counter(table["state"].mask(given_up, PRUNED))
    causes = Counter(table.loc[(table["state"] == "failed") & ~given_up, "cause"].dropna())
    why = ", ".join(f"{n} {cause}" for cause, n in causes.most_common())
    named = [*STATES[:-1], PRUNED, STATES[-1]]
    parts = [f"{states[state]} {state}" for state in named if states[state]]
    runs = plural(len(table), "run")
    return f"{runs}: {', '.join(parts)}{f' ({why})' if why else ''}" if parts else "no runs"


def print_table(
    table: "pd.DataFrame",
    console: Console,
    *,
    metric: str = "nmse_kspace",
    group_by: Sequence[str] = (),
    top: int = 20,
) -> None:
    """Print the ``top`` best runs, and the best of each group.

    Parameters
    ----------
    table : from :func:`frame`
    console : printed to; where it is narrow, intervals stand below their means
    metric : that runs are ranked by
    group_by : dotted paths of settings; if none, the kind of sampler where it varies
    top : most runs to show

    Raises
    ------
    UserError
        if the metric or a path is unknown, listing the valid ones
    """
    column = metric_column(table, metric)
    groups = check_groups(table, group_by)
    if not len(ranked(table, column)):
        console.print(Text(f"{counted(table)}; no scores yet"))
        return
    measure = describe(column)[0].title
    title = (
        f"{counted(table)}\nbest {measure} on {MAIN} first; mean over slices [95 % interval]\n"
        "ranked on the test data: the first owes something to luck"
    )
    grid = best_runs(table, column, top)
    console.print(_drawn(grid, title, console))
    left = len(table) - len(grid.rows)
    if left:
        are = "is" if left == 1 else "are"
        console.print(Text(f"{plural(left, 'run')} {are} not shown: all are in table.csv"))
    if groups:
        best = best_groups(table, groups, column)
        console.print(_drawn(best.grid, f"{best.title}\n{measure} on {MAIN}", console))
        for note in best.notes:
            console.print(Text(f"note: {note}", style="yellow"))


def _drawn(grid: Grid, title: str, console: Console) -> Table:
    """A column for each setting; one for all of them where the terminal is too narrow."""
    table = _columns(grid, title, console.width)
    room = console.options.update(max_width=10_000)
    is_wide = console.measure(table, options=room).maximum > console.width
    return _columns(_settings_joined(grid), title, console.width) if is_wide else table


def _settings_joined(grid: Grid) -> Grid:
    settings = [i for i, heading in enumerate(grid.headings) if heading.is_setting]
    first, last = settings[0], settings[-1] + 1
    names = [heading.title for heading in grid.headings[first:last]]
    rows = []
    for row in grid.rows:
        pairs = zip(names, (cell.text.replace(" ", "") for cell in row[first:last]), strict=True)
        text = " ".join(f"{name}={value}" for name, value in pairs if value != NONE)
        rows.append([*row[:first], Cell(text), *row[last:]])
    headings = [*grid.headings[:first], Heading("setting", True, True), *grid.headings[last:]]
    return Grid(headings, rows)


def _columns(grid: Grid, title: str, width: int) -> Table:
    table = Table(title=Text(title), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in grid.headings:
        name = heading.title
        if heading.is_setting:
            name = name.replace("_", "_\n").replace(".", ".\n")
        table.add_column(
            Text(name.replace(" ", "\n")),
            justify="left" if heading.is_text else "right",
            no_wrap=not heading.is_setting,
            overflow="fold",
        )
    for row in grid.rows:
        table.add_row(*(_terminal(cell, width) for cell in row))
    return table


def _terminal(cell: Cell, width: int) -> Text:
    """One line where there is room, else the interval below its mean."""
    joint = "\n" if width < WIDE else " "
    return Text(joint.join(filter(None, (cell.text, cell.interval))))
