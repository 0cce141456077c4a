"""A sweep's pictures. Each function returns one matplotlib figure, or None without data."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kscout.report import Array
from kscout.report.canvas import (
    GAP,
    LETTER,
    LINE,
    TEXT,
    WIDTH,
    add_axes,
    n_lines,
    new_figure,
    wrap,
    write,
)
from kscout.report.figures import FIXED, LEARNED
from kscout.sweep.ranking import describe, ranked, seeds, settings, together, values, varied
from kscout.sweep.scales import Scale, number_scale, setting_scale
from kscout.sweep.text import NONE, short_names

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEFT = 112  # of the page, for the labels of the metric
STEP = 84.0  # most width of a step's label in page pixels
PANEL_HEIGHT = 190
MOST_STRETCH = 120
N_BINS = 8
"""Parts of a numeric axis, with about as many runs each, that medians are taken over."""

EDGE, FOR_LABELS, AXIS_HEIGHT = 60, 90, 420
LABEL = 88.0  # most width of a label beside a parallel axis
FOOT = -0.08
"""Where runs without a number are, on a parallel axis from 0 to 1."""

STEP_OF_AXES = (128, 300)
"""Least and most distance of parallel axes in page pixels."""

GOLDEN = 0.5 * (5**0.5 - 1)
COLORS, INK = "viridis_r", "#1c2530"


class _Scored(NamedTuple):
    """Runs that can be drawn, the best first, their metric, and short names of what varies."""

    table: "pd.DataFrame"
    column: str
    metric: Scale
    is_log: bool
    title: str
    names: dict[str, str]


def _scored(frame: "pd.DataFrame", column: str) -> _Scored | None:
    metric, split = describe(column)
    table = ranked(frame, column)
    is_log = metric.key.startswith("nmse")
    is_drawn = np.isfinite(table[column]) & ((table[column] > 0) | (not is_log))
    table = table[is_drawn]
    if not len(table) or not varied(table):
        return None
    scale = number_scale(values(table, column), is_log)
    every = short_names(varied(frame))
    names = {path: every[path] for path in varied(table)}
    return _Scored(table, column, scale, is_log, f"{metric.title} on {split}", names)


class _Panel(NamedTuple):
    """One setting of :func:`marginal_effects`, its runs, and the least width it needs."""

    name: str
    scale: Scale
    repeats: list[list[int]]
    labels: list[str]
    is_turned: bool
    width: float


def marginal_effects(frame: "pd.DataFrame", metric: str) -> "Figure | None":
    """How a metric goes with each setting that varies: all runs, medians and quartiles.

    Those are of means over seeds, so that settings with more seeds do not weigh more.
    Settings with few values are equally spaced steps; numbers with many have an axis of numbers,
    and medians over parts with about as many runs each.

    Parameters
    ----------
    frame : from :func:`kscout.sweep.table.frame`
    metric : column of the frame
    """
    scored = _scored(frame, metric)
    if scored is None:
        return None
    panels = [_panel(name, scored.table, path) for path, name in scored.names.items()]
    lines = [_stretched(line) for line in _in_lines(panels)]
    foot = [max(_foot(panel) for panel in line) for line in lines]
    figure = new_figure(
        LEFT + max(sum(panel.width + GAP for panel in line) for line in lines),
        sum(foot) + len(lines) * (PANEL_HEIGHT + LINE + GAP) + GAP,
    )
    y = 0.0
    for line, below in zip(lines, foot, strict=True):
        y += LINE + GAP
        _draw_line(figure, y, line, scored)
        y += PANEL_HEIGHT + below
    return figure


def _panel(name: str, table: "pd.DataFrame", path: str) -> _Panel:
    scale = setting_scale(values(table, path))
    fixed = [other for other in settings(table) if other == path or other not in seeds(table)]
    repeats = together(table, fixed)
    if scale.is_numeric:
        return _Panel(name, scale, repeats, scale.labels, False, 230)
    labels = [_wrap_words(label, STEP) for label in scale.labels]
    longest = max(max(map(len, label.splitlines())) for label in labels)
    step = max(34.0, longest * LETTER + 8)
    is_turned = step * len(labels) > WIDTH - LEFT - GAP
    if is_turned:
        labels, step = scale.labels, float(LINE + 2)
    width = max(step * len(labels), (len(name) + 2) * LETTER, 120)
    return _Panel(name, scale, repeats, labels, is_turned, width)


def _wrap_words(text: str, width: float) -> str:
    """Like :func:`wrap`, with lines that may also end in an underscore."""
    return wrap(text.replace("_", "_ "), width).replace("_ ", "_")


def _foot(panel: _Panel) -> float:
    """Height of what stands below a panel."""
    if panel.is_turned:
        return 1.2 * LETTER * max(map(len, panel.labels)) + GAP
    return LINE * n_lines(panel.labels) + GAP


def _in_lines(panels: Sequence[_Panel]) -> list[list[_Panel]]:
    """Panels from left to right, as many in a line as fit."""
    lines: list[list[_Panel]] = [[]]
    room = WIDTH - LEFT
    for panel in panels:
        if sum(other.width + GAP for other in [*lines[-1], panel]) > room and lines[-1]:
            lines.append([])
        lines[-1].append(panel)
    return lines


def _stretched(line: Sequence[_Panel]) -> list[_Panel]:
    """Panels that fill a line of the page, or nearly so where they are few."""
    spare = WIDTH - LEFT - sum(panel.width + GAP for panel in line)
    more = min(spare / len(line), MOST_STRETCH)
    return [panel._replace(width=panel.width + more) for panel in line]


def _draw_line(figure: "Figure", y: float, line: Sequence[_Panel], scored: _Scored) -> None:
    x = float(LEFT)
    for i, panel in enumerate(line):
        width = panel.width
        axes = add_axes(figure, (x, y, width, PANEL_HEIGHT))
        _draw_effect(axes, panel, scored)
        write(figure, x + width / 2, y - 5, panel.name, weight="bold")
        rotation = 90 if panel.is_turned else 0
        axes.set_xticks(panel.scale.ticks, panel.labels, parse_math=False, rotation=rotation)
        axes.set_yticks(scored.metric.ticks, scored.metric.labels)
        axes.tick_params(labelleft=i == 0)
        if i == 0:
            axes.set_ylabel(scored.title, fontsize=TEXT, parse_math=False)
        x += width + GAP


def _draw_effect(axes: "Axes", panel: _Panel, scored: _Scored) -> None:
    scale, metric = panel.scale, scored.metric.positions
    offset = np.zeros(len(metric))
    if not scale.is_numeric:
        for tick in scale.ticks:
            members = scale.positions == tick
            offset[members] = _scatter(int(members.sum()), 0.5)
    axes.plot(
        scale.positions + offset, metric, ".", color=FIXED, alpha=0.35, markersize=5,
        markeredgewidth=0,
    )  # fmt: skip
    centres, quartiles = _summaries(panel, scored)
    axes.vlines(centres, quartiles[0], quartiles[2], color=LEARNED, linewidth=3)
    style = "o-" if scale.is_numeric else "o"
    axes.plot(centres, quartiles[1], style, color=LEARNED, markersize=7, markeredgecolor="white")
    if not scale.is_numeric:
        axes.set_xlim(-0.5, len(scale.ticks) - 0.5)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _summaries(panel: _Panel, scored: _Scored) -> tuple[Array, Array]:
    """Places ``(group,)`` on a panel's axis, and quartiles ``(3, group)`` of means over seeds."""
    scores = scored.table[scored.column].to_numpy()
    means = np.array([scores[repeats].mean() for repeats in panel.repeats])
    metric = np.log10(means) if scored.is_log else means
    positions = panel.scale.positions[[repeats[0] for repeats in panel.repeats]]
    placed = np.isfinite(positions)
    positions, metric = positions[placed], metric[placed]
    steps = [positions == tick for tick in panel.scale.ticks]
    groups = _bins(positions) if panel.scale.is_numeric else steps
    centres = np.array([np.median(positions[group]) for group in groups])
    return centres, np.array([np.quantile(metric[g], (0.25, 0.5, 0.75)) for g in groups]).T


def _scatter(n: int, width: float) -> Array:
    """Offsets that keep ``n`` points apart, the first in the middle."""
    return width * ((np.arange(n) * GOLDEN + 0.5) % 1 - 0.5)


def _bins(positions: Array) -> list[Array]:
    """Parts of an axis of numbers with about as many runs each; equal numbers stay together."""
    edges = np.unique(np.quantile(positions, np.linspace(0, 1, N_BINS + 1)))
    bins = np.searchsorted(edges[1:-1], positions, side="right")
    return [bins == i for i in np.unique(bins)]


def parallel_coordinates(frame: "pd.DataFrame", metric: str) -> "Figure | None":
    """Every run as a line through its settings to its metric, which also colours it.

    Runs that share a step are fanned out, the best on top; the best run is drawn thick.

    Parameters
    ----------
    frame : from :func:`kscout.sweep.table.frame`
    metric : column of the frame
    """
    scored = _scored(frame, metric)
    if scored is None:
        return None
    best_high = describe(metric)[0].best is max
    scales = [setting_scale(values(scored.table, path)) for path in scored.names]
    places = [_heights(s) if s.is_numeric else _step_heights(s) for s in scales]
    places.append(_heights(scored.metric, flipped=not best_high))
    step = float(np.clip((WIDTH - EDGE - FOR_LABELS) / (len(places) - 1), *STEP_OF_AXES))
    titles = [_wrap_words(name, 110) for name in [*scored.names.values(), scored.title]]
    head = LINE * n_lines(titles) + GAP
    length = step * (len(places) - 1)
    figure = new_figure(EDGE + length + FOR_LABELS, head + AXIS_HEIGHT + 2 * GAP)
    axes = add_axes(figure, (EDGE, head, length, AXIS_HEIGHT))
    _draw_runs(
        axes, np.stack([place.runs for place in places], 1), scored.metric.positions, best_high
    )
    for i, place in enumerate(places):
        axes.axvline(i, color=INK, linewidth=1, zorder=3)
        _label_axis(axes, i, place)
        write(figure, EDGE + i * step, head - 8, titles[i], weight="bold")
    axes.set_xlim(0, len(places) - 1)
    axes.set_ylim(FOOT - 0.02, 1.04)
    axes.set_axis_off()
    return figure


class _Heights(NamedTuple):
    """Where runs and labels are on one of the parallel axes, from 0 to 1."""

    runs: Array
    ticks: Array
    labels: list[str]


def _step_heights(scale: Scale) -> _Heights:
    """Runs that share a step are fanned out within it in their order."""
    n = len(scale.ticks)
    heights = np.zeros(len(scale.positions))
    for step in range(n):
        members = np.flatnonzero(scale.positions == step)
        fan = np.linspace(0.3, -0.3, len(members)) if len(members) > 1 else np.zeros(len(members))
        heights[members] = (step + 0.5 + fan) / n
    return _Heights(heights, (np.arange(n) + 0.5) / n, scale.labels)


def _heights(scale: Scale, flipped: bool = False) -> _Heights:
    """Runs without a place are below the axis; ``flipped`` has small numbers on top."""
    low, high = np.nanmin(scale.positions), np.nanmax(scale.positions)
    heights, ticks = (
        (np.asarray(p) - low) / (high - low or 1.0) for p in (scale.positions, scale.ticks)
    )
    if flipped:
        heights, ticks = 1 - heights, 1 - ticks
    if np.isfinite(heights).all():
        return _Heights(heights, ticks, scale.labels)
    return _Heights(np.nan_to_num(heights, nan=FOOT), np.append(ticks, FOOT), [*scale.labels, NONE])


def _draw_runs(axes: "Axes", heights: Array, metric: Array, best_high: bool) -> None:
    """Lines ``(run, axis)``, the best run first and drawn last."""
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection

    spread = metric.max() - metric.min()
    shade = (metric - metric.min()) / spread if spread else np.zeros(len(metric))
    shade = 1 - shade if best_high else shade
    x = np.arange(heights.shape[1])
    lines = [np.column_stack([x, run]) for run in heights[::-1]]
    alpha = float(np.clip(40 / len(lines), 0.25, 0.9))
    colors = colormaps[COLORS](shade[::-1])
    axes.add_collection(LineCollection(lines, colors=colors, linewidths=1.1, alpha=alpha))
    axes.plot(x, heights[0], color="white", linewidth=5.5, zorder=2.5)
    axes.plot(x, heights[0], color=LEARNED, linewidth=3, zorder=2.6)


def _label_axis(axes: "Axes", i: int, place: _Heights) -> None:
    """Labels beside an axis, as many as there is room for."""
    room = AXIS_HEIGHT / len(place.labels)
    labels = [_wrap_words(label, LABEL) for label in place.labels]
    if n_lines(labels) * LINE > room:
        labels = [_shortened(label, int(LABEL / LETTER)) for label in place.labels]
    every = int(np.ceil(LINE / room))
    for label, height in list(zip(labels, place.ticks, strict=True))[::every]:
        axes.plot(i, height, "_", color=INK, markersize=8, zorder=3, clip_on=False)
        axes.annotate(
            label, (i, height), (7, 0), textcoords="offset points", va="center",
            fontsize=TEXT - 1, parse_math=False, annotation_clip=False, zorder=4,
            bbox={"boxstyle": "round,pad=0.12", "color": "white", "alpha": 0.75},
        )  # fmt: skip


def _shortened(text: str, most: int) -> str:
    """``text``, its middle left out if it is longer than ``most`` letters."""
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"
