"""The table of methods: one source for the terminal, for Markdown and for the HTML report."""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kscout.atomic import atomic_path
from kscout.report import Run

Row = dict[str, Any]


class Cell(NamedTuple):
    """What stands in one place of the table; ``interval`` is empty where there is none."""

    text: str
    interval: str = ""
    best: bool = False


class Column(NamedTuple):
    """A column: key in a row, title, how a value is written, and which value is the best."""

    key: str
    title: str
    write: Callable[[Any], Cell]
    best: Callable[..., float] | None = None

    @property
    def is_text(self) -> bool:
        return self.write is Cell


def _scientific(value: dict[str, float]) -> Cell:
    """Mean and bounds with the mean's power of ten: ``3.10e-05 [2.90, 3.30]``."""
    mean, low, high = value["mean"], value["low"], value["high"]
    if not math.isfinite(mean) or mean <= 0:
        return Cell(f"{mean:g}")
    text = f"{mean:.2e}"
    if math.isnan(low):
        return Cell(text)
    unit = float("1e" + text.split("e")[1])
    return Cell(text, f"[{low / unit:.2f}, {high / unit:.2f}]")


def _fixed(digits: int) -> Callable[[dict[str, float]], Cell]:
    def write(value: dict[str, float]) -> Cell:
        mean, low, high = (f"{value[key]:.{digits}f}" for key in ("mean", "low", "high"))
        return Cell(mean, "" if math.isnan(value["low"]) else f"[{low}, {high}]")

    return write


def _seconds(value: float) -> Cell:
    return Cell(f"{value:.1f}" if value < 100 else f"{value:.0f}")


METRICS = (
    Column("nmse_kspace", "NMSE k-space", _scientific, min),
    Column("nmse", "NMSE image", _scientific, min),
    Column("nmse_foreground", "NMSE foreground", _scientific, min),
    Column("psnr", "PSNR dB", _fixed(2), max),
    Column("ssim", "SSIM", _fixed(5), max),
    Column("psnr_foreground", "PSNR dB foreground", _fixed(2), max),
    Column("ssim_foreground", "SSIM foreground", _fixed(5), max),
)
"""Everything that a run is scored by."""

INTERVALS = ("nmse_kspace", "psnr", "ssim", "psnr_foreground", "ssim_foreground")
"""The metrics that the table of methods has room for."""

COLUMNS = (
    Column("method", "method", Cell),
    Column("kind", "kind", Cell),
    Column("samples", "samples", lambda n: Cell(str(n))),
    Column("R", "R", lambda r: Cell(f"{r:.2f}")),
    *(metric for metric in METRICS if metric.key in INTERVALS),
    Column("seconds", "seconds", _seconds),
)
RANDOM_MASKS = ("random_tile", "random_points", "variable_density", "poisson_disc")
"""Kinds of fixed masks that depend on the seed."""

FEW_SCANS = 10
"""Fewer say little of other scans."""

WIDE = 100
"""Characters of a terminal that has room for a mean and its interval on one line."""


def splits(runs: Sequence[Run]) -> list[str]:
    """The test conditions that any run was scored on, ``test`` first."""
    names = {name for run in runs if run.results for name in run.results.summary}
    return sorted(name for name in names if name.startswith("test")) or ["test"]


def rows(runs: Sequence[Run], split: str = "test") -> list[Row]:
    """One plain dict per run: fixed masks first, then learned ones, each from the best NMSE on.

    Keys are those of :data:`COLUMNS`; metrics are ``{"mean", "low", "high"}``. A value that a run
    lacks is None: everything but the name for a run that is unfinished, which comes last.
    """
    return sorted((_row(run, split) for run in runs), key=_order)


def _row(run: Run, split: str) -> Row:
    results = run.results
    if results is None:
        empty = dict.fromkeys(column.key for column in COLUMNS)
        return {**empty, "method": f"{run.label} (unfinished: {run.state})"}
    found = {metric: results.interval(split, metric) for metric in INTERVALS}
    return {
        "method": run.label,
        "kind": "learned" if results.learned else "fixed",
        "samples": results.n_samples,
        "R": results.acceleration,
        **{metric: interval and interval.model_dump() for metric, interval in found.items()},
        "seconds": results.seconds,
    }


def _order(row: Row) -> tuple[int, float]:
    nmse = row["nmse_kspace"]["mean"] if row["nmse_kspace"] else math.inf
    return {"fixed": 0, "learned": 1}.get(row["kind"], 2), nmse


def cells(table: Sequence[Row]) -> list[list[Cell]]:
    """The rows as text, the best mean of each metric marked (several where they read the same)."""
    columns = [_column_cells(table, column) for column in COLUMNS]
    return [list(row) for row in zip(*columns, strict=True)]


def _column_cells(table: Sequence[Row], column: Column) -> list[Cell]:
    written = [
        Cell("-") if row[column.key] is None else column.write(row[column.key]) for row in table
    ]
    means = [row[column.key]["mean"] for row in table if column.best and row[column.key]]
    finite = [mean for mean in means if math.isfinite(mean)]
    if column.best is None or len(means) < 2 or not finite:
        return written
    value = column.best(finite)
    best = column.write({"mean": value, "low": value, "high": value}).text
    return [cell._replace(best=cell.text == best) for cell in written]


def scored_on(runs: Sequence[Run], split: str) -> str:
    """``120 slices of 4 scans``; both where runs were scored on different ones; empty for none."""
    scored = sorted(_scored(runs, split))
    noun = _noun(runs)
    return " or ".join(f"{plural(n, 'slice')} of {plural(m, noun)}" for n, m in scored)


def _noun(runs: Sequence[Run]) -> str:
    """What a test consists of: scans, or blocks of slices of a single one."""
    nouns = {run.results.volumes for run in runs if run.results}
    return "block" if nouns == {"block"} else "scan"


def _scored(runs: Sequence[Run], split: str) -> set[tuple[int, int]]:
    """Slices and scans that finished runs were scored on."""
    summaries = [run.results.summary.get(split, {}) for run in runs if run.results]
    counts = [(found.get("n_slices"), found.get("n_volumes")) for found in summaries]
    return {(n, m) for n, m in counts if isinstance(n, int) and isinstance(m, int)}


def notes(runs: Sequence[Run], split: str) -> list[str]:
    """What a reader must know to judge the table of ``split``, one line each.

    What holds for all tables is told with the first only.
    """
    found = _few_scans(runs, split)
    if split == splits(runs)[0]:
        finished = sorted(
            (run for run in runs if run.results), key=lambda r: _order(_row(r, split))
        )
        found = [
            *_unequal_counts(finished),
            *_unlike_reconstructors(finished),
            *_same_masks(finished),
            *_single_draws(finished),
            *found,
        ]
    return found


def _unequal_counts(runs: Sequence[Run]) -> list[str]:
    counts = sorted({run.results.n_samples for run in runs if run.results})
    if len(counts) < 2:
        return []
    return [f"sample counts differ between methods: {counts[0]} to {counts[-1]} points"]


def _unlike_reconstructors(runs: Sequence[Run]) -> list[str]:
    """Where they differ, better scores need not be the masks' doing."""
    groups: dict[str, list[str]] = {}
    reconstructors = [run.results.reconstructor for run in runs if run.results]
    for run, reconstructor in zip(runs, reconstructors, strict=True):
        alike = [
            other for other in reconstructors if other.get("kind") == reconstructor.get("kind")
        ]
        options = [
            f"{key}={value}"
            for key, value in reconstructor.items()
            if any(other.get(key) != value for other in alike)
        ]
        said = " ".join([str(reconstructor.get("kind")), *options])
        groups.setdefault(said, []).append(run.label)
    if len(groups) < 2:
        return []
    told = "; ".join(f"{said} for {_listed(labels)}" for said, labels in groups.items())
    return [f"reconstructors differ, so the rows do not compare masks alone: {told}"]


def _same_masks(runs: Sequence[Run]) -> list[str]:
    groups: dict[tuple[Any, bytes], list[str]] = {}
    for run in runs:
        mask = run.mask()
        groups.setdefault((mask.shape, mask.tobytes()), []).append(run.label)
    return [
        f"{_listed(others)} {'has' if len(others) == 1 else 'have'} the same mask as {first}"
        for first, *others in groups.values()
        if others
    ]


def _single_draws(runs: Sequence[Run]) -> list[str]:
    drawn = [r.label for r in runs if r.results and r.results.sampler.get("kind") in RANDOM_MASKS]
    if not drawn:
        return []
    subject = "is a single draw" if len(drawn) == 1 else "are a single draw each"
    return [f"{_listed(drawn)} {subject} of a random mask: another seed gives another score"]


def _few_scans(runs: Sequence[Run], split: str) -> list[str]:
    n_scans = min((m for _, m in _scored(runs, split)), default=FEW_SCANS)
    if _noun(runs) == "block":
        return ["scored on blocks of one scan: the interval says nothing of other scans"]
    if n_scans == 1:
        return ["scored on 1 scan: the interval is over its slices and says nothing of other scans"]
    if n_scans < FEW_SCANS:
        return [f"scored on {n_scans} scans: so few tell little of others"]
    return []


def span(counts: Iterable[int]) -> str:
    """``3 to 5``, the least and the largest; ``3`` where all are."""
    found = set(counts)
    return " to ".join(str(n) for n in sorted({min(found), max(found)}))


def plural(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def print_table(runs: Sequence[Run], console: Console) -> None:
    """Print one table per test condition: mean over slices, and the 95 % interval of the NMSE.

    A count that all methods share stands above the table, where it takes no width.
    """
    for split in splits(runs):
        table = rows(runs, split)
        counts = {f"{r['samples']} samples, R={r['R']:.2f}" for r in table if r["samples"]}
        is_shared = len(counts) == 1
        shown = [c for c in COLUMNS if not (is_shared and c.key in ("samples", "R"))]
        title = ": ".join(filter(None, (split, scored_on(runs, split))))
        title += f"; {counts.pop()} each" if is_shared else ""
        legend = "mean over slices [95 % interval], best in bold; fg: foreground"
        grid = Table(title=f"{title}\n{legend}", box=box.SIMPLE_HEAD, padding=0)
        for column in shown:
            title = column.title.replace("dB foreground", "fg").replace("foreground", "fg")
            grid.add_column(
                title.replace("seconds", "s").replace(" ", "\n"),
                justify="left" if column.is_text else "right",
                no_wrap=column.key != "method",
                min_width=10 if column.key == "method" else None,
                overflow="fold",
            )
        for line in cells(table):
            pairs = [pair for pair in _paired(line) if pair[1] in shown]
            grid.add_row(*(_terminal(*pair, console.width) for pair in pairs))
        console.print(grid)
        for note in notes(runs, split):
            console.print(Text(f"note: {note}", style="yellow"))


def print_summary(summary: dict[str, dict[str, Any]], console: Console) -> None:
    """Print one run's metrics, a row each, with a column for each test condition.

    Parameters
    ----------
    summary : from :func:`kscout.evaluation.summarise`
    console : printed to; where it is narrow, intervals stand below their means
    """
    title = "mean over slices [95 % interval]"
    grid = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1))
    grid.add_column("")
    for split, found in summary.items():
        slices, volumes = (found[f"n_{noun}s"] for noun in ("slice", "volume"))
        grid.add_column(
            Text(f"{split}\n{plural(slices, 'slice')}\n{plural(volumes, 'volume')}"),
            justify="right",
            overflow="fold",
        )
    one_line = 20 + 24 * len(summary) <= console.width
    for metric in METRICS:
        texts = [_summary_text(found[metric.key], metric) for found in summary.values()]
        line = texts if one_line else [text.replace(" [", "\n[") for text in texts]
        grid.add_row(metric.title, *map(Text, line))
    console.print(grid)


def _summary_text(value: dict[str, float], metric: Column) -> str:
    if not math.isfinite(value["mean"]):
        return "-"
    cell = metric.write(value)
    return f"{cell.text} {cell.interval}"


def _paired(line: Sequence[Cell]) -> list[tuple[Cell, Column]]:
    return list(zip(line, COLUMNS, strict=True))


def _short(cell: Cell, column: Column) -> str:
    """Only the first metric shows its interval where width is scarce."""
    return f"{cell.text} {cell.interval}" if column.key == "nmse_kspace" else cell.text


def _terminal(cell: Cell, column: Column, width: int) -> Text:
    text = _short(cell, column).strip()
    if width < WIDE and column.key == "nmse_kspace":
        text = text.replace(" [", "\n[")
    return Text(text, style="bold green" if cell.best else "")


def markdown(runs: Sequence[Run]) -> str:
    """The same tables in Markdown, the best values in bold."""
    parts = []
    for split in splits(runs):
        table, scored = rows(runs, split), scored_on(runs, split)
        lines = [
            f"**{split}** ({', '.join(filter(None, ('mean over slices', scored)))})",
            "",
            _line([column.title for column in COLUMNS]),
            _line(["---" if c.is_text else "---:" for c in COLUMNS]),
            *(_line([_marked(*pair) for pair in _paired(line)]) for line in cells(table)),
        ]
        for note in notes(runs, split):
            lines += ["", f"Note: {note}."]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def write_markdown(runs: Sequence[Run], path: Path) -> None:
    """Write :func:`markdown` to a file."""
    with atomic_path(path) as temporary:
        temporary.write_text(markdown(runs), encoding="utf-8")


def _marked(cell: Cell, column: Column) -> str:
    text = _short(cell, column).strip().replace("|", "\\|")
    return f"**{text}**" if cell.best else text


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(texts) + " |"
