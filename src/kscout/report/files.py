"""Pictures of files: masks, k-space, and the images of a volume."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kscout.data.formats import Scan, format_of, open_scan
from kscout.data.formats.scan import picture_axes
from kscout.errors import UserError
from kscout.experiment.masks import mask_from
from kscout.physics.coils import root_sum_of_squares
from kscout.report import Array, nifti
from kscout.report.canvas import (
    GAP,
    LINE,
    WIDTH,
    Box,
    add_picture,
    add_points,
    check_suffix,
    grey_scale,
    height_over_width,
    n_lines,
    new_figure,
    save,
    white,
    wrap,
    write,
)
from kscout.report.figures import mask_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INSIDE = WIDTH - 2 * GAP
LARGE = (500, 560)
"""Most width and height of the image of a slice, in page pixels."""

BOLD = 0.85
"""Of a line, what bold letters may be counted to fill."""

LEAST_WIDTH = 160
"""Of a page without its margins, so that its title is not broken into syllables."""

MOST_COILS = 32
MOST_SLICES = 12
DECADES = 4
"""Of k-space magnitude that are shown, below its maximum."""


def show_masks(files: Sequence[Path], out: Path) -> Path:
    """Draw masks side by side with their counts.

    Parameters
    ----------
    files : .npy or .cfl masks, or finished runs
    out : picture to write (.png, .pdf or .svg)

    Returns
    -------
    ``out``

    Raises
    ------
    UserError
        if a file is no mask, or ``out`` has another suffix or cannot be written
    """
    check_suffix(out)
    masks = [mask_from(file) for file in files]
    titles = [[file.name, _count(mask)] for file, mask in zip(files, masks, strict=True)]
    save(mask_grid([mask.numpy() for mask in masks], titles), out)
    return out


def _count(mask: Tensor) -> str:
    n = int(mask.sum())
    return f"{n} of {mask.numel()} points, R={mask.numel() / n:.2f}"


def show_file(
    file: Path, out: Path, index: int | None, reading: Mapping[str, Any] | None = None
) -> Path:
    """Draw one slice of a file.

    Of k-space: image, coil images, k-space and, where it is undersampled, the acquired points. Of
    NIfTI: the image and, where there is a fourth axis, the images along it, as those of coils.

    Parameters
    ----------
    file : k-space in any format (:data:`kscout.data.formats.FORMATS`), or NIfTI
        (:func:`kscout.report.nifti.read_nifti_slice`)
    out : picture to write (.png, .pdf or .svg)
    index : slice, from 0; the middle one if None
    reading : options of the format of k-space

    Returns
    -------
    ``out``

    Raises
    ------
    UserError
        if the file cannot be read or has no such slice, or ``out`` has another suffix or cannot be
        written
    """
    check_suffix(out)
    if format_of(file) == "nifti" and not reading:
        shown = _of_nifti(file, index)
    else:
        shown = _of_kspace(file, index, reading)
    save(_draw(shown), out)
    return out


def evenly_spaced(n_slices: int) -> list[int]:
    """The slices that are drawn of a volume, up to twelve."""
    spaced = np.linspace(0, n_slices - 1, min(n_slices, MOST_SLICES)).round()
    return [int(i) for i in spaced]


def show_scan(scan: Scan, out: Path, more: str = "") -> Path:
    """Draw up to twelve slices of an open scan, evenly spaced, on one grey scale.

    No others are read. The page is as wide as the slices in it.

    Parameters
    ----------
    scan : images are root sums of squares over its coils
    out : picture to write (.png, .pdf or .svg)
    more : that the title says after the file's name

    Returns
    -------
    ``out``

    Raises
    ------
    UserError
        if a slice cannot be read, or ``out`` has another suffix or cannot be written
    """
    check_suffix(out)
    chosen = evenly_spaced(scan.n_slices)
    images = torch.stack([root_sum_of_squares(scan.coil_images(scan.read(i))) for i in chosen])
    turns = scan.geometry.quarter_turns
    ratio = height_over_width(images.shape[-2:], scan.geometry.voxel_size, turns)
    grid = _Grid(_upright(images, turns), [f"slice {i}" for i in chosen], ratio)
    inside = max(grid.inside, LEAST_WIDTH)
    simulated = ", simulated from magnitudes" * scan.simulated
    head = wrap("".join([scan.path.name, more, simulated, *_sides(scan)]), BOLD * inside)
    title_end = GAP + LINE * n_lines([head])
    top = title_end + GAP / 2
    figure = new_figure(inside + 2 * GAP, top + grid.height + GAP)
    write(figure, GAP, title_end, head, ha="left", fontweight="bold")
    grid.draw(figure, top)
    save(figure, out)
    return out


@dataclass(frozen=True)
class _Slice:
    """What is drawn of one slice: images upright, k-space as it lies in the file.

    Attributes
    ----------
    caption : lines; the first is the file's name
    name : what the image is
    image : ``(y, x)``
    coils : ``(coil, y, x)``
    ratio : height over width of an image
    kspace : magnitude ``(ky, kx)``, or None
    sampled : bool ``(ky, kx)``, or None where everything is
    """

    caption: list[str]
    name: str
    image: Array
    coils: Array
    ratio: float
    kspace: Array | None = None
    sampled: Array | None = None


def _of_kspace(file: Path, index: int | None, reading: Mapping[str, Any] | None) -> _Slice:
    with open_scan(file, reading) as scan:
        n_slices, n_coils, *plane = scan.shape
        index = nifti.checked_index(file, index, n_slices)
        voxel_size, turns, _ = scan.geometry
        points = scan.sampled()
        kspace = scan.read(index)
        coils = scan.coil_images(kspace)
        shown = [f"image{side}" for side in _sides(scan)]
        if scan.image_matrix != scan.plane:
            y, x = scan.image_matrix
            shown.append(f"images are cropped to {y} x {x}: the rest is oversampling")
    if not points.any():
        raise UserError(f"{file}: holds nothing but zeros")
    full = bool(points.all())
    return _Slice(
        caption=[
            file.name,
            f"k-space, plane {plane[0]} x {plane[1]} (ky, kx), {_coils(n_coils)}, "
            f"{_place(index, n_slices)}",
            "fully sampled" if full else f"undersampled: {_count(points)}",
            *shown,
            *_left_out(n_coils),
        ],
        name=_combined(n_coils) + ("" if full else ", zero-filled"),
        image=_upright(root_sum_of_squares(coils), turns),
        coils=_upright(coils.abs(), turns),
        ratio=height_over_width(coils.shape[-2:], voxel_size, turns),
        kspace=root_sum_of_squares(kspace).numpy(),
        sampled=None if full else points.numpy(),
    )


def _of_nifti(file: Path, index: int | None) -> _Slice:
    read = nifti.read_nifti_slice(file, index)
    n_coils, *plane = read.images.shape
    several = f"{_coils(n_coils)}, " if n_coils > 1 else ""
    size = f"NIfTI, picture {plane[0]} x {plane[1]}"
    combined = root_sum_of_squares(torch.from_numpy(read.images)).numpy()
    return _Slice(
        caption=[
            file.name,
            f"{size}, {several}{_place(read.index, read.n_slices)}",
            *_left_out(n_coils),
        ],
        name=_combined(n_coils),
        image=combined if n_coils > 1 else read.images[0],
        coils=read.images,
        ratio=read.ratio,
    )


def _sides(scan: Scan) -> list[str]:
    """Which sides of the patient a picture has, where the file says; else nothing."""
    if scan.affine is None:
        return []
    down, right = picture_axes(scan.affine, scan.geometry.quarter_turns)
    return [f": left is {_side(-right)}, top is {_side(-down)}"]


def _side(direction: Array) -> str:
    """The letter of the side of the patient that a direction, as in NIfTI, points to most."""
    axis = int(np.abs(direction).argmax())
    return ("RAS" if direction[axis] > 0 else "LPI")[axis]


def _upright(images: Tensor, quarter_turns: int) -> Array:
    return np.rot90(images.cpu().numpy(), quarter_turns, axes=(-2, -1))


def _combined(n_coils: int) -> str:
    return "magnitude" if n_coils == 1 else "root sum of squares"


def _coils(n_coils: int) -> str:
    return "1 coil" if n_coils == 1 else f"{n_coils} coils"


def _left_out(n_coils: int) -> list[str]:
    return [f"the first {MOST_COILS} coils are drawn"] if n_coils > MOST_COILS else []


def _place(index: int, n_slices: int) -> str:
    return "1 slice" if n_slices == 1 else f"slice {index} (of 0 to {n_slices - 1})"


def _draw(shown: _Slice) -> "Figure":
    """Caption, then the image with k-space beside it, then the coils."""
    n_coils = len(shown.coils)
    drawn = shown.coils[:MOST_COILS] if n_coils > 1 else shown.coils[:0]
    grid = _Grid(drawn, [f"coil {i}" for i in range(len(drawn))], shown.ratio)
    width = min(LARGE[0], LARGE[1] / shown.ratio)
    height = width * shown.ratio
    page = WIDTH if n_coils > 1 or shown.kspace is not None else max(width + 2 * GAP, WIDTH / 2)
    name = wrap(shown.name, width)
    head, *caption = (wrap(line, page - 2 * GAP) for line in shown.caption)
    head_end = GAP + LINE * n_lines([head])
    caption_end = head_end + LINE * n_lines(["\n".join(caption)])
    top = caption_end + LINE * (n_lines([name]) + 1)
    panels = _panels(shown, (GAP + width + 2 * GAP, top))
    bottom = max([top + height, *(y + size for _, _, (_, y, _, size) in panels)]) + GAP
    figure = new_figure(page, bottom + grid.height + GAP)
    write(figure, GAP, head_end, head, ha="left", fontweight="bold")
    write(figure, GAP, caption_end, "\n".join(caption), ha="left")
    write(figure, GAP, top - 5, name, ha="left")
    style = grey_scale(white(shown.image))
    add_picture(figure, (GAP, top, width, height), shown.image, **style)
    for title, plane, box in panels:
        write(figure, box[0], box[1] - 5, title, ha="left")
        add_points(figure, box, plane)
    grid.draw(figure, bottom)
    return figure


def _panels(shown: _Slice, corner: tuple[float, float]) -> list[tuple[str, Array, Box]]:
    """Title, values from 0 to 1 and place of the planes of k-space right of and below ``corner``.

    Side by side where every point still gets a page pixel, else below each other.
    """
    planes: list[tuple[str, Array]] = []
    if shown.kspace is not None:
        level = np.maximum(shown.kspace / (shown.kspace.max() or 1.0), 10.0**-DECADES)
        planes.append(("k-space (log), ky down", 1 + np.log10(level) / DECADES))
    if shown.sampled is not None:
        planes.append(("acquired points, ky down", shown.sampled))
    if not planes:
        return []
    x, y = corner
    ky, kx = planes[0][1].shape
    room = WIDTH - GAP - x
    beside = (room - GAP * (len(planes) - 1)) / len(planes) / kx
    scale = min(beside if beside >= 1 else room / kx, LARGE[1] / ky)
    scale = int(2 * scale) / 2 or scale  # whole dots, where points are not finer than a dot
    width, height = scale * kx, scale * ky
    step = (width + GAP, 0.0) if beside >= 1 else (0.0, height + 2 * LINE)
    return [
        (title, plane, (x + i * step[0], y + i * step[1], width, height))
        for i, (title, plane) in enumerate(planes)
    ]


class _Grid:
    """Images in rows, on one grey scale.

    Parameters
    ----------
    images : ``(image, y, x)``; there may be none
    titles : one above each
    ratio : height over width of an image
    """

    MOST_HEIGHT = 330.0

    def __init__(self, images: Array, titles: Sequence[str], ratio: float) -> None:
        self.images, self.titles, self.ratio = images, titles, ratio
        # About twice as many columns as rows, at most eight, and rows of equal length.
        most = min(8, max(4, math.ceil((2 * len(images)) ** 0.5)))
        self.n_columns = math.ceil(len(images) / max(1, math.ceil(len(images) / most))) or 1
        cell = (INSIDE + GAP / 2) / self.n_columns - GAP / 2
        self.width = min(cell, self.MOST_HEIGHT / ratio)
        self.inside = self.n_columns * (self.width + GAP / 2) - GAP / 2
        self.step = self.width * ratio + LINE + GAP / 2
        self.height = self.step * -(-len(images) // self.n_columns)

    def draw(self, figure: "Figure", top: float) -> None:
        if not len(self.images):
            return
        style = grey_scale(white(self.images))
        width, height = self.width, self.width * self.ratio
        for i, (image, title) in enumerate(zip(self.images, self.titles, strict=True)):
            row, column = divmod(i, self.n_columns)
            x, y = GAP + column * (width + GAP / 2), top + row * self.step + LINE
            write(figure, x + width / 2, y - 3, title)
            add_picture(figure, (x, y, width, height), image, **style)
