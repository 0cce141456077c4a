"""Budgets are exact, the ACS is part of them, and impossible ones are refused in one line."""

import pytest
import torch

from kscout.errors import UserError
from kscout.physics.fourier import centre_slice
from kscout.sampling.budget import (
    Budget,
    acs_region,
    fit_to_budget,
    squared_radius,
    take_highest,
)

SHAPES = [(28, 28), (121, 145), (7, 30), (5, 1)]


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_centre_slice_holds_dc_and_stays_on_the_axis(n: int) -> None:
    for size in range(1, n + 1):
        indices = list(range(n))[centre_slice(n, size)]
        assert len(indices) == size
        assert n // 2 in indices


def test_acs_regions() -> None:
    assert int(acs_region((7, 30), "none", 3).sum()) == 0
    square = acs_region((7, 30), "square", 4)
    assert square[1:5, 13:17].all()
    assert int(square.sum()) == 16
    lines = acs_region((7, 30), "lines", 3)
    assert lines[:, 14:17].all()
    assert int(lines.sum()) == 21


@pytest.mark.parametrize(("kind", "size"), [("square", 0), ("square", 8), ("lines", 31)])
def test_acs_off_the_plane_is_refused(kind: str, size: int) -> None:
    with pytest.raises(UserError, match=rf"acs_size {size} does not fit.* is 1 to (7|30)$"):
        acs_region((7, 30), kind, size)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("acceleration", [1, 2, 3.3, 4])
def test_budget_of_an_acceleration(shape: tuple[int, int], acceleration: float) -> None:
    budget = Budget.of(shape, acceleration=acceleration)
    plane = shape[0] * shape[1]
    assert abs(budget.n_samples - plane / acceleration) <= 0.5
    assert budget.acceleration == plane / budget.n_samples


def test_budget_of_lines_and_points() -> None:
    assert Budget.of((7, 30), n_lines=8).n_samples == 56
    budget = Budget.of((7, 30), n_samples=50, acs="square", acs_size=3)
    assert budget.n_samples == 50
    assert budget.n_acs == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of .*: 0 given"),
        ({"acceleration": 4, "n_lines": 2}, "exactly one of .*: 2 given"),
        ({"acceleration": 0.9}, "acceleration 0.9 is impossible .* valid is 1 to 210"),
        ({"acceleration": 211}, "acceleration 211 is impossible"),
        ({"acceleration": float("nan")}, "acceleration nan is impossible"),
        ({"n_lines": 31}, "n_lines 31 is impossible .* valid is 1 to 30"),
        ({"n_lines": 0}, "n_lines 0 is impossible"),
        ({"n_samples": 0}, "budget of 0 samples is impossible .* valid is 1 to 210"),
        ({"n_samples": 211}, "budget of 211 samples is impossible"),
        (
            {"n_samples": 15, "acs": "square", "acs_size": 4},
            "ACS alone has 16 points, more than the budget of 15",
        ),
    ],
)
def test_impossible_budgets_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        Budget.of((7, 30), **options)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", SHAPES)
def test_radius_is_zero_at_dc_only_and_one_at_the_edge(shape: tuple[int, int]) -> None:
    radius = squared_radius(shape)
    assert radius[shape[0] // 2, shape[1] // 2] == 0
    assert int((radius == 0).sum()) == 1
    assert radius.max() <= 2


def test_radius_at_the_middle_of_an_even_edge() -> None:
    radius = squared_radius((28, 12))
    assert radius[0, 6] == 1
    assert radius[14, 0] == 1


def test_take_highest_breaks_ties_and_keeps_the_acs() -> None:
    budget = Budget.of((7, 30), n_samples=50, acs="square", acs_size=3)
    mask = take_highest(torch.zeros(7, 30), budget)
    assert int(mask.sum()) == 50
    assert mask[budget.acs].all()
    rest = mask.flatten()[~budget.acs.flatten()]
    assert rest[:41].all()  # the lower index first


def test_take_highest_takes_the_highest() -> None:
    scores = torch.randn(7, 30, generator=torch.Generator().manual_seed(0))
    mask = take_highest(scores, Budget.of((7, 30), n_samples=50))
    assert scores[mask].min() > scores[~mask].max()


@pytest.mark.parametrize("n_samples", [20, 105, 150])
def test_fit_changes_the_pattern_only_outside_the_kept_radius(n_samples: int) -> None:
    pattern = torch.zeros(7, 30, dtype=torch.bool)
    pattern[:, ::2] = True
    budget = Budget.of((7, 30), n_samples=n_samples, acs="square", acs_size=3)
    mask = fit_to_budget(pattern, budget)
    wanted = pattern | budget.acs
    assert int(mask.sum()) == n_samples
    assert mask[budget.acs].all()
    radius = squared_radius((7, 30))
    changed = mask != wanted
    added = n_samples > int(wanted.sum())
    candidates = ~wanted if added else wanted & ~budget.acs
    assert radius[changed].min() >= radius[candidates & ~changed].max()
    assert (mask[changed] == added).all()


def test_fit_leaves_a_pattern_that_fits_alone() -> None:
    pattern = torch.rand(7, 30, generator=torch.Generator().manual_seed(1)) < 0.3
    budget = Budget.of((7, 30), n_samples=int(pattern.sum()))
    assert torch.equal(fit_to_budget(pattern.float(), budget), pattern)
