"""The report's pictures. Each function returns one matplotlib figure, or None without data."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import uniform_filter

from kscout.report import Array, Example, Run
from kscout.report.canvas import (
    GAP,
    LINE,
    TEXT,
    WIDTH,
    Box,
    add_axes,
    add_picture,
    add_points,
    grey_scale,
    height_over_width,
    n_lines,
    new_figure,
    white,
    wrap,
    write,
)
from kscout.report.table import rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

FIXED, LEARNED, MOVED = "#4c6a92", "#c2571a", (0.96, 0.55, 0.15)
ERROR_MAP = "inferno"
GAINS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
CENTRE = (24, 48)
"""Points along (ky, kx) of the close-up of a large mask."""


def _finished(runs: Sequence[Run]) -> list[Run]:
    """Finished runs in the order of the table: baselines first."""
    order = [row["method"] for row in rows(runs)]
    return sorted((r for r in runs if r.results), key=lambda run: order.index(run.label))


def masks(runs: Sequence[Run]) -> "Figure | None":
    """The mask of every method, its realised count, and how a learned one came about."""
    runs = _finished(runs)
    if not runs:
        return None
    return mask_grid([run.mask() for run in runs], [_mask_title(run) for run in runs])


def _mask_title(run: Run) -> list[str]:
    assert run.results is not None
    count = f"{run.results.n_samples} samples, R={run.results.acceleration:.2f}"
    return [f"{run.label},", count, *learned_from(run)]


def learned_from(run: Run) -> list[str]:
    """What a learned mask started from and how many points moved, as far as the run says."""
    assert run.results is not None
    start, history = run.results.sampler.get("init"), run.mask_history()
    known = [f"start: {start}"] if start is not None else []
    if history is not None:
        known.append(f"{(run.mask() & ~history[0]).sum()} points moved")
    return [", ".join(known)] if known else []


def mask_grid(patterns: Sequence[Array], titles: Sequence[Sequence[str]]) -> "Figure":
    """Masks side by side, DC in the centre; below large ones their centre, magnified.

    Parameters
    ----------
    patterns : bool ``(ky, kx)`` each
    titles : of each mask, lines; long ones are wrapped
    """
    largest = max(max(pattern.shape) for pattern in patterns)
    scale = max(1, 290 // largest) if largest <= WIDTH - 2 * GAP else (WIDTH - 2 * GAP) / largest
    height, width = (scale * max(p.shape[axis] for p in patterns) for axis in (0, 1))
    cell = max(width, 280 if largest > 2 * max(CENTRE) else 200)
    texts = ["\n".join(wrap(line, cell) for line in lines) for lines in titles]
    head = LINE * n_lines(texts) + 6
    close_ups = [_centre(p) if largest > 2 * max(CENTRE) else None for p in patterns]
    close_height = 6 * CENTRE[0] + LINE + GAP if close_ups[0] is not None else 0
    n_columns = min(len(patterns), max(1, int((WIDTH - GAP) // (cell + GAP))))
    n_rows = -(-len(patterns) // n_columns)
    step = head + height + close_height + 1.5 * GAP
    figure = new_figure(n_columns * (cell + GAP) + GAP, n_rows * step + GAP)
    for i, (pattern, close_up) in enumerate(zip(patterns, close_ups, strict=True)):
        row, column = divmod(i, n_columns)
        middle, y = GAP + column * (cell + GAP) + cell / 2, GAP + row * step + head
        write(figure, middle, y - 6, texts[i])
        _points(figure, middle, y, pattern, scale)
        if close_up is not None:
            size = f"centre, {close_up.shape[0]} x {close_up.shape[1]} points"
            write(figure, middle, y + height + LINE + 4, size, color="#5b6774")
            _points(figure, middle, y + height + LINE + 8, close_up, 6)
    return figure


def _centre(pattern: Array) -> Array:
    """The points around DC, DC again at half of each axis."""
    size = [min(n, most) for n, most in zip(pattern.shape, CENTRE, strict=True)]
    start = [n // 2 - part // 2 for n, part in zip(pattern.shape, size, strict=True)]
    return pattern[start[0] : start[0] + size[0], start[1] : start[1] + size[1]]


def _points(figure: "Figure", middle: float, y: float, pattern: Array, scale: float) -> None:
    height, width = (scale * n for n in pattern.shape)
    add_points(figure, (round(middle - width / 2), round(y), width, height), pattern)


def mask_history(run: Run, n_snapshots: int = 6) -> "Figure | None":
    """Snapshots of a learned mask over training, and how many points moved in each epoch.

    A point that moved is one that the mask newly acquires; another one was given up for it. The
    mask that was kept, that of the best validation loss, is among the snapshots and named.
    """
    history = run.mask_history()
    if history is None or len(history) < 2:
        return None
    kept = [i for i, mask in enumerate(history) if (mask == run.mask()).all()][-1:]
    even = np.linspace(0, len(history) - 1, n_snapshots - len(kept)).round().astype(int)
    cell = (WIDTH - GAP) / n_snapshots - GAP
    width = max(1, int(2 * cell) // history.shape[2]) / 2 * history.shape[2]
    height = width * history.shape[1] / history.shape[2]
    figure = new_figure(WIDTH, height + 380)
    for i, epoch in enumerate(np.unique([*even, *kept])):
        x = GAP + i * (cell + GAP) + (cell - width) / 2
        title = "start" if epoch == 0 else f"epoch {epoch}"
        title += " (kept)" if epoch in kept else ""
        write(figure, x + width / 2, GAP + LINE, title)
        add_picture(figure, (x, GAP + LINE + 6, width, height), _moved(history[epoch], history[0]))
    _changes(figure, GAP + LINE + height + 70, history)
    return figure


def _changes(figure: "Figure", y: float, history: Array) -> None:
    """Two charts: what moved from epoch to epoch, and what is away from the start."""
    moved = (history[1:] & ~history[:-1]).sum((1, 2))
    away = (history & ~history[0]).sum((1, 2))
    left = add_axes(figure, (90, y, WIDTH / 2 - 140, 210))
    left.bar(np.arange(1, len(history)), moved, color=LEARNED)
    left.set_title("points moved in each epoch", fontsize=TEXT)
    right = add_axes(figure, (WIDTH / 2 + 70, y, WIDTH / 2 - 110, 210))
    right.plot(away, "o-", color=LEARNED, markersize=4)
    right.set_title(f"points away from the start, of {history[0].sum()}", fontsize=TEXT)
    for axes in (left, right):
        _tidy(axes)
        axes.set_ylim(0, 1.1 * max(1, axes.dataLim.ymax))
        _epoch_axis(axes)


def _moved(mask: Array, first: Array) -> Array:
    """White where acquired, and in colour where the first mask did not acquire."""
    picture = np.repeat(mask[..., None].astype(float), 3, axis=-1)
    picture[mask & ~first] = MOVED
    return picture


def _tidy(axes: "Axes") -> None:
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _epoch_axis(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch", fontsize=TEXT)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def losses(runs: Sequence[Run]) -> "Figure | None":
    """Training (dashed) and validation (solid) loss of every run that was trained."""
    first = np.array([1, 0])  # the log counts epochs from 0, a reader and the mask history from 1
    curves = [(run.label, run.losses()) for run in _finished(runs)]
    trained = [(label, c) for label, c in curves if c is not None and len(c["train_loss"])]
    if not trained:
        return None
    from matplotlib import colormaps

    figure = new_figure(WIDTH, 400 + LINE * 1.5 * -(-len(trained) // 2))
    axes = add_axes(figure, (90, 20, WIDTH - 120, 310))
    for i, (label, curve) in enumerate(trained):
        color = colormaps["tab10"](i % 10)
        has_val = len(curve["val_loss"]) > 0
        axes.plot(
            *(curve["train_loss"] + first).T, "--", color=color, label=None if has_val else label
        )
        if has_val:
            axes.plot(*(curve["val_loss"] + first).T, color=color, label=label, linewidth=2)
    axes.set_yscale("log")
    axes.set_ylabel("loss", fontsize=TEXT)
    _epoch_axis(axes)
    _tidy(axes)
    legend = axes.legend(
        loc="upper left", bbox_to_anchor=(0, -0.17), ncols=2, fontsize=TEXT, frameon=False
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def psnr(runs: Sequence[Run], split: str = "test") -> "Figure | None":
    """PSNR of every method with its 95 % interval, baselines first."""
    table = [row for row in rows(runs, split) if row["psnr"]]
    if not table:
        return None
    labels = [wrap(row["method"], 280) for row in table]
    step = max(34, LINE * n_lines(labels) + 8)
    figure = new_figure(WIDTH, step * len(table) + 90)
    axes = add_axes(figure, (310, 20, WIDTH - 420, step * len(table)))
    for i, row in enumerate(table):
        mean, low, high = (row["psnr"][key] for key in ("mean", "low", "high"))
        color = LEARNED if row["kind"] == "learned" else FIXED
        axes.plot([low, high], [i, i], color=color, linewidth=3, solid_capstyle="butt", alpha=0.6)
        axes.plot(mean, i, "o", color=color, markersize=9)
        axes.annotate(
            f"{mean:.2f}",
            (1.015, i),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=TEXT,
        )
    axes.set_yticks(range(len(table)), labels, parse_math=False)
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.set_xlabel(f"PSNR in dB on {split}: mean and 95 % interval", fontsize=TEXT)
    _tidy(axes)
    return figure


def reconstructions(runs: Sequence[Run], example: int = 0) -> "Figure | None":
    """One slice by every method: image, zoomed inset, and error map.

    All images share one grey scale, 0 to the 99.9th percentile of the reference; all error maps
    share another: magnified by the factor written beside them or, where the methods differ tenfold
    and more, logarithmic.

    Parameters
    ----------
    runs : those that show the same slice as the first finished one are drawn
    example : which slice of ``examples.npz``
    """
    shown = [
        (run, found[example]) for run in _finished(runs) if example < len(found := run.examples())
    ]
    if not shown:
        return None
    shown = [pair for pair in shown if _same_slice(pair[1], shown[0][1])]
    return _Reconstructions(shown).draw()


def _same_slice(one: Example, other: Example) -> bool:
    a, b = one["reference"], other["reference"]
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max()))


class _Reconstructions:
    """Layout of :func:`reconstructions`: blocks of columns, each block led by the reference."""

    LEFT = 96
    MOST_COLUMNS = 6

    def __init__(self, shown: Sequence[tuple[Run, Example]]) -> None:
        run, example = shown[0]
        assert run.results is not None
        turns = run.results.quarter_turns
        self.ratio = height_over_width(example["reference"].shape, run.results.voxel_size, turns)
        self.reference = np.rot90(example["reference"], turns)
        self.white = white(self.reference)
        images = {run.label: e["reconstruction"] for run, e in shown}
        if len(shown) == 1:  # something to compare with
            images = {"zero-filled": example["zero_filled"], **images}
        self.labels = list(images)
        self.images = [np.rot90(image, turns) for image in images.values()]
        self.errors = [np.abs(image - self.reference) / self.white for image in self.images]
        self.error_norm, self.error_name = _error_scale(self.errors[-len(shown) :])
        self.window = _detail(self.reference)

    def draw(self) -> "Figure":
        per_block = min(self.MOST_COLUMNS - 1, len(self.images))
        n_blocks = -(-len(self.images) // per_block)
        per_block = -(-len(self.images) // n_blocks)  # even blocks
        width = min(300.0, (WIDTH - self.LEFT) / (per_block + 1) - GAP / 2)
        height = width * self.ratio
        titles = [self._title(i, width) for i in range(len(self.images))]
        head = LINE * n_lines(titles) + 8
        block = head + 3 * (height + GAP / 2) + GAP
        figure = new_figure(self.LEFT + (per_block + 1) * (width + GAP / 2), n_blocks * block + 80)
        for i in range(n_blocks):
            self._rows(figure, i * block + head, height)
            columns = [-1, *range(i * per_block, min((i + 1) * per_block, len(self.images)))]
            for column, method in enumerate(columns):
                x = self.LEFT + column * (width + GAP / 2)
                y = i * block + head
                title = "reference" if method < 0 else titles[method]
                write(figure, x + width / 2, y - 6, title)
                self._column(figure, (x, y, width, height), method)
        self._scales(figure, n_blocks * block + 8)
        return figure

    def _title(self, method: int, width: float) -> str:
        nmse = (
            np.square(self.images[method] - self.reference).sum() / np.square(self.reference).sum()
        )
        return f"{wrap(self.labels[method], width)}\nNMSE {nmse:.1e}"

    def _rows(self, figure: "Figure", y: float, height: float) -> None:
        for row, name in enumerate(("image", "zoom", f"error\n{self.error_name}")):
            middle = y + row * (height + GAP / 2) + height / 2
            write(figure, self.LEFT - 12, middle, name, ha="right", va="center")

    def _column(self, figure: "Figure", box: Box, method: int) -> None:
        from matplotlib.patches import Rectangle

        x, y, width, height = box
        step = height + GAP / 2
        image = self.reference if method < 0 else self.images[method]
        grey = grey_scale(self.white)
        axes = add_picture(figure, (x, y, width, height), image, **grey)
        rows, columns = self.window
        corner = (columns.start - 0.5, rows.start - 0.5)
        size = (columns.stop - columns.start, rows.stop - rows.start)
        axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor="#ffd24d", linewidth=1))
        add_picture(figure, (x, y + step, width, height), image[self.window], **grey)
        if method >= 0:
            scale = {"cmap": ERROR_MAP, "norm": self.error_norm}
            add_picture(figure, (x, y + 2 * step, width, height), self.errors[method], **scale)

    def _scales(self, figure: "Figure", y: float) -> None:
        """Two colour bars, in units of the white of the images."""
        from matplotlib.colors import LogNorm, Normalize

        ramp = np.linspace(0, 1, 256)[None]
        half = (figure.get_size_inches()[0] * 100 - self.LEFT - GAP) / 2
        error = self.error_norm
        assert error.vmin is not None
        assert error.vmax is not None
        decades = 10.0 ** np.arange(-9, 1)
        inside = [value for value in decades if error.vmin <= value <= error.vmax]
        marks = inside if isinstance(error, LogNorm) else [error.vmin, error.vmax]
        for i, (cmap, norm, values, name) in enumerate(
            (
                ("gray", Normalize(0, 1), [0, 1], "image"),
                (ERROR_MAP, error, marks, "|error|, white of the images = 1"),
            )
        ):
            x, width = self.LEFT + i * half, half - 40
            add_picture(figure, (x, y, width, 12), ramp, cmap=cmap)
            for value in values:
                write(figure, x + width * float(norm(value)), y + 16, f"{value:g}", va="top")
            write(figure, x + width / 2, y + 34, name, va="top")


def _error_scale(errors: Sequence[Array]) -> "tuple[Normalize, str]":
    """Scale of all error maps, and its name.

    Linear, with the largest round magnification at which the middle method is not yet clipped;
    logarithmic where that would leave the best methods black beside the worst ones.
    """
    from matplotlib.colors import LogNorm, Normalize

    tops = [max(float(np.percentile(error, 99.5)), 1e-9) for error in errors]
    if max(tops) > 10 * min(tops):
        return LogNorm(min(tops) / 30, max(tops), clip=True), "(log)"
    gain = max([gain for gain in GAINS if gain * np.median(tops) <= 1] or [1])
    return Normalize(0, 1 / gain), f"×{gain}"  # noqa: RUF001


def _detail(image: Array) -> tuple[slice, slice]:
    """The window of a third of each side with the most detail.

    Square roots, so that many faint edges count more than the one strong edge of the skull.
    """
    size = [max(1, n // 3) for n in image.shape]
    detail = uniform_filter(np.sqrt(np.hypot(*np.gradient(image.astype(np.float64)))), size)
    starts = [n // 2 for n in size]
    inside = detail[
        starts[0] : image.shape[0] - size[0] + starts[0] + 1,
        starts[1] : image.shape[1] - size[1] + starts[1] + 1,
    ]
    y, x = np.unravel_index(int(inside.argmax()), inside.shape)
    return slice(int(y), int(y) + size[0]), slice(int(x), int(x) + size[1])
