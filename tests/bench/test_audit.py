"""Every breach that the audit must find, provoked for real."""

import csv
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from bench.conftest import COMMAND, Done
from bench.suites import TINY, suite
from kscout.bench import audit
from kscout.bench.folder import BenchFolder, BenchRun
from kscout.bench.run import run_suite
from kscout.data import Splits
from kscout.data.digits import digits
from kscout.errors import UserError
from kscout.experiment import RunFolder
from kscout.experiment.run import Method
from kscout.sampling import Budget
from kscout.sweep.launch import Launch

QUIET = Console(quiet=True)
VARIABLE = TINY["masks"]["variable density"]


@pytest.fixture(scope="module")
def splits() -> Splits:
    return digits(n_train=16, n_val=6, n_test=9)


def breach(splits: Splits, **changes: Any) -> str:
    with pytest.raises(UserError) as refusal:
        audit.before(suite(**changes), splits)
    return str(refusal.value)


def test_a_fair_suite_passes_and_says_what_was_counted(splits: Splits) -> None:
    found = {finding.check: finding.found for finding in audit.before(suite(), splits)}
    assert "2 trials for every method" in found["same tuning"]
    assert "197 of 28x28 points" in found["same budget"]
    assert "25 of them calibration" in found["same budget"]
    assert "4 masks counted" in found["same budget"]
    assert "test 9 scans of 9 slices" in found["no scan and no slice in two splits"]
    assert "1 epoch of 16 slices in batches of 8 (2 steps)" in found["same training: stack"]
    assert found["same training: stack"].endswith("; the same for every mask")


def test_a_reconstructor_without_weights_is_trained_with_no_fixed_mask(splits: Splits) -> None:
    gaussian = {"reconstructor": {"kind": "gaussian_sense", "acs_size": 5}}
    found = dict(audit.before(suite(reconstructors={"Gaussian SENSE": gaussian}), splits))
    said = found["same training: Gaussian SENSE"]
    assert said.endswith("; the same for every mask that is trained by gradient")


def test_one_step_is_said_to_be_one(splits: Splits) -> None:
    found = audit.before(suite(training={"epochs": 1, "batch_size": 16}), splits)
    said = next(finding.found for finding in found if finding.check == "same training: stack")
    assert "1 epoch of 16 slices in batches of 16 (1 step), rate 0.001, " in said


def test_a_condition_of_one_slice_is_refused(splits: Splits) -> None:
    single = splits | {"test": splits["test"].select([0])}
    assert "'test' has 1 slice, over which nothing varies" in breach(single)


def test_unequal_tuning_names_the_method_its_count_and_the_allowed_one(splits: Splits) -> None:
    more = [*TINY["masks"]["learned"], {"kind": "lines"}]
    masks = TINY["masks"] | {"learned": more, "lines": [{"kind": "lines"}, {"kind": "tile"}]}
    said = breach(splits, masks=masks)
    assert said.startswith("method 'learned' has 3 different trials: allowed is 2")
    masks = TINY["masks"] | {"one": [VARIABLE[0], VARIABLE[0]]}
    assert breach(splits, masks=masks).startswith("method 'one' has 1 different trial: allowed is")


def test_a_mask_beyond_the_budget_names_the_method_its_count_and_the_allowed_one(
    splits: Splits, tmp_path: Path
) -> None:
    mask = Method.of(suite().experiment("stack", "learned", 0, 0), splits).mask()
    mask.view(-1)[torch.nonzero(~mask.flatten())[0]] = True
    np.save(tmp_path / "mask.npy", mask.numpy())
    file = {"kind": "file", "path": str(tmp_path / "mask.npy")}
    masks = TINY["masks"] | {"mine": [VARIABLE[0], file]}
    said = breach(splits, masks=masks)
    assert said.startswith("method 'mine', trial 2: ")
    assert "198" in said
    assert "197" in said


def test_a_mask_without_its_acs_is_refused() -> None:
    budget = Budget.of((9, 7), n_samples=12, acs="square", acs_size=2)
    with pytest.raises(UserError, match="lacks 4 of the 4 points of the ACS"):
        audit.check_mask((~budget.acs).flatten().cumsum(0).le(12).view(9, 7) & ~budget.acs, budget)


def test_an_impossible_budget_names_the_method(splits: Splits) -> None:
    with pytest.raises(UserError, match="ACS alone has 625 points"):
        audit.before(suite(budget=TINY["budget"] | {"acs_size": 25}), splits)


def test_a_scan_or_a_slice_in_two_splits_is_found(splits: Splits) -> None:
    test = splits["test"]
    shared = splits | {"test": replace(test, volume=splits["train"].volume[: len(test)])}
    assert "is in both 'train' and 'test'" in breach(shared)
    again = torch.cat([test.kspace[:-1], splits["train"].kspace[5:6]])
    assert "the same slice of k-space is in both 'train' and 'test'" in breach(
        splits | {"test": replace(test, kspace=again)}
    )


def test_trials_need_validation_data(splits: Splits) -> None:
    without = splits | {"val": splits["val"].select([])}
    assert "valid is data with a val split, or one trial" in breach(without)
    single = {name: trials[:1] for name, trials in TINY["masks"].items()}
    audit.before(suite(masks=single), without)


def runs_of(folder: Path) -> list[BenchRun]:
    return BenchFolder(folder).tuning_runs(suite())


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def edit_rows(path: Path, edit: Callable[[list[dict[str, str]]], object]) -> None:
    rows = rows_of(path)
    edit(rows)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def records(edit: Callable[[list[dict[str, str]]], object]) -> Callable[[Path], None]:
    return lambda run: edit_rows(run / "records.csv", edit)


def set_score(name: str, value: str) -> Callable[[Path], None]:
    return records(lambda rows: rows[-1].update({name: value}))


def edit_mask(edit: Callable[[Any], Any]) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        np.save(run / "mask.npy", edit(np.load(run / "mask.npy")))

    return change


def with_one_more(mask: Any) -> Any:
    mask.flat[np.flatnonzero(~mask)[0]] = True
    return mask


def with_one_moved(mask: Any) -> Any:
    mask.flat[np.flatnonzero(mask)[0]] = False
    return with_one_more(mask)


def with_many_moved(mask: Any) -> Any:
    """The ACS and as many points, all at one end."""
    acs = Budget.of(mask.shape, n_samples=197, acs="square", acs_size=5).acs.numpy()
    free = np.flatnonzero(~acs)[: mask.sum() - acs.sum()]
    acs.flat[free] = True
    return acs


def without_the_acs(mask: Any) -> Any:
    mask[14, 14] = False
    return with_one_more(mask)


def as_it_began(run: Path) -> None:
    """The mask that training started from, in place of the one it ended with."""
    method = Method.of(RunFolder(run).experiment(), digits(n_train=16, n_val=6, n_test=9))
    np.save(run / "mask.npy", method.mask().numpy())


def edit_weights(run: Path) -> None:
    kept = torch.load(run / "checkpoint.ckpt", weights_only=True)
    for weights in kept["reconstructor"].values():
        weights *= 0.5
    torch.save(kept, run / "checkpoint.ckpt")


def edit_config(run: Path) -> None:
    tree = yaml.safe_load((run / "config.yaml").read_text())
    tree["training"]["epochs"] = 40
    (run / "config.yaml").write_text(yaml.safe_dump(tree))


FIXED, LEARNED = 0, 2
BREACHES = [
    (FIXED, edit_mask(with_one_more), "acquires 198 points: allowed is 197"),
    (LEARNED, edit_mask(without_the_acs), "lacks 1 of the 25 points of the ACS"),
    (LEARNED, edit_mask(lambda mask: mask.astype(float)), "mask.npy is float64"),
    (FIXED, edit_mask(with_one_moved), "not the mask that its settings make"),
    (LEARNED, edit_mask(with_many_moved), "do not belong together"),
    (LEARNED, as_it_began, "do not belong together"),
    (LEARNED + 1, as_it_began, "do not belong together"),  # of both trials one is not chosen
    (LEARNED, edit_weights, "do not belong together"),
    (FIXED, set_score("nmse", "1e-9"), "is kept as 1e-09"),
    (FIXED, set_score("psnr", "inf"), "psnr of slice 0 of volume 30 (test) is inf"),
    (FIXED, set_score("ssim", "nan"), "is nan: allowed are finite"),
    (FIXED, set_score("nmse_kspace", "0"), "allowed are finite"),
    (FIXED, records(lambda rows: rows.pop()), "lacks 1 slice and has 0"),
    (FIXED, records(lambda rows: rows.pop(0)), "lacks 1 slice and has 0"),
    (FIXED, records(lambda rows: rows.append(rows[-1])), "lacks 0 slices and has 1"),
    (FIXED, lambda run: edit_rows(run / "metrics.csv", lambda rows: rows.append(rows[0])), "2 epo"),
    (FIXED, edit_config, "config.yaml is another experiment's"),
]


@pytest.mark.parametrize(("which", "tamper", "said"), BREACHES)
def test_what_was_tampered_with_is_found_and_named(
    done: Done,
    splits: Splits,
    tmp_path: Path,
    which: int,
    tamper: Callable[[Path], None],
    said: str,
) -> None:
    shutil.copytree(done.folder.path, tmp_path / "bench")
    runs = runs_of(tmp_path / "bench")
    audit.after(suite(), runs, splits, QUIET)
    tamper(runs[which].folder.path)
    with pytest.raises(UserError) as refusal:
        audit.after(suite(), runs, splits, QUIET)
    assert said in str(refusal.value)
    run = runs[which]
    label = f"method '{run.method}' with 'stack', trial {run.trial + 1}, seed 3"
    assert label in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_training_did_is_told(done: Done, splits: Splits) -> None:
    runs = runs_of(done.folder.path)
    found = dict(audit.after(suite(), runs, splits, QUIET))
    assert found["epochs of gradient descent done"] == (
        "stack, fixed masks: 1; stack, masks learned by gradient: 1"
    )
    moved = found["points that training moved"].removeprefix("learned with stack: ")
    assert all(0 < int(n) < 197 - 25 for n in moved.split(" to "))


def began(tmp_path: Path, splits: Splits, **budget: int) -> tuple[BenchRun, Method]:
    """A run whose mask is the one that it began from."""
    whole = suite(budget=TINY["budget"] | budget)
    planned = whole.planned("stack", "learned", 0, 3)
    run = BenchRun("stack", "learned", 0, 3, planned.experiment, RunFolder(tmp_path))
    method = Method.of(planned.experiment, splits)
    run.folder.write_array("mask.npy", method.mask())
    return run, method


def test_a_mask_that_could_not_move_is_refused_and_one_that_did_not_is_told(
    tmp_path: Path, splits: Splits
) -> None:
    run, method = began(tmp_path, splits)
    rate = run.experiment.training.mask_learning_rate
    gap = method.sampler.first_gap()
    assert 0 < gap < 2.3
    with pytest.raises(
        UserError, match=r"moves no point.* cannot reach any: valid is mask_learning_rate x steps"
    ):
        audit.points_moved(run, method, 0)
    assert audit.points_moved(run, method, math.ceil(gap / rate)) == 0


def test_a_mask_that_cannot_move_is_refused_before_anything_is_run(splits: Splits) -> None:
    slow = TINY["training"] | {"mask_learning_rate": 1e-9}
    with pytest.raises(UserError, match=r"method 'learned', trial 1: training moves no point"):
        audit.before(suite(training=slow), splits)


def test_one_point_that_moved_shows_that_points_can_move(tmp_path: Path, splits: Splits) -> None:
    run, method = began(tmp_path, splits)
    mask = method.mask().flatten()
    acquired = torch.nonzero(mask & ~method.budget.acs.flatten())[0]
    missing = torch.nonzero(~mask)[0]
    mask[acquired], mask[missing] = False, True
    run.folder.write_array("mask.npy", mask.view(28, 28))
    assert audit.points_moved(run, method, 0) == 1


def test_where_the_acs_is_the_budget_nothing_has_to_move(tmp_path: Path, splits: Splits) -> None:
    run, method = began(tmp_path, splits, n_samples=25)
    assert audit.points_moved(run, method, 0) == 0


def test_no_number_is_written_after_a_breach(done: Done, tmp_path: Path) -> None:
    folder = BenchFolder(tmp_path / "bench")
    shutil.copytree(done.folder.path, folder.path)
    edit_weights(runs_of(folder.path)[FIXED].folder.path)
    with pytest.raises(UserError, match="do not belong together"):
        run_suite(suite(), folder, tmp_path / "results", Launch(), COMMAND, QUIET)
    assert not list((tmp_path / "results").iterdir())
