"""From a sweep's folder, finished or not, to its table, figures and page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from kscout.sweep.folder import SweepFolder
from kscout.sweep.html import write_report
from kscout.sweep.status import RunStatus, run_states
from kscout.sweep.table import frame, print_table, write_table


def summarise(
    folder: SweepFolder, group_by: Sequence[str], metric: str | None, top: int, console: Console
) -> Path:
    """Print the best runs; write all of them as CSV and Parquet, and the report.

    Parameters
    ----------
    group_by : dotted paths; the best run is shown for each combination of their values
    metric : to rank by; the sweep's own without one
    top : how many runs to print

    Returns
    -------
    the report

    Raises
    ------
    UserError
        if a path or the metric is unknown, or the folder cannot be written
    """
    sweep = folder.sweep()
    metric = metric or sweep.metric
    states = run_states(folder, folder.planned())
    attempts = [row for status in states for row in _attempts(folder, status)]
    table = frame(folder, states)
    write_table(table, attempts, folder.path)
    print_table(table, console, metric=metric, group_by=group_by, top=top)
    page = folder.path / "report.html"
    return write_report(sweep.name, table, attempts, page, metric=metric, group_by=group_by)


def _attempts(folder: SweepFolder, status: RunStatus) -> list[dict[str, Any]]:
    rows = []
    for attempt in status.attempts:
        ended = folder.ended(status.id, attempt.number)
        row = {"id": status.id, **attempt.model_dump(), "cause": None, "seconds": None, "error": ""}
        if ended is not None:
            row |= ended.model_dump(include={"cause", "seconds", "error"})
        elif attempt is status.attempts[-1]:  # of what SLURM alone knows how it ended
            row |= {"cause": status.cause, "error": status.error}
        rows.append(row)
    return rows
