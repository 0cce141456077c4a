"""The certificate beside masks is drawn from what no mask was made with."""

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
from kscout.learning.design import certify
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
    asked: list[tuple[Any, int, int]] = []

    def listening(masks: Any, data: Any, budget: Budget, seed: int, **options: Any) -> Any:
        asked.append((data, seed, options["acs_size"]))
        return certify(masks, data, budget, seed, n_steps=4, **options)

    monkeypatch.setattr(certificate, "certify", listening)
    runs, folder = runs_with_masks(two, splits, tmp_path), BenchFolder(tmp_path / "bench")
    found = certificate.bounds(two, folder, runs, splits, QUIET)
    assert list(found) == ["Gaussian SENSE"]  # the bound says nothing of the other
    assert list(found["Gaussian SENSE"]) == ["test", "test_coils"]
    expected = [
        (splits[name], seed, 5) for name in ("test", "test_coils") for seed in certificate.SEEDS
    ]
    assert all(a[0] is e[0] and a[1:] == e[1:] for a, e in zip(asked, expected, strict=True))
    for draws in found["Gaussian SENSE"].values():
        for of_mask in draws.values():
            gaps = np.subtract(of_mask["error_db"], of_mask["bound_db"])
            assert (gaps > 0).all()
            assert len(set(gaps.tolist())) == 3
    assert certificate.bounds(two, folder, runs, splits, QUIET) == found
    assert len(asked) == 6  # the second time from the files
    runs[-1].folder.write_array("mask.npy", runs[-2].folder.mask())
    certificate.bounds(two, folder, runs, splits, QUIET)
    assert len(asked) == 12  # another mask is another question


def test_no_suite_can_have_the_seeds_of_the_draws() -> None:
    for seed in certificate.SEEDS:
        with pytest.raises(ValueError, match="2147483648"):
            suite(seeds=[0, 1, seed])
