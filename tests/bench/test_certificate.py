"""The certificate beside masks is drawn from what no mask was made with."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from bench.suites import TINY, suite
from kscout.bench import certificate
from kscout.bench.folder import BenchFolder, BenchRun
from kscout.bench.suite import Suite
from kscout.data import Splits
from kscout.data.digits import digits
from kscout.experiment import RunFolder
from kscout.learning.design import Certificate, certify
from kscout.sampling import FIXED_MASKS, Budget

QUIET = Console(quiet=True)
GAUSSIAN = {"reconstructor": {"kind": "gaussian_sense", "acs_size": 5}}


@pytest.fixture(scope="module")
def splits() -> Splits:
    found = digits(n_train=16, n_val=6, n_test=9)
    return found | {"test_coils": found["test"].select([0, 1, 2])}


@pytest.fixture(scope="module")
def two() -> Suite:
    return suite(reconstructors=TINY["reconstructors"] | {"Gaussian SENSE": GAUSSIAN})


def runs_with_masks(two: Suite, splits: Splits, path: Path) -> list[BenchRun]:
    """Runs that hold a mask and nothing else."""
    budget = Budget.of(splits["train"].shape, **two.budget.options())
    runs = []
    for name in two.reconstructors:
        for method, kind in zip(two.masks, ("variable_density", "random_points"), strict=True):
            folder = RunFolder(path / name / method)
            folder.write_array("mask.npy", FIXED_MASKS[kind](budget, 0))
            runs.append(BenchRun(name, method, 0, 3, two.experiment(name, method, 0, 3), folder))
    return runs


def test_draws_are_of_held_out_slices_and_of_no_seed_of_the_suite(
    two: Suite, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[Any, int, int]] = []

    def listening(masks: Any, data: Any, budget: Budget, seed: int, **options: Any) -> Any:
        drawn.append((data, seed, options["acs_size"]))
        return certify(masks, data, budget, seed, n_steps=4, **options)

    monkeypatch.setattr(certificate, "certify", listening)
    runs, folder = runs_with_masks(two, splits, tmp_path), BenchFolder(tmp_path / "bench")
    found = certificate.bounds(two, folder, runs, splits, QUIET)
    assert list(found) == ["Gaussian SENSE"]  # the bound says nothing of the other
    assert list(found["Gaussian SENSE"]) == ["test", "test_coils"]
    expected = [
        (splits[name], seed, 5) for name in ("test", "test_coils") for seed in certificate.SEEDS
    ]
    assert all(a[0] is e[0] and a[1:] == e[1:] for a, e in zip(drawn, expected, strict=True))
    for draws in found["Gaussian SENSE"].values():
        for of_mask in draws.values():
            gaps = np.subtract(of_mask["error_db"], of_mask["bound_db"])
            assert len(set(gaps.tolist())) == 3


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The masks that were asked for in each draw; certificates are made up."""
    found: list[list[str]] = []

    def made_up(masks: Any, *args: Any, **options: Any) -> dict[str, Certificate]:
        found.append(list(masks))
        return dict.fromkeys(masks, Certificate(-10.0, -12.0, False))

    monkeypatch.setattr(certificate, "certify", made_up)
    return found


def test_what_was_asked_before_is_kept_and_nothing_else(
    two: Suite,
    splits: Splits,
    tmp_path: Path,
    asked: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs, folder = runs_with_masks(two, splits, tmp_path), BenchFolder(tmp_path / "bench")

    def n_draws(data: Splits) -> int:
        before = len(asked)
        certificate.bounds(two, folder, runs, data, QUIET)
        return len(asked) - before

    assert n_draws(splits) == 6
    assert n_draws(splits) == 0
    test = splits["test"]
    fainter = replace(test, kspace=test.kspace * 0.99)
    assert n_draws(splits | {"test": fainter}) == 3  # of one of both conditions
    monkeypatch.setattr(certificate, "N_CERTIFIED", 1)
    assert n_draws(splits) == 6
    runs[-1].folder.write_array("mask.npy", runs[-2].folder.mask())
    assert n_draws(splits) == 6
    for path in (folder.path / "certificate").iterdir():
        kept = json.loads(path.read_text())
        del kept["learned"]
        path.write_text(json.dumps(kept))
    assert n_draws(splits) == 6  # a file of other masks is none


@pytest.mark.usefixtures("asked")
def test_masks_of_which_every_slice_has_its_own_are_left_out(
    splits: Splits, tmp_path: Path
) -> None:
    staged = [{"kind": "staged"}, {"kind": "staged", "noise": 0.4}]
    masks = TINY["masks"] | {"learned": staged}
    own = suite(masks=masks, reconstructors={"Gaussian SENSE": GAUSSIAN})
    runs, folder = runs_with_masks(own, splits, tmp_path), BenchFolder(tmp_path / "bench")
    found = certificate.bounds(own, folder, runs, splits, QUIET)
    assert list(found["Gaussian SENSE"]["test"]) == ["variable density"]


def test_no_suite_can_have_the_seeds_of_the_draws() -> None:
    for seed in certificate.SEEDS:
        with pytest.raises(ValueError, match="2147483648"):
            suite(seeds=[0, 1, seed])
