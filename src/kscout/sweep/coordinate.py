"""Bring a sweep as far as it will go: decide what to try, hand it out, look on."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rich.console import Console
from rich.live import Live
from rich.text import Text

from kscout.errors import UserError
from kscout.sweep import causes
from kscout.sweep.folder import Attempt, Ended, SweepFolder
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
    settings_text,
)

WATCH = 5.0
"""Seconds between looks at a sweep that is watched."""

PATIENCE = 10.0
"""Seconds that workers may take to die with their coordinator."""

Labels = Mapping[str, str]
"""Id of a run to what people call it."""


def start(
    folder: SweepFolder,
    sweep: Sweep,
    launch: Launch,
    console: Console,
    labels: Labels | None = None,
) -> bool:
    """Begin a sweep in a folder, or go on with it.

    Parameters
    ----------
    labels : given where the sweep is a part of something, which has a table of its own

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
        refuse_impossible(_labelled(new, labels), console)
    with folder.locked():
        folder.claim(sweep)
        return _go_on(folder, launch, console, labels)


def resume(folder: SweepFolder, launch: Launch, console: Console) -> bool:
    """Go on with the sweep of a folder: what is finished stays, what failed is seen to."""
    folder.sweep()  # refuses what is no sweep's before a lock is made in it
    with folder.locked():
        return _go_on(folder, launch, console)


def _labelled(planned: Sequence[PlannedRun], labels: Labels | None) -> list[PlannedRun]:
    return [replace(run, label=(labels or {}).get(run.id, "")) for run in planned]


def _go_on(
    folder: SweepFolder, launch: Launch, console: Console, labels: Labels | None = None
) -> bool:
    sweep = folder.sweep()
    trainer = sweep.trainer
    if launch.on == "local" and trainer.n_nodes > 1:
        raise UserError(f"trainer.n_nodes {trainer.n_nodes} needs a cluster: valid is --on slurm")
    folder.keep_launch(launch)
    folder.cancel_marker.unlink(missing_ok=True)
    planned = _labelled(folder.planned(), labels)
    _settle(folder, planned)
    at_once = launch.at_once or max(1, n_cores() // trainer.n_devices)
    if sweep.search is not None:
        planned = _search(folder, launch, at_once, console)
    elif not _run_grid(folder, planned, launch, at_once, console):
        return True
    states = run_states(folder, planned)
    console.print(overview(states))
    print_failures(folder, states, console)
    if labels is None:
        console.print(f"table and report: kscout sweep table {folder.path}", soft_wrap=True)
    return not any(s.state == FAILED and s.cause != causes.PRUNED for s in states)


def _settle(folder: SweepFolder, planned: Sequence[PlannedRun]) -> None:
    """Write down what became of tries that an earlier coordinator was killed over.

    Called by the only coordinator, so nobody else will.
    """
    deadline = time.monotonic() + PATIENCE
    arrays: dict[str, str | None] = {}
    for run_id in (run.id for run in planned):
        last = next(iter(folder.attempts(run_id)[-1:]), None)
        if last is None or last.job or folder.ended(run_id, last.number):
            continue
        if last.array:
            if last.array not in arrays:
                arrays[last.array] = find_jobs(last.array)
            if found := arrays[last.array]:
                job = found if last.place is None else f"{found}_{last.place}"
                folder.add_attempt(run_id, last.model_copy(update={"job": job}))
                continue
        run = folder.run(run_id)
        while run.is_locked and time.monotonic() < deadline:
            time.sleep(0.1)  # its worker is about to notice
        if not run.is_locked and run.state != FINISHED:
            folder.end(run_id, last.number, Ended(cause=causes.KILLED))


def _run_grid(
    folder: SweepFolder,
    planned: Sequence[PlannedRun],
    launch: Launch,
    at_once: int,
    console: Console,
) -> bool:
    """Whether all has ended; on SLURM it is only handed in."""
    states = run_states(folder, planned)
    tasks = choose(states, launch, console)
    if tasks and launch.on == "slurm":
        jobs = [s.attempts[-1].job for s in states if s.state in AT_WORK and s.attempts]
        submit(folder, tasks, launch, {job.split("_")[0] for job in jobs if job})
        console.print(f"{len(tasks)} runs are with SLURM: kscout sweep status {folder.path}")
        return False
    if tasks:
        with Watch(folder, {run.id: run for run in planned}, len(tasks), console) as watch:
            run_local(folder, tasks, min(at_once, len(tasks)), watch.look, watch.end)
    return True


def _search(
    folder: SweepFolder, launch: Launch, at_once: int, console: Console
) -> list[PlannedRun]:
    """Every run that the search has chosen, in this session or before."""
    from kscout.sweep.search import StudyOfRuns

    study = StudyOfRuns(folder, launch)
    with Watch(folder, study.plans, study.n_open, console) as watch:

        def look(at_work: Sequence[str]) -> None:
            study.report(at_work)
            watch.look(at_work)

        def end(run_id: str, ended: Ended) -> None:
            study.close(watch.end(run_id, ended))

        def look_from_afar(run_ids: Sequence[str]) -> None:
            states = watch.now(run_ids)
            study.report([s.id for s in states if s.state in AT_WORK])
            watch.show(states)
            for status in states:
                if status.state not in AT_WORK:
                    study.close(status)
                    watch.say(status.id, Ended(cause=status.cause))

        if launch.on == "slurm":
            run_watched(folder, study.tasks(), launch, study.at_work.keys(), look_from_afar)
        else:
            run_local(folder, study.tasks(), at_once, look, end)
    return [*study.plans.values()]


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


class Watch:
    """Shows how runs get on: live in a terminal, else a line for each that ends.

    Parameters
    ----------
    plans : by id; may grow meanwhile
    n_runs : that are to end
    """

    def __init__(
        self, folder: SweepFolder, plans: Mapping[str, PlannedRun], n_runs: int, console: Console
    ) -> None:
        self.folder, self.plans, self.console = folder, plans, console
        self.n_runs, self._n_ended = n_runs, 0
        self._states = {status.id: status for status in self.now([*plans])}
        self._live = Live(console=console, transient=True, auto_refresh=False)

    def __enter__(self) -> "Watch":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def now(self, run_ids: Sequence[str]) -> list[RunStatus]:
        """The states of runs at this moment."""
        return run_states(self.folder, [self.plans[run_id] for run_id in run_ids])

    def show(self, states: Sequence[RunStatus]) -> None:
        """Draw the overview anew; ``KeyboardInterrupt`` once the sweep is cancelled."""
        if self.folder.cancel_marker.exists():
            raise KeyboardInterrupt
        self._states.update({status.id: status for status in states})
        if self.console.is_terminal:
            self._live.update(overview(list(self._states.values())), refresh=True)

    def look(self, run_ids: Sequence[str]) -> None:
        """Look at runs at work, and show them."""
        self.show(self.now(run_ids))

    def end(self, run_id: str, ended: Ended) -> RunStatus:
        """Take note of a run that ended, and say so."""
        (status,) = self.now([run_id])
        self._states[run_id] = status
        self.say(run_id, ended)
        return status

    def say(self, run_id: str, ended: Ended) -> None:
        """A line for a run that ended, where nobody looks at a terminal."""
        self._n_ended += 1
        if not self.console.is_terminal:
            took = f" in {ended.seconds:.1f} s" if ended.seconds else ""
            text = (
                f"{self._n_ended} of {self.n_runs}: {settings_text(self.plans[run_id])}: "
                f"{ended.cause or FINISHED}{took} ({run_id})"
            )
            self.console.print(Text(text), soft_wrap=True)


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
            folder.end(status.id, status.attempts[-1].number, Ended(cause=causes.CANCELLED))
    return len(active)
