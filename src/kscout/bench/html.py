"""A suite's page and Markdown, written beside its JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from kscout.atomic import atomic_path
from kscout.bench import explanations, figures, tables
from kscout.bench.folder import BenchFolder, BenchRun
from kscout.bench.results import Document, Evidence
from kscout.bench.why import explain
from kscout.data import KspaceSet
from kscout.experiment.progress import progress_bar
from kscout.report import Run, load_runs
from kscout.report import figures as run_figures
from kscout.report.html import Picture, picture, write_page
from kscout.report.table import plural
from kscout.report.why import MaskFacts, caption, masks_explained

Pictures = list[tuple[str, Picture]]
"""Each with its heading."""


def write_page_and_table(
    results: Path, evidence: Evidence, suite: BenchFolder, console: Console
) -> None:
    """Write NAME.md and NAME.html beside NAME.json.

    Parameters
    ----------
    results : the JSON, which has been written
    evidence : of which the pictures are
    suite : keeps the pictures as files
    """
    found = tables.read_results(results)
    with atomic_path(results.with_suffix(".md")) as temporary:
        temporary.write_text(tables.markdown(found), encoding="utf-8")
    folder = suite.path / "figures"
    forests = list(_forests(found, folder))
    masks = list(_different(evidence.first).values())
    with progress_bar(console, "why") as show:
        explained = explain(masks, evidence.splits["test"], suite.path / "gfactor", show)
    write_page(
        results.with_suffix(".html"),
        "kscout.bench/bench.html",
        found=found,
        facts=explanations.facts(found),
        in_short=tables.in_short(found),
        sections=list(zip(tables.sections(found), forests, strict=True)),
        scored=[_scored(found, *place) for place in _places(found)],
        terms=explanations.how_to_read(found),
        tuning=explanations.tuning(found),
        swapped=explanations.swapped(found),
        swapped_said=explanations.SWAPPED.format(n=found["swapped"]["n_slices"]),
        tuning_said=explanations.TUNING,
        work=explanations.work(found),
        work_said=explanations.WORK,
        pictures=[
            *_reconstructions(evidence.first, folder),
            *_masks(masks, folder),
            *_why(explained, evidence.splits["test"], folder),
        ],
    )


def _places(found: Document) -> list[tuple[str, str]]:
    return [(name, split) for name, splits in found["results"].items() for split in splits]


def _scored(found: Document, name: str, split: str) -> str:
    compared = found["results"][name][split]
    slices, scans = compared["n_slices"], compared["n_volumes"]
    return f"{plural(slices, 'slice')} of {plural(scans, 'scan')}, {len(found['seeds'])} seeds"


def _forests(found: Document, folder: Path) -> Iterator[Picture | None]:
    for name, split in _places(found):
        figure = figures.forest(found["results"][name][split])
        said = (
            "Differences to the best fixed mask. Large dot and bar: mean and 95 % interval over "
            "scans, seeds averaged; small dots: each seed alone. Blue: fixed masks. Orange: "
            "learned. Bold: distinguishable."
        )
        path = folder / f"differences_{_file_name(f'{name}_{split}')}.png"
        yield None if figure is None else picture(figure, path, said)


def _reconstructions(first: Sequence[BenchRun], folder: Path) -> Pictures:
    said = (
        "One slice of the test data, at the first seed, chosen before anybody had seen a result: "
        "the middle one of the first test scan. All images share one grey scale; all error maps "
        "another. The zoom is the framed window; the NMSE is that of the image shown."
    )
    drawn = []
    for name in dict.fromkeys(run.reconstruction for run in first):
        runs = _labelled([run for run in first if run.reconstruction == name])
        figure = run_figures.reconstructions(runs)
        if figure is not None:
            path = folder / f"reconstructions_{_file_name(name)}.png"
            drawn.append((f"Reconstructions: {name}", picture(figure, path, said)))
    return drawn


def _masks(runs: Sequence[Run], folder: Path) -> Pictures:
    figure = run_figures.masks(runs)
    said = (
        "Masks at the first seed, each different one once. White: acquired. DC is in the centre, "
        "ky runs downwards, kx to the right. Of a method that gives every slice its own mask: the "
        "points acquired most often."
    )
    return [] if figure is None else [("Masks", picture(figure, folder / "masks.png", said))]


def _why(entries: Sequence[MaskFacts], test: KspaceSet, folder: Path) -> Pictures:
    figure = masks_explained(entries, voxel_size=test.voxel_size, quarter_turns=test.quarter_turns)
    return [("Why", picture(figure, folder / "why.png", caption(entries)))]


def _different(first: Sequence[BenchRun]) -> dict[tuple[str, bytes], Run]:
    """Every different mask of a method once, labelled with the network where there are several."""
    groups: dict[tuple[str, bytes], list[tuple[BenchRun, Run]]] = {}
    for bench, run in zip(first, _labelled(first), strict=True):
        groups.setdefault((bench.method, run.mask().tobytes()), []).append((bench, run))
    methods = [method for method, _ in groups]
    return {
        key: run
        if methods.count(key[0]) == 1
        else replace(run, label=f"{key[0]}, {' and '.join(b.reconstruction for b, _ in group)}")
        for key, group in groups.items()
        for _, run in group[:1]
    }


def _labelled(runs: Sequence[BenchRun]) -> list[Run]:
    loaded = load_runs([run.folder.path for run in runs])
    return [replace(run, label=own.method) for own, run in zip(runs, loaded, strict=True)]


def _file_name(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in text)
