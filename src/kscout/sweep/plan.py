"""Before anything is run: are all runs possible, and what will they cost?"""

import math
import random
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from rich.table import Table

from kscout.data import Splits
from kscout.errors import UserError
from kscout.experiment import Experiment, RunFolder
from kscout.experiment.progress import progress_bar
from kscout.experiment.run import Method, test
from kscout.sweep.local import n_cores
from kscout.sweep.spec import PlannedRun, Sweep
from kscout.sweep.status import settings_text
from kscout.sweep.text import duration, written
from kscout.sweep.work import remembering, source

PROBED = (100, 4)
"""Slices and batches of training data that a probe takes, whichever are more."""


def print_plan(sweep: Sweep, n_probes: int, console: Console) -> None:
    """Say what a sweep consists of, refuse what is impossible, and estimate what it costs.

    Raises
    ------
    UserError
        if a run is impossible
    """
    planned = sweep.plan() if sweep.search is None else sweep.corners()
    n = len(planned) if sweep.search is None else sweep.search.n_trials
    console.print(_axes(sweep))
    kind = "runs" if sweep.search is None else "trials, chosen one after another"
    console.print(f"[bold]{n} {kind}[/]", highlight=False)
    refuse_impossible(planned, console, ranked=sweep.search is not None)
    if n_probes:
        seconds = probe(planned, n_probes, console)
        mean, low, high = sum(seconds) / len(seconds), min(seconds), max(seconds)
        workers = min(n_cores(), n)
        console.print(
            f"about {duration(mean)} a run on one core ({len(seconds)} of {len(planned)}, drawn, "
            f"timed shortly: {duration(low)} to {duration(high)}); all: {duration(n * mean)} of "
            "one core, "
            f"{duration(math.ceil(n / workers) * mean)} on the {workers} here",
            highlight=False,
        )


def _axes(sweep: Sweep) -> Table:
    table = Table.grid(padding=(0, 2))
    for axis in sweep.axes:
        for path in axis[0]:
            values = [written(settings[path]) for settings in axis]
            table.add_row(path, str(len(values)), ", ".join(values))
    for path, choice in (sweep.search.ranges if sweep.search else {}).items():
        how = " in the log" if choice.log else f" in steps of {choice.step:g}" * bool(choice.step)
        table.add_row(path, "", f"{choice.low:g} to {choice.high:g}{how}")
    return table


def refuse_impossible(
    planned: Sequence[PlannedRun], console: Console, *, ranked: bool = False
) -> None:
    """Raise ``UserError`` if a run cannot be, such as one with an ACS larger than its budget.

    Parameters
    ----------
    ranked : a run must also end with a validation loss, by which a search ranks it
    """
    load, wrong = remembering(), []
    with progress_bar(console, "checking") as show:
        for i, run in enumerate(_by_source(planned)):
            splits = load(run.experiment, Console(quiet=True))
            try:
                method = Method.of(run.experiment, splits)
                if ranked and not (method.epochs and len(splits["val"])):
                    raise UserError(
                        "a search ranks runs by their validation loss: valid are epochs of "
                        "gradient descent, and validation data"
                    )
            except UserError as error:
                wrong.append((run, error))
            show("runs", i + 1, len(planned))
    if wrong:
        run, first = wrong[0]
        raise UserError(
            f"{len(wrong)} of {len(planned)} runs are impossible, such as {settings_text(run)}: "
            f"{first}: leave them out with exclude"
        )


def probe(planned: Sequence[PlannedRun], n: int, console: Console) -> list[float]:
    """Estimated seconds, on one core, of ``n`` runs drawn at random from the plan.

    Each is run for two epochs on a part of its data; the time of the second epoch and of the test
    grow with the data, and with the epochs, what else there is does not.
    """
    import pytorch_lightning  # noqa: F401  its import is not the first run's

    chosen = random.Random(0).sample(list(planned), min(n, len(planned)))
    load, seconds = remembering(), []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with progress_bar(console, "timing") as show:
            for i, run in enumerate(_by_source(chosen)):
                try:
                    splits = load(run.experiment, Console(quiet=True))
                    seconds.append(_seconds(run.experiment, splits))
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


def _by_source(planned: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Runs on the same data one after another, so that it is loaded once."""
    return sorted(planned, key=lambda run: source(run.experiment))
