"""How far masks are from the best that their budget could buy, on slices that no design has seen.

A design made for a few slices fits those slices, and the random images that its criterion was
sampled with. So the certificate is drawn from test data, at seeds that no mask was made with, and
several times.
"""

import hashlib
from collections.abc import Mapping, Sequence

from rich.console import Console
from torch import Tensor

from kscout.bench.audit import conditions
from kscout.bench.folder import BenchFolder, BenchRun, read_json, write_json
from kscout.bench.suite import Suite
from kscout.data import KspaceSet, Splits
from kscout.experiment.progress import progress_bar
from kscout.learning.design import certify
from kscout.recon import RECONSTRUCTORS
from kscout.sampling import Budget

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
    runs : one for each reconstruction and method, at one seed
    """
    budget = Budget.of(splits["train"].shape, **suite.budget.options())
    found: Bounds = {}
    for name, entry in suite.reconstructors.items():
        if not RECONSTRUCTORS[entry.reconstructor.kind].has_bound:
            continue
        masks = {run.method: run.folder.mask() for run in runs if run.reconstruction == name}
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
    """From the file, if the same was asked before: another mask, or draw, makes another file."""
    asked = hashlib.sha256(repr((split, acs_size, SEEDS, list(masks))).encode())
    for mask in masks.values():
        asked.update(mask.numpy().tobytes())
    path = folder.path / "certificate" / f"{asked.hexdigest()[:16]}.json"
    kept: Draws | None = read_json(path, console)
    if kept is None:
        kept = _drawn(masks, data, budget, acs_size, console)
        write_json(path, kept)
    return kept


def _drawn(
    masks: Mapping[str, Tensor], data: KspaceSet, budget: Budget, acs_size: int, console: Console
) -> Draws:
    lines = all(bool((mask == mask[:1]).all()) for mask in masks.values())
    draws: Draws = {method: {"error_db": [], "bound_db": []} for method in masks}
    with progress_bar(console, "certificate") as show:
        for seed in SEEDS:
            found = certify(masks, data, budget, seed, acs_size=acs_size, lines=lines, advance=show)
            for method, certificate in found.items():
                draws[method]["error_db"].append(certificate.error_db)
                draws[method]["bound_db"].append(certificate.bound_db)
    return draws
