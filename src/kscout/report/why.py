"""Why a mask is good: its points, its point-spread function, its density and its g-factor."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import maximum_filter

from kscout.report import Array
from kscout.report.canvas import (
    GAP,
    LINE,
    TEXT,
    WIDTH,
    Box,
    add_axes,
    add_picture,
    add_points,
    height_over_width,
    new_figure,
    wrap,
    write,
)
from kscout.report.figures import FIXED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

FLOOR_DB = -50
"""Black in pictures of a point-spread function."""

SPREAD_MAP, NOISE_MAP = "inferno", "viridis"
NOTE, EMPTY, OTHERS = "#5b6774", "#e9ecef", "#c9d0d8"
MARKS = (1, 1.2, 1.5, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Values that a scale of g may end at."""

COLUMNS = ("points acquired", "point spread, dB", "density over radius", "noise amplification g")
CELL = (WIDTH - GAP) // len(COLUMNS) - GAP
TALLEST = 400
"""Height of a picture: more than a cell is wide, so that lattices of tall planes show."""

LEAST_CHART = 110
"""Height of a chart of which something can be read."""

CORNER = 2**0.5
"""Distance of a corner of k-space, where the middle of an edge is at 1."""


@dataclass(frozen=True)
class MaskFacts:
    """What physics says about a mask, as plain arrays.

    Attributes
    ----------
    name : of the mask
    mask : bool ``(ky, kx)``
    psf : complex or magnitude ``(y, x)``, 1 at its centre
    density : radius and fraction acquired, float ``(ring,)`` each; NaN where a ring is empty
    sidelobe : largest side lobe of the point-spread function, 1 for a full ghost
    gfactor : float ``(y, x)``, NaN outside the object; None where the coils are not known
    """

    name: str
    mask: Array
    psf: Array
    density: tuple[Array, Array]
    sidelobe: float
    gfactor: Array | None = None


def masks_explained(
    entries: Sequence[MaskFacts],
    *,
    voxel_size: tuple[float, float] = (1.0, 1.0),
    quarter_turns: int = 0,
) -> "Figure":
    """One row per mask, and below them the densities of all in one chart.

    Parameters
    ----------
    entries : at least one; the last column is left out where none has a g-factor
    voxel_size : of a pixel of the image along (y, x) in mm
    quarter_turns : counter-clockwise, that put an image upright; masks are not turned
    """
    return _Explained(entries, voxel_size, quarter_turns).draw()


def caption(entries: Sequence[MaskFacts]) -> str:
    """How to read :func:`masks_explained`, in plain words: one paragraph."""
    text = (
        "Points acquired: k-space with its centre, the low frequencies, in the middle. "
        "Point spread: what one bright pixel becomes if the missing points are left at zero. "
        "A few bright dots are sharp ghosts, which coils can take apart if the dots are far from "
        "each other; a haze is aliasing that looks like noise, which prior knowledge can remove; "
        "a wide spot in the middle is blur. The largest side lobe is given in dB and as a fraction "
        "of the centre: 0 dB is a ghost as bright as the object. "
        "Density: the fraction of points acquired at each distance from the centre of k-space, "
        "1 being the middle of an edge; beyond it only the corners are left. In grey, the others."
    )
    if any(entry.gfactor is not None for entry in entries):
        text += (
            " Noise amplification g: how much noisier a pixel is after the coils have unfolded it, "
            "beyond the loss that fewer samples cost any method (1 is ideal). It knows of no "
            "prior: masks that leave out much of outer k-space have a large g, up to a ceiling of "
            "about 30 for what coils cannot resolve at all, and depend on a reconstruction that "
            "knows what images look like. Grain in a map is simulated noise. All maps share one "
            "scale."
        )
    return text


class _Explained:
    """Layout of :func:`masks_explained`, in page pixels."""

    HEAD = 3.6 * LINE  # name of the column, and its scale
    CHART, LEGEND = 240, 300

    def __init__(
        self, entries: Sequence[MaskFacts], voxel_size: tuple[float, float], quarter_turns: int
    ) -> None:
        self.entries = entries
        self.turns = quarter_turns
        maps = [entry.gfactor for entry in entries if entry.gfactor is not None]
        self.columns = COLUMNS if maps else COLUMNS[:-1]
        self.noise = _noise_scale(maps)
        self.mask_sizes = [_size(e.mask.shape) for e in entries]
        self.image_sizes = [_size(e.mask.shape, voxel_size, quarter_turns) for e in entries]
        heights = [height for _, height in self.image_sizes + self.mask_sizes]
        self.tallest = max(*heights, LEAST_CHART)
        self.row = LINE + 8 + self.tallest + LINE + 1.5 * GAP

    def draw(self) -> "Figure":
        width = len(self.columns) * (CELL + GAP) + GAP
        top = GAP + self.HEAD
        bottom = top + len(self.entries) * self.row
        chart = self._chart_height() if len(self.entries) > 1 else 0
        figure = new_figure(width, bottom + (chart + 5 * LINE if chart else 0))
        self._scales(figure)
        for i in range(len(self.entries)):
            self._row(figure, i, top + i * self.row)
        if chart:
            self._together(figure, bottom + 2 * LINE, width, chart)
        return figure

    def _chart_height(self) -> float:
        """Of the common chart: that of its legend, where that is long."""
        n_lines = sum(self._label(entry).count("\n") + 1 for entry in self.entries)
        return max(self.CHART, LINE * n_lines + 8 * len(self.entries))

    def _label(self, entry: MaskFacts) -> str:
        return wrap(entry.name, self.LEGEND - 80)

    def _middle(self, column: int) -> float:
        return GAP + column * (CELL + GAP) + CELL / 2

    def _scales(self, figure: "Figure") -> None:
        from matplotlib.colors import Normalize

        spread = (SPREAD_MAP, Normalize(FLOOR_DB, 0), range(FLOOR_DB, 1, 10))
        scales: dict[int, Any] = {1: spread}
        if len(self.columns) == len(COLUMNS):
            scales[3] = (NOISE_MAP, self.noise, _marks(self.noise))
        for column, name in enumerate(self.columns):
            write(figure, self._middle(column), GAP + LINE, name)
            if column in scales:
                self._scale(figure, column, *scales[column])

    def _scale(
        self, figure: "Figure", column: int, cmap: str, norm: "Normalize", marks: Sequence[float]
    ) -> None:
        width = CELL * 0.8
        x, y = self._middle(column) - width / 2, GAP + LINE + 6
        colours = norm.inverse(np.linspace(0, 1, 256))[None]
        add_picture(figure, (x, y, width, 10), colours, cmap=cmap, norm=norm)
        for mark in marks:
            write(figure, x + width * float(norm(mark)), y + 14, f"{mark:g}", va="top")

    def _row(self, figure: "Figure", i: int, y: float) -> None:
        from matplotlib import colormaps

        entry = self.entries[i]
        write(figure, GAP, y + LINE, entry.name, ha="left", fontweight="bold")
        y += LINE + 8
        n, size = int(entry.mask.sum()), entry.mask.size
        add_points(figure, self._box(0, y, self.mask_sizes[i]), entry.mask)
        self._note(figure, 0, y, f"{n} of {size} points, R = {size / n:.2f}")
        box = self._box(1, y, self.image_sizes[i])
        spread = {"cmap": SPREAD_MAP, "vmin": FLOOR_DB, "vmax": 0}
        shown = np.rot90(_widened(_decibel(entry.psf), box), self.turns)
        add_picture(figure, box, shown, **spread)
        self._note(figure, 1, y, f"largest side lobe {_sidelobe(entry.sidelobe)}")
        self._density(figure, i, y)
        if len(self.columns) < len(COLUMNS):
            return
        if entry.gfactor is None:
            write(figure, self._middle(3), y + self.tallest / 2, "coils not known", color=NOTE)
            return
        scale = {"cmap": colormaps[NOISE_MAP].with_extremes(bad=EMPTY), "norm": self.noise}
        upright = np.ma.masked_invalid(np.rot90(entry.gfactor, self.turns))
        add_picture(figure, self._box(3, y, self.image_sizes[i]), upright, **scale)
        self._note(figure, 3, y, _noise_note(entry.gfactor))

    def _box(self, column: int, y: float, size: tuple[float, float]) -> Box:
        width, height = size
        x = self._middle(column) - width / 2
        return round(x), round(y + (self.tallest - height) / 2), width, height

    def _note(self, figure: "Figure", column: int, y: float, text: str) -> None:
        middle = self._middle(column)
        write(figure, middle, y + self.tallest + 5, text, va="top", color=NOTE)

    def _density(self, figure: "Figure", i: int, y: float) -> None:
        left = self._middle(2) - CELL / 2 + 36
        axes = add_axes(figure, (left, y + 6, CELL - 44, self.tallest - 34))
        for other in self.entries:
            _curve(axes, other, color=OTHERS, linewidth=1)
        _curve(axes, self.entries[i], color=FIXED, linewidth=2.5)
        _tidy(axes)

    def _together(self, figure: "Figure", y: float, width: float, height: float) -> None:
        from matplotlib import colormaps

        axes = add_axes(figure, (70, y, width - 70 - self.LEGEND - 2 * GAP, height))
        colours, styles = colormaps["tab10"].colors, ("-", "--", ":", "-.")  # type: ignore[attr-defined]
        for i, entry in enumerate(self.entries):
            style = styles[i // len(colours) % len(styles)]
            colour, label = colours[i % len(colours)], self._label(entry)
            _curve(axes, entry, color=colour, linestyle=style, linewidth=2, label=label)
        _tidy(axes)
        axes.set_xlabel("distance from the centre of k-space, 1 = middle of an edge", fontsize=TEXT)
        axes.set_ylabel("fraction acquired", fontsize=TEXT)
        shown = axes.legend(
            loc="upper left", bbox_to_anchor=(1.02, 1.02), fontsize=TEXT, frameon=False
        )
        for text in shown.get_texts():
            text.set_parse_math(False)


def _size(
    shape: Sequence[int], voxel_size: tuple[float, float] = (1.0, 1.0), quarter_turns: int = 0
) -> tuple[float, float]:
    """Width and height that fit a cell, with whole dots (two to a page pixel) along the width."""
    ratio = height_over_width(shape, voxel_size, quarter_turns)
    n_columns = shape[0] if quarter_turns % 2 else shape[1]
    most = min(CELL, TALLEST / ratio) / n_columns
    width = n_columns * (int(2 * most) / 2 if most >= 0.5 else most)
    return width, width * ratio


def _decibel(psf: Array) -> Array:
    return 20 * np.log10(np.maximum(np.abs(psf), 10 ** (FLOOR_DB / 20)))


def _widened(decibel: Array, box: Box) -> Array:
    """A ghost is one pixel, too small to see on large planes: bright ones spread to neighbours."""
    size = int(np.ceil(2 * np.sqrt(decibel.size / (box[2] * box[3]))))
    return maximum_filter(decibel, size | 1, mode="wrap") if size > 1 else decibel


def _sidelobe(ratio: float) -> str:
    if ratio < 1e-6:
        return "none"
    return f"{20 * np.log10(ratio) + 0.0:.1f} dB ({ratio:.2f})".replace("-0.0 dB", "0.0 dB")


def _noise_note(gfactor: Array) -> str:
    inside = gfactor[np.isfinite(gfactor)]
    if not inside.size:
        return "no object"
    return f"mean {inside.mean():#.3g}, 95th percentile {np.percentile(inside, 95):#.3g}"


def _noise_scale(maps: Sequence[Array]) -> "Normalize":
    """From 1 to where the 99th percentile of the noisiest map ends, in steps of equal ratio."""
    from matplotlib.colors import LogNorm

    inside = [found for g in maps if (found := g[np.isfinite(g)]).size]
    top = max((float(np.percentile(found, 99)) for found in inside), default=1.0)
    return LogNorm(1, next((mark for mark in MARKS[1:] if mark >= top), MARKS[-1]), clip=True)


def _marks(norm: "Normalize") -> list[float]:
    """Of :data:`MARKS` those with room for their label, both ends among them."""
    kept = [float(norm.vmax or 1)]
    for mark in reversed([mark for mark in MARKS if mark < kept[0]]):
        away = float(norm(kept[-1]) - norm(mark))
        if mark == 1 or (away > 0.12 and float(norm(mark)) > 0.12):
            kept.append(mark)
    return kept


def _curve(axes: "Axes", entry: MaskFacts, **style: Any) -> None:
    radius, fraction = (np.asarray(values) for values in entry.density)
    known = np.isfinite(fraction)
    axes.plot(radius[known], fraction[known], **style)


def _tidy(axes: "Axes") -> None:
    axes.set_xlim(0, CORNER)
    axes.set_ylim(0, 1.04)
    axes.set_xticks([0, 0.5, 1, CORNER], ["0", "0.5", "1", "corner"])
    axes.get_xticklabels()[-1].set_horizontalalignment("right")
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
