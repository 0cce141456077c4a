"""A suite's results in words and tables: one source for the terminal, Markdown and the page."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kscout.bench.results import Document
from kscout.errors import UserError
from kscout.report.table import METRICS as COLUMNS
from kscout.report.table import WIDE, Cell, plural
from kscout.sweep.grid import Grid, Heading
from kscout.sweep.text import NONE, written

COLUMN = {column.key: column for column in COLUMNS}
BESIDE = ("psnr", "ssim")
"""Metrics shown beside the suite's own."""

LEFT_OUT = ("kind", "s.d. over seeds", COLUMN["ssim"].title)
NO_INTERVAL = (COLUMN["psnr"].title,)
"""Columns that the terminal leaves out, and those whose intervals it does."""


class Section(NamedTuple):
    """What is said of one reconstructor on one test condition."""

    title: str
    grid: Grid
    kinds: list[str]
    sentences: list[str]
    notes: list[str]


def sections(found: Document) -> Iterator[Section]:
    """One for every reconstructor and test condition, in the order of the suite."""
    for name, splits in found["results"].items():
        for split, compared in splits.items():
            yield Section(
                f"{name}, {split}",
                _grid(found, name, split),
                [_kind(row) for row in compared["methods"].values()],
                list(_sentences(compared)),
                list(_notes(found, compared)),
            )


def _kind(row: Document) -> str:
    return "learned" if row["learned"] else "fixed"


def _grid(found: Document, name: str, split: str) -> Grid:
    measure, compared = COLUMN[found["metric"]], found["results"][name][split]
    gaps = (found["certificate"] or {}).get(name)
    headings = [
        Heading("method", True),
        Heading("kind", True),
        Heading(measure.title),
        Heading("s.d. over seeds"),
        Heading("dB ahead of best fixed"),
        Heading("verdict", True),
        *(Heading(COLUMN[key].title) for key in BESIDE),
        *([Heading("dB to bound")] if gaps else []),
    ]
    rows = []
    for method, row in compared["methods"].items():
        means = row["means"]
        mean = means[found["metric"]]
        rows.append(
            [
                Cell(method),
                Cell(_kind(row)),
                measure.write(mean),
                Cell(_spread(mean["seed_std"])),
                decibels(row.get("difference_db")),
                Cell(row.get("verdict", "best fixed mask")),
                *(COLUMN[key].write(means[key]) if key in means else Cell("-") for key in BESIDE),
                *([Cell(f"{gaps[method]['gap_db']:.2f}")] if gaps else []),
            ]
        )
    return Grid(headings, rows)


def _spread(value: float) -> str:
    return f"{value:.1e}" if value else "0"


def decibels(difference: Document | None) -> Cell:
    """``+0.52`` with its interval; of the baseline itself, nothing."""
    if difference is None:
        return Cell("-")
    low, high = (f"{difference[key]:+.2f}" for key in ("low", "high"))
    return Cell(f"{difference['mean']:+.2f}", f"[{low}, {high}]")


def _sentences(compared: Document) -> Iterator[str]:
    """What the numbers say of every learned method; of fixed ones, where none is learned."""
    best, rows = compared["best_fixed"], compared["methods"]
    others = {name: row for name, row in rows.items() if name != best}
    learned = {name: row for name, row in others.items() if row["learned"]}
    for name, row in (learned or others).items():
        difference = row["difference_db"]
        cell = decibels(difference)
        agreeing = sum(value > 0 for value in difference["by_seed"])
        seeds = f"ahead in {agreeing} of {plural(len(difference['by_seed']), 'seed')}"
        joint = "from" if row["verdict"] == "not distinguishable" else "than"
        yield (
            f"{name} is {row['verdict']} {joint} {best}, the best fixed mask: {cell.text} dB "
            f"{cell.interval}, {seeds}."
        )


def _notes(found: Document, compared: Document) -> Iterator[str]:
    n_scans = compared["n_volumes"]
    if n_scans == 1:
        yield "scored on 1 scan: intervals are over its slices and say nothing of other scans"
    elif compared["is_few"]:
        yield f"scored on {n_scans} scans: with so few the intervals are too narrow"


def how_to_read(found: Document) -> list[tuple[str, str]]:
    """Terms of the tables, and what they mean."""
    n_others = len(found["methods"]) - 1
    terms = [
        (
            "dB ahead of best fixed",
            "Mean over slices of 10 log10(error of the best fixed mask / error of the method), on "
            "the same slices, errors averaged over seeds first. Positive is better. In brackets "
            "its 95 % bootstrap interval over scans.",
        ),
        (
            "best fixed mask",
            "The fixed mask with the lowest mean error on the very test data that is shown: a "
            "choice after the fact that favours the baseline, never the learned masks.",
        ),
        (
            "verdict",
            "Better or worse where the whole interval is on one side of 0 and every seed alone is "
            f"on that side; else not distinguishable. Each of the {n_others} comparisons stands "
            "for itself: the intervals are not widened for their number.",
        ),
        (
            "s.d. over seeds",
            f"Of the mean error, over {len(found['seeds'])} seeds: of the training, and of masks "
            "that are drawn. The interval beside it is over scans, seeds averaged.",
        ),
    ]
    if found["certificate"]:
        terms.append(
            (
                "dB to bound",
                "By how much the mask's expected error, with the best linear reconstruction for "
                "the data's coils, noise and spectrum, exceeds a bound that no mask of the same "
                "budget can beat (where all masks are whole columns, no mask of whole columns). Of "
                "the mask at the first seed.",
            )
        )
    return terms


def facts(found: Document) -> list[tuple[str, str]]:
    """What was compared, in words."""
    budget, data = found["budget"], dict(found["data"])
    kind = data.pop("kind")
    options = " ".join(f"{k}={written(v)}" for k, v in data.items() if written(v) != NONE)
    return [
        ("command", found["command"]),
        ("data", f"{kind} {options}".strip()),
        (
            "budget of every mask",
            f"{budget['n_samples']} of {budget['shape'][0]}x{budget['shape'][1]} points "
            f"(R = {budget['acceleration']:.2f}), {budget['n_acs']} of them calibration (ACS)",
        ),
        ("seeds", ", ".join(map(str, found["seeds"]))),
        ("versions", ", ".join(f"{name} {v}" for name, v in found["versions"].items())),
    ]


def tuning(found: Document) -> Grid:
    """Every trial with its validation error; the tested one of each pair marked."""
    names = list(found["reconstructors"])
    headings = [Heading("method", True), Heading("trial", True), *(Heading(n) for n in names)]
    rows = []
    for method, entry in found["methods"].items():
        for trial, settings in enumerate(entry["trials"]):
            said = " ".join(f"{k}={written(v)}" for k, v in settings.items())
            cells = [_trial(found["tuning"][name][method], trial) for name in names]
            rows.append([Cell(method), Cell(said), *cells])
    return Grid(headings, rows)


def _trial(tried: Document, trial: int) -> Cell:
    error = tried["validation"][trial]
    text = "-" if error is None else f"{error:.3e}"
    return Cell(text, best=tried["chosen"] == trial)


def swapped(found: Document, name: str) -> Grid:
    """Masks down, networks across; below each error, in dB, what the strange network costs."""
    table = found["swapped"]["mean"][name]
    methods = list(table)
    measure = COLUMN[found["metric"]]
    headings = [Heading("mask of", True), *(Heading(f"network of {m}") for m in methods)]
    rows = [
        [
            Cell(mask),
            *(_swapped(measure, row[m], row[mask], m == mask) for m in methods),
        ]
        for mask, row in table.items()
    ]
    return Grid(headings, rows)


def _swapped(measure: Any, value: float | None, own: float | None, is_own: bool) -> Cell:
    if value is None:
        return Cell("not finite")
    text = measure.write({"mean": value, "low": value, "high": value}).text
    if is_own or own is None:
        return Cell(text, best=is_own)
    return Cell(text, f"{10 * math.log10(own / value):+.2f} dB")


SWAPPED = (
    "Each mask, down, through the network that was fitted to each, across; in bold its own. Below "
    "each error, in dB, how far it is ahead of its own network. Means over {n} test slices, evenly "
    "spread, at the first seed."
)


def markdown(found: Document) -> str:
    """The whole result as Markdown."""
    parts = [f"# {found['suite']}", found["question"]]
    parts.append("\n".join(f"- {term}: {_coded(term, said)}" for term, said in facts(found)))
    parts += ["## In short", _table(in_short(found))]
    for section in sections(found):
        parts += [f"## {section.title}", _table(section.grid)]
        parts += [" ".join(section.sentences)] if section.sentences else []
        parts += [f"Note: {note}." for note in section.notes]
    parts.append("## How to read it")
    parts.append("\n".join(f"- **{term}**: {said}" for term, said in how_to_read(found)))
    parts += ["## Audit", "\n".join(f"- {row['check']}: {row['found']}" for row in found["audit"])]
    parts += ["## Tuning", "Validation errors, the trial that was tested in bold."]
    parts += [_table(tuning(found)), "## Swapped", SWAPPED.format(n=found["swapped"]["n_slices"])]
    for name in found["swapped"]["mean"]:
        parts += [f"### {name}", _table(swapped(found, name))]
    return "\n\n".join(parts) + "\n"


def _coded(term: str, said: str) -> str:
    return f"`{said}`" if term == "command" else said


def _table(grid: Grid) -> str:
    lines = [[heading.title for heading in grid.headings]]
    lines.append(["---" if heading.is_text else "---:" for heading in grid.headings])
    lines += [[_marked(cell) for cell in row] for row in grid.rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _marked(cell: Cell) -> str:
    text = " ".join(filter(None, (cell.text, cell.interval))).replace("|", "\\|")
    return f"**{text}**" if cell.best else text


def print_results(path: Path, console: Console) -> None:
    """Print every table with what it says."""
    found = read_results(path)
    console.print(Text(found["question"], style="bold"))
    for section in sections(found):
        console.print(_terminal(section, "\n" if console.width < WIDE else " "))
        for sentence in section.sentences:
            console.print(Text(sentence))
        for note in section.notes:
            console.print(Text(f"note: {note}", style="yellow"))


def _terminal(section: Section, joint: str) -> Table:
    """Without what is in the title of the row, or of less use than the room it takes."""
    table = Table(title=Text(section.title), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    headings = section.grid.headings
    shown = [i for i, heading in enumerate(headings) if heading.title not in LEFT_OUT]
    for i in shown:
        title, is_text = headings[i].title, headings[i].is_text
        table.add_column(
            Text(title.replace(" ", "\n")),
            justify="left" if is_text else "right",
            no_wrap=not is_text,
            overflow="fold",
            min_width=15 if is_text else None,
        )
    for row, kind in zip(section.grid.rows, section.kinds, strict=True):
        texts = [
            row[i].text
            if headings[i].title in NO_INTERVAL
            else joint.join(filter(None, row[i][:2]))
            for i in shown
        ]
        table.add_row(*texts, style="bold" if kind == "learned" else "")
    return table


def read_results(path: Path) -> Document:
    """What ``kscout bench run`` wrote; ``UserError`` if the file is none of its results."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        _ = found["suite"], found["results"], found["certificate"], found["metric"]
        return found
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path} is no result of kscout bench run, or damaged: run its suite again, which "
            "works out what is damaged"
        ) from error


SUMMARY = (
    Heading("suite", True),
    Heading("reconstructor", True),
    Heading("tested on", True),
    Heading("best fixed mask", True),
    Heading("best learned mask", True),
    Heading("dB ahead"),
    Heading("verdict", True),
    Heading("dB to bound: fixed, learned"),
)


def summary(paths: Sequence[Path]) -> str:
    """One Markdown table over suites: a row for each suite, reconstructor and test condition."""
    rows = [row for path in paths for row in _summary_rows(read_results(path))]
    return _table(Grid([*SUMMARY], rows))


def in_short(found: Document) -> Grid:
    """The rows of :func:`summary` that are of one suite."""
    return Grid([*SUMMARY[1:]], [row[1:] for row in _summary_rows(found)])


def _summary_rows(found: Document) -> Iterator[list[Cell]]:
    for name, splits in found["results"].items():
        gaps = (found["certificate"] or {}).get(name)
        for split, compared in splits.items():
            fixed = compared["best_fixed"]
            learned = next((m for m, row in compared["methods"].items() if row["learned"]), None)
            row = compared["methods"].get(learned, {})
            shown = [m for m in (fixed, learned) if m]
            yield [
                Cell(found["suite"]),
                Cell(name),
                Cell(split),
                Cell(fixed),
                Cell(learned or "-"),
                decibels(row.get("difference_db")),
                Cell(row.get("verdict", "-")),
                Cell(", ".join(f"{gaps[m]['gap_db']:.2f}" for m in shown) if gaps else "-"),
            ]
