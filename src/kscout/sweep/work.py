"""One try of one run, in whatever process it takes place: a local worker or a SLURM job."""

import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from kscout.data import Splits
from kscout.errors import Stopped, UserError
from kscout.experiment import Experiment, load_data, run_experiment
from kscout.experiment.config import check
from kscout.sweep import causes
from kscout.sweep.folder import Attempt, Ended, SweepFolder, epochs_done

Load = Callable[[Experiment, Console], Splits]
Tree = dict[str, Any]
"""An experiment as plain values, which any process can be sent. Its name is the run's id."""


def try_run(folder: SweepFolder, tree: Tree, attempt: Attempt, load: Load = load_data) -> Ended:
    """Run an experiment of a sweep once, and write down how that ended.

    Whatever is printed goes to the run's log. Nothing that goes wrong in the run is raised: it is
    the cause in the answer.
    """
    experiment = check(Experiment, tree, "sweep")
    trainer = experiment.trainer.model_copy(update={"micro_batch": attempt.micro_batch})
    experiment = experiment.model_copy(update={"trainer": trainer})
    start = time.monotonic()
    with _printing_to(folder.log(experiment.name)):
        cause, error = _outcome(folder, experiment, attempt, load)
    ended = Ended(cause=cause, error=error, seconds=time.monotonic() - start)
    with suppress(UserError):  # on a full disk, whoever waits is told by the answer alone
        ended = _write(folder, experiment.name, attempt.number, ended)
    return ended


def _write(folder: SweepFolder, run_id: str, number: int, ended: Ended) -> Ended:
    """Write down how a try ended: by the one of its processes that knows.

    Those that only lost their connection to it know nothing; if nobody does, SLURM will.
    """
    rank = int(os.environ.get("SLURM_PROCID", 0))
    is_first = rank == 0 or (ended.cause and folder.ended(run_id, number) is None)
    if is_first and ended.cause != causes.LOST_CONNECTION:
        return folder.end(run_id, number, ended)
    return ended


def source(experiment: Experiment) -> str:
    """What tells whether two experiments use the same data."""
    return str(experiment.data.model_dump_json())


def remembering() -> Load:
    """:func:`load_data`, but once for runs with the same data; another source takes its place."""
    kept: dict[str, Splits] = {}

    def load(experiment: Experiment, console: Console) -> Splits:
        key = source(experiment)
        if key not in kept:
            kept.clear()
            kept[key] = load_data(experiment, console)
        return kept[key]

    return load


def _outcome(
    folder: SweepFolder, experiment: Experiment, attempt: Attempt, load: Load
) -> tuple[str | None, str]:
    """Run an experiment; returns why it ended early, if it did, and its last lines."""
    run_id, number = experiment.name, attempt.number
    run, oom_kills = folder.run(run_id), causes.n_oom_kills()
    cause, error = None, ""
    try:
        print(f"attempt {number}", flush=True)
        with _memory_limit(attempt):  # which must be gone before what it led to is looked at
            run_experiment(
                experiment,
                run.path,
                Console(width=100),
                load=load,
                should_stop=lambda: folder.asked_to_stop(run_id, number) is not None,
            )
    except Stopped:
        cause = folder.asked_to_stop(run_id, number) or causes.CANCELLED
    except Exception as raised:
        cause, error = causes.cause_of(raised), causes.last_lines(raised)
        if cause == causes.KILLED and causes.n_oom_kills() > oom_kills:
            cause = causes.OUT_OF_MEMORY
        if run.is_locked:  # an earlier try, given up for lost, is at it
            cause = causes.CANCELLED
    with suppress(OSError):
        print(
            "\n".join(filter(None, (error, f"attempt {number}: {cause or 'finished'}"))), flush=True
        )
    return cause, error


def job(folder: Path, tree: Tree, attempt: Tree) -> None:
    """What a SLURM job runs, each of its processes."""
    import torch

    # Not every cluster binds a job to its cores; and Lightning chooses a number of its own for
    # several processes, unless this variable is set.
    n_tasks = int(os.environ.get("SLURM_NTASKS_PER_NODE", 1))
    n_cores = os.environ.get("SLURM_CPUS_PER_TASK")
    n_threads = int(n_cores or int(os.environ.get("SLURM_CPUS_ON_NODE", n_tasks)) // n_tasks)
    os.environ.setdefault("OMP_NUM_THREADS", str(n_threads))
    torch.set_num_threads(n_threads)
    try_run(SweepFolder(folder), tree, Attempt(**attempt))


class RequeuedJob:
    """The same; submitit puts back into the queue, when its time ends, what has ``checkpoint``.

    Parameters
    ----------
    minutes : the time limit
    """

    def __init__(self, minutes: int) -> None:
        self.minutes = minutes
        self.started, self.epochs = time.monotonic(), 0

    def __call__(self, folder: Path, tree: Tree, attempt: Tree) -> None:
        self.started = time.monotonic()
        self.epochs = epochs_done(SweepFolder(folder).run(tree["name"]).path)
        job(folder, tree, attempt)

    def checkpoint(self, folder: Path, tree: Tree, attempt: Tree) -> Any:
        """The same again, as the run's folder knows how far it is.

        Not if all of its time was not enough for one epoch: that would go on for ever.
        """
        import submitit

        epochs = epochs_done(SweepFolder(folder).run(tree["name"]).path)
        had_its_time = time.monotonic() - self.started > 0.6 * 60 * self.minutes
        if had_its_time and epochs <= self.epochs:
            return None
        return submitit.helpers.DelayedSubmission(RequeuedJob(self.minutes), folder, tree, attempt)


@contextmanager
def _printing_to(log: Path) -> Iterator[None]:
    """Add all that this process and its libraries print to a file."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        file = log.open("ab")
    except OSError:  # told by the run itself, which cannot write either
        yield
        return
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            with suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            for target, source in zip((1, 2), saved, strict=True):
                os.dup2(source, target)
                os.close(source)


@contextmanager
def _memory_limit(attempt: Attempt) -> Iterator[None]:
    """Have allocations beyond the limit fail; in a SLURM job, SLURM sees to it."""
    if attempt.memory_mb is None or attempt.where != "local":
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (attempt.memory_mb * 2**20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
