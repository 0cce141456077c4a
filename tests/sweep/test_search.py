"""Runs that Optuna chooses."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from commands import TINY
from kscout.errors import UserError
from kscout.sweep.coordinate import resume, start
from kscout.sweep.folder import SweepFolder, validation_losses
from kscout.sweep.launch import Launch
from kscout.sweep.search import StudyOfRuns, choose, open_study
from kscout.sweep.spec import Sweep
from kscout.sweep.status import FINISHED, run_states

QUIET = Console(quiet=True)
SEARCH: dict[str, Any] = {
    "name": "search",
    "base": TINY | {"training": {"epochs": 4, "batch_size": 16}},
    "grid": {"sampler.kind": ["global", "tile"]},
    "search": {
        "n_trials": 9,
        "ranges": {
            "training.learning_rate": {"low": 1e-5, "high": 0.03, "log": True},
            "reconstructor.n_blocks": {"low": 1, "high": 3, "step": 1},
        },
    },
}


def test_a_search_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    """Stopped between two trials and in the middle of one; no trial is lost or done twice."""
    folder = SweepFolder(tmp_path / "search")
    sweep = Sweep.model_validate(SEARCH)
    folder.claim(sweep)
    trial = open_study(folder).ask()  # as if killed before the first run was handed out
    folder.add_trial(0, choose(trial, sweep))
    start(folder, sweep, Launch(at_once=1), QUIET)
    study = open_study(folder)
    ends = [trial.state.name for trial in study.trials]
    assert len(ends) == 9
    assert set(ends) <= {"COMPLETE", "PRUNED"}
    assert ends[:5] == ["COMPLETE"] * 5  # with fewer there is no median
    planned = folder.planned()
    for number, (run, ended) in enumerate(zip(planned, study.trials, strict=True)):
        losses = validation_losses(folder.run(run.id).path)
        assert folder.trials()[number].keys() == {
            "sampler.kind", "training.learning_rate", "reconstructor.n_blocks",
        }  # fmt: skip
        if ended.state.name == "COMPLETE":
            assert ended.value == min(losses)
            reported = ended.intermediate_values
            assert reported == dict(enumerate(losses[: len(reported)]))
    tries = [len(status.attempts) for status in run_states(folder, planned)]
    assert tries == [1] * 9
    for status in run_states(folder, planned):  # a pruned run has no more than the others
        assert status.epochs <= 4
    resume(folder, Launch(at_once=1), QUIET)
    assert len(open_study(folder).trials) == 9
    finished = [s.state for s in run_states(folder, planned)].count(FINISHED)
    assert finished == ends.count("COMPLETE")


def test_a_search_grows_by_more_trials(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "search")
    folder.claim(Sweep.model_validate(SEARCH))
    more = SEARCH | {"search": SEARCH["search"] | {"n_trials": 20}}
    folder.refuse_other(Sweep.model_validate(more))
    for other in ({"n_trials": 3}, {"n_trials": 20, "seed": 1}):
        changed = Sweep.model_validate(SEARCH | {"search": SEARCH["search"] | other})
        with pytest.raises(UserError, match="holds another sweep"):
            folder.refuse_other(changed)


def test_choices_keep_to_lists_and_ranges() -> None:
    import optuna

    sweep = Sweep.model_validate(SEARCH)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    chosen = [choose(study.ask(), sweep) for _ in range(50)]
    assert {c["sampler.kind"] for c in chosen} == {"global", "tile"}
    assert {c["reconstructor.n_blocks"] for c in chosen} == {1, 2, 3}
    assert all(isinstance(c["reconstructor.n_blocks"], int) for c in chosen)
    rates = sorted(c["training.learning_rate"] for c in chosen)
    assert 1e-5 <= rates[0] < 1e-4 < 3e-3 < rates[-1] <= 0.03


def test_a_search_needs_a_validation_loss(tmp_path: Path) -> None:
    base = TINY | {"training": {"epochs": 0}}
    without = TINY | {"data": {"kind": "digits", "n_train": 64, "n_val": 0, "n_test": 16}}
    for changed in (base, without):
        sweep = Sweep.model_validate(SEARCH | {"base": changed})
        with pytest.raises(UserError, match="a search ranks runs by their validation loss"):
            start(SweepFolder(tmp_path / "search"), sweep, Launch(), QUIET)
    assert not (tmp_path / "search" / "sweep.yaml").exists()


def test_a_run_that_is_chosen_twice_or_left_at_work_keeps_its_trials(tmp_path: Path) -> None:
    """As after the death of a coordinator whose jobs SLURM goes on with."""
    folder = SweepFolder(tmp_path / "search")
    sweep = Sweep.model_validate(SEARCH)
    folder.claim(sweep)
    study = open_study(folder)
    study.enqueue_trial({"sampler.kind": 1, "training.learning_rate": 0.01})
    study.enqueue_trial({"sampler.kind": 1, "training.learning_rate": 0.01})
    runs = StudyOfRuns(folder, Launch())
    first, attempt = next(tasks := runs.tasks())
    folder.add_attempt(first["name"], attempt)
    with folder.run(first["name"]).locked():  # at work
        again = StudyOfRuns(folder, Launch())
        tree, _ = next(again.tasks())
        assert tree["name"] != first["name"]
        assert again.at_work.keys() == {first["name"], tree["name"]}
    assert not any(trial.state.is_finished() for trial in again.study.trials)
    del tasks


def test_a_choice_that_is_no_experiment_costs_its_trial_alone(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "search")
    ranges = {"reconstructor.kernel_size": {"low": 3, "high": 7, "step": 1}}
    search = {"n_trials": 12, "ranges": ranges, "sampler": "random"}
    folder.claim(Sweep.model_validate(SEARCH | {"search": search}))
    runs = StudyOfRuns(folder, Launch())
    sizes = {tree["reconstructor"]["kernel_size"] for tree, _ in runs.tasks()}
    assert sizes <= {3, 5, 7}
    failed = [t.state.name for t in open_study(folder).trials].count("FAIL")
    assert 0 < failed == 12 - len(folder.trials())
    assert len(folder.planned()) == len(runs.at_work)
