"""Which runs of a sweep are the best: everything here reads the frame of :mod:`.table`."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kscout.errors import UserError
from kscout.report.table import METRICS, Column

if TYPE_CHECKING:
    import pandas as pd

LEADING = ("run", "state", "cause")
"""Columns of the frame before the settings."""

VAL_LOSS = "val_loss"
BETWEEN = ("n_samples", "acceleration", VAL_LOSS)
"""Columns between the settings and the metrics."""

MAIN = "test"
"""The test condition whose columns bear the bare names of the metrics."""

BESIDE = ("psnr", "ssim")
"""Metrics shown beside the one that runs are ranked by."""

BY_DEFAULT = "sampler.kind"
"""What the best runs are grouped by where nothing is asked for."""

UNLIKE = ("data.", "training.loss", "training.finish")
"""Beginnings of settings that change what a validation loss is of, so that it tells no best."""

COLUMN = {column.key: column for column in METRICS}


Record = dict[str, Any]
"""A row of the frame by its columns, None where there is nothing."""


def settings(frame: "pd.DataFrame") -> list[str]:
    """Dotted paths of what the sweep set."""
    names = list(frame.columns)
    return names[len(LEADING) : names.index(BETWEEN[0])]


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


def rows(frame: "pd.DataFrame", paths: Sequence[str]) -> list[tuple[Any, ...]]:
    """The values in ``paths`` of each row."""
    columns = (values(frame, path) for path in paths)
    return list(zip(*columns, strict=True)) if paths else [()] * len(frame)


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
    found = (name.rpartition(".") for name in names[names.index(BETWEEN[-1]) + 1 :])
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


class Choice(NamedTuple):
    """What the best settings of a group are chosen by.

    Attributes
    ----------
    column : of the frame, averaged over seeds
    why : it must be a test metric; empty if it is the validation loss
    """

    column: str
    why: str = ""


def choice(frame: "pd.DataFrame", group_by: Sequence[str], metric: str) -> Choice:
    """The validation loss, or where it cannot decide, ``metric`` on :data:`MAIN`."""
    on_test = metric.rpartition(".")[2]
    finished = frame[frame["state"] == "finished"]
    if finished[VAL_LOSS].isna().any():
        return Choice(on_test, "some runs have no validation loss")
    unlike = [path for path in settings(frame) if path.startswith(UNLIKE)]
    groups = set(rows(finished, group_by))
    mixed = [path for path in unlike if len(set(rows(finished, [*group_by, path]))) > len(groups)]
    if mixed:
        return Choice(on_test, f"validation losses of different {mixed[0]} cannot be compared")
    return Choice(VAL_LOSS)


def best_per_group(frame: "pd.DataFrame", group_by: Sequence[str], metric: str) -> "pd.DataFrame":
    """The best settings for every combination of the settings in ``group_by``, best group first.

    Settings are chosen by :func:`choice`, the same ones for every test condition. Runs that differ
    in their seed alone are averaged before they compete: the best of many seeds would otherwise win
    by luck. A run without a finite score spoils its average.

    Parameters
    ----------
    frame : from :func:`kscout.sweep.table.frame`
    group_by : dotted paths
    metric : column to report: ``nmse``, or ``test_x.nmse`` for another test condition

    Returns
    -------
    One row for each group: the settings but for seeds; ``run``, the first of the runs averaged;
    ``n_seeds``, how many they are, and ``n_planned``, how many there will be; ``n_settings``, from
    how many combinations with a finished run they were chosen; the metric and its standard
    deviation over seeds (``nmse_std``), and PSNR and SSIM on the same test condition. Groups with
    nothing finished come last, without settings of their own.

    Raises
    ------
    UserError
        if a path or the metric is unknown, listing the valid ones
    """
    import pandas as pd

    groups = check_groups(frame, group_by)
    measure, split = describe(metric)
    column = metric_column(frame, measure.key, split)
    by = choice(frame, groups, column).column
    others = [path for path in settings(frame) if path not in (*groups, *seeds(frame))]
    records = frame.astype(object).where(frame.notna(), None).to_dict("records")
    candidates: dict[tuple[Any, ...], list[Record]] = {}
    for repeats in together(frame, [*groups, *others]):
        first = records[repeats[0]]
        row = _average([records[i] for i in repeats], [column, by, *_beside(column)])
        settled = [*groups, *others] if row["n_seeds"] else groups
        key = tuple(first[path] for path in groups)
        candidates.setdefault(key, []).append({**{path: first[path] for path in settled}, **row})
    best = [_best_of(rivals, by) for rivals in candidates.values()]
    names = [*groups, *others, "run", "n_seeds", "n_planned", "n_settings"]
    names += [column, f"{column}_std", *(name for name in _beside(column) if name != column)]
    return pd.DataFrame(sorted(best, key=lambda row: _rank(row[column], column)), columns=names)


def together(frame: "pd.DataFrame", paths: Sequence[str]) -> list[list[int]]:
    """Numbers of the rows that agree in all ``paths``, in their order."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for i, key in enumerate(rows(frame, paths)):
        groups.setdefault(key, []).append(i)
    return list(groups.values())


def _best_of(rivals: Sequence[Record], by: str) -> Record:
    n_settings = sum(row["n_seeds"] > 0 for row in rivals)
    best = min(rivals, key=lambda row: (row["n_seeds"] == 0, _rank(row[by], by)))
    return {**best, "n_settings": n_settings}


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


def _rank(value: float, column: str) -> float:
    """Smaller is better; a score that is not finite is worse than any, none the worst of all."""
    if value is None or math.isnan(value):
        return math.inf
    if math.isinf(value):
        return 1e300
    return value if column == VAL_LOSS or describe(column)[0].best is min else -value


def is_repeated(frame: "pd.DataFrame", group_by: Sequence[str]) -> bool:
    """Whether a seed varies that is not grouped by."""
    return any(path in varied(frame) for path in seeds(frame) if path not in group_by)


def shown(column: str) -> list[str]:
    """The metric ``column``, then PSNR and SSIM on the same test condition."""
    return list(dict.fromkeys([column, *_beside(column)]))


def _beside(column: str) -> list[str]:
    """PSNR and SSIM on the test condition of ``column``."""
    head = column.rpartition(".")[0]
    return [f"{head}.{key}" if head else key for key in BESIDE]
