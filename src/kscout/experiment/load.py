"""Data as a configuration asks for it."""

from typing import Any

from rich.console import Console

from kscout.data import DATA, Splits
from kscout.data.files import file_notes
from kscout.experiment.config import Experiment


def load_data(experiment: Experiment, console: Console) -> Splits:
    """The splits of an experiment's data source."""
    return load_splits(experiment.data, console)


def load_splits(config: Any, console: Console) -> Splits:
    """The splits of a data source, as its section of a configuration says."""
    with console.status(f"preparing data: {config.kind}"):
        splits = DATA[config.kind](**config.options())
    sizes = ", ".join(
        f"{name} {len(part)} of {len(part.volume.unique())}"
        for name, part in splits.items()
        if len(part)
    )
    train = splits["train"]
    for note in file_notes(**config.options()) if config.kind == "files" else ():
        console.print(f"note: {note}", highlight=False)
    console.print(
        f"{config.kind}: {train.n_coils} coils, {train.shape[0]}x{train.shape[1]}; "
        f"slices of scans: {sizes}",
        highlight=False,
    )
    return splits
