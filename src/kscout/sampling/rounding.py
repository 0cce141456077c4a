"""From a density to a binary mask of the exact budget, its points kept apart."""

from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from kscout.sampling.budget import Budget, line_budget, squared_radius, take_highest

Lines = Annotated[bool, Field(description="acquire whole columns")]


def spread_density(
    budget: Budget, seed: int, *, power: NonNegativeFloat = 3.0, lines: Lines = False
) -> Tensor:
    r"""Points whose density falls from DC as :math:`(1 - r)^p`, kept apart instead of drawn.

    The density of :func:`~kscout.sampling.fixed.variable_density` without its clumps and holes:
    blue noise, by error diffusion (Ulichney 1988, Proc. IEEE 76:56).

    Parameters
    ----------
    budget : points in all
    seed : unused
    power : p; 0 is uniform
    lines : spread whole columns
    """
    whole, budget = budget, line_budget(budget) if lines else budget
    density = (1 - squared_radius(budget.shape).sqrt()).clamp(min=1e-6).pow(power)
    return diffuse(spend(density, budget), budget).expand(whole.shape)


def spend(weights: Tensor, budget: Budget) -> Tensor:
    """Weights times the factor that makes a relaxed mask of the budget, none above 1.

    Parameters
    ----------
    weights : float ``(ky, kx)``, positive

    Returns
    -------
    float ``(ky, kx)`` in [0, 1], 1 on the ACS
    """
    free = weights.double().masked_fill(budget.acs, 0)
    n_free = budget.n_samples - budget.n_acs
    if n_free == 0:
        return budget.acs.float()

    def spent(factor: float) -> Tensor:
        return (free * factor).clamp(max=1)

    low, high = 0.0, 1 / float(free[~budget.acs].min().clamp_min(1e-300))
    for _ in range(200):  # bisection, in the log where it can
        middle = (low * high) ** 0.5 if low else high * 1e-12
        if float(spent(middle).sum()) < n_free:
            low = middle
        else:
            high = middle
    return spent(high).float() + budget.acs


def diffuse(relaxed: Tensor, budget: Budget) -> Tensor:
    """A binary mask with the density of a relaxed one, its points kept apart.

    Error diffusion row by row, alternately forwards and backwards (Floyd & Steinberg 1976), then
    to the exact budget at the highest of the relaxed mask. One row passes all of its error along.
    """
    left = relaxed.double().numpy().copy()
    chosen = torch.zeros(budget.shape, dtype=torch.bool)
    n_rows, n_columns = budget.shape
    shares = ((0, 1, 7), (1, -1, 3), (1, 0, 5), (1, 1, 1)) if n_rows > 1 else ((0, 1, 16),)
    for row in range(n_rows):
        step = 1 if row % 2 == 0 else -1
        for column in range(n_columns)[::step]:
            chosen[row, column] = bool(left[row, column] >= 0.5)
            error = left[row, column] - float(chosen[row, column])
            for down, along, share in shares:
                y, x = row + down, column + along * step
                if y < n_rows and 0 <= x < n_columns:
                    left[y, x] += error * share / 16
    return take_highest(chosen + 0.5 * relaxed, budget)
