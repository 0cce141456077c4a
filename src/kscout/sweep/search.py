"""Search in place of a grid: Optuna chooses each run from what earlier ones found.

Runs are ranked by their lowest validation loss: the test data has no say in what is chosen. Optuna
keeps its trials in ``study.log`` of the sweep's folder.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kscout.errors import UserError
from kscout.sweep import causes
from kscout.sweep.folder import Attempt, SweepFolder, validation_losses
from kscout.sweep.launch import Launch
from kscout.sweep.local import Task
from kscout.sweep.retry import next_attempt
from kscout.sweep.slurm import AT_WORK
from kscout.sweep.spec import PlannedRun, Range, Settings, Sweep
from kscout.sweep.status import FINISHED, RunStatus, run_states

if TYPE_CHECKING:
    import optuna


class StudyOfRuns:
    """An Optuna study whose trials are the runs of a sweep.

    A trial is over when its run has finished or was pruned. Whatever else ends a run leaves the
    trial open: the next session tries its run again, or goes on looking at it.

    Parameters
    ----------
    folder : with a sweep that has a ``search``
    """

    def __init__(self, folder: SweepFolder, launch: Launch) -> None:
        self.folder, self.launch = folder, launch
        self.sweep = folder.sweep()
        self.study = open_study(folder)
        self.at_work: dict[str, list[int]] = {}  # run -> its trials
        self.plans = {run.id: run for run in folder.planned()}

    @property
    def n_open(self) -> int:
        """Trials that are not over, or not chosen yet."""
        assert self.sweep.search is not None
        trials = self.study.get_trials(deepcopy=False)
        return self.sweep.search.n_trials - sum(trial.state.is_finished() for trial in trials)

    def tasks(self) -> Iterator[Task]:
        """Trials left open by an earlier session, then new ones until there are enough."""
        assert self.sweep.search is not None
        known = self.folder.trials()
        for left in self.study.get_trials(deepcopy=False):
            if left.state.name == "RUNNING":
                changes = known.get(left.number)
                if changes is None:  # killed between asking and writing down
                    self._tell(left.number, "FAIL")
                else:
                    yield from self._task(left.number, self.sweep.planned(changes))
        while len(self.study.get_trials(deepcopy=False)) < self.sweep.search.n_trials:
            trial = self.study.ask()
            changes = choose(trial, self.sweep)
            try:
                run = self.sweep.planned(changes)
            except UserError:  # such as an even size of kernel
                self._tell(trial.number, "FAIL")
                continue
            self.folder.add_trial(trial.number, changes)
            yield from self._task(trial.number, run)

    def _task(self, number: int, run: PlannedRun) -> Iterator[Task]:
        self.plans[run.id] = run
        if run.id in self.at_work:  # chosen twice
            self.at_work[run.id].append(number)
            return
        status = run_states(self.folder, [run])[0]
        following = next_attempt(status, self.launch)
        if status.state in AT_WORK or isinstance(following, Attempt):
            self.at_work[run.id] = [number]
        if isinstance(following, Attempt):
            yield run.experiment.model_dump(mode="json"), following
        else:
            self._end(number, status)

    def report(self, run_ids: Sequence[str]) -> None:
        """Report the losses of runs at work, and ask those to stop that fall behind."""
        import optuna

        trials = self.study.get_trials(deepcopy=False)
        for run_id in run_ids:
            frozen = trials[self.at_work[run_id][0]]
            # Optuna has no public way from a number to the id that its own constructor asks for.
            trial = optuna.Trial(self.study, frozen._trial_id)
            for epoch, loss in enumerate(self._losses(run_id)):
                if epoch not in frozen.intermediate_values:
                    trial.report(loss, epoch)
            attempt = self.folder.attempts(run_id)[-1].number
            if trial.should_prune() and not self.folder.asked_to_stop(run_id, attempt):
                self.folder.ask_to_stop(run_id, attempt, causes.PRUNED)

    def close(self, status: RunStatus) -> None:
        """Tell the study what became of a run that is no longer at work."""
        for number in self.at_work.pop(status.id):
            self._end(number, status)

    def _end(self, number: int, status: RunStatus) -> None:
        if status.state == FINISHED:
            self.study.tell(number, min(self._losses(status.id)))
        elif status.cause == causes.PRUNED:
            self._tell(number, "PRUNED")

    def _tell(self, number: int, state: str) -> None:
        from optuna.trial import TrialState

        self.study.tell(number, state=TrialState[state])

    def _losses(self, run_id: str) -> list[float]:
        return validation_losses(self.folder.run(run_id).path)


def open_study(folder: SweepFolder) -> "optuna.Study":
    """The sweep's study, begun or gone on with."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(logging.WARNING)
    search = folder.sweep().search
    assert search is not None
    storage = JournalStorage(JournalFileBackend(str(folder.path / "study.log")))
    pruner = {
        "none": optuna.pruners.NopPruner,
        "median": optuna.pruners.MedianPruner,
        "halving": optuna.pruners.SuccessiveHalvingPruner,
    }[search.pruner]()
    study = optuna.create_study(
        storage=storage, study_name="sweep", load_if_exists=True, pruner=pruner
    )
    # A resumed search must not draw again what it has drawn: its generator starts elsewhere.
    seed = search.seed + len(study.get_trials(deepcopy=False))
    if search.sampler == "random":
        study.sampler = optuna.samplers.RandomSampler(seed=seed)
    else:  # which takes runs at work for bad ones, so that others are not chosen beside them
        study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    return study


def choose(trial: Any, sweep: Sweep) -> Settings:
    """Let Optuna choose one of each list, and a number of each range."""
    assert sweep.search is not None
    changes: Settings = {}
    for axis in sweep.axes:
        name = " ".join(axis[0])
        changes |= axis[trial.suggest_categorical(name, list(range(len(axis))))]
    for path, choice in sweep.search.ranges.items():
        changes[path] = _number(trial, path, choice)
    return changes


def _number(trial: Any, path: str, choice: Range) -> float | int:
    value = trial.suggest_float(path, choice.low, choice.high, log=choice.log, step=choice.step)
    whole = choice.step is not None and choice.low.is_integer() and choice.step.is_integer()
    return int(value) if whole else float(value)
