"""The certificate against exhaustive search, the sampled trace against dense algebra."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import laws
from kscout.data.slices import KspaceSet
from kscout.errors import UserError
from kscout.learning.design import (
    ExactError,
    ExpectedError,
    certify,
    drawn,
    linear_reconstruction,
    optimal_design,
    relax,
)
from kscout.learning.exchange import MeasuredError, exchange
from kscout.physics.fourier import image_to_kspace
from kscout.physics.gaussian import GaussianScan, mirror
from kscout.recon import ZeroFilled
from kscout.sampling import FIXED_MASKS, Budget
from kscout.sampling.budget import line_budget

SHAPE = (5, 4)


def scan(shape: tuple[int, int] = SHAPE, n_slices: int = 3, seed: int = 0) -> GaussianScan:
    generator = torch.Generator().manual_seed(seed)
    maps = laws.complex_normal((n_slices, 3, *shape), seed)
    maps = maps / maps.abs().square().sum(1, keepdim=True).sqrt()
    spectrum = torch.rand(shape, generator=generator) + 0.05
    spectrum = spectrum + mirror(spectrum)
    magnitude = torch.rand((n_slices, *shape), generator=generator) + 0.1
    return GaussianScan(maps, magnitude, torch.stack([spectrum, 0.2 * spectrum]), 0.4)


def exact(made: GaussianScan, mask: Tensor) -> float:
    """Mean over slices of the posterior's trace over the prior's, by dense matrices."""
    n, n_slices = mask.numel(), len(made.maps)
    unit = torch.eye(n, dtype=torch.complex64).reshape(n, 1, *mask.shape)

    def dense(operator: Callable[[Tensor], Tensor]) -> Tensor:
        columns = [operator(e.expand(n_slices, *mask.shape)) for e in torch.cat([unit, 1j * unit])]
        flat = torch.stack([c.reshape(n_slices, -1) for c in columns], -1)
        return torch.cat([flat.real, flat.imag], 1).double()

    image, precision = dense(made.image), dense(lambda v: made.precision(v, mask))
    posterior = image @ torch.cholesky_inverse(torch.linalg.cholesky(precision)) @ image.mT
    traces = [torch.diagonal(m, dim1=-2, dim2=-1).sum(-1) for m in (posterior, image @ image.mT)]
    return float((traces[0] / traces[1]).mean())


def sampled(made: GaussianScan, mask: Tensor, n: int) -> list[float]:
    return [ExpectedError(made, seed, 40)(mask)[0] for seed in range(n)]


def some_mask(shape: tuple[int, int] = SHAPE, fraction: float = 0.4, seed: int = 1) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < fraction).float()


def test_the_sampled_trace_has_the_exact_mean() -> None:
    made, mask = scan(), some_mask()
    values = torch.tensor(sampled(made, mask, 200))
    standard_error = float(values.std()) / math.sqrt(200)
    assert abs(float(values.mean()) - exact(made, mask)) < 4 * standard_error
    assert standard_error < 0.05 * exact(made, mask)


def test_the_exact_error_is_exact_and_so_is_its_gain() -> None:
    made, mask = scan(), some_mask() * 0.5 + 0.2
    criterion = ExactError(made)
    error, gain = criterion(mask)
    assert error == pytest.approx(exact(made, mask), rel=1e-5)
    gains = torch.stack([ExpectedError(made, seed, 40)(mask)[1] for seed in range(300)])
    standard_error = gains.std(0) / math.sqrt(300)
    assert ((gains.mean(0) - gain).abs() < 5 * standard_error).all()
    for place in ((0, 0), (2, 2), (4, 1)):
        step = torch.zeros(SHAPE)
        step[place] = 0.02
        slope = (criterion(mask - step)[0] - criterion(mask + step)[0]) / 0.04
        assert float(gain[place]) == pytest.approx(slope, rel=0.02)


def test_the_gain_is_minus_the_derivative() -> None:
    criterion, mask = ExpectedError(scan(), 0, 60), some_mask() * 0.5 + 0.2
    _, gain = criterion(mask)
    for place in ((0, 0), (2, 2), (4, 1)):
        step = torch.zeros(SHAPE)
        step[place] = 0.02
        slope = (criterion(mask - step)[0] - criterion(mask + step)[0]) / 0.04
        assert float(gain[place]) == pytest.approx(slope, rel=0.02)


def test_the_measured_gain_foretells_what_a_point_is_worth() -> None:
    """With one coil, in the mean over many slices: of missing points all but for one factor."""
    made, mask = scan(n_slices=2000), some_mask()
    spectra = made.spectra[:1].expand(2, -1, -1)
    made = GaussianScan(made.maps[:, :1].sgn(), made.magnitude, spectra, made.noise_std)
    noise = made.noise_std * laws.complex_normal(tuple(made.maps.shape), 4)
    v = made.white(torch.Generator().manual_seed(3))
    criterion = MeasuredError(made, made.measure(v) + noise, made.image(v), 5, 40)
    error, gain = criterion(mask)

    def foretold(places: list[list[int]]) -> Tensor:
        """Gain over worth."""
        ratios = []
        for place in map(tuple, places):
            other = mask.clone()
            other[place] = 1 - mask[place]
            ratios.append(float(gain[place]) / abs(criterion(other)[0] - error))
        return torch.tensor(ratios)

    acquired = foretold(torch.nonzero(mask).tolist()[:4])
    torch.testing.assert_close(acquired, torch.ones(4), rtol=0.1, atol=0)
    missing = foretold(torch.nonzero(mask == 0).tolist()[:6])
    assert 0.7 < float(missing.mean()) < 0.85
    torch.testing.assert_close(missing, missing.mean().expand(6), rtol=0.08, atol=0)


def every_mask(budget: Budget) -> list[Tensor]:
    """All masks of a budget, or of a budget of lines, one by one."""
    free = torch.nonzero(~budget.acs.flatten()).flatten().tolist()
    masks = []
    for points in itertools.combinations(free, budget.n_samples - budget.n_acs):
        mask = budget.acs.flatten().clone()
        mask[list(points)] = True
        masks.append(mask.reshape(budget.shape))
    return masks


@pytest.mark.parametrize(("power", "tight_db"), [(3, 0.02), (0, 0.4)])
def test_no_mask_of_the_budget_is_below_the_bound(power: int, tight_db: float) -> None:
    """Of all 1,001 masks of 5 points with DC in them, the best is just above it.

    With a spectrum that falls (power 3) the best mask is plain, and the bound all but met. With a
    flat one many masks are as good as each other, and mixtures of them better than any.
    """
    shape = (5, 3)
    acs = torch.zeros(shape, dtype=torch.bool)
    acs[2, 1] = True
    budget, made = Budget(shape, 5, acs), scan(shape, n_slices=2)
    y, x = (torch.arange(n) - n // 2 for n in shape)
    falling = (1.0 + y[:, None] ** 2 + x**2) ** -power
    made = GaussianScan(made.maps, made.magnitude, made.spectra * falling, made.noise_std)
    criterion = ExactError(made)
    relaxed, bound = relax(criterion, budget, 80)
    assert float(relaxed.sum()) == pytest.approx(5, abs=1e-3)
    masks = every_mask(budget)
    assert len(masks) == math.comb(14, 4)
    errors = torch.tensor([criterion(mask.float())[0] for mask in masks])
    best, middle = float(errors.min()), float(errors.median())
    assert best == pytest.approx(exact(made, masks[int(errors.argmin())].float()), rel=1e-5)
    assert bound <= criterion(relaxed)[0] < best
    assert db(criterion(relaxed)[0] / bound) < 0.002  # the gap of relaxed masks closes
    assert db(best / bound) < tight_db
    assert db(middle / best) > 0.15  # what a bound could be wrong by, and the test not see
    found = [exchange(criterion, mask, budget, 0, 40)[1] for mask in masks[::200]]
    assert min(found) == pytest.approx(best)


def db(ratio: float) -> float:
    return 10 * math.log10(ratio)


def test_exchange_never_gets_worse_and_keeps_the_budget() -> None:
    shape = (13, 10)
    budget = Budget.of(shape, acceleration=4, acs="square", acs_size=3)
    criterion = ExpectedError(scan(shape), 0)
    start = FIXED_MASKS["random_points"](budget, 0)
    mask, error = exchange(criterion, start, budget, 0, 40)
    laws.exact_budget(mask, budget)
    assert error == criterion(mask.float())[0] < criterion(start.float())[0]


def small_set(shape: tuple[int, int] = (24, 20), noise: float = 0.05) -> KspaceSet:
    """Smooth coils over a disc with texture, and noise."""
    n = 6
    y, x = (torch.linspace(-1, 1, size) for size in shape)
    disc = (y[:, None] ** 2 + x[None] ** 2 < 0.6).float()
    texture = 1 + 0.3 * torch.randn(n, *shape, generator=torch.Generator().manual_seed(0))
    coils = torch.stack([1 + 0.8 * y[:, None] + 0 * x, 1 + 0.8j * x[None] + 0 * y[:, None]])
    target = image_to_kspace((disc * texture)[:, None] * coils)
    kspace = target + noise * laws.complex_normal(tuple(target.shape), 2)
    return KspaceSet(kspace, target, torch.arange(n), torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize("error", ["expected", "measured"])
def test_a_design_beats_chance_by_its_own_measure(error: str) -> None:
    data = small_set()
    budget = Budget.of(data.shape, acceleration=4, acs="square", acs_size=6)
    options = {
        "error": error,
        "acs_size": 6,
        "n_slices": 4,
        "n_steps": 15,
        "n_trials": 15,
    }
    (found,) = optimal_design(budget, 0, data, data, ZeroFilled(2), None, **options)  # type: ignore[arg-type]
    (again,) = optimal_design(budget, 0, data, data, ZeroFilled(2), None, **options)  # type: ignore[arg-type]
    mask = found.mask(budget)
    laws.exact_budget(mask, budget)
    assert torch.equal(mask, again.mask(budget))
    chance = FIXED_MASKS["random_points"](budget, 0)
    certificates = certify({"design": mask, "chance": chance}, data, budget, 1, acs_size=6)
    assert certificates["design"].error_db < certificates["chance"].error_db - 0.5


@pytest.mark.parametrize("lines", [False, True])
def test_the_certificate_is_just_below_the_best_of_all_masks(lines: bool) -> None:
    """Of 325 masks of 6 points, and of 56 of 4 lines."""
    if lines:
        budget = Budget.of((5, 9), n_lines=4, acs="lines", acs_size=1)
        masks = [mask.expand(budget.shape) for mask in every_mask(line_budget(budget))]
    else:
        budget = Budget.of((6, 5), n_samples=6, acs="square", acs_size=2)
        masks = every_mask(budget)
    data = small_set(budget.shape, noise=0.5)
    named = {str(i): mask for i, mask in enumerate(masks)}
    certified = certify(named, data, budget, 0, acs_size=4, lines=lines, n_slices=2)
    certificates = list(certified.values())
    gaps = torch.tensor([certificate.gap_db for certificate in certificates])
    assert len(gaps) == (56 if lines else 325)
    assert 0 < float(gaps.min()) < 0.25
    assert float(gaps.max()) > 4 * float(gaps.min())
    made = linear_reconstruction(data, 0, 4).scan(drawn(data, 2, 0).kspace)
    best = int(gaps.argmin())
    error = exact(made, masks[best].float())
    assert certificates[best].error_db == pytest.approx(db(error), abs=1e-3)


def test_solves_that_stop_early_bound_all_the_same() -> None:
    """From relaxed and from binary masks, at 1 to 5 iterations: below the sampled error of all."""
    budget = Budget.of((6, 5), n_samples=6, acs="square", acs_size=2)
    made, masks = scan(budget.shape), torch.stack(every_mask(budget)[::12]).float()
    converged = ExpectedError(made, 0, 40)
    errors = torch.tensor([converged(mask)[0] for mask in masks])
    for n_iterations in (1, 2, 5):
        early = ExpectedError(made, 0, n_iterations)
        relaxed, bound = relax(early, budget, 15)
        assert 0 < bound < errors.min()
        for mask in (relaxed, masks[0], masks[-1]):
            error, gain = early(mask)
            assert error < converged(mask)[0]
            assert (error - (gain * (masks - mask)).sum((1, 2)) < errors * (1 + 1e-5)).all()


def test_the_certified_error_has_converged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kscout.learning.design.MOST_WEIGHTS", 0)
    data = small_set(noise=0.02)
    budget = Budget.of(data.shape, acceleration=4, acs="square", acs_size=6)
    mask = FIXED_MASKS["uniform_2d"](budget, 0)
    made = linear_reconstruction(data, 7, 6).scan(drawn(data, 4, 7).kspace)
    early, late = (db(ExpectedError(made, 7, n)(mask.float())[0]) for n in (20, 500))
    options = {"acs_size": 6, "n_slices": 4, "n_steps": 20}
    certificate = certify({"": mask}, data, budget, 7, **options)[""]  # type: ignore[arg-type]
    assert early < late - 0.1
    assert certificate.error_db == pytest.approx(late, abs=0.01)
    assert certificate.gap_db > 0


@pytest.mark.parametrize("error", ["expected", "measured"])
def test_lines_are_whole(error: str) -> None:
    data = small_set()
    budget = Budget.of(data.shape, n_lines=8, acs="lines", acs_size=4)
    options = {
        "error": error,
        "acs_size": 4,
        "n_slices": 3,
        "n_steps": 10,
        "n_trials": 10,
    }
    (found,) = optimal_design(budget, 0, data, data, ZeroFilled(2), None, lines=True, **options)  # type: ignore[arg-type]
    mask = found.mask(budget)
    laws.exact_budget(mask, budget)
    assert torch.equal(mask, mask[:1].expand(budget.shape))
    points, lines = (
        certify({"found": mask}, data, budget, 0, acs_size=4, lines=whole)["found"]
        for whole in (False, True)
    )
    assert points.error_db == lines.error_db
    assert points.bound_db < lines.bound_db < lines.error_db
    assert (points.of_lines, lines.of_lines) == (False, True)


def test_a_design_of_lines_starts_from_masks_of_lines() -> None:
    data = small_set()
    budget = Budget.of(data.shape, n_lines=8, acs="lines", acs_size=4)
    options = {"lines": True, "acs_size": 4, "n_slices": 2, "n_trials": 0}

    def start(init: str | dict[str, Any]) -> Tensor:
        (found,) = optimal_design(
            budget,
            0,
            data,
            data,
            ZeroFilled(2),
            None,
            init=init,
            **options,  # type: ignore[arg-type]
        )
        return found.mask(budget)

    assert torch.equal(start("uniform_lines"), FIXED_MASKS["uniform_lines"](budget, 0))
    for init in ("variable_density", "spread_density"):
        assert torch.equal(start(init), FIXED_MASKS[init](budget, 0, lines=True))
    tuned = FIXED_MASKS["spread_density"](budget, 0, lines=True, power=0.5)
    assert torch.equal(start({"kind": "spread_density", "power": 0.5}), tuned)
    valid = "relaxed, uniform_lines, variable_density, spread_density, low_frequency$"
    for init in ("caipirinha", "poisson_disc"):
        with pytest.raises(UserError, match=f"'{init}' has no whole columns .* {valid}"):
            start(init)
