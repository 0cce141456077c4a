"""Before anything is run: are all runs possible, and what will they cost?"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from kscout.data import Splits
from kscout.errors import UserError
from kscout.experiment import Experiment, RunFolder, load_data
from kscout.experiment.progress import progress_bar
from kscout.experiment.run import Method, test
from kscout.sweep.local import n_cores
from kscout.sweep.search import refuse_unranked
from kscout.sweep.spec import PlannedRun, Sweep
from kscout.sweep.status import settings_text

PROBED = (100, 4)
"""Slices and batches of training data that a probe takes, whichever are more."""


def print_plan(sweep: Sweep, n_probes: int, console: Console) -> None:
    """Say what a sweep consists of, refuse what is impossible, and estimate what it costs.

    Raises
    ------
    UserError
        if a run is impossible
    """
    if sweep.search is not None:
        n, axes = sweep.search.n_trials, [*sweep.grid, *sweep.search.ranges]
        planned = [sweep.first_trial()]
        refuse_unranked(planned[0])
        console.print(f"{n} trials over {', '.join(axes)}", highlight=False)
    else:
        planned = sweep.plan()
        n = len(planned)
        console.print(_axes(sweep))
        console.print(f"[bold]{n} runs[/]", highlight=False)
    splits = refuse_impossible(planned, console)
    if n_probes:
        seconds = probe(planned, splits, n_probes, console)
        mean, low, high = sum(seconds) / len(seconds), min(seconds), max(seconds)
        workers = min(n_cores(), n)
        console.print(
            f"about {_duration(mean)} a run on one core ({len(seconds)} timed shortly: "
            f"{_duration(low)} to {_duration(high)}); all: {_duration(n * mean)} of one core, "
            f"{_duration(math.ceil(n / workers) * mean)} on the {workers} here",
            highlight=False,
        )


def _axes(sweep: Sweep) -> Table:
    table = Table.grid(padding=(0, 2))
    for axis in sweep.axes:
        for path in axis[0]:
            values = [_written(settings[path]) for settings in axis]
            table.add_row(path, str(len(values)), ", ".join(values))
    return table


def _written(value: Any) -> str:
    if isinstance(value, dict):
        return "(" + " ".join(f"{key}={inner}" for key, inner in value.items()) + ")"
    return str(value)


def refuse_impossible(planned: Sequence[PlannedRun], console: Console) -> dict[str, Splits]:
    """Raise ``UserError`` if a run cannot be, such as an ACS larger than the budget.

    Returns
    -------
    the data, by source as JSON
    """
    data: dict[str, Splits] = {}
    wrong: list[tuple[PlannedRun, UserError]] = []
    with progress_bar(console, "checking") as show:
        for i, run in enumerate(planned):
            source = _source(run.experiment)
            if source not in data:
                data[source] = load_data(run.experiment, Console(quiet=True))
            try:
                Method.of(run.experiment, data[source])
            except UserError as error:
                wrong.append((run, error))
            show("runs", i + 1, len(planned))
    if wrong:
        run, first = wrong[0]
        raise UserError(
            f"{len(wrong)} of {len(planned)} runs are impossible, such as {settings_text(run)}: "
            f"{first}: leave them out with exclude"
        )
    return data


def probe(
    planned: Sequence[PlannedRun], data: dict[str, Splits], n: int, console: Console
) -> list[float]:
    """Estimated seconds, on one core, of ``n`` runs spread over the plan.

    Each is run for two epochs on a part of its data; the time of the second epoch and of the test
    grow with the data, and with the epochs, what else there is does not.
    """
    import pytorch_lightning  # noqa: F401  its import is not the first run's

    step = max(1, len(planned) / n)
    chosen = [planned[int(i * step)] for i in range(min(n, len(planned)))]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with progress_bar(console, "timing") as show:
            seconds = []
            for i, run in enumerate(chosen):
                try:
                    seconds.append(_seconds(run.experiment, data[_source(run.experiment)]))
                except UserError as error:
                    raise UserError(f"run with {settings_text(run)} fails: {error}") from error
                show("runs", i + 1, len(chosen))
            return seconds
    finally:
        torch.set_num_threads(threads)


def _seconds(experiment: Experiment, splits: Splits) -> float:
    quiet, training = Console(quiet=True), experiment.training
    n_slices, n_batches = PROBED
    share = min(1.0, max(n_slices, n_batches * training.batch_size) / len(splits["train"]))
    part = {
        name: whole.select(torch.arange(math.ceil(share * len(whole))))
        for name, whole in splits.items()
    }
    short = training.model_copy(update={"epochs": min(2, training.epochs)})
    method = Method.of(experiment.model_copy(update={"training": short}), part)
    start = time.monotonic()
    with TemporaryDirectory() as folder:
        method.fit(RunFolder(Path(folder)), part, quiet)
        epochs = method.epoch_seconds
    fitted = time.monotonic()
    test(method, part, quiet)
    tested = time.monotonic() - fitted
    trained = training.epochs * epochs[-1] if epochs else 0.0
    return fitted - start - sum(epochs) + (trained + tested) / share


def _source(experiment: Experiment) -> str:
    return str(experiment.data.model_dump_json())


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
