"""Which runs of a sweep are the best: everything here reads the frame of :mod:`.table`."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kscout.errors import UserError
from kscout.report.table import METRICS, Cell, Column

if TYPE_CHECKING:
    import pandas as pd

LEADING = ("run", "state", "cause")
"""Columns of the frame before the settings."""

COUNTS = ("n_samples", "acceleration")
"""Columns between the settings and the metrics."""

MAIN = "test"
"""The test condition whose columns bear the bare names of the metrics."""

BESIDE = ("psnr", "ssim")
"""Metrics shown beside the one that runs are ranked by."""

BY_DEFAULT = "sampler.kind"
"""What the best runs are grouped by where nothing is asked for."""

NONE = "none"
"""A setting that a run does not have, or that is null."""

COLUMN = {column.key: column for column in METRICS}


Record = dict[str, Any]
"""A row of the frame by its columns, None where there is nothing."""


class Heading(NamedTuple):
    """Of a column: its title, whether it holds words, and whether it is a setting."""

    title: str
    is_text: bool = False
    is_setting: bool = False


class Grid(NamedTuple):
    """A table as it is written."""

    headings: list[Heading]
    rows: list[list[Cell]]


def settings(frame: "pd.DataFrame") -> list[str]:
    """Dotted paths of what the sweep set."""
    names = list(frame.columns)
    return names[len(LEADING) : names.index(COUNTS[0])]


def varied(frame: "pd.DataFrame") -> list[str]:
    """The settings that took more than one value, none counting as one."""
    return [path for path in settings(frame) if len(set(values(frame, path))) > 1]


def seeds(frame: "pd.DataFrame") -> list[str]:
    """The settings that only repeat a run."""
    return [path for path in settings(frame) if path.split(".")[-1] == "seed"]


def values(frame: "pd.DataFrame", column: str) -> list[Any]:
    """A column as plain Python values, None where there is none."""
    found = frame[column]
    return found.astype(object).where(found.notna(), None).tolist()


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Each path's last parts, as many as tell it from the others."""
    parts = {path: path.split(".") for path in paths}
    names = {}
    for path, own in parts.items():
        others = [part for other, part in parts.items() if other != path]
        n = next(
            (n for n in range(1, len(own)) if all(own[-n:] != other[-n:] for other in others)),
            len(own),
        )
        names[path] = ".".join(own[-n:])
    return names


def written(value: Any) -> str:
    """A setting as a YAML would have it."""
    if value is None or isinstance(value, bool):
        return {None: NONE, True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def metric_column(frame: "pd.DataFrame", metric: str, split: str = MAIN) -> str:
    """The column of a metric on a test condition.

    Raises
    ------
    UserError
        if either is unknown, listing the valid ones
    """
    if metric not in COLUMN:
        raise UserError(f"unknown metric '{metric}': valid are {', '.join(COLUMN)}")
    name = metric if split == MAIN else f"{split}.{metric}"
    if name not in frame.columns:
        valid = ", ".join(conditions(frame))
        raise UserError(f"unknown test condition '{split}': valid are {valid}")
    return name


def conditions(frame: "pd.DataFrame") -> list[str]:
    """Every test condition that a run was scored on, the main one first."""
    names = list(frame.columns)
    found = (name.rpartition(".") for name in names[names.index(COUNTS[-1]) + 1 :])
    return list(dict.fromkeys(split or MAIN for split, _, _ in found))


def describe(column: str) -> tuple[Column, str]:
    """The metric and the test condition of a column of the frame."""
    split, _, metric = column.rpartition(".")
    if metric not in COLUMN:
        raise UserError(f"unknown metric '{column}': valid are {', '.join(COLUMN)}")
    return COLUMN[metric], split or MAIN


def check_groups(frame: "pd.DataFrame", group_by: Sequence[str]) -> list[str]:
    """What to group by, :data:`BY_DEFAULT` if it varies and nothing is given.

    Raises
    ------
    UserError
        if a path is no setting of the sweep, listing the valid ones
    """
    valid = settings(frame)
    for path in group_by:
        if path not in valid:
            raise UserError(
                f"the sweep does not set '{path}': valid to group by are {', '.join(valid)}"
            )
    if group_by:
        return list(dict.fromkeys(group_by))
    return [BY_DEFAULT] if BY_DEFAULT in varied(frame) else []


def ranked(frame: "pd.DataFrame", column: str) -> "pd.DataFrame":
    """Finished runs, the best first; those without a finite score last."""
    finished = frame[(frame["state"] == "finished") & frame[column].notna()]
    ranks = [_rank(value, column) for value in finished[column]]
    order = sorted(range(len(ranks)), key=ranks.__getitem__)
    return finished.iloc[order]


def best_per_group(frame: "pd.DataFrame", group_by: Sequence[str], metric: str) -> "pd.DataFrame":
    """The best settings for every combination of the settings in ``group_by``, best group first.

    Runs that differ in their seed alone are averaged before they compete: the best of many seeds
    would otherwise win by luck. A run without a finite score spoils its average.

    Parameters
    ----------
    frame : from :func:`kscout.sweep.table.frame`
    group_by : dotted paths
    metric : column of the frame: ``nmse``, or ``test_x.nmse`` for another test condition

    Returns
    -------
    One row for each group: the settings but for seeds; ``run``, the first of the runs averaged;
    ``n_seeds``, how many they are, and ``n_planned``, how many there will be; the metric and its
    standard deviation over seeds (``nmse_std``), and PSNR and SSIM on the same test condition.
    Groups with nothing finished come last, without settings of their own.

    Raises
    ------
    UserError
        if a path or the metric is unknown, listing the valid ones
    """
    import pandas as pd

    groups = check_groups(frame, group_by)
    measure, split = describe(metric)
    column = metric_column(frame, measure.key, split)
    others = [path for path in settings(frame) if path not in (*groups, *seeds(frame))]
    rows = frame[["run", "state", *groups, *others, *_shown(column)]].astype(object)
    records = rows.where(rows.notna(), None).to_dict("records")
    best: dict[tuple[Any, ...], dict[str, Any]] = {}
    for repeats in _together(records, [*groups, *others]):
        row = _average(repeats, _shown(column))
        settled = [*groups, *others] if row["n_seeds"] else groups
        row = {**{path: repeats[0][path] for path in settled}, **row}
        key = tuple(repeats[0][path] for path in groups)
        if key not in best or _rank(row[column], column) < _rank(best[key][column], column):
            best[key] = row
    names = [*groups, *others, "run", "n_seeds", "n_planned", column, f"{column}_std"]
    names += [name for name in _beside(column) if name != column]
    ordered = sorted(best.values(), key=lambda row: _rank(row[column], column))
    return pd.DataFrame(ordered, columns=names)


def _together(records: Sequence[Record], paths: Sequence[str]) -> list[list[Record]]:
    """Records that agree in all ``paths``, in their order."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        groups.setdefault(tuple(record[path] for path in paths), []).append(record)
    return list(groups.values())


def _average(repeats: Sequence[Record], metrics: Sequence[str]) -> Record:
    """Of the finished ones; the first metric with its standard deviation."""
    done = [record for record in repeats if record["state"] == "finished"]
    scores = {
        name: [math.nan if record[name] is None else record[name] for record in done]
        for name in metrics
    }
    first = scores[metrics[0]]
    return {
        "run": done[0]["run"] if done else None,
        "n_seeds": len(done),
        "n_planned": len(repeats),
        f"{metrics[0]}_std": float(np.std(first, ddof=1)) if len(done) > 1 else math.nan,
        **{name: float(np.mean(found)) if done else math.nan for name, found in scores.items()},
    }


def _rows(frame: "pd.DataFrame", paths: Sequence[str]) -> list[tuple[Any, ...]]:
    """The values in ``paths`` of each row."""
    columns = (values(frame, path) for path in paths)
    return list(zip(*columns, strict=True)) if paths else [()] * len(frame)


def _beside(column: str) -> list[str]:
    """PSNR and SSIM on the test condition of ``column``."""
    head = column.rpartition(".")[0]
    return [f"{head}.{key}" if head else key for key in BESIDE]


def _rank(value: float, column: str) -> float:
    """Smaller is better; a score that is not finite is worse than any, none the worst of all."""
    if value is None or math.isnan(value):
        return math.inf
    if math.isinf(value):
        return 1e300
    return value if describe(column)[0].best is min else -value


def best_runs(frame: "pd.DataFrame", column: str, top: int | None = None) -> Grid:
    """The ``top`` best runs written out: settings that vary, the metric, PSNR and SSIM."""
    shown = ranked(frame, column).iloc[:top]
    paths = varied(frame)
    rows = []
    for (_, row), chosen in zip(shown.iterrows(), _rows(shown, paths), strict=True):
        cells = [Cell(written(value)) for value in chosen]
        rows.append([Cell(row["run"]), *cells, *_scores(row, column)])
    return Grid(
        [Heading("run", True), *_setting_headings(frame, paths), *_score_headings(column)], rows
    )


def every_run(frame: "pd.DataFrame", column: str) -> Grid:
    """All runs in the order of the plan written out, as :func:`best_runs` but with states."""
    paths = varied(frame)
    rows = []
    for (_, row), chosen in zip(frame.iterrows(), _rows(frame, paths), strict=True):
        why = f" ({row['cause']})" if isinstance(row["cause"], str) else ""
        cells = [Cell(text) for text in (row["run"], row["state"] + why, *map(written, chosen))]
        rows.append([*cells, *_scores(row, column)])
    known = [Heading("run", True), Heading("state", True)]
    return Grid([*known, *_setting_headings(frame, paths), *_score_headings(column)], rows)


def best_groups(frame: "pd.DataFrame", group_by: Sequence[str], column: str) -> Grid:
    """:func:`best_per_group` written out."""
    table = best_per_group(frame, group_by, column)
    repeated = is_repeated(frame, group_by)
    paths = [path for path in varied(frame) if path in table.columns]
    paths.sort(key=lambda path: path not in group_by)
    lines = frame.set_index("run")
    rows = []
    for (_, row), chosen in zip(table.iterrows(), _rows(table, paths), strict=True):
        is_done = row["n_seeds"] > 0
        cells = [
            Cell(written(value) if is_done or path in group_by else "-")
            for path, value in zip(paths, chosen, strict=True)
        ]
        if repeated:
            cells.append(Cell(f"{row['n_seeds']} of {row['n_planned']}"))
        source = row if repeated or not is_done else lines.loc[row["run"]]
        rows.append([*cells, *_scores(source, column), Cell(row["run"] if is_done else "-")])
    headings = [*_setting_headings(frame, paths), *([Heading("seeds")] if repeated else [])]
    last = Heading("first run" if repeated else "run", True)
    return Grid([*headings, *_score_headings(column), last], rows)


def is_repeated(frame: "pd.DataFrame", group_by: Sequence[str]) -> bool:
    """Whether a seed varies that is not grouped by."""
    return any(path in varied(frame) for path in seeds(frame) if path not in group_by)


def group_notes(frame: "pd.DataFrame", group_by: Sequence[str], column: str) -> list[str]:
    """What a reader must know to judge :func:`best_groups`, one line each."""
    if not is_repeated(frame, group_by):
        return []
    found = [
        "seeds are averaged before settings are ranked (mean ± standard deviation over seeds), so "
        "that the best of many seeds does not win by luck"
    ]
    table = best_per_group(frame, group_by, column)
    n_seeds = len(set(_rows(frame, [path for path in seeds(frame) if path not in group_by])))
    few = table[(table["n_seeds"] > 0) & (table["n_seeds"] < n_seeds)]
    if len(few):
        found.append(
            f"{len(few)} of {len(table)} rows average fewer than the {n_seeds} seeds of the sweep: "
            "with fewer seeds luck counts for more"
        )
    return found


def _setting_headings(frame: "pd.DataFrame", paths: Sequence[str]) -> list[Heading]:
    return [
        Heading(name, any(isinstance(value, str) for value in values(frame, path)), True)
        for path, name in short_names(paths).items()
    ]


def _score_headings(column: str) -> list[Heading]:
    return [Heading(describe(name)[0].title) for name in _shown(column)]


def _shown(column: str) -> list[str]:
    """The metric ``column``, then PSNR and SSIM on the same test condition."""
    return list(dict.fromkeys([column, *_beside(column)]))


def _scores(row: Any, column: str) -> list[Cell]:
    """Means of the metrics shown; the first with its spread over seeds, or else its interval."""
    means = [_mean(row[name], name) for name in _shown(column)]
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
