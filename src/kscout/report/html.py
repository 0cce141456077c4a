"""The report as one HTML file that needs nothing else: no network, no other files."""

import base64
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from kscout.atomic import atomic_path
from kscout.errors import UserError
from kscout.report import Run, canvas, figures, load_runs
from kscout.report.facts import facts
from kscout.report.table import COLUMNS, cells, notes, rows, scored_on, splits


class Picture(NamedTuple):
    """A figure as it stands in the page: base64 PNG, its width in page pixels, its caption."""

    png: str
    width: int
    caption: str


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Write the report on one or more runs and on those that they were compared with.

    The figures are also saved as PNG files in ``figures/`` of the first run.

    Parameters
    ----------
    runs : run folders; each brings in ``compare/*``
    out : the HTML file

    Returns
    -------
    ``out``

    Raises
    ------
    UserError
        if a folder is no run, a file in it cannot be read, or an output cannot be written
    """
    loaded = load_runs(runs)
    folder = Path(runs[0]) / "figures"
    return write_page(
        out,
        "kscout.report/report.html",
        names=[run.label for run in loaded if run.path == run.root],
        facts=facts(loaded),
        configs=[(run.label, run.config()[0]) for run in loaded if run.path == run.root],
        columns=COLUMNS,
        tables=[_table(loaded, split) for split in splits(loaded)],
        sections=_sections(loaded, folder),
    )


def _table(runs: Sequence[Run], split: str) -> dict[str, Any]:
    table = rows(runs, split)
    kinds = [row["kind"] for row in table]
    return {
        "split": split,
        "rows": list(zip(kinds, cells(table), strict=True)),
        "scored_on": scored_on(runs, split),
        "notes": notes(runs, split),
    }


def _sections(runs: Sequence[Run], folder: Path) -> list[tuple[str, list[Picture]]]:
    """Titles and pictures, in the order of the page; empty sections left out."""
    sections: dict[str, list[Picture]] = {}
    for name, section, caption, figure in list(_drawn(runs)):  # read everything, then write
        if figure is not None:
            sections.setdefault(section, []).append(picture(figure, folder / name, caption))
    return list(sections.items())


def _drawn(runs: Sequence[Run]) -> Iterator[tuple[str, str, str, Any]]:
    """File name, section, caption and figure of every picture."""
    for split in splits(runs):
        yield (
            f"psnr_{_file_name(split)}.png",
            "Image quality",
            f"Image quality on {split}: dot, mean over slices; bar, its 95 % interval over "
            "volumes. Blue: fixed masks. Orange: learned.",
            figures.psnr(runs, split),
        )
    yield (
        "reconstructions.png",
        "Reconstructions",
        "One slice of the test data. All images share one grey scale (white: the 99.9th "
        "percentile of the reference); all error maps share another, linear and magnified as "
        "written or, where methods differ widely, logarithmic. "
        "The zoom is the framed window; the NMSE is that of the image shown. Methods that did not "
        "keep this slice are left out.",
        figures.reconstructions(runs),
    )
    yield (
        "masks.png",
        "Masks",
        "White: acquired. DC is in the centre, ky runs downwards, kx to the right. A point moved "
        "is one that the mask did not acquire at the start of training.",
        figures.masks(runs),
    )
    for run in runs:
        if run.results:
            yield (
                f"mask_history_{_file_name(run.label)}.png",
                "How the mask was learned",
                f"{'; '.join([run.label, *figures.learned_from(run)])}. "
                "Orange: points that the mask did not have at the start.",
                figures.mask_history(run),
            )
    yield (
        "losses.png",
        "Training",
        "Validation loss, solid; training loss, dashed.",
        figures.losses(runs),
    )


def _file_name(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in text)


def write_page(out: Path, template: str, **content: Any) -> Path:
    """Fill in a template, named as ``package/file``, with ``content`` and the look of every page.

    Returns
    -------
    ``out``
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_packaged),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page, style = environment.get_template(template), _packaged("kscout.report/style.css")
    with atomic_path(out) as temporary:
        temporary.write_text(page.render(style=style, **content), encoding="utf-8")
    return out


def _packaged(name: str) -> str:
    package, file = name.split("/")
    return files(package).joinpath(file).read_text("utf-8")


def picture(figure: Any, path: Path, caption: str) -> Picture:
    """Save a figure, and keep it for the page; ``UserError`` if it cannot be written."""
    canvas.save(figure, path)
    try:
        png = base64.b64encode(path.read_bytes()).decode("ascii")
    except OSError as error:
        raise UserError(f"{path} cannot be read back: {error.strerror}") from error
    return Picture(png, round(figure.get_size_inches()[0] * 100), caption)
