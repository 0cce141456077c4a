"""The pictures that only a suite has."""

from typing import TYPE_CHECKING

from kscout.bench.results import Document
from kscout.bench.tables import decibels
from kscout.report.canvas import LINE, TEXT, WIDTH, add_axes, n_lines, new_figure, wrap, write
from kscout.report.figures import FIXED, LEARNED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEFT, RIGHT = 270, 240
LINEAR = 1.0
"""dB on either side of 0 that are drawn to scale where some method is far away."""

FAR = 6.0
TICKS = (0, 0.5, 1, 2, 5, 10, 20, 50)


def forest(compared: Document) -> "Figure | None":
    """Every method's difference to the best fixed mask in dB: interval over scans, dots for seeds.

    Parameters
    ----------
    compared : one reconstructor on one test condition
    """
    rows = {m: row for m, row in compared["methods"].items() if "difference" in row}
    if not rows:
        return None
    labels = [wrap(method, LEFT - 20) for method in rows]
    step = max(34, LINE * n_lines(labels) + 8)
    figure = new_figure(WIDTH, step * len(rows) + 110)
    axes = add_axes(figure, (LEFT, 36, WIDTH - LEFT - RIGHT, step * len(rows)))
    axes.axvline(0, color="#1c2530", linewidth=1)
    farthest = 0.1
    for i, row in enumerate(rows.values()):
        difference = row["difference"]
        color = LEARNED if row["learned"] else FIXED
        seeds = difference["by_seed"]
        ends = [difference["low"], difference["high"]]
        axes.plot(ends, [i, i], color=color, linewidth=3, solid_capstyle="butt", alpha=0.6)
        axes.plot(seeds, [i + 0.28] * len(seeds), ".", color=color, markersize=4, alpha=0.7)
        axes.plot(difference["mean"], i, "o", color=color, markersize=8)
        cell = decibels(difference)
        said = f"{cell.text} {cell.interval}"
        style = "bold" if row["verdict"] != "not distinguishable" else "normal"
        axes.annotate(
            said,
            (1.015, i),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=TEXT,
            fontweight=style,
        )
        farthest = max(farthest, *map(abs, (*ends, *seeds)))
    _scale(axes, farthest)
    axes.set_yticks(range(len(rows)), labels, parse_math=False)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    unit = f"dB ahead of {compared['best_fixed']}, the best fixed mask"
    axes.set_xlabel(f"{unit} (right: better)", fontsize=TEXT, parse_math=False)
    write(figure, WIDTH - RIGHT + 12, 28, "dB [95 % interval]", ha="left", color="#5b6774")
    return figure


def _scale(axes: object, farthest: float) -> None:
    """In the log beyond a decibel, where one hopeless mask would hide all other differences."""
    from matplotlib.axes import Axes
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    assert isinstance(axes, Axes)
    if farthest > FAR:
        axes.set_xscale("symlog", linthresh=LINEAR, linscale=1)
        marks = sorted({sign * tick for tick in TICKS for sign in (-1, 1) if tick <= farthest})
        axes.xaxis.set_major_locator(FixedLocator(marks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    low, high = axes.dataLim.intervalx
    room = 0.06 * max(high - low, 0.1)
    axes.set_xlim(min(low, 0) - room, max(high, 0) + room)
