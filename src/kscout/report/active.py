"""The report on acquisition policies: table, curves, what was chosen when, and an animation."""

import base64
import io
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kscout.atomic import atomic_path
from kscout.errors import UserError
from kscout.report import Array
from kscout.report.canvas import (
    GAP,
    LINE,
    TEXT,
    WIDTH,
    add_axes,
    add_picture,
    add_points,
    grey_scale,
    height_over_width,
    new_figure,
    white,
    wrap,
    write,
)
from kscout.report.figures import ERROR_MAP
from kscout.report.grid import Grid, Heading, to_markdown
from kscout.report.html import Picture, picture, write_page
from kscout.report.table import METRICS, Cell, plural

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Document = dict[str, Any]

TITLES = {metric.key: metric for metric in METRICS}
STYLES: dict[str, dict[str, Any]] = {
    "order": {"linestyle": "-", "linewidth": 1.8},
    "random": {"linestyle": ":", "linewidth": 1.8},
    "adaptive": {"linestyle": "-", "linewidth": 3},
    "oracle": {"linestyle": "--", "linewidth": 1.8, "color": "#1c2530"},
}
IN_ANIMATION = 3
"""Policies that there is room for, the best of their kinds."""

WIDE, WIDEST = 100, 140
"""Characters of a terminal that has room for all scores, and for intervals beside them."""

NARROW = 12
"""Letters of a heading's line in the terminal."""

SECONDS = 0.8
"""That a step of an animation is shown."""


def write_active_report(folder: Path) -> Path:
    """Write ``report.html`` and ``report.md`` of judged policies; returns the page.

    Raises
    ------
    UserError
        if the folder holds no results, or an output cannot be written
    """
    found, examples = _read(folder)
    sections = []
    for split, results in found["results"].items():
        curve = picture(
            curves(results, found["kinds"]),
            folder / "figures" / f"curves_{split}.png",
            f"{_metric(results)} after every unit on {split}: mean over slices, and 95 % interval "
            "over scans. Thick: policies that look at the slice. Dashed: the oracle, which knows "
            "the answer. Dotted: drawn at random.",
        )
        sections.append((split, table(results, found["kinds"]), sentences(results), curve))
    names = list(found["kinds"])
    chosen = picture(
        choices(examples, names),
        folder / "figures" / "chosen.png",
        "How many slices acquire each unit (across) at each step (downwards). One white point in "
        "every row: an order that all slices share.",
    )
    pages = [
        _gif(
            animate(found, examples, i),
            folder / "figures" / f"acquisition_{i + 1}.gif",
            f"Slice {i + 1} of {len(examples['reference'])} from the middles of test scans: mask, "
            "reconstruction and error, a frame for every unit. Rows: the best order, the best "
            "policy that looks at the slice, and the oracle, with their scores. Errors are on one "
            "scale.",
        )
        for i in range(len(examples["reference"]))
    ]
    with atomic_path(folder / "report.md") as temporary:
        temporary.write_text(_markdown(found, sections), encoding="utf-8")
    return write_page(
        folder / "report.html",
        "kscout.report/active.html",
        found=found,
        sections=sections,
        chosen=chosen,
        animations=pages,
    )


def _read(folder: Path) -> tuple[Document, dict[str, Array]]:
    try:
        found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        with np.load(folder / "examples.npz", allow_pickle=False) as kept:
            return found, dict(kept)
    except (OSError, ValueError, RecursionError, EOFError) as error:
        raise UserError(f"{folder} holds no judged policies: kscout acquire eval makes them") from (
            error
        )


def _metric(results: Document) -> str:
    metric = TITLES.get(results["metric"])
    return metric.title if metric else str(results["metric"]).upper()


def _write_score(results: Document, value: Mapping[str, float]) -> Cell:
    metric = TITLES.get(results["metric"], TITLES["nmse"])
    return metric.write(dict(value))


def table(results: Document, kinds: Mapping[str, str]) -> Grid:
    """A row for every policy, the best area first."""
    unit = "dB ahead of" if results["metric"] in ("nmse", "mse") else "ahead of"
    references = results["references"]
    headings = [
        Heading("policy", True),
        Heading("kind", True),
        Heading(f"area under {_metric(results)}"),
        Heading(f"at {results['n_acquired'][-1]} of {results['n_units']}"),
        *(Heading(f"{unit} {name}") for name in references),
    ]
    rows, ahead_of = [], partial(_ahead, results["metric"])
    for name, row in results["policies"].items():
        last = {end: row[end][-1] for end in ("mean", "low", "high")}
        ahead = [ahead_of(row["ahead_of"].get(reference)) for reference in references]
        area = _write_score(results, row["area"])
        rows.append([Cell(name), Cell(kinds[name]), area, _write_score(results, last), *ahead])
    return Grid(headings, rows)


def _ahead(metric: str, difference: Document | None) -> Cell:
    if difference is None:
        return Cell("-")
    digits = 4 if metric == "ssim" else 2
    low, high = (f"{difference[end]:+.{digits}f}" for end in ("low", "high"))
    return Cell(f"{difference['mean']:+.{digits}f}", f"[{low}, {high}]")


def sentences(results: Document) -> list[str]:
    """What the numbers say, of every policy against the best order with a like reconstructor."""
    said = []
    for name, row in results["policies"].items():
        best = row["best_order"]
        found = row["ahead_of"].get(best)
        if found is not None:
            of_own = "" if best == results["best_order"] else " with a reconstructor of its own"
            cell = _ahead(results["metric"], found)
            unit = " dB" if results["metric"] in ("nmse", "mse", "psnr") else ""
            said.append(
                f"{name} {_verdict(found)} {best}, the best order{of_own}: "
                f"by area {cell.text}{unit} {cell.interval}{_by_seed(results['metric'], found)}"
            )
    return said


def _verdict(found: Document) -> str:
    if found["verdict"] is None:
        return "was trained once, which allows no verdict, beside"
    joint = "from" if found["verdict"] == "not distinguishable" else "than"
    return f"is {found['verdict']} {joint}"


def _by_seed(metric: str, found: Document) -> str:
    low, high = (
        _ahead(metric, dict.fromkeys(("mean", "low", "high"), end(found["by_seed"]))).text
        for end in (min, max)
    )
    return f", by seed {low} to {high}" if len(set(found["by_seed"])) > 1 else ""


def print_active(folder: Path, console: Console) -> None:
    """Print the tables."""
    found, _ = _read(folder)
    for split, results in found["results"].items():
        grid = table(results, found["kinds"])
        drawn = Table(
            title=Text(_scored(split, results)), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
        )
        left_out = [1]  # the kind; and of narrow tables the score at the end, and chance
        if console.width < WIDE:
            kinds = [found["kinds"][name] for name in results["references"]]
            left_out += [3, *(4 + i for i, kind in enumerate(kinds) if kind == "random")]
        shown = [i for i in range(len(grid.headings)) if i not in left_out]
        for i in shown:
            heading = grid.headings[i]
            drawn.add_column(
                Text(fill(heading.title, NARROW)),
                justify="left" if heading.is_text else "right",
                no_wrap=not heading.is_text,
                min_width=NARROW if heading.is_text else None,
            )
        joint = " " if console.width > WIDEST else "\n"
        for row in grid.rows:
            texts = [joint.join(filter(None, row[i][:2])) for i in shown]
            drawn.add_row(*texts, style="bold" if row[1].text == "adaptive" else "")
        console.print(drawn)


def _scored(split: str, results: Document) -> str:
    return (
        f"{split}: {plural(results['n_slices'], 'slice')} of {plural(results['n_volumes'], 'scan')}"
    )


def _markdown(found: Document, sections: list[tuple[str, Grid, list[str], Picture]]) -> str:
    parts = [f"# {found['name']}"]
    parts.append("\n".join(f"- {term}: {said}" for term, said in found["facts"].items()))
    parts.append(
        "Area: mean of the curve over the number of units. In brackets 95 % intervals over scans. "
        "Differences are of areas, paired by slice; positive is better."
    )
    for split, grid, said, _ in sections:
        scored = _scored(split, found["results"][split])
        parts += [f"## {scored}", to_markdown(grid), "\n".join(f"- {line}." for line in said)]
    return "\n\n".join(parts) + "\n"


def curves(results: Document, kinds: Mapping[str, str]) -> "Figure":
    """The metric against the number of units, every policy with its interval."""
    from matplotlib import colormaps

    figure = new_figure(WIDTH, 480)
    axes = add_axes(figure, (90, 20, WIDTH - 360, 390))
    units = results["n_acquired"]
    colors = [colormaps["tab20"](i) for i in (*range(0, 20, 2), *range(1, 20, 2))]
    styles = {
        name: {"color": colors[i % len(colors)], **STYLES[kinds[name]]}
        for i, name in enumerate(results["policies"])
    }
    for name, row in results["policies"].items():
        (line,) = axes.plot(units, row["mean"], label=wrap(name, 230), **styles[name])
        axes.fill_between(units, row["low"], row["high"], color=line.get_color(), alpha=0.15)
    if results["metric"] in ("nmse", "mse"):
        axes.set_yscale("log")
    axes.set_xlabel("units acquired", fontsize=TEXT)
    axes.set_ylabel(_metric(results), fontsize=TEXT)
    axes.set_xticks(units[:: max(1, len(units) // 12)])
    axes.grid(alpha=0.3, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), fontsize=TEXT, frameon=False)
    return figure


def choices(examples: Mapping[str, Array], names: list[str]) -> "Figure":
    """For every policy, which units come at which step."""
    n_steps, n_units = examples["chosen_0"].shape
    columns = 3
    width = (WIDTH - (columns - 1) * GAP) / columns
    height = max(60, min(200, n_steps * max(4, int(width / n_units))))
    n_rows = -(-len(names) // columns)
    figure = new_figure(WIDTH, n_rows * (height + LINE + 2 * GAP))
    for i, name in enumerate(names):
        x = (i % columns) * (width + GAP)
        y = (i // columns) * (height + LINE + 2 * GAP) + LINE + GAP
        write(figure, x, y - 4, name, ha="left")
        style = {"vmin": 0, "vmax": 1, "cmap": "gray"}
        add_picture(figure, (x, y, width, height), examples[f"chosen_{i}"], **style)
    return figure


def _shown(found: Document) -> list[int]:
    """Policies of the animation: the best order, the best adaptive one, and the oracle."""
    results = next(iter(found["results"].values()))
    ranked = list(results["policies"])
    names = list(found["kinds"])
    best = [results["best_order"]] + [
        next((name for name in ranked if found["kinds"][name] == kind), None)
        for kind in ("adaptive", "oracle")
    ]
    some = [name for name in best if name] or ranked[:IN_ANIMATION]
    return [names.index(name) for name in some]


def animate(found: Document, examples: Mapping[str, Array], example: int) -> list["Figure"]:
    """One slice acquired step by step: mask, image and error of some policies, a frame a step."""
    turns, names = found["quarter_turns"], list(found["kinds"])
    peak = examples["reference"][example].max()
    reference = np.rot90(examples["reference"][example], turns)
    shown = _shown(found)
    width = (WIDTH / 2 - 2 * GAP) / 3
    height = width * height_over_width(reference.shape, tuple(found["voxel_size"]))
    top, frames = white(reference), []
    first = peak * examples[f"images_{shown[0]}"][example, 0].astype(np.float32)
    worst = white(np.abs(np.rot90(first, turns) - reference))
    for step in range(examples[f"images_{shown[0]}"].shape[1]):
        figure = new_figure(WIDTH / 2, len(shown) * (height + LINE + GAP))
        for row, number in enumerate(shown):
            image = np.rot90(examples[f"images_{number}"][example, step], turns)
            image = peak * image.astype(np.float32)
            score = float(examples[f"scores_{number}"][example, step])
            y = row * (height + LINE + GAP) + LINE
            write(figure, 0, y - 4, f"{names[number]}, step {step}: {score:.3g}", ha="left")
            boxes = [(i * (width + GAP), y, width, height) for i in range(3)]
            add_points(figure, boxes[0], examples[f"masks_{number}"][example, step])
            add_picture(figure, boxes[1], image, **grey_scale(top))
            error = np.abs(image - reference)
            add_picture(figure, boxes[2], error, vmin=0, vmax=worst, cmap=ERROR_MAP)
        frames.append(figure)
    return frames


def _gif(frames: list["Figure"], path: Path, said: str) -> Picture:
    from PIL import Image

    pictures = []
    for figure in frames:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=100)
        pictures.append(Image.open(buffer).convert("P", palette=Image.Palette.ADAPTIVE))
    with atomic_path(path) as temporary:
        pictures[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=pictures[1:],
            duration=round(1000 * SECONDS),
            loop=0,
        )
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return Picture(data, pictures[0].width, said)
