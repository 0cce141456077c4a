"""Rounding keeps budget and density, and keeps points apart."""

import pytest
import torch

import laws
from kscout.sampling import FIXED_MASKS, Budget
from kscout.sampling.budget import line_budget, squared_radius
from kscout.sampling.rounding import diffuse, spend


@pytest.mark.parametrize("n_samples", [9, 10, 47, 129])
def test_rounding_keeps_the_budget(n_samples: int) -> None:
    shape = (13, 10)
    budget = Budget.of(shape, n_samples=n_samples, acs="square", acs_size=3)
    weights = torch.rand(shape, generator=torch.Generator().manual_seed(0)) ** 4
    relaxed = spend(weights, budget)
    assert float(relaxed.sum()) == pytest.approx(n_samples, rel=1e-5)
    assert float(relaxed.max()) <= 1
    assert (relaxed[budget.acs] == 1).all()
    laws.exact_budget(diffuse(relaxed, budget), budget)


def test_diffusion_follows_the_density() -> None:
    budget = Budget.of((40, 48), n_samples=480)
    relaxed = torch.full((40, 48), 0.1)
    relaxed[:, 24:] = 0.4
    mask = diffuse(relaxed, budget)
    assert int(mask[:, 24:].sum()) == pytest.approx(384, abs=15)


def test_spread_points_are_farther_apart_than_drawn_ones() -> None:
    """At the same density: fewer pairs of direct neighbours."""
    budget = Budget.of((80, 97), acceleration=8)
    pairs = {}
    for kind in ("spread_density", "variable_density"):
        mask = FIXED_MASKS[kind](budget, 0, power=2)
        pairs[kind] = int((mask[1:] & mask[:-1]).sum() + (mask[:, 1:] & mask[:, :-1]).sum())
    assert pairs["spread_density"] < 0.8 * pairs["variable_density"]


@pytest.mark.parametrize(("n_lines", "acs_size"), [(24, 8), (12, 0), (31, 5)])
def test_spread_lines_follow_the_density(n_lines: int, acs_size: int) -> None:
    """Whole columns, as many as budgeted; between any two of the density at most one too few."""
    budget = Budget.of(
        (7, 97), n_lines=n_lines, acs="lines" if acs_size else "none", acs_size=acs_size
    )
    mask = FIXED_MASKS["spread_density"](budget, 0, power=1, lines=True)
    laws.exact_budget(mask, budget)
    assert (mask == mask[:1]).all()
    lines = line_budget(budget)
    density = (1 - squared_radius(lines.shape).sqrt()).clamp(min=1e-6)
    excess = (mask[0].double() - spend(density, lines)[0]).cumsum(0)
    assert float(excess.max() - excess.min()) < 2
