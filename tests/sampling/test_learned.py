"""Laws of every sampler, and how the learned ones learn."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import laws
from kscout.errors import UserError
from kscout.sampling import (
    FIXED_MASKS,
    LEARNED_SAMPLERS,
    SAMPLERS,
    Budget,
    LearnedSampler,
    build_sampler,
)
from kscout.sampling.learned import GlobalSampler, LineSampler, TileSampler, known_mask

KINDS = sorted(LEARNED_SAMPLERS)
INITS = ["flat", "density", *sorted(FIXED_MASKS.keys() - {"file"})]
BUDGETS: list[Callable[[], Budget]] = [
    lambda: Budget.of((13, 10), n_lines=3),
    lambda: Budget.of((13, 30), n_lines=8, acs="lines", acs_size=3),
    lambda: Budget.of((28, 31), n_lines=31),
]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def learned(kind: str, budget: Budget, seed: int = 0, **options: Any) -> LearnedSampler:
    sampler = build_sampler(kind, budget, seed, **options)
    assert isinstance(sampler, LearnedSampler)
    return sampler


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("kind", sorted(SAMPLERS))
def test_every_sampler_keeps_its_contract(
    kind: str, budget: Callable[[], Budget], tmp_path: Path
) -> None:
    spent, options = budget(), {}
    if kind in LEARNED_SAMPLERS:
        options["noise"] = 0.5  # enough to move a column of a start as far away as a fixed mask is
    if kind == "file":
        options["path"] = tmp_path / "mask.npy"
        np.save(options["path"], build_sampler("low_frequency", spent, 0).mask().numpy())
    sampler = build_sampler(kind, spent, 1, **options)
    assert sampler.mask().dtype == torch.bool
    laws.exact_budget(sampler.mask(), spent)
    step = sampler(generator(0))
    assert step.dtype == torch.float32
    laws.exact_budget(step.detach().round(), spent)
    laws.deterministic(
        lambda seed: build_sampler(kind, spent, 1, **options)(generator(seed)).detach(),
        differs=isinstance(sampler, LearnedSampler) and spent.acceleration > 1,
    )
    restored = build_sampler(kind, spent, 2, **options)
    restored.load_state_dict(sampler.state_dict())
    assert torch.equal(restored.mask(), sampler.mask())


@pytest.mark.parametrize("kind", KINDS)
def test_noise_never_touches_the_budget(kind: str) -> None:
    budget = Budget.of((13, 30), n_lines=8, acs="lines", acs_size=3)
    sampler = learned(kind, budget, noise=3.0)
    drawn = [sampler(generator(seed)).detach().round() for seed in range(50)]
    for mask in drawn:
        laws.exact_budget(mask, budget)
    assert len({tuple(mask.flatten().tolist()) for mask in drawn}) > 10


@pytest.mark.parametrize("acs", ["none", "square"])
@pytest.mark.parametrize("kind", ["global", "tile"])
def test_a_budget_of_any_points_and_a_square_acs(kind: str, acs: Any) -> None:
    for n_samples in range(30, 130, 9):
        budget = Budget.of((13, 10), n_samples=n_samples, acs=acs, acs_size=4)
        sampler = learned(kind, budget, noise=1.0)
        laws.exact_budget(sampler.mask(), budget)
        laws.exact_budget(sampler(generator(0)).detach().round(), budget)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_scores_spend_no_more_than_the_budget(kind: str) -> None:
    for budget in (make() for make in BUDGETS):
        sampler = learned(kind, budget)
        for value in (0.0, 80.0, -80.0):
            torch.nn.init.constant_(sampler.scores, value)
            laws.exact_budget(sampler.mask(), budget)
            laws.exact_budget(sampler(generator(0)).detach().round(), budget)


@pytest.mark.parametrize("kind", KINDS)
def test_annealing_takes_the_noise_away(kind: str) -> None:
    sampler = learned(kind, Budget.of((13, 30), n_lines=8), init="flat", noise=0.5)

    def share_moved() -> float:
        masks = torch.stack([sampler(generator(seed)).detach() for seed in range(20)])
        return float((masks - sampler.mask().float()).abs().mean())

    moved = []
    for fraction, level in ((0.0, 0.5), (0.9, 0.05), (1.0, 0.0), (2.0, 0.0)):
        sampler.anneal(fraction)
        assert float(sampler.noise_level) == pytest.approx(level)
        moved.append(share_moved())
    assert moved[0] > moved[1] > moved[2]
    assert moved[2:] == [0, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_final_mask_has_no_noise(kind: str) -> None:
    budget = Budget.of((13, 30), n_lines=8)
    sampler, quiet = learned(kind, budget, noise=5.0), learned(kind, budget, noise=0.0)
    assert torch.equal(sampler.mask(), quiet.mask())
    assert torch.equal(sampler(None).bool(), quiet.mask())


def test_a_start_may_have_options() -> None:
    budget = Budget.of((13, 30), n_samples=97, acs="square", acs_size=3)
    init = {"kind": "spread_density", "power": 1.5}
    mask = learned("global", budget, seed=3, init=init).mask()
    assert torch.equal(mask, FIXED_MASKS["spread_density"](budget, 3, power=1.5))
    assert not torch.equal(mask, FIXED_MASKS["spread_density"](budget, 3))
    lines = Budget.of((13, 30), n_lines=8)
    found = learned("lines", lines, init=init).mask()
    assert torch.equal(found, FIXED_MASKS["spread_density"](lines, 0, power=1.5, lines=True))


@pytest.mark.parametrize(
    ("init", "said"),
    [
        ({"kind": "file"}, "valid as its kind is caipirinha"),
        ({"power": 1}, "valid as its kind is caipirinha"),
        (
            {"kind": "spread_density", "slope": 1},
            "'slope' is no option of spread_density",
        ),
        ({"kind": "spread_density", "power": -1}, "greater than or equal to 0"),
    ],
)
def test_a_start_with_impossible_options_is_refused(init: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        known_mask(init)


@pytest.mark.parametrize("init", INITS)
def test_a_global_sampler_starts_as_the_mask_that_it_is_told(init: str) -> None:
    budget = Budget.of((28, 31), n_lines=8, acs="lines", acs_size=2)
    mask = learned("global", budget, seed=3, init=init).mask()
    if init in FIXED_MASKS:
        assert torch.equal(mask, FIXED_MASKS[init](budget, 3))
    elif init == "density":
        inside = mask[14 - 3 : 14 + 4, 15 - 3 : 15 + 4]
        assert inside.float().mean() > 0.9
    else:
        assert not torch.equal(mask, learned("global", budget, seed=4, init=init).mask())


def test_points_and_lines_start_as_a_variable_density_if_told_nothing() -> None:
    budget = Budget.of((28, 31), n_lines=8, acs="lines", acs_size=2)
    points = FIXED_MASKS["variable_density"](budget, 3)
    lines = FIXED_MASKS["variable_density"](budget, 3, lines=True)
    assert torch.equal(learned("global", budget, seed=3).mask(), points)
    assert torch.equal(learned("staged", budget, seed=3).mask(), points)
    assert torch.equal(learned("lines", budget, seed=3).mask(), lines)
    assert torch.equal(learned("staged", budget, seed=3, unit="lines").mask(), lines)


def test_tiles_and_lines_start_as_a_pattern_of_their_kind(tmp_path: Path) -> None:
    budget = Budget.of((28, 32), acceleration=4)
    lattice = FIXED_MASKS["caipirinha"](budget, 0)
    for tile in ((4, 2), (4, 4), (8, 4)):
        assert torch.equal(learned("tile", budget, init="caipirinha", tile=tile).mask(), lattice)
    lines = FIXED_MASKS["uniform_lines"](budget, 0)
    assert torch.equal(learned("lines", budget, init="uniform_lines").mask(), lines)
    path = tmp_path / "mask.npy"
    np.save(path, lines.numpy())
    assert torch.equal(learned("lines", budget, init=str(path)).mask(), lines)


def test_a_tile_on_an_odd_plane_differs_from_its_repeat_at_the_edge_only() -> None:
    budget = Budget.of((29, 31), acceleration=4)
    sampler = learned("tile", budget, noise=0.0)
    repeat = sampler.expand((sampler.scores >= sampler.scores.flatten().sort().values[-4]).float())
    changed = torch.nonzero(repeat.bool() != sampler.mask())
    assert 0 < len(changed) == abs(int(repeat.sum()) - budget.n_samples)
    assert ((changed - torch.tensor([14, 15])).abs().max(1).values >= 13).all()


def test_lines_refuse_what_is_not_whole_lines() -> None:
    with pytest.raises(UserError, match=r"40 is not a multiple of 13.*n_lines 3 or 4"):
        LineSampler(Budget.of((13, 10), n_samples=40), 0)
    with pytest.raises(UserError, match="ACS of whole columns"):
        LineSampler(Budget.of((13, 10), n_lines=4, acs="square", acs_size=3), 0)


def test_tiles_refuse_what_does_not_fit() -> None:
    budget = Budget.of((13, 10), acceleration=4)
    with pytest.raises(UserError, match="tile of 14x2 does not fit"):
        TileSampler(budget, 0, tile=(14, 2))
    with pytest.raises(UserError, match="no point left"):
        TileSampler(Budget.of((13, 10), acceleration=40), 0, tile=(2, 2))


def expected_gradient(sampler: LearnedSampler, plane_gradient: Tensor) -> Tensor:
    """By hand: sum what a score covers, take the price off, go through the sigmoid."""
    copies = torch.zeros_like(sampler.scores)
    for place in range(copies.numel()):
        unit = torch.zeros(copies.numel())
        unit[place] = 1
        copies.view(-1)[place] = (sampler.expand(unit.view_as(copies)) * plane_gradient).sum()
    free = copies[~sampler.score_budget.acs]  # what must be acquired displaces nothing
    n_free = sampler.score_budget.n_samples - sampler.score_budget.n_acs
    price = free.sort().values[n_free - 1]
    p = torch.sigmoid(sampler.scores)
    return (copies - price) * p * (1 - p)


@pytest.mark.parametrize("with_noise", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_the_probabilities_less_the_price(
    kind: str, with_noise: bool
) -> None:
    budget = Budget.of((13, 10), n_lines=4, acs="lines", acs_size=2)
    sampler = learned(kind, budget, noise=0.3)
    weights = torch.randn((13, 10), generator=generator(1))
    (sampler(generator(0) if with_noise else None) * weights).sum().backward()
    gradient = sampler.scores.grad
    assert gradient is not None
    expected = expected_gradient(sampler, weights).detach()
    torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-4)
    # Descent raises the free points that gain more than the price and no other.
    free = gradient[~sampler.score_budget.acs]
    assert int((free <= 0).sum()) == sampler.score_budget.n_samples - sampler.score_budget.n_acs
    assert int((free == 0).sum()) == 1


@pytest.mark.parametrize("optimiser", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("kind", KINDS)
def test_descent_finds_the_most_important_points(
    kind: str, optimiser: type[torch.optim.Optimizer]
) -> None:
    """Loss: the importance of what was left out. The least is at the top of the list."""
    budget = Budget.of((12, 8), n_lines=2)
    sampler = learned(kind, budget, seed=1, init="flat", noise=0.2)
    ranks = torch.randperm(sampler.scores.numel(), generator=generator(2)) / sampler.scores.numel()
    importance = sampler.expand(ranks.view_as(sampler.scores))
    descent = optimiser(sampler.parameters(), lr=0.5)  # type: ignore[call-arg]
    for step in range(300):
        sampler.anneal(step / 300)
        descent.zero_grad()
        ((1 - sampler(generator(step))) * importance).sum().backward()
        descent.step()
    best = sampler.choose(ranks.view_as(sampler.scores))
    assert torch.equal(sampler.mask(), best)


def test_a_mask_of_everything_can_be_trained() -> None:
    sampler = GlobalSampler(Budget.of((5, 4), acceleration=1), 0)
    sampler(generator(0)).sum().backward()
    assert sampler.mask().all()


@pytest.mark.parametrize("kind", ["global", "lines"])
@pytest.mark.parametrize(("reach", "moves"), [(0.9, False), (1.2, True)])
def test_below_the_first_gap_no_gradient_moves_a_point(
    kind: str, reach: float, moves: bool
) -> None:
    budget = Budget.of((13, 30), n_lines=8, acs="lines", acs_size=4)
    sampler = learned(kind, budget, init="variable_density")
    before, steps = sampler.mask(), 50
    rate = reach * sampler.first_gap() / steps
    optimiser = torch.optim.Adam([sampler.scores])
    against = torch.where(sampler.reduce(before.float()) > 0.5, 1.0, -1.0)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * (1 - step / steps)
        sampler.scores.grad = against.clone()
        optimiser.step()
    assert torch.equal(sampler.mask(), before) != moves


def test_where_no_score_is_free_the_gap_is_infinite() -> None:
    budget = Budget.of((13, 30), n_lines=4, acs="lines", acs_size=4)
    assert learned("lines", budget, init="flat").first_gap() == math.inf
