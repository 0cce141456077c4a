"""The report on a sweep as one HTML file that needs nothing else: no network, no other files."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kscout.report.html import Picture, picture, write_page
from kscout.report.table import plural
from kscout.sweep import figures
from kscout.sweep.causes import PRUNED, told
from kscout.sweep.grid import BestGroups, best_groups, best_runs, every_run
from kscout.sweep.ranking import check_groups, conditions, metric_column, settings, values
from kscout.sweep.scales import setting_scale
from kscout.sweep.table import counted
from kscout.sweep.text import duration

if TYPE_CHECKING:
    import pandas as pd

TOP = 20
"""Runs in the table of the best."""

MOST_STEPS = 12
"""Values of a setting that are listed one by one."""

MOST_RUNS = 6
"""Failed runs that are named for one message."""

Attempts = Sequence[Mapping[str, Any]]


class Failure(NamedTuple):
    """One message that runs failed with: why, its last line, all of it, and which runs."""

    cause: str
    message: str
    text: str
    runs: list[str]


def write_report(
    name: str,
    table: "pd.DataFrame",
    attempts: Attempts,
    out: Path,
    *,
    metric: str = "nmse_kspace",
    group_by: Sequence[str] = (),
) -> Path:
    """Write the report on a sweep, however far it has come.

    The figures are also saved as PNG files in ``figures/`` beside it.

    Parameters
    ----------
    name : of the sweep
    table : from :func:`kscout.sweep.table.frame`
    attempts : one mapping for each try of a run: ``id``, ``number``, ``cause`` (None if it ended
        well), ``seconds`` (None if it has not ended) and ``error``, the last lines of its message
    out : the HTML file
    metric : that runs are ranked by
    group_by : dotted paths of settings; if none, the kind of sampler where it varies

    Returns
    -------
    ``out``

    Raises
    ------
    UserError
        if the metric or a path is unknown, or an output cannot be written
    """
    column = metric_column(table, metric)
    groups = check_groups(table, group_by)
    return write_page(
        out,
        "kscout.sweep/sweep.html",
        name=name,
        counted=counted(table),
        swept=list(_swept(table)),
        best=list(_best(table, groups, metric)),
        pictures=_pictures(table, column, out.parent / "figures"),
        top=best_runs(table, column, TOP),
        failures=failures(table, attempts),
        most_runs=MOST_RUNS,
        cost=_cost(attempts) if attempts else [],
        every=every_run(table, column),
    )


def _swept(table: "pd.DataFrame") -> Iterator[tuple[str, str]]:
    """Each setting and the values it took, with the number of runs of each."""
    for path in settings(table):
        found = values(table, path)
        scale = setting_scale(found)
        if scale.is_numeric:
            given = [value for value in found if value is not None]
            yield path, f"{len(set(given))} values from {min(given):g} to {max(given):g}"
            continue
        steps = range(len(scale.labels))
        counts = zip(scale.labels, [int((scale.positions == i).sum()) for i in steps], strict=True)
        parts = [f"{label} ({plural(n, 'run')})" for label, n in list(counts)[:MOST_STEPS]]
        left = len(steps) - MOST_STEPS
        yield path, ", ".join(parts) + (f" and {left} values more" if left > 0 else "")


def _best(
    table: "pd.DataFrame", groups: Sequence[str], metric: str
) -> Iterator[tuple[str, BestGroups]]:
    """The best of each group on every test condition, the main one first."""
    if not groups or not (table["state"] == "finished").any():
        return
    for split in conditions(table):
        yield split, best_groups(table, groups, metric_column(table, metric, split))


def _pictures(table: "pd.DataFrame", column: str, folder: Path) -> list[tuple[str, Picture]]:
    drawn = [
        (
            "marginal_effects.png",
            "What each setting does",
            "Blue: one run each. Orange: median and quartiles of all settings with this value, "
            "their seeds averaged first; where the axis is one of numbers, of neighbouring "
            "values. Runs without a number are then left out.",
            figures.marginal_effects(table, column),
        ),
        (
            "parallel_coordinates.png",
            "Runs as lines",
            "Each line is a run, from setting to setting to its score; the best scores are at the "
            "top, and yellow. Runs that share a value are fanned out, the best on top. Orange: the "
            "best run.",
            figures.parallel_coordinates(table, column),
        ),
    ]
    return [
        (title, picture(figure, folder / name, caption))
        for name, title, caption, figure in drawn
        if figure is not None
    ]


def failures(table: "pd.DataFrame", attempts: Attempts) -> list[Failure]:
    """What runs that failed for good say, each message once, the most frequent first."""
    last: dict[str, Mapping[str, Any]] = {}
    for attempt in attempts:
        before = last.get(attempt["id"])
        if before is None or attempt["number"] >= before["number"]:
            last[attempt["id"]] = attempt
    found: dict[tuple[str, str], Failure] = {}
    failed = table[(table["state"] == "failed") & (table["cause"] != PRUNED)]
    for run, cause in zip(values(failed, "run"), values(failed, "cause"), strict=True):
        text = (last.get(run, {}).get("error") or "").strip()
        message = told(text)
        cause = cause or "unknown"
        failure = found.setdefault((cause, message), Failure(cause, message, text, []))
        failure.runs.append(run)
    return sorted(found.values(), key=lambda failure: -len(failure.runs))


def _cost(attempts: Attempts) -> list[tuple[str, str]]:
    ended = [attempt for attempt in attempts if attempt.get("seconds") is not None]
    lost = [attempt for attempt in ended if attempt.get("cause") is not None]
    again = sum(attempt["number"] > 1 for attempt in attempts)
    on_slurm = any(attempt.get("where") == "slurm" for attempt in attempts)
    part = " (of requeued jobs, the last session only)" if on_slurm else ""
    return [
        ("attempts", f"{len(attempts)}, of which {again} repeat one that ended early"),
        ("time of all attempts", duration(sum(a["seconds"] for a in ended)) + part),
        (
            "of this without a result",
            f"{duration(sum(a['seconds'] for a in lost))} in {plural(len(lost), 'attempt')}",
        ),
    ]
