"""Bring a sweep as far as it will go: decide what to try, hand it out, look on."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live

from kscout.errors import UserError
from kscout.sweep import causes
from kscout.sweep.folder import Attempt, Ended, SweepFolder, epochs_done
from kscout.sweep.launch import Launch
from kscout.sweep.local import Task, n_cores, run_local
from kscout.sweep.plan import refuse_impossible
from kscout.sweep.retry import next_attempt
from kscout.sweep.slurm import AT_WORK, cancel_jobs, find_jobs, run_watched, submit
from kscout.sweep.spec import PlannedRun, Sweep
from kscout.sweep.status import (
    FAILED,
    FINISHED,
    RunStatus,
    overview,
    print_failures,
    run_states,
)

WATCH = 5.0
"""Seconds between looks at a sweep that is watched."""

PATIENCE = 10.0
"""Seconds that workers may take to die with their coordinator."""


def start(folder: SweepFolder, sweep: Sweep, launch: Launch, console: Console) -> bool:
    """Begin a sweep in a folder, or go on with it.

    Returns
    -------
    whether nothing has failed so far

    Raises
    ------
    UserError
        if the folder is another sweep's, is being run or cannot be written; if there is no SLURM,
        or it refuses
    """
    folder.refuse_other(sweep)
    if sweep.search is not None:
        refuse_impossible(sweep.corners(), console, ranked=True)
    else:
        new = [run for run in sweep.plan() if not folder.attempts(run.id)]
        refuse_impossible(new, console)
    with folder.locked():
        folder.claim(sweep)
        return _go_on(folder, launch, console)


def resume(folder: SweepFolder, launch: Launch, console: Console) -> bool:
    """Go on with the sweep of a folder: what is finished stays, what failed is seen to."""
    folder.sweep()  # refuses what is no sweep's before a lock is made in it
    with folder.locked():
        return _go_on(folder, launch, console)


def _go_on(folder: SweepFolder, launch: Launch, console: Console) -> bool:
    sweep = folder.sweep()
    trainer = sweep.trainer
    if launch.on == "local" and trainer.n_nodes > 1:
        raise UserError(f"trainer.n_nodes {trainer.n_nodes} needs a cluster: valid is --on slurm")
    folder.keep_launch(launch)
    folder.cancel_marker.unlink(missing_ok=True)
    _settle(folder)
    at_once = launch.at_once or max(1, n_cores() // trainer.n_devices)
    if sweep.search is not None:
        _search(folder, launch, at_once, console)
    elif not _run_grid(folder, launch, at_once, console):
        return True
    states = run_states(folder, folder.planned())
    console.print(overview(states))
    print_failures(folder, states, console)
    console.print(f"table and report: kscout sweep table {folder.path}", soft_wrap=True)
    return not any(s.state == FAILED and s.cause != causes.PRUNED for s in states)


def _settle(folder: SweepFolder) -> None:
    """Write down what became of tries that an earlier coordinator was killed over.

    Called by the only coordinator, so nobody else will.
    """
    deadline = time.monotonic() + PATIENCE
    arrays: dict[str, str | None] = {}
    for run in folder.planned():
        last = next(iter(folder.attempts(run.id)[-1:]), None)
        if last is None or last.job or folder.ended(run.id, last.number):
            continue
        if last.array:
            if last.array not in arrays:
                arrays[last.array] = find_jobs(last.array)
            if found := arrays[last.array]:
                job = found if last.place is None else f"{found}_{last.place}"
                folder.add_attempt(run.id, last.model_copy(update={"job": job}))
                continue
        while folder.run(run.id).is_locked and time.monotonic() < deadline:
            time.sleep(0.1)  # its worker is about to notice
        if not folder.run(run.id).is_locked and folder.run(run.id).state != FINISHED:
            ended = Ended(cause=causes.KILLED, epochs=epochs_done(folder.run(run.id).path))
            folder.end(run.id, last.number, ended)


def _run_grid(folder: SweepFolder, launch: Launch, at_once: int, console: Console) -> bool:
    """Whether all has ended; on SLURM it is only handed in."""
    planned = folder.planned()
    states = run_states(folder, planned)
    tasks = choose(states, launch, console)
    if tasks and launch.on == "slurm":
        jobs = [s.attempts[-1].job for s in states if s.state in AT_WORK and s.attempts]
        submit(folder, tasks, launch, {job.split("_")[0] for job in jobs if job})
        console.print(f"{len(tasks)} runs are with SLURM: kscout sweep status {folder.path}")
        return False
    if tasks:
        with watching(folder, {run.id: run for run in planned}, console) as (tick, done):
            run_local(folder, tasks, min(at_once, len(tasks)), tick, done)
    return True


def _search(folder: SweepFolder, launch: Launch, at_once: int, console: Console) -> None:
    from kscout.sweep.search import StudyOfRuns

    study = StudyOfRuns(folder, launch)
    with watching(folder, study.plans, console) as (tick, done):

        def look(at_work: Sequence[str]) -> None:
            study.report(at_work)
            tick(at_work)

        def end(run_id: str, ended: Ended) -> None:
            study.close(run_id)
            done(run_id, ended)

        def look_from_afar(at_work: Sequence[str]) -> None:
            states = run_states(folder, [study.plans[run_id] for run_id in at_work])
            look([s.id for s in states if s.state in AT_WORK])
            for status in states:
                if status.state not in AT_WORK:
                    end(status.id, Ended(cause=status.cause))

        if launch.on == "slurm":
            run_watched(folder, study.tasks(), launch, study.at_work.keys(), look_from_afar)
        else:
            run_local(folder, study.tasks(), at_once, look, end)


def choose(states: Sequence[RunStatus], launch: Launch, console: Console) -> list[Task]:
    """The tries to make now; says, once for each reason, which failed runs are left alone."""
    tasks: list[Task] = []
    left: dict[str, int] = {}
    for status in states:
        following = next_attempt(status, launch)
        if isinstance(following, Attempt):
            tasks.append((status.planned.experiment.model_dump(mode="json"), following))
        elif status.state == FAILED:
            left[following.reason] = left.get(following.reason, 0) + 1
    for reason, n in left.items():
        console.print(f"{n} left alone: {reason}", style="yellow", highlight=False)
    return tasks


Tick = Callable[[Sequence[str]], None]
Done = Callable[[str, Ended], None]


@contextmanager
def watching(
    folder: SweepFolder, plans: Mapping[str, PlannedRun], console: Console
) -> Iterator[tuple[Tick, Done]]:
    """Show how runs get on: live in a terminal, else a line for each that ends.

    Parameters
    ----------
    plans : by id; may grow meanwhile

    Yields
    ------
    what to call with the runs at work now and then, and with each that ended; the first raises
    ``KeyboardInterrupt`` once the sweep is cancelled
    """
    states = {status.id: status for status in run_states(folder, [*plans.values()])}
    with Live(console=console, transient=True, auto_refresh=False) as live:

        def tick(at_work: Sequence[str]) -> None:
            if folder.cancel_marker.exists():
                raise KeyboardInterrupt
            if console.is_terminal:
                fresh = run_states(folder, [plans[run_id] for run_id in at_work])
                states.update({status.id: status for status in fresh})
                live.update(overview(list(states.values())), refresh=True)

        def done(run_id: str, ended: Ended) -> None:
            states.update({run_id: run_states(folder, [plans[run_id]])[0]})
            if not console.is_terminal:
                took = f" ({ended.seconds:.1f} s)" if ended.seconds else ""
                console.print(f"{run_id} {ended.cause or 'finished'}{took}", highlight=False)

        yield tick, done


def show_status(folder: SweepFolder, watch: bool, console: Console) -> None:
    """Print the overview once, or keep it on the screen until nothing is at work any more."""
    states = run_states(folder, folder.planned())
    if watch:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while any(s.state in AT_WORK for s in states) or folder.is_locked:
                live.update(overview(states), refresh=True)
                time.sleep(WATCH)
                states = run_states(folder, folder.planned())
    console.print(overview(states))
    print_failures(folder, states, console)


def cancel(folder: SweepFolder) -> int:
    """Stop whatever is at work, here or on SLURM, and take back what is queued.

    Returns
    -------
    how many runs were; their checkpoints stay, and :func:`resume` goes on from them
    """
    active = [s for s in run_states(folder, folder.planned()) if s.state in AT_WORK]
    if folder.is_locked:
        folder.cancel_marker.touch()
    on_slurm = [status for status in active if status.attempts[-1].job]
    if on_slurm:
        cancel_jobs([status.attempts[-1].job or "" for status in on_slurm])
        for status in on_slurm:
            ended = Ended(cause=causes.CANCELLED, epochs=status.epochs)
            folder.end(status.id, status.attempts[-1].number, ended)
    return len(active)
