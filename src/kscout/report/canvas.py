"""Pictures laid out in pixels of a page: what every figure of this package is drawn with.

Axes are placed in pixels of the page (CSS pixels, 100 to the inch) and saved at twice that, so
that every point of a mask covers whole pixels of the screen: rescaled lattices show moire.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kscout.atomic import atomic_path
from kscout.errors import UserError
from kscout.report import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 1120
"""Of the widest figure, in page pixels."""

RESOLUTION = 200
"""Dots per inch that a figure is saved at: two for each page pixel."""

TEXT = 11
LETTER = 7.6  # mean width in page pixels of a letter of that size
LINE = 19  # height of a line of text
GAP = 16

SUFFIXES = (".png", ".pdf", ".svg")
"""Formats that a picture can be written in."""

Box = tuple[float, float, float, float]
"""Left, top, width and height in page pixels."""


def new_figure(width: float, height: float) -> "Figure":
    """An empty white figure of a size in page pixels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / 100, height / 100), dpi=RESOLUTION, facecolor="white")


def add_axes(figure: "Figure", box: Box) -> "Axes":
    """Axes that fill ``box``."""
    x, y, width, height = box
    full_width, full_height = figure.get_size_inches() * 100
    bottom = full_height - y - height
    axes = figure.add_axes(
        (x / full_width, bottom / full_height, width / full_width, height / full_height)
    )
    axes.tick_params(labelsize=TEXT)
    return axes


def write(figure: "Figure", x: float, y: float, text: str, **style: Any) -> None:
    """Text, never read as a formula, centred above ``(x, y)`` unless ``style`` says otherwise."""
    full_width, full_height = figure.get_size_inches() * 100
    default: dict[str, Any] = {"fontsize": TEXT, "ha": "center", "va": "bottom"}
    style = default | {"parse_math": False} | style
    figure.text(x / full_width, 1 - y / full_height, text, **style)


def add_picture(figure: "Figure", box: Box, image: Array, **style: Any) -> "Axes":
    """An image that fills ``box``, without ticks."""
    axes = add_axes(figure, box)
    axes.imshow(image, aspect="auto", **{"cmap": "gray", "interpolation": "nearest"} | style)
    axes.set_xticks([])
    axes.set_yticks([])
    return axes


def add_points(figure: "Figure", box: Box, plane: Array) -> None:
    """A plane of k-space from 0, black, to 1, white, every point as it is.

    Begin and size ``box`` in whole dots for every point, or those of a lattice come out unequal;
    only points finer than a dot are averaged.
    """
    finer = 2 * box[2] < plane.shape[1] or 2 * box[3] < plane.shape[0]
    style = "antialiased" if finer else "nearest"
    add_picture(figure, box, plane, vmin=0, vmax=1, interpolation=style)


def save(figure: "Figure", path: Path) -> None:
    """Write a figure, whole or not at all.

    Raises
    ------
    UserError
        if ``path`` cannot be written
    """
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=RESOLUTION)


def check_suffix(path: Path) -> None:
    """Raise ``UserError`` unless ``path`` names a format of :data:`SUFFIXES`."""
    if path.suffix.lower() not in SUFFIXES:
        valid = ", ".join(SUFFIXES)
        raise UserError(f"{path}: unknown picture format '{path.suffix}': valid are {valid}")


def wrap(text: str, width: float) -> str:
    """``text`` in lines of at most about ``width`` page pixels."""
    return textwrap.fill(text, max(8, int(width / LETTER)))


def n_lines(texts: Sequence[str]) -> int:
    """Lines of the longest of ``texts``."""
    return max(text.count("\n") + 1 for text in texts)


def white(image: Array) -> float:
    """The value shown white where 0 is black: the 99.9th percentile, so no hot pixel sets it."""
    return float(np.percentile(image, 99.9)) or 1.0


def grey_scale(top: float) -> dict[str, Any]:
    """Style of an image from 0, black, to ``top``, white."""
    return {"vmin": 0, "vmax": top, "interpolation": "bilinear"}


def height_over_width(
    shape: Sequence[int], voxel_size: tuple[float, float], quarter_turns: int = 0
) -> float:
    """Of a picture on paper.

    Parameters
    ----------
    shape : ``(y, x)`` before it is turned
    voxel_size : of a pixel along (y, x) in mm
    quarter_turns : that put the picture upright
    """
    ratio = shape[0] * voxel_size[0] / (shape[1] * voxel_size[1])
    return 1 / ratio if quarter_turns % 2 else ratio
