"""A suite's results in words and tables: one source for the terminal, Markdown and the page."""

import json
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kscout.bench import explanations
from kscout.bench.explanations import COLUMN, left_out
from kscout.bench.results import BESIDE, SCHEMA, Document
from kscout.errors import UserError
from kscout.report.grid import Grid, Heading, to_markdown
from kscout.report.table import Cell, plural, span

DIGITS = {"psnr": 2, "ssim": 4}

LEFT_OUT = ("kind", "s.d. over seeds", "by seed", COLUMN["ssim"].title, "expected NMSE")
NO_INTERVAL = (COLUMN["psnr"].title,)
"""Columns that the terminal leaves out, and those whose intervals it does."""

ON_TWO_LINES = {
    "dB ahead of best fixed": "dB ahead of\nbest fixed",
    "dB to bound": "dB to\nbound",
    COLUMN["psnr"].title: "PSNR\ndB",
}
"""Headings that are wider than what stands below them."""

WIDE = 112
"""Characters of a terminal that has room for means and their intervals on one line."""

LONGEST = 15
"""Letters of a word that the terminal does not break: "distinguishable" has as many."""


FEW_CHANGED = 0.1
"""Of the points that are free: a trained mask in which fewer changed is told to be no new one."""


class Section(NamedTuple):
    """What is said of one reconstructor on one test condition.

    Attributes
    ----------
    kinds : of the mask in each row of the grid: learned, or fixed
    sentences : what the numbers say
    notes : what must be known to judge them
    """

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
                list(_notes(found, name, split)),
            )


def _kind(row: Document) -> str:
    return "learned" if row["learned"] else "fixed"


def _grid(found: Document, name: str, split: str) -> Grid:
    measure, compared = COLUMN[found["metric"]], found["results"][name][split]
    draws = _draws(found, name, split)
    headings = [
        Heading("method", True),
        Heading("kind", True),
        Heading(measure.title),
        Heading("s.d. over seeds"),
        Heading("dB ahead of best fixed"),
        Heading("by seed"),
        Heading("verdict", True),
        *(Heading(COLUMN[key].title) for key in BESIDE),
        *([Heading("expected NMSE"), Heading("dB to bound")] if draws else []),
    ]
    rows = []
    for method, row in compared["methods"].items():
        means = row["means"]
        own = means[found["metric"]]
        rows.append(
            [
                Cell(method),
                Cell(_kind(row)),
                measure.write(own),
                Cell(_seed_spread(own["seed_std"])),
                decibels(row.get("difference")),
                by_seed(row.get("difference")),
                Cell(row.get("verdict", "best fixed mask")),
                *(COLUMN[key].write(means[key]) if key in means else Cell("-") for key in BESIDE),
                *([_expected(draws, method), _gap(draws, method)] if draws else []),
            ]
        )
    return Grid(headings, rows)


def _draws(found: Document, name: str, split: str) -> Document | None:
    """Expected errors and bounds of every single mask; ``None`` where there is no bound."""
    return found["certificate"].get(name, {}).get(split)


def _expected(draws: Document, method: str) -> Cell:
    if method not in draws:
        return Cell("-")
    return Cell(f"{10 ** (mean(draws[method]['error_db']) / 10):.2e}")


def _gap(draws: Document, method: str) -> Cell:
    if method not in draws:
        return Cell("-")
    pairs = zip(draws[method]["error_db"], draws[method]["bound_db"], strict=True)
    gaps = [error - bound for error, bound in pairs]
    return Cell(f"{mean(gaps):.2f}", f"± {stdev(gaps):.2f}")


def _seed_spread(value: float) -> str:
    return f"{value:.1e}" if value else "0"


def decibels(difference: Document | None) -> Cell:
    """``+0.52`` with its interval; of the baseline itself, nothing."""
    if difference is None:
        return Cell("-")
    mean, interval = _signed(difference, 2).split(" ", 1)
    return Cell(mean, interval)


def _signed(difference: Document, digits: int) -> str:
    mean, low, high = (f"{difference[key]:+.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def by_seed(difference: Document | None) -> Cell:
    """``+0.31 to +0.68``, the least and the most that a seed gave; nothing where all gave one."""
    values = difference["by_seed"] if difference else [0]
    least, most = f"{min(values):+.2f}", f"{max(values):+.2f}"
    return Cell("-") if least == most else Cell(least, f"to {most}")


def _sentences(compared: Document) -> Iterator[str]:
    """What the numbers say of every learned method; of fixed ones, where none is learned."""
    best, rows = compared["best_fixed"], compared["methods"]
    others = {name: row for name, row in rows.items() if name != best}
    learned = {name: row for name, row in others.items() if row["learned"]}
    for name, row in (learned or others).items():
        difference = row["difference"]
        cell = decibels(difference)
        agreeing = sum(value > 0 for value in difference["by_seed"])
        seeds = f"ahead in {agreeing} of {plural(len(difference['by_seed']), 'seed')}"
        ends = by_seed(difference)
        seeds += f" ({ends.text} {ends.interval})" if ends.interval else ""
        joint = "from" if row["verdict"] == "not distinguishable" else "than"
        yield (
            f"{name} is {row['verdict']} {joint} {best}, the best fixed mask: {cell.text} dB "
            f"{cell.interval}, {seeds}."
        )
        if "by_metric" in row:
            told = (
                f"{COLUMN[metric].title} {_signed(found['difference'], DIGITS[metric])} "
                f"({found['verdict']})"
                for metric, found in row["by_metric"].items()
            )
            yield f"{name} by other metrics: {', '.join(told)}."
        if row.get("others"):
            told = (
                f"{other} {' '.join(decibels(found['difference'])[:2])} ({found['verdict']})"
                for other, found in row["others"].items()
            )
            yield f"{name} beside the other fixed masks, in dB: {', '.join(told)}."


def _notes(found: Document, name: str, split: str) -> Iterator[str]:
    compared, draws = found["results"][name][split], _draws(found, name, split)
    n_scans = compared["n_volumes"]
    if n_scans == 1:
        yield "scored on 1 scan: intervals are over its slices and say nothing of other scans"
    elif compared["is_few"]:
        yield f"scored on {n_scans} scans: so few tell little of others, whatever the intervals say"
    in_db = sorted(compared["methods"], key=lambda method: -_ahead(compared["methods"][method]))
    if in_db != list(compared["methods"]):
        yield (
            f"by dB the order is another: {', '.join(in_db)}. A mean error is that of the worst "
            "slices above all; in dB every slice counts alike"
        )
    if found["metric"] == "nmse" and _is_fitted_in_kspace(found, name):
        yield (
            "what is trained here lowers the error in k-space, of all coils; scored are magnitude "
            "images"
        )
    if found["reconstructors"][name]["reconstructor"]["kind"] != "gaussian_sense":
        for method in _designed(found):
            yield f"{method} is made for the best linear reconstruction, not for this one"
    for method, changed in _few_changed(found, name):
        yield f"{method} is, but for {changed}, the mask that its training began from"
    for group in found["same_masks"].get(name, []):
        yield f"{' and '.join(group)} are one mask, at the first seed"
    if draws and (absent := left_out(found, draws)):
        yield f"dB to bound is told {absent}"


def _few_changed(found: Document, name: str) -> Iterator[tuple[str, str]]:
    """Methods that owe their scores to what they began from, and how few points are another's."""
    n_free = found["budget"]["n_samples"] - found["budget"]["n_acs"]
    for method, work in found["work"][name].items():
        changed = [n for n in work["n_points_changed"] if n is not None]
        if changed and min(changed) < FEW_CHANGED * n_free:
            yield method, f"{span(changed)} of {plural(n_free, 'point')} (by seed)"


def _designed(found: Document) -> list[str]:
    return [
        method
        for method, entry in found["methods"].items()
        if any(trial["kind"] == "optimal_design" for trial in entry["trials"])
    ]


def _ahead(row: Document) -> float:
    """In dB, of the best fixed mask."""
    ahead: float = row["difference"]["mean"] if "difference" in row else 0.0
    return ahead


def _is_fitted_in_kspace(found: Document, name: str) -> bool:
    work = found["work"][name].values()
    if any(of_method["closed_form"] for of_method in work):
        return True
    has_steps = any(max(of_method["gradient_steps"]) for of_method in work)
    return has_steps and found["reconstructors"][name]["training"]["loss"] == "nmse_kspace"


def markdown(found: Document) -> str:
    """The whole result as Markdown; what takes time stands last."""
    parts = [f"# {found['suite']}", found["question"]]
    facts, terms = explanations.facts(found), explanations.how_to_read(found)
    parts.append("\n".join(f"- {term}: {_coded(term, said)}" for term, said in facts))
    parts += ["## In short", to_markdown(in_short(found))]
    for section in sections(found):
        parts += [f"## {section.title}", to_markdown(section.grid)]
        parts += [" ".join(section.sentences)] if section.sentences else []
        parts += [f"Note: {note}." for note in section.notes]
    parts.append("## How to read it")
    parts.append("\n".join(f"- **{term}**: {said}" for term, said in terms))
    parts += ["## Audit", "\n".join(f"- {row['check']}: {row['found']}" for row in found["audit"])]
    parts += ["## Tuning", explanations.TUNING]
    parts += [to_markdown(explanations.tuning(found)), "## Swapped"]
    parts.append(explanations.SWAPPED.format(n=found["swapped"]["n_slices"]))
    for name, (grid, note) in explanations.swapped(found).items():
        parts += [f"### {name}", *([to_markdown(grid)] if grid else [])]
        parts += [f"Note: {note}."] if note else []
    parts += ["## Work", explanations.WORK, to_markdown(explanations.work(found))]
    return "\n\n".join(parts) + "\n"


def _coded(term: str, said: str) -> str:
    return f"`{said}`" if term == "command" else said


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
            Text(ON_TWO_LINES.get(title, title)),
            justify="left" if is_text else "right",
            no_wrap=not is_text,
            overflow="fold",
            min_width=min(LONGEST, _longest(section.grid, i)) if is_text else None,
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


def _longest(grid: Grid, column: int) -> int:
    """Letters of the longest word in a column."""
    return max(len(word) for row in grid.rows for word in row[column].text.split())


def read_results(path: Path) -> Document:
    """What ``kscout bench run`` wrote.

    Raises
    ------
    UserError
        if the file is none of its results, or those of another version
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        _ = found["suite"], found["results"], found["certificate"], found["metric"]
        schema = found.get("schema", 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(path) from error
    if schema != SCHEMA:
        raise UserError(
            f"{path} is of schema {schema}: valid is {SCHEMA}, which kscout bench run writes of "
            "the same suite from the runs that it has"
        )
    return found


def _damaged(path: Path) -> UserError:
    said = "run its suite again, which works out what is damaged"
    return UserError(f"{path} is no result of kscout bench run, or damaged: {said}")


SUMMARY = (
    Heading("suite", True),
    Heading("reconstructor", True),
    Heading("tested on", True),
    Heading("best fixed mask", True),
    Heading("learned mask", True),
    Heading("dB ahead"),
    Heading("by seed"),
    Heading("verdict", True),
    Heading("dB to bound: fixed, learned"),
)


def summary(paths: Sequence[Path]) -> str:
    """One Markdown table over suites: a row for each suite, reconstructor and test condition.

    Parameters
    ----------
    paths : of their JSON

    Raises
    ------
    UserError
        if one is none of the results of a suite, or damaged
    """
    rows: list[list[Cell]] = []
    for path in paths:
        found = read_results(path)
        try:
            rows += _summary_rows(found)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise _damaged(path) from error
    return to_markdown(Grid([*SUMMARY], rows))


def in_short(found: Document) -> Grid:
    """The rows of :func:`summary` that are of one suite."""
    return Grid([*SUMMARY[1:]], [row[1:] for row in _summary_rows(found)])


def _summary_rows(found: Document) -> Iterator[list[Cell]]:
    learned = [method for method, entry in found["methods"].items() if entry["learned"]]
    for name, splits in found["results"].items():
        for (split, compared), method in product(splits.items(), learned or ["-"]):
            fixed, draws = compared["best_fixed"], _draws(found, name, split)
            row = compared["methods"].get(method, {})
            gaps = [_gap(draws, m) for m in (fixed, method)] if draws else [Cell("-")]
            yield [
                Cell(found["suite"]),
                Cell(name),
                Cell(split),
                Cell(fixed),
                Cell(method),
                decibels(row.get("difference")),
                by_seed(row.get("difference")),
                Cell(row.get("verdict", "-")),
                Cell(", ".join(f"{gap.text} {gap.interval}".strip() for gap in gaps)),
            ]
