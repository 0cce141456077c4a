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
from kscout.sweep.search import choose, open_study
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
    resume(folder, Launch(at_once=1), QUIET)
    assert len(open_study(folder).trials) == 9
    finished = [s.state for s in run_states(folder, planned)].count(FINISHED)
    assert finished == ends.count("COMPLETE")


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
    with pytest.raises(UserError, match=r"valid is training\.epochs above 0"):
        start(SweepFolder(tmp_path), Sweep.model_validate(SEARCH | {"base": base}), Launch(), QUIET)
