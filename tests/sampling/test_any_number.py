"""Masks of any number of points: bounds, ACS, determinism, and a test mask of the exact budget."""

from typing import Any

import pytest
import torch
from torch import Tensor

import laws
from kscout.recon import ZeroFilled
from kscout.sampling import AnyNumberSampler, Budget
from laws import complex_normal

SHAPE = (17, 22)
UNITS: list[tuple[Any, Budget]] = [
    ("points", Budget.of(SHAPE, n_samples=91, acs="square", acs_size=5)),
    ("points", Budget.of((13, 9), acceleration=4)),
    ("lines", Budget.of(SHAPE, n_lines=9, acs="lines", acs_size=3)),
]


def drawn(sampler: AnyNumberSampler, seed: int | None, n: int = 300) -> Tensor:
    kspace = complex_normal((n, 1, *sampler.budget.shape))
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return sampler.for_slices(kspace, ZeroFilled(1), generator=generator)


@pytest.mark.parametrize(("unit", "budget"), UNITS)
def test_numbers_go_from_the_acs_to_the_budget(unit: Any, budget: Budget) -> None:
    masks = drawn(AnyNumberSampler(budget, 0, unit=unit), 1)
    assert masks.shape == (300, 1, *budget.shape)
    assert ((masks == 0) | (masks == 1)).all()
    assert masks[..., budget.acs].all()
    counts = masks.sum((-2, -1)).flatten()
    if unit == "lines":
        assert torch.equal(masks, masks[..., :1, :].expand_as(masks))
        counts = counts / budget.shape[0]
    most = budget.n_samples // (budget.shape[0] if unit == "lines" else 1)
    least = max(1, budget.n_acs // (budget.shape[0] if unit == "lines" else 1))
    assert (counts.min(), counts.max()) == (least, most)
    middle = (counts < (least + most) / 2).float().mean()
    assert 0.35 < middle < 0.65


@pytest.mark.parametrize(("unit", "budget"), UNITS)
def test_what_is_tested_has_the_exact_budget(unit: Any, budget: Budget) -> None:
    sampler = AnyNumberSampler(budget, 3, unit=unit)
    laws.exact_budget(sampler.mask(), budget)
    assert torch.equal(drawn(sampler, None), sampler.mask().float())


def test_draws_repeat_and_the_middle_comes_more_often() -> None:
    sampler = AnyNumberSampler(Budget.of((12, 33), n_lines=8), 0)
    one, same, other = drawn(sampler, 5), drawn(sampler, 5), drawn(sampler, 6)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    often = one[:, 0, 0].mean(0)
    assert often[12:21].min() > 2 * often[[0, 1, 2, 30, 31, 32]].max()
    flat = drawn(AnyNumberSampler(Budget.of((12, 33), n_lines=8), 0, power=0.0), 5)[:, 0, 0].mean(0)
    assert flat.max() < 2 * flat.min()
