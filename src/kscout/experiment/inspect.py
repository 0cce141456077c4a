"""What a file of k-space holds, in one table; and its slices in another file."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from kscout.data.formats import FORMATS, Scan, format_of, open_scan
from kscout.data.formats.scan import UNKNOWN
from kscout.data.writers import write_scan
from kscout.experiment.config import set_paths
from kscout.experiment.progress import progress_bar
from kscout.sampling.pattern import LEAST_ACS, Pattern, find_acs, find_pattern


def parse_reading(words: Sequence[str]) -> dict[str, Any]:
    """Options of a format from ``option=value`` words; :func:`open_scan` checks them."""
    options: dict[str, Any] = {}
    set_paths(options, words)
    return options


def print_info(file: Path, options: dict[str, Any], console: Console) -> None:
    """Print what a file holds: format, sizes, sampling, R, ACS, noise and warnings.

    Raises
    ------
    UserError
        if it cannot be read to its end
    """
    title = FORMATS[format_of(file)].title
    with open_scan(file, options) as scan, progress_bar(console, "read") as show:
        pattern = find_pattern(scan.sampled(partial(show, "slices")))
        rows = [("format", title), *_sizes(scan), *_sampling(scan, pattern), *_more(scan)]
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    for name, said in rows:
        table.add_row(name, said)
    console.print(f"[bold]{file}[/bold]", highlight=False)
    console.print(table, highlight=False)


def _sizes(scan: Scan) -> list[tuple[str, str]]:
    return [
        ("k-space", "simulated from magnitude images" if scan.simulated else "as in the file"),
        ("slices", str(scan.n_slices)),
        ("coils", str(scan.n_coils)),
        ("matrix", f"{scan.plane[0]} x {scan.plane[1]} (ky, kx)"),
        ("voxel", _voxel(scan)),
    ]


def _voxel(scan: Scan) -> str:
    if scan.geometry is UNKNOWN:
        return "not said: 1 mm is assumed"
    (y, x), turns, thickness = scan.geometry
    turned = f"; {turns} quarter turn{'s' * (turns > 1)} put pictures upright" if turns else ""
    return f"{y:.4g} x {x:.4g} mm, slices {thickness:.4g} mm{turned}"


def _sampling(scan: Scan, pattern: Pattern) -> list[tuple[str, str]]:
    n, total = pattern.n_samples, scan.plane[0] * scan.plane[1]
    if n == 0:
        return [("sampled", "nothing: all points are zero")]
    rows, columns = pattern.acs
    if min(rows, columns) < LEAST_ACS:
        acs = "none found: no centre of 4 x 4 points or more is fully sampled"
    else:
        acs = (
            f"found {rows} x {columns} (ky, kx), the largest fully sampled block around the centre"
        )
    if n == total:
        acs = f"all: every point is sampled, {rows} x {columns}"
    said = [
        ("sampled", f"{n} of {total} points, R = {total / n:.2f}"),
        ("pattern", describe_pattern(pattern, n == total)),
        ("ACS", acs),
    ]
    if scan.calibration is not None:
        marked = scan.calibration
        extent = (int(marked.any(1).sum()), int(marked.any(0).sum()))
        said.append(("ACS by flag", f"{extent[0]} x {extent[1]} (ky, kx)"))
    if scan.reference is not None:
        rows, columns = find_acs(scan.reference.sampled())
        said.append(("ACS apart", f"{rows} x {columns} (ky, kx), of a separate scan"))
    return said


def describe_pattern(pattern: Pattern, full: bool) -> str:
    """The pattern in words."""
    unit = "whole lines (columns)" if pattern.whole_lines else "points"
    if full:
        return "fully sampled"
    if pattern.factors is None:
        return f"{unit}, no lattice"
    y, x = pattern.factors
    if y * x == 1:
        return (
            f"{unit}, no lattice: parts of the plane were left out (partial Fourier, corners), "
            "or were lost"
        )
    shift = f", shifted by {pattern.shift} (CAIPIRINHA)" if pattern.shift else ""
    return f"{unit}, a lattice of {y} x {x}{shift}: R = {y * x} outside of the ACS"


def _more(scan: Scan) -> list[tuple[str, str]]:
    noise = scan.noise()
    said = "none" if noise is None else f"{noise.shape[1]} samples of each coil"
    uneven = filter(None, [scan.uneven()])
    return [("noise scan", said), *(("note", note) for note in (*uneven, *scan.notes))]


def write_with_progress(
    label: str, out: Path, scan: Scan, console: Console, *, images: bool = False
) -> None:
    """Write an open scan, see :func:`kscout.data.writers.write_scan`, with a bar.

    Raises
    ------
    UserError
        if it cannot be read, or ``out`` cannot be written; nothing is then left behind
    """
    with progress_bar(console, label) as show:
        write_scan(out, scan, partial(show, "slices"), images=images)
