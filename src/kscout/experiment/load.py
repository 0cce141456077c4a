"""Data as a configuration asks for it."""

from collections.abc import Callable
from typing import Any

from rich.console import Console

from kscout.data import DATA, Splits
from kscout.data.files import file_notes
from kscout.data.volume import volume_notes
from kscout.experiment.config import Experiment

NOTES: dict[str, Callable[..., list[str]]] = {"files": file_notes, "volume": volume_notes}
"""Of sources that read a user's files: what is to be known of these."""


def load_data(experiment: Experiment, console: Console) -> Splits:
    """The splits of an experiment's data source."""
    return load_splits(experiment.data, console)


def load_splits(config: Any, console: Console) -> Splits:
    """The splits of a data source, as its section of a configuration says."""
    with console.status(f"preparing data: {config.kind}"):
        splits = DATA[config.kind](**config.options())
    sizes = ", ".join(
        f"{name} {len(part)} ({len(part.volume.unique())})"
        for name, part in splits.items()
        if len(part)
    )
    train = splits["train"]
    for note in NOTES[config.kind](**config.options()) if config.kind in NOTES else ():
        console.print(f"note: {note}", highlight=False)
    console.print(
        f"{config.kind}: {train.n_coils} coils, {train.shape[0]}x{train.shape[1]}; "
        f"slices ({'blocks' if config.kind == 'volume' else 'scans'}): {sizes}",
        highlight=False,
    )
    return splits
