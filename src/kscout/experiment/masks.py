"""Masks for the command line: made by name, or searched for."""

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor

from kscout.atomic import atomic_path
from kscout.data.arrays import existing_file
from kscout.data.formats.bart import map_cfl, write_cfl
from kscout.errors import UserError
from kscout.experiment.config import (
    BudgetConfig,
    Experiment,
    check,
    load_experiment,
    parse_options,
)
from kscout.experiment.folder import RunFolder
from kscout.experiment.load import load_data
from kscout.experiment.progress import progress_bar
from kscout.experiment.run import Method
from kscout.learning.design import Certificate, certify
from kscout.learning.search import RankedTile
from kscout.recon.gaussian_sense import DEFAULT_ACS_SIZE
from kscout.sampling import FIXED_MASKS, Budget
from kscout.sampling.budget import are_whole_columns
from kscout.sampling.files import checked_mask, read_mask
from kscout.sampling.fixed import refuse_other_budget


def parse_size(text: str) -> tuple[int, int]:
    """``KYxKX`` to two integers from 1 to 9999."""
    match = re.fullmatch(r"0*([1-9][0-9]{0,3})x0*([1-9][0-9]{0,3})", text, re.IGNORECASE)
    if match is None:
        raise UserError(
            f"'{text}' is not a size: valid is KYxKX, such as 121x145, of 1 to 9999 points an axis"
        )
    return int(match[1]), int(match[2])


def make_mask(
    kind: str, shape: str, budget: dict[str, Any], seed: int, options: Sequence[str]
) -> Tensor:
    """A fixed mask by name: bool ``(ky, kx)``."""
    if budget.get("acs") == "none" and budget.get("acs_size"):
        raise UserError("--acs-size needs an ACS: valid with it is --acs square or --acs lines")
    given = {name: value for name, value in budget.items() if value is not None}
    settings = check(BudgetConfig, given, "budget").options()
    chosen = parse_options(FIXED_MASKS, kind, options)
    return FIXED_MASKS[kind](Budget.of(parse_size(shape), **settings), seed, **chosen.options())


def search_tiles(
    config: Path, overrides: Sequence[str], tile: str, console: Console
) -> tuple[list[RankedTile], Budget]:
    """Rank tiles of a size on a configuration's data; its own sampler does not matter."""
    height, width = parse_size(tile)
    search = ("sampler.kind=tile_search", f"sampler.tile=[{height}, {width}]")
    experiment = load_experiment(config, (*overrides, *search))
    splits = load_data(experiment, console)
    method = Method.of(experiment, splits)
    return method.search(splits, console), method.budget


def print_tiles(ranked: Sequence[RankedTile], top: int, console: Console) -> None:
    """The best tiles as pictures of letters, with the errors of both rounds."""
    table = Table("rank", "tile", "NMSE, whole stack", "error, one block", box=box.SIMPLE_HEAD)
    for i, entry in enumerate(ranked[:top]):
        picture = "\n".join("".join("#" if p else "." for p in row) for row in entry.tile.tolist())
        nmse = "-" if math.isnan(entry.nmse) else f"{entry.nmse:.3e}"
        table.add_row(str(i + 1), picture, nmse, f"{entry.one_block:.3e}", end_section=True)
    console.print(table)
    console.print(f"{len(ranked)} tiles ranked, no two the same up to a shift")


def certify_masks(
    masks: Sequence[Path],
    config: Path,
    overrides: Sequence[str],
    n_slices: int,
    n_steps: int,
    console: Console,
) -> dict[str, Certificate]:
    """For each mask file or run folder, its expected error and the bound of its budget.

    Where all are of whole columns, so are the masks that are bounded.
    """
    experiment = load_experiment(config, overrides)
    named = {str(path): mask_from(path) for path in masks}
    train = load_data(experiment, console)["train"]
    budget = Budget.of(train.shape, **experiment.budget.options())
    for name, mask in named.items():
        _refuse_other_budget(name, mask, budget, experiment)
    size = getattr(experiment.reconstructor, "acs_size", DEFAULT_ACS_SIZE)
    with progress_bar(console, "bound") as show:
        return certify(
            named,
            train,
            budget,
            experiment.seed,
            acs_size=size,
            lines=are_whole_columns(named.values()),
            n_slices=n_slices,
            n_steps=n_steps,
            advance=show,
        )


def mask_from(path: Path) -> Tensor:
    """The mask of a .npy or .cfl file or of a finished run, bool ``(ky, kx)``."""
    if not path.is_dir():
        if path.exists() and path.suffix not in (".npy", ".cfl"):
            raise UserError(f"{path}: valid is a mask as .npy or .cfl, or the folder of a run")
        return _read_cfl(path) if path.suffix == ".cfl" else read_mask(path)
    if not (path / "config.yaml").exists():
        run = next((mask.parent for mask in path.rglob("mask.npy")), None)
        such = f", such as {run}" if run else ""
        raise UserError(
            f"{path} is no run: valid is a mask as .npy or .cfl, or the folder of a run{such}"
        )
    run_folder = RunFolder(path)
    if run_folder.results().get("adaptive"):
        raise UserError(
            f"{path} gives every slice its own mask: valid is a run with one for all slices"
        )
    return run_folder.mask()


def _read_cfl(path: Path) -> Tensor:
    """A plane of two of BART's dimensions, of 0 and 1."""
    array = map_cfl(existing_file(path)).squeeze()
    if array.ndim == 2 and np.iscomplexobj(array) and not array.imag.any():
        array = array.real
    return checked_mask(array, path)


def _refuse_other_budget(name: str, mask: Tensor, budget: Budget, experiment: Experiment) -> None:
    """``UserError`` for a mask that is not of the budget, with the options that make them agree."""
    try:
        refuse_other_budget(name, mask, budget)
    except UserError as error:
        given, ways = experiment.budget, []
        if tuple(mask.shape) == budget.shape:
            n, sets = int(mask.sum()), []
            if n != budget.n_samples:
                units = [u for u in ("acceleration", "n_lines") if getattr(given, u) is not None]
                sets += [*(f"budget.{unit}=null" for unit in units), f"budget.n_samples={n}"]
            if (budget.acs & ~mask).any():
                sets += ["budget.acs=none"]
            ways.append(f"bound this mask with {' '.join(f'--set {change}' for change in sets)}")
        acs = f" --acs {given.acs} --acs-size {given.acs_size}" if budget.n_acs else ""
        shape = "x".join(map(str, budget.shape))
        count = f"--n-lines {given.n_lines}" if given.n_lines else f"--n-samples {budget.n_samples}"
        ways.append(f"make one with kscout mask make --shape {shape} {count}{acs}")
        raise UserError(f"{error}; {', or '.join(ways)}") from error


def print_certificates(certificates: dict[str, Certificate], console: Console) -> None:
    """One line a mask, the best first."""
    masks = Column("mask", overflow="fold")
    table = Table(masks, "expected error", "bound", "dB to bound", box=box.SIMPLE_HEAD)
    for name, entry in sorted(certificates.items(), key=lambda item: item[1].error_db):
        cells = (f"{entry.error_db:.2f} dB", f"{entry.bound_db:.2f} dB", f"{entry.gap_db:.2f}")
        table.add_row(name, *cells)
    console.print(table)
    if all(entry.of_lines for entry in certificates.values()):
        bounded = "no mask of whole columns"
    else:
        bounded = "no mask, of points or of whole columns,"
    console.print(
        "Expected error over signal of the best linear reconstruction, under its Gaussian prior; "
        f"{bounded} of the same budget and ACS is below the bound, for the slices drawn."
    )


def check_mask_path(path: Path) -> None:
    """Refuse, before any work is done, a name that is not of a mask file."""
    if path.suffix not in MASK_WRITERS:
        raise UserError(f"{path}: a mask is written as {', '.join(MASK_WRITERS)}")


def write_mask(mask: Tensor, path: Path) -> None:
    """Write a mask as its name says.

    ``.npy``: bool ``(ky, kx)``; ``.cfl``: 0 and 1 for BART, with its header, ky and kx along
    dimensions 0 and 1; ``.csv``: a line ``ky,kx`` for each point acquired, counted from 0, row by
    row.
    """
    check_mask_path(path)
    MASK_WRITERS[path.suffix](mask.cpu(), path)


def _write_npy(mask: Tensor, path: Path) -> None:
    with atomic_path(path) as temporary:
        np.save(temporary, mask.numpy(), allow_pickle=False)


def _write_cfl(mask: Tensor, path: Path) -> None:
    write_cfl(path, mask[None, None], (1, 1, *mask.shape))


def _write_csv(mask: Tensor, path: Path) -> None:
    lines = ["ky,kx", *(f"{ky},{kx}" for ky, kx in mask.nonzero().tolist())]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", "ascii")


MASK_WRITERS: dict[str, Callable[[Tensor, Path], None]] = {
    ".npy": _write_npy,
    ".cfl": _write_cfl,
    ".csv": _write_csv,
}
