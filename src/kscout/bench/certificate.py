"""How far masks are from the best that their budget could buy, on slices that no design has seen.

A design made for a few slices fits those slices, and the random images that its criterion was
sampled with. So the certificate is drawn from test data, at seeds that no mask was made with, and
several times.
"""

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from kscout.bench.audit import conditions
from kscout.bench.folder import BenchFolder, BenchRun, read_json, write_json
from kscout.bench.suite import Suite
from kscout.data import KspaceSet, Splits
from kscout.experiment.progress import progress_bar
from kscout.learning.design import N_CERTIFIED, ExpectedError, certify
from kscout.recon import RECONSTRUCTORS
from kscout.sampling import Budget
from kscout.sampling.budget import are_whole_columns

SEEDS = (2**31, 2**31 + 1, 2**31 + 2)
"""Of the draws. A suite's own are below, so that no mask was made with any of them."""

Draws = dict[str, dict[str, list[float]]]
"""Of every method, over :data:`SEEDS`: ``error_db`` and ``bound_db``."""

Bounds = dict[str, dict[str, Draws]]
"""Reconstruction to test condition to draws."""


def bounds(
    suite: Suite, folder: BenchFolder, runs: Sequence[BenchRun], splits: Splits, console: Console
) -> Bounds:
    """Expected errors and bounds of the masks, for the reconstructors whose error is bounded.

    Coils, noise and prior are those of the test condition that the masks are scored on. What was
    worked out is kept in the suite's folder.

    Parameters
    ----------
    folder : keeps the draws
    runs : one for each reconstruction and method, at one seed

    Returns
    -------
    without adaptive runs, as the bound is for one mask of all slices
    """
    budget = Budget.of(splits["train"].shape, **suite.budget.options())
    found: Bounds = {}
    for name, entry in suite.reconstructors.items():
        if not RECONSTRUCTORS[entry.reconstructor.kind].has_bound:
            continue
        own = [run for run in runs if run.reconstruction == name and not run.is_adaptive]
        masks = {run.method: run.folder.mask() for run in own}
        size = entry.reconstructor.acs_size
        found[name] = {
            split: _kept(folder, masks, split, data, budget, size, console)
            for split, data in conditions(splits).items()
        }
    return found


def _kept(
    folder: BenchFolder,
    masks: Mapping[str, Tensor],
    split: str,
    data: KspaceSet,
    budget: Budget,
    acs_size: int,
    console: Console,
) -> Draws:
    """From the file, if the same was asked before: whatever decides the numbers names the file."""
    effort = _defaults(certify), _defaults(ExpectedError), N_CERTIFIED  # slices, steps, iterations
    settings = split, acs_size, SEEDS, effort, list(masks), _fingerprint(data)
    asked = hashlib.sha256(repr(settings).encode())
    for mask in masks.values():
        asked.update(mask.numpy().tobytes())
    path = folder.path / "certificate" / f"{asked.hexdigest()[:16]}.json"
    kept: Draws | None = read_json(path, console)
    if kept is None or kept.keys() != masks.keys():
        kept = _drawn(masks, data, budget, acs_size, console)
        write_json(path, kept)
    return kept


def _defaults(function: Callable[..., Any]) -> dict[str, float]:
    """The numbers that a function works with unless it is told others."""
    parameters = inspect.signature(function).parameters
    values = {name: parameter.default for name, parameter in parameters.items()}
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def _fingerprint(data: KspaceSet) -> tuple[tuple[int, ...], list[str]]:
    """Shape and energy of every slice, in as many digits as all machines agree on."""
    energy = data.kspace.abs().square().sum((1, 2, 3), dtype=torch.float64)
    return tuple(data.kspace.shape), [f"{value:.5e}" for value in energy.tolist()]


def _drawn(
    masks: Mapping[str, Tensor], data: KspaceSet, budget: Budget, acs_size: int, console: Console
) -> Draws:
    """Of every mask and seed, the expected error and the bound."""
    lines = are_whole_columns(masks.values())
    draws: Draws = {method: {"error_db": [], "bound_db": []} for method in masks}
    with progress_bar(console, "certificate") as show:
        for seed in SEEDS:
            found = certify(masks, data, budget, seed, acs_size=acs_size, lines=lines, advance=show)
            for method, certificate in found.items():
                draws[method]["error_db"].append(certificate.error_db)
                draws[method]["bound_db"].append(certificate.bound_db)
    return draws
