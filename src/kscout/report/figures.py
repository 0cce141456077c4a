"""The report's pictures. Each function returns one matplotlib figure, or None without data.

Axes are placed in pixels of the page (CSS pixels, 100 to the inch) and saved at twice that, so
that every point of a mask covers whole pixels of the screen: rescaled lattices show moire.
"""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import uniform_filter

from kscout.report import Array, Example, Run
from kscout.report.table import rows

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
FIXED, LEARNED, MOVED = "#4c6a92", "#c2571a", (0.96, 0.55, 0.15)
ERROR_MAP = "inferno"
GAINS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width / 100, height / 100), dpi=RESOLUTION, facecolor="white")


def _axes(figure: "Figure", x: float, y: float, width: float, height: float) -> "Axes":
    """Axes at page pixels from the top left corner."""
    full_width, full_height = figure.get_size_inches() * 100
    bottom = full_height - y - height
    axes = figure.add_axes(
        (x / full_width, bottom / full_height, width / full_width, height / full_height)
    )
    axes.tick_params(labelsize=TEXT)
    return axes


def _write(figure: "Figure", x: float, y: float, text: str, **style: Any) -> None:
    full_width, full_height = figure.get_size_inches() * 100
    default: dict[str, Any] = {"fontsize": TEXT, "ha": "center", "va": "bottom"}
    style = default | {"parse_math": False} | style
    figure.text(x / full_width, 1 - y / full_height, text, **style)


def _picture(
    figure: "Figure", box: tuple[float, float, float, float], image: Array, **style: Any
) -> "Axes":
    axes = _axes(figure, *box)
    axes.imshow(image, aspect="auto", **{"cmap": "gray", "interpolation": "nearest"} | style)
    axes.set_xticks([])
    axes.set_yticks([])
    return axes


def _wrap(text: str, width: float) -> str:
    return textwrap.fill(text, max(8, int(width / LETTER)))


def _n_lines(texts: Sequence[str]) -> int:
    return max(text.count("\n") + 1 for text in texts)


def _finished(runs: Sequence[Run]) -> list[Run]:
    """Finished runs in the order of the table: baselines first."""
    order = [row["method"] for row in rows(runs)]
    return sorted((r for r in runs if r.results), key=lambda run: order.index(run.label))


def masks(runs: Sequence[Run]) -> "Figure | None":
    """The mask of every method, DC in the centre, with its realised count and acceleration."""
    runs = _finished(runs)
    if not runs:
        return None
    patterns = [run.mask() for run in runs]
    scale = max(1, 290 // max(max(pattern.shape) for pattern in patterns))
    height, width = (scale * max(p.shape[axis] for p in patterns) for axis in (0, 1))
    cell = max(width, 200)
    titles = []
    for run in runs:
        assert run.results is not None
        count = f"{run.results.n_samples} samples, R={run.results.acceleration:.2f}"
        titles.append(f"{_wrap(run.label, cell)},\n{_wrap(count, cell)}")
    head = LINE * _n_lines(titles) + 6
    n_columns = min(len(runs), max(1, (WIDTH - 2 * GAP) // (cell + GAP)))
    n_rows = -(-len(runs) // n_columns)
    figure = _figure(n_columns * (cell + GAP) + GAP, n_rows * (head + height + GAP) + GAP)
    for i, (pattern, title) in enumerate(zip(patterns, titles, strict=True)):
        row, column = divmod(i, n_columns)
        x, y = GAP + column * (cell + GAP), GAP + row * (head + height + GAP) + head
        _write(figure, x + cell / 2, y - 6, title)
        ky, kx = (scale * n for n in pattern.shape)
        _picture(figure, (x + (cell - kx) / 2, y, kx, ky), pattern)
    return figure


def mask_history(run: Run, n_snapshots: int = 6) -> "Figure | None":
    """Snapshots of a learned mask over training, and how many points moved in each epoch.

    A point that moved is one that the mask newly acquires; another one was given up for it.
    """
    history = run.mask_history()
    if history is None or len(history) < 2:
        return None
    epochs = np.unique(np.linspace(0, len(history) - 1, n_snapshots).round().astype(int))
    cell = (WIDTH - GAP) / n_snapshots - GAP
    width = max(1, int(2 * cell) // history.shape[2]) / 2 * history.shape[2]
    height = width * history.shape[1] / history.shape[2]
    figure = _figure(WIDTH, height + 400)
    for i, epoch in enumerate(epochs):
        x = GAP + i * (cell + GAP) + (cell - width) / 2
        title = "start" if epoch == 0 else f"epoch {epoch}"
        _write(figure, x + width / 2, GAP + LINE, title)
        _picture(figure, (x, GAP + LINE + 6, width, height), _moved(history[epoch], history[0]))
    moved = (history[1:] & ~history[:-1]).sum((1, 2))
    y = GAP + LINE + height + 70
    away = int((history[-1] & ~history[0]).sum())
    epoch_axis = np.arange(1, len(history))
    left = _axes(figure, 90, y, WIDTH / 2 - 140, 210)
    left.bar(epoch_axis, moved, color=LEARNED)
    left.set_title("points moved in each epoch", fontsize=TEXT)
    right = _axes(figure, WIDTH / 2 + 70, y, WIDTH / 2 - 110, 210)
    right.plot(epoch_axis, moved.cumsum(), "o-", color=LEARNED, markersize=4)
    right.set_title(
        f"cumulative; {away} of {history[-1].sum()} points differ from the start", fontsize=TEXT
    )
    for axes in (left, right):
        _tidy(axes)
        axes.set_ylim(bottom=0)
        _epoch_axis(axes)
    return figure


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
    curves = [(run.label, run.losses()) for run in _finished(runs)]
    trained = [(label, c) for label, c in curves if c is not None and len(c["train_loss"])]
    if not trained:
        return None
    from matplotlib import colormaps

    figure = _figure(WIDTH, 400 + LINE * 1.5 * -(-len(trained) // 2))
    axes = _axes(figure, 90, 20, WIDTH - 120, 310)
    for i, (label, curve) in enumerate(trained):
        color = colormaps["tab10"](i % 10)
        has_val = len(curve["val_loss"]) > 0
        axes.plot(*curve["train_loss"].T, "--", color=color, label=None if has_val else label)
        if has_val:
            axes.plot(*curve["val_loss"].T, color=color, label=label, linewidth=2)
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
    labels = [_wrap(row["method"], 280) for row in table]
    step = max(34, LINE * _n_lines(labels) + 8)
    figure = _figure(WIDTH, step * len(table) + 90)
    axes = _axes(figure, 310, 20, WIDTH - 420, step * len(table))
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
    share another, magnified by the factor that is written beside them.

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
        self.size = run.results.voxel_size[:: -1 if turns % 2 else 1]
        self.reference = np.rot90(example["reference"], turns)
        self.white = float(np.percentile(self.reference, 99.9)) or 1.0
        images = {run.label: e["reconstruction"] for run, e in shown}
        if len(shown) == 1:  # something to compare with
            images = {"zero-filled": example["zero_filled"], **images}
        self.labels = list(images)
        self.images = [np.rot90(image, turns) for image in images.values()]
        self.errors = [np.abs(image - self.reference) / self.white for image in self.images]
        self.gain = _gain(self.errors[-len(shown) :])
        self.window = _detail(self.reference)

    def draw(self) -> "Figure":
        per_block = min(self.MOST_COLUMNS - 1, len(self.images))
        n_blocks = -(-len(self.images) // per_block)
        per_block = -(-len(self.images) // n_blocks)  # even blocks
        width = min(300.0, (WIDTH - self.LEFT) / (per_block + 1) - GAP / 2)
        ny, nx = self.reference.shape
        height = width * ny * self.size[0] / (nx * self.size[1])
        titles = [self._title(i, width) for i in range(len(self.images))]
        head = LINE * _n_lines(titles) + 8
        block = head + 3 * (height + GAP / 2) + GAP
        figure = _figure(self.LEFT + (per_block + 1) * (width + GAP / 2), n_blocks * block + 70)
        for i in range(n_blocks):
            self._rows(figure, i * block + head, height)
            columns = [-1, *range(i * per_block, min((i + 1) * per_block, len(self.images)))]
            for column, method in enumerate(columns):
                x = self.LEFT + column * (width + GAP / 2)
                y = i * block + head
                title = "reference" if method < 0 else titles[method]
                _write(figure, x + width / 2, y - 6, title)
                self._column(figure, (x, y, width, height), method)
        self._scales(figure, n_blocks * block + 8)
        return figure

    def _title(self, method: int, width: float) -> str:
        nmse = (
            np.square(self.images[method] - self.reference).sum() / np.square(self.reference).sum()
        )
        return f"{_wrap(self.labels[method], width)}\nNMSE {nmse:.1e}"

    def _rows(self, figure: "Figure", y: float, height: float) -> None:
        for row, name in enumerate(("image", "zoom", f"error\n×{self.gain}")):  # noqa: RUF001
            middle = y + row * (height + GAP / 2) + height / 2
            _write(figure, self.LEFT - 12, middle, name, ha="right", va="center")

    def _column(
        self, figure: "Figure", box: tuple[float, float, float, float], method: int
    ) -> None:
        from matplotlib.patches import Rectangle

        x, y, width, height = box
        step = height + GAP / 2
        image = self.reference if method < 0 else self.images[method]
        grey = {"vmin": 0, "vmax": self.white, "interpolation": "bilinear"}
        axes = _picture(figure, (x, y, width, height), image, **grey)
        rows, columns = self.window
        corner = (columns.start - 0.5, rows.start - 0.5)
        size = (columns.stop - columns.start, rows.stop - rows.start)
        axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor="#ffd24d", linewidth=1))
        _picture(figure, (x, y + step, width, height), image[self.window], **grey)
        if method >= 0:
            scale = {"cmap": ERROR_MAP, "vmin": 0, "vmax": 1 / self.gain}
            _picture(figure, (x, y + 2 * step, width, height), self.errors[method], **scale)

    def _scales(self, figure: "Figure", y: float) -> None:
        """Two colour bars, in units of the white of the images."""
        ramp = np.linspace(0, 1, 256)[None]
        half = (figure.get_size_inches()[0] * 100 - self.LEFT - GAP) / 2
        for i, (cmap, top, name) in enumerate(
            (("gray", "1", "image"), (ERROR_MAP, f"{1 / self.gain:g}", "|error|"))
        ):
            x = self.LEFT + i * half
            _picture(figure, (x, y, half - 40, 12), ramp, cmap=cmap)
            _write(figure, x, y + 18, "0", ha="left", va="top")
            _write(figure, x + half / 2 - 20, y + 18, name, va="top")
            _write(figure, x + half - 40, y + 18, top, ha="right", va="top")


def _gain(errors: Sequence[Array]) -> int:
    """Largest round magnification at which the middle method's error map is not yet clipped."""
    typical = float(np.median([np.percentile(error, 99.5) for error in errors]))
    return max([gain for gain in GAINS if gain * typical <= 1] or [1])


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
