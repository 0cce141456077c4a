"""Search in place of a grid: Optuna chooses each run from what earlier ones found.

Runs are ranked by their lowest validation loss: the test data has no say in what is chosen. Optuna
keeps its trials in ``study.log`` of the sweep's folder.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kscout.errors import UserError
from kscout.sweep import causes
from kscout.sweep.folder import Attempt, Ended, SweepFolder, validation_losses
from kscout.sweep.launch import Launch
from kscout.sweep.local import Task
from kscout.sweep.retry import next_attempt
from kscout.sweep.spec import PlannedRun, Range, Settings, Sweep
from kscout.sweep.status import FINISHED, run_states

if TYPE_CHECKING:
    import optuna


class StudyOfRuns:
    """An Optuna study whose trials are the runs of a sweep.

    Parameters
    ----------
    folder : with a sweep that has a ``search``
    """

    def __init__(self, folder: SweepFolder, launch: Launch) -> None:
        self.folder, self.launch = folder, launch
        self.sweep = folder.sweep()
        refuse_unranked(self.sweep.first_trial())
        self.study = open_study(folder)
        self.open: dict[str, int] = {}  # run at work -> its trial's number
        self.plans = {run.id: run for run in folder.planned()}

    def tasks(self) -> Iterator[Task]:
        """Trials left open by an earlier session, then new ones until there are enough."""
        assert self.sweep.search is not None
        known = self.folder.trials()
        for left in self.study.get_trials(deepcopy=False):
            if not left.state.is_finished():
                changes = known.get(left.number)
                if changes is None:  # killed between asking and writing down
                    self.study.tell(left.number, state=_state("FAIL"))
                else:
                    yield from self._task(left.number, changes)
        while len(self.study.get_trials(deepcopy=False)) < self.sweep.search.n_trials:
            trial = self.study.ask()
            changes = choose(trial, self.sweep)
            self.folder.add_trial(trial.number, changes)
            yield from self._task(trial.number, changes)

    def _task(self, number: int, changes: Settings) -> Iterator[Task]:
        run = self.sweep.planned(changes)
        self.plans[run.id] = run
        status = run_states(self.folder, [run])[0]
        following = next_attempt(status, self.launch)
        if status.state == FINISHED or not isinstance(following, Attempt):
            self._tell(number, run.id, finished=status.state == FINISHED)
            return
        self.open[run.id] = number
        yield run.experiment.model_dump(mode="json"), following

    def tick(self, at_work: Sequence[str]) -> None:
        """Report the losses of runs at work, and ask those to stop that fall behind."""
        for run_id in at_work:
            trial = self._trial(self.open[run_id])
            reported = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
            for epoch, loss in enumerate(self._losses(run_id)):
                if epoch not in reported:
                    trial.report(loss, epoch)
            attempt = self.folder.attempts(run_id)[-1].number
            if trial.should_prune() and not self.folder.asked_to_stop(run_id, attempt):
                self.folder.ask_to_stop(run_id, attempt, causes.PRUNED)

    def done(self, run_id: str, ended: Ended) -> None:
        """Tell the study what became of a run; one that may yet be retried stays open."""
        number = self.open.pop(run_id)
        if ended.cause is None or ended.cause in (causes.PRUNED, causes.ERROR):
            self._tell(number, run_id, finished=ended.cause is None)

    def _tell(self, number: int, run_id: str, *, finished: bool) -> None:
        losses = self._losses(run_id)
        if finished and losses:
            self.study.tell(number, min(losses))
        else:
            pruned = bool(losses) and not finished
            self.study.tell(number, state=_state("PRUNED" if pruned else "FAIL"))

    def _losses(self, run_id: str) -> list[float]:
        return validation_losses(self.folder.run(run_id).path)

    def _trial(self, number: int) -> "optuna.Trial":
        import optuna

        # Optuna has no public way from a number to the id that its own constructor asks for.
        return optuna.Trial(self.study, self.study.get_trials(deepcopy=False)[number]._trial_id)


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
    samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    study.sampler = samplers[search.sampler](seed=seed)
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


def _state(name: str) -> Any:
    from optuna.trial import TrialState

    return TrialState[name]


def refuse_unranked(run: PlannedRun) -> None:
    """Raise ``UserError`` if a run would end without a validation loss to be ranked by."""
    if not run.experiment.training.epochs:
        raise UserError(
            "a search ranks runs by their validation loss: valid is training.epochs above 0"
        )
