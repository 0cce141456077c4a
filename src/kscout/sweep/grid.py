"""The best runs of a sweep written out, for the terminal and for the page alike."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from kscout.report.grid import Grid, Heading
from kscout.report.table import Cell
from kscout.sweep.ranking import (
    VAL_LOSS,
    Choice,
    best_per_group,
    choice,
    describe,
    is_repeated,
    ranked,
    rows,
    seeds,
    shown,
    values,
    varied,
)
from kscout.sweep.text import short_names, written

if TYPE_CHECKING:
    import pandas as pd


def best_runs(frame: "pd.DataFrame", column: str, top: int | None = None) -> Grid:
    """The ``top`` best runs written out: settings that vary, the metric, PSNR and SSIM."""
    best = ranked(frame, column).iloc[:top]
    paths = varied(frame)
    lines = []
    for (_, row), chosen in zip(best.iterrows(), rows(best, paths), strict=True):
        cells = [Cell(written(value)) for value in chosen]
        lines.append([Cell(row["run"]), *cells, *_scores(row, column)])
    return Grid(
        [Heading("run", True), *_setting_headings(frame, paths), *_score_headings(column)], lines
    )


def every_run(frame: "pd.DataFrame", column: str) -> Grid:
    """All runs in the order of the plan written out, as :func:`best_runs` but with states."""
    paths = varied(frame)
    lines = []
    for (_, row), chosen in zip(frame.iterrows(), rows(frame, paths), strict=True):
        why = f" ({row['cause']})" if isinstance(row["cause"], str) else ""
        cells = [Cell(text) for text in (row["run"], row["state"] + why, *map(written, chosen))]
        lines.append([*cells, *_scores(row, column)])
    known = [Heading("run", True), Heading("state", True)]
    return Grid([*known, *_setting_headings(frame, paths), *_score_headings(column)], lines)


class BestGroups(NamedTuple):
    """The best of each group written out.

    Attributes
    ----------
    title : ``best of each sampler.kind, chosen by validation loss``
    notes : what a reader must know to judge it, one line each
    """

    title: str
    grid: Grid
    notes: list[str]


def best_groups(frame: "pd.DataFrame", group_by: Sequence[str], column: str) -> BestGroups:
    """:func:`best_per_group` written out."""
    table = best_per_group(frame, group_by, column)
    made = choice(frame, group_by, column)
    return BestGroups(
        _title(table, group_by, made),
        _groups_grid(frame, table, group_by, column),
        _notes(frame, table, group_by, made),
    )


def _groups_grid(
    frame: "pd.DataFrame", table: "pd.DataFrame", group_by: Sequence[str], column: str
) -> Grid:
    repeated, is_choice = is_repeated(frame, group_by), _is_choice(table)
    paths = [path for path in varied(frame) if path in table.columns]
    paths.sort(key=lambda path: path not in group_by)
    by_run = frame.set_index("run")
    lines = []
    for (_, row), chosen in zip(table.iterrows(), rows(table, paths), strict=True):
        is_done = row["n_seeds"] > 0
        cells = [
            Cell(written(value) if is_done or path in group_by else "-")
            for path, value in zip(paths, chosen, strict=True)
        ]
        if is_choice:
            cells.append(Cell(str(row["n_settings"])))
        if repeated:
            cells.append(Cell(f"{row['n_seeds']} of {row['n_planned']}"))
        source = row if repeated or not is_done else by_run.loc[row["run"]]
        lines.append([*cells, *_scores(source, column), Cell(row["run"] if is_done else "-")])
    counts = [*(["settings"] if is_choice else []), *(["seeds"] if repeated else [])]
    headings = [*_setting_headings(frame, paths), *map(Heading, counts)]
    last = Heading("first run" if repeated else "run", True)
    return Grid([*headings, *_score_headings(column), last], lines)


def _title(table: "pd.DataFrame", group_by: Sequence[str], made: Choice) -> str:
    title = f"best of each {', '.join(group_by)}"
    if not _is_choice(table):
        return title
    how = "by validation loss" if made.column == VAL_LOSS else "on the test data"
    return f"{title}, chosen {how}"


def _is_choice(table: "pd.DataFrame") -> bool:
    return bool((table["n_settings"] > 1).any())


def _notes(
    frame: "pd.DataFrame", table: "pd.DataFrame", group_by: Sequence[str], made: Choice
) -> list[str]:
    found = _choice_notes(table, made) if _is_choice(table) else []
    if not is_repeated(frame, group_by):
        return found
    found.append(
        "seeds are averaged before settings are chosen (mean ± standard deviation over seeds), so "
        "that the best of many seeds does not win by luck"
    )
    n_seeds = len(set(rows(frame, [path for path in seeds(frame) if path not in group_by])))
    few = table[(table["n_seeds"] > 0) & (table["n_seeds"] < n_seeds)]
    if len(few):
        found.append(
            f"{len(few)} of {len(table)} rows average fewer than the {n_seeds} seeds of the sweep: "
            "with fewer seeds luck counts for more"
        )
    return found


def _choice_notes(table: "pd.DataFrame", made: Choice) -> list[str]:
    if made.column == VAL_LOSS:
        found = ["settings were chosen by validation loss: the test data had no say"]
    else:
        found = [
            f"settings were chosen by {describe(made.column)[0].title} on the test data "
            f"({made.why}), so their scores are too good"
        ]
    counts = table.loc[table["n_settings"] > 0, "n_settings"]
    if counts.min() < counts.max():
        found.append(
            f"groups had {counts.min()} to {counts.max()} settings to choose from: one with more "
            "had more chances"
        )
    return found


def _setting_headings(frame: "pd.DataFrame", paths: Sequence[str]) -> list[Heading]:
    return [
        Heading(name, any(isinstance(value, str) for value in values(frame, path)), True)
        for path, name in short_names(paths).items()
    ]


def _score_headings(column: str) -> list[Heading]:
    return [Heading(describe(name)[0].title) for name in shown(column)]


def _scores(row: Any, column: str) -> list[Cell]:
    """Means of the metrics shown; the first with its spread over seeds, or else its interval."""
    means = [_mean(row[name], name) for name in shown(column)]
    if means[0].text == "-":
        return means
    spread, low = (row.get(f"{column}_{part}", math.nan) for part in ("std", "low"))
    if math.isfinite(spread):
        means[0] = _with_spread(means[0].text, spread)
    elif math.isfinite(low):
        bounds = {"low": low, "high": row[f"{column}_high"]}
        means[0] = describe(column)[0].write({"mean": row[column], **bounds})
    return means


def _mean(value: float, name: str) -> Cell:
    if math.isnan(value):
        return Cell("-")
    return Cell(describe(name)[0].write(dict.fromkeys(("mean", "low", "high"), value)).text)


def _with_spread(text: str, spread: float) -> Cell:
    """A mean and its standard deviation in the same power of ten: ``3.10e-05 ± 0.20``."""
    digits, _, exponent = text.partition("e")
    n_decimals = len(digits.partition(".")[2])
    return Cell(text, f"± {spread / float(f'1e{exponent or 0}'):.{n_decimals}f}")
