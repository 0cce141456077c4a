"""The table of a sweep: every run with its settings and scores, in a file and on the terminal."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kscout.atomic import atomic_path
from kscout.errors import UserError
from kscout.report import Results, Run, load_runs
from kscout.report.table import METRICS, WIDE, Cell, splits
from kscout.sweep.causes import PRUNED
from kscout.sweep.ranking import (
    MAIN,
    NONE,
    Grid,
    Heading,
    best_groups,
    best_runs,
    check_groups,
    describe,
    group_notes,
    metric_column,
    ranked,
)
from kscout.sweep.status import STATES

if TYPE_CHECKING:
    import pandas as pd

UNREADABLE = "unreadable results"
"""The cause of a run that says it is finished but has no results that can be read."""

ATTEMPT_COLUMNS = ("id", "number", "where", "cause", "memory_mb", "micro_batch", "seconds")
"""Columns of ``attempts.csv``."""


class SweepRun(NamedTuple):
    """One planned run, as the table sees it.

    Attributes
    ----------
    id : ten hex digits
    path : its run folder
    settings : what the sweep set: dotted path to a value or a list of values
    state : one of :data:`STATES`
    cause : why it failed
    """

    id: str
    path: Path
    settings: Mapping[str, Any]
    state: str
    cause: str | None = None


def frame(runs: Sequence[SweepRun]) -> "pd.DataFrame":
    """One row for each run, in the order of the plan.

    Columns: ``run``, ``state``, ``cause``; the settings by their dotted paths; ``n_samples``,
    ``acceleration``; the metrics on ``test``, each with the bounds of its 95 % interval
    (``nmse_low``, ``nmse_high``); then those on every other test condition (``test_x.nmse``). No
    times: a sweep that was interrupted gives the same table as one that was left alone.

    A setting that is a number in some runs and a word or a list in others is text in all. Runs that
    have not finished have no scores; one whose results cannot be read counts as failed.
    """
    import pandas as pd

    read = [_read(run) for run in runs]
    found = [results for _, _, results in read]
    columns: dict[str, Any] = {
        "run": pd.Series([run.id for run in runs], dtype="str"),
        "state": pd.Series([state for state, _, _ in read], dtype="str"),
        "cause": pd.Series([cause for _, cause, _ in read], dtype="str"),
    }
    for path in dict.fromkeys(path for run in runs for path in run.settings):
        columns[path] = _typed([run.settings.get(path) for run in runs])
    columns["n_samples"] = pd.Series([r and r.n_samples for r in found], dtype="Int64")
    columns["acceleration"] = pd.Series([r and r.acceleration for r in found], dtype="float64")
    for split in _splits(runs, found):
        for metric in METRICS:
            name = metric.key if split == MAIN else f"{split}.{metric.key}"
            scores = [r and r.interval(split, metric.key) for r in found]
            for end, part in (("", "mean"), ("_low", "low"), ("_high", "high")):
                columns[name + end] = pd.Series(
                    [score and getattr(score, part) for score in scores], dtype="float64"
                )
    return pd.DataFrame(columns)


def _read(run: SweepRun) -> tuple[str, str | None, Results | None]:
    """State, cause and results; as the table states them."""
    if run.state != "finished":
        return run.state, run.cause, None
    try:
        results = load_runs([run.path])[0].results
    except (UserError, OSError):
        results = None
    return ("finished", None, results) if results else ("failed", UNREADABLE, None)


def _splits(runs: Sequence[SweepRun], found: Sequence[Results | None]) -> Iterator[str]:
    """Every test condition, the main one first even if no run has finished."""
    pairs = zip(runs, found, strict=True)
    shown = [Run(run.path, run.path, run.id, run.state, results) for run, results in pairs]
    yield from dict.fromkeys((MAIN, *splits(shown)))


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
    runs = f"{len(table)} run" if len(table) == 1 else f"{len(table)} runs"
    return f"{runs}: {', '.join(parts)}{f' ({why})' if why else ''}" if parts else "no runs"


def print_table(
    table: "pd.DataFrame",
    console: Console,
    *,
    metric: str = "nmse_kspace",
    split: str = MAIN,
    group_by: Sequence[str] = (),
    top: int = 20,
) -> None:
    """Print the ``top`` best runs, and the best of each group.

    Parameters
    ----------
    table : from :func:`frame`
    console : printed to; where it is narrow, intervals stand below their means
    metric : that runs are ranked by
    split : test condition
    group_by : dotted paths of settings; if none, the kind of sampler where it varies
    top : most runs to show

    Raises
    ------
    UserError
        if the metric, the test condition or a path is unknown, listing the valid ones
    """
    column = metric_column(table, metric, split)
    groups = check_groups(table, group_by)
    if not len(ranked(table, column)):
        console.print(Text(f"{counted(table)}; no scores yet"))
        return
    measure = describe(column)[0].title
    title = f"{counted(table)}\nbest {measure} on {split} first; mean over slices [95 % interval]"
    grid = best_runs(table, column, top)
    console.print(_drawn(grid, title, console))
    left = len(table) - len(grid.rows)
    if left:
        what = "1 run is" if left == 1 else f"{left} runs are"
        console.print(Text(f"{what} not shown: all are in table.csv"))
    if groups:
        names = ", ".join(groups)
        title = f"best of each {names}\nby {measure} on {split}"
        console.print(_drawn(best_groups(table, groups, column), title, console))
        for note in group_notes(table, groups, column):
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
    headings = [*grid.headings[:first], Heading("settings", True, True), *grid.headings[last:]]
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
