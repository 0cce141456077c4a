"""How pattern and network depend on each other: the mask of one method, the network of another."""

import hashlib
from collections import Counter
from collections.abc import Sequence

import torch
from rich.console import Console

from kscout.bench.audit import evenly
from kscout.bench.folder import BenchFolder, BenchRun, read_json, write_json
from kscout.data import KspaceSet
from kscout.errors import UserError
from kscout.evaluation import evaluate
from kscout.experiment.fitted import FittedRun
from kscout.experiment.progress import progress_bar
from kscout.learning.distribute import default_device

MOST_SLICES = 60
"""Test slices, evenly spread, that a cell is the mean of."""

Table = dict[str, dict[str, dict[str, float | None]]]
"""Reconstruction to mask to network to mean error; ``None`` where nothing finite came out."""


def swapped(
    folder: BenchFolder,
    runs: Sequence[BenchRun],
    test: KspaceSet,
    metric: str,
    console: Console,
) -> Table:
    """Every mask through every network of the same kind, where networks differ between masks.

    A cell is kept in a file as soon as it is known, so that a kill loses one at most.

    Parameters
    ----------
    folder : keeps the cells
    runs : one for each reconstruction and method, at one seed
    test : slices of the test split
    metric : mean of which is a cell

    Returns
    -------
    without the reconstructions whose network is the same for every mask, and without adaptive runs
    """
    runs = [run for run in runs if not run.is_adaptive]
    part = test.select(evenly(len(test), MOST_SLICES))
    table: Table = {}
    digests = {run: digest(run) for run in runs}
    networks = {(run.reconstruction, network) for run, (_, network) in digests.items()}
    differ = Counter(reconstruction for reconstruction, _ in networks)
    pairs = [
        (mask, network)
        for network in runs
        for mask in runs
        if mask.reconstruction == network.reconstruction and differ[mask.reconstruction] > 1
    ]
    loaded: tuple[BenchRun, FittedRun] | None = None
    with progress_bar(console, "swapped") as show:
        for i, (mask, network) in enumerate(pairs):
            # another mask, network or set of slices makes another cell
            key = f"{digests[mask][0]}-{digests[network][1]}-{len(part)}"
            path = folder.cell(key)
            kept = read_json(path, console)
            if kept is None or metric not in kept:
                if loaded is None or loaded[0] is not network:
                    loaded = network, FittedRun.load(network.folder.path)
                kept = _cell(mask, loaded[1], part)
                write_json(path, {"mask": mask.method, "network": network.method, **kept})
            rows = table.setdefault(mask.reconstruction, {})
            rows.setdefault(mask.method, {})[network.method] = kept[metric]
            show("cells", i + 1, len(pairs))
    return table


def digest(run: BenchRun) -> tuple[str, str]:
    """Of a run's mask, and of its network with all its weights."""
    network = hashlib.sha256(run.experiment.reconstructor.model_dump_json().encode())
    for name, values in sorted(run.folder.checkpoint()["reconstructor"].items()):
        network.update(name.encode() + values.numpy().tobytes())
    mask = hashlib.sha256(run.folder.mask().numpy().tobytes())
    return mask.hexdigest()[:10], network.hexdigest()[:10]


def _cell(mask: BenchRun, network: FittedRun, part: KspaceSet) -> dict[str, float | None]:
    """Mean errors of one mask with one network; ``None`` where nothing finite came out."""
    device = torch.device(default_device())
    data = part.with_coil_scale(network.coil_scale)
    try:
        records = evaluate(
            mask.folder.mask(), network.reconstructor, data, split="test", device=device
        )
    except UserError:  # a network far from its own mask may give what is not finite
        return {"nmse_kspace": None, "nmse": None}
    return {
        name: sum(record[name] for record in records) / len(records)
        for name in ("nmse_kspace", "nmse")
    }
