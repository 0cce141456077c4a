"""Explanations of a suite's results: terms, and the tables of tuning, swapped masks and work."""

import math
from collections.abc import Container

from kscout.bench.results import Document
from kscout.report.grid import Grid, Heading
from kscout.report.table import METRICS, Cell, Column, plural
from kscout.sweep.text import NONE, written

COLUMN = {column.key: column for column in METRICS}

SWAPPED = (
    "Each mask, down, through the network that was fitted to each, across; in bold its own. Below "
    "each error, in dB, how far it is ahead of its own network. Means over {n} test slices, evenly "
    "spread, at the first seed."
)
SAME_NETWORK = "nothing to swap: no two masks have networks of their own"

TUNING = (
    "Validation errors of every trial at the first seed (geometric means over slices, as all "
    "comparisons are in dB), the trial that was tested in bold."
)

BOUND_TERMS = [
    (
        "expected NMSE",
        "Squared error over signal that a model of the reconstructor's kind expects of the mask at "
        "the first seed, for complex images. Its spectra and noise are those of the test condition "
        "itself, fully sampled; the reconstructor that was judged had its own from training "
        "slices. What is measured is of real slices, which are not drawn from any model.",
    ),
    (
        "dB to bound",
        "By how much that exceeds a bound that no mask of the same budget can beat under the "
        "same model (where all masks are whole columns, no mask of whole columns): mean ± standard "
        "deviation over draws of slices of the same scans and of random images, none of which any "
        "mask was made with; other scans are not in it. Told only of reconstructors that the bound "
        "covers.",
    ),
]

WORK = (
    "Of one run: what a search went through (trials of an optimal design are exchanges), steps of "
    "gradient descent, and whether weights were fitted in closed form. Below it the median time of "
    "a fit by the clock, whatever else the machine had to do. Tuning took a run for every trial."
)


def facts(found: Document) -> list[tuple[str, str]]:
    """What was compared, in words: terms, each with what is said of it."""
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


def how_to_read(found: Document) -> list[tuple[str, str]]:
    """Terms of the tables, each with what it means."""
    terms = [
        (
            "95 % interval",
            "Student's t over scans, seeds averaged first: how the mean would vary over other "
            "scans, with the very masks and networks that these seeds made. Other seeds are not in "
            "it. Where there is one scan, over its slices.",
        ),
        (
            "dB ahead of best fixed",
            "Mean over slices and seeds of 10 log10(error of the best fixed mask / error of the "
            "method), on the same slice and at the same seed. Positive is better. In brackets its "
            "95 % interval.",
        ),
        (
            "by seed",
            "The lowest and the highest of the same mean at each seed alone; - where all seeds "
            "gave the same.",
        ),
        (
            "best fixed mask",
            "The one that no other fixed mask is ahead of in dB on the very test data shown: a "
            "choice after the fact, which favours the baseline. It makes 'better' conservative, "
            "and biases 'worse' towards worse.",
        ),
        (
            "verdict",
            "Better or worse where 0 lies outside the interval over scans, and outside Student's t "
            "interval of the seeds' differences; else, and with one scan, not distinguishable. "
            f"Each of the {_n_verdicts(found)} comparisons stands for itself: no interval is wider "
            "for their number.",
        ),
        (
            "s.d. over seeds",
            f"Of the mean error, over {len(found['seeds'])} seeds: of the training, and of masks "
            "that are drawn. The interval of the mean is over scans, seeds averaged.",
        ),
    ]
    return [*terms, *BOUND_TERMS] if found["certificate"] else terms


def _n_verdicts(found: Document) -> int:
    rows = [
        row
        for splits in found["results"].values()
        for compared in splits.values()
        for row in compared["methods"].values()
    ]
    others = sum(len(row.get("others", ())) + len(row.get("by_metric", ())) for row in rows)
    return sum("verdict" in row for row in rows) + others


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


def work(found: Document) -> Grid:
    """What a run of each method did, and the median seconds of its fit."""
    names = list(found["reconstructors"])
    rows = [
        [
            Cell(method),
            *(
                Cell(_did(found["work"][name][method]), _time(found["seconds"][name][method]))
                for name in names
            ),
        ]
        for method in found["methods"]
    ]
    return Grid([Heading("method", True), *(Heading(name) for name in names)], rows)


def _did(work: Document) -> str:
    parts, steps = [], work["gradient_steps"]
    if work["search"]:
        parts.append("search of " + ", ".join(f"{n} {what}" for what, n in work["search"].items()))
    if max(steps):
        fewest = f"{min(steps)} to " if min(steps) < max(steps) else ""
        parts.append(fewest + plural(max(steps), "gradient step"))
    if work["closed_form"]:
        parts.append("closed form")
    return ", ".join(parts) or "-"


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds:.0f} s"


def swapped(found: Document) -> dict[str, tuple[Grid | None, str]]:
    """Masks down, networks across; below each error, in dB, what the strange network costs.

    Returns
    -------
    of every reconstructor the table, or ``None`` where all masks have one network, and a note of
    what is left out
    """
    tables, measure = found["swapped"]["mean"], COLUMN[found["metric"]]
    told: dict[str, tuple[Grid | None, str]] = {}
    for name in found["reconstructors"]:
        if name in tables:
            grid = _swapped_grid(measure, tables[name])
            told[name] = grid, left_out(found, tables[name])
        else:
            told[name] = None, SAME_NETWORK
    return told


def left_out(found: Document, told: Container[str]) -> str:
    """Which methods a table of single masks has nothing of, and why; empty if it has all."""
    absent = ", ".join(method for method in found["methods"] if method not in told)
    why = "every slice has a mask of its own there, and no single one was judged"
    return f"without {absent}: {why}" if absent else ""


def _swapped_grid(measure: Column, table: Document) -> Grid:
    headings = [Heading("mask of", True), *(Heading(f"network of {method}") for method in table)]
    rows = [
        [Cell(mask), *(_swapped(measure, row[m], row[mask], m == mask) for m in table)]
        for mask, row in table.items()
    ]
    return Grid(headings, rows)


def _swapped(measure: Column, value: float | None, own: float | None, is_own: bool) -> Cell:
    if value is None:
        return Cell("not finite")
    text = measure.write({"mean": value, "low": value, "high": value}).text
    if is_own or own is None:
        return Cell(text, best=is_own)
    return Cell(text, f"{10 * math.log10(own / value):+.2f} dB")
