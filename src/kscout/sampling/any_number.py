"""Masks of any number of points, for reconstructors that must serve them all."""

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from kscout.sampling.base import FixedSampler, Reconstruct
from kscout.sampling.budget import Budget, line_budget, squared_radius
from kscout.sampling.fixed import variable_density
from kscout.sampling.staged import Unit

Power = Annotated[float, Field(ge=0, le=20, description="highest power of the densities drawn")]


class AnyNumberSampler(FixedSampler):
    r"""In training every slice gets a mask of its own, of any number of points up to the budget.

    The number lies anywhere from the ACS, at least one point, to the budget; points are drawn from
    densities :math:`(1 - r)^p`, r the distance from DC, with a p from 0 to ``power`` that is drawn
    too; in validation likewise, the same in every epoch. What is tested is one draw of variable
    density at the full budget.

    Parameters
    ----------
    budget : the most that a mask spends
    seed : of the mask that is tested
    power : largest p; that of the mask tested is half of it
    unit : what is drawn, points or whole columns
    """

    any_number: ClassVar[bool] = True

    def __init__(
        self, budget: Budget, seed: int, *, power: Power = 6.0, unit: Unit = "lines"
    ) -> None:
        lines = unit == "lines"
        super().__init__(budget, variable_density(budget, seed, power=power / 2, lines=lines))
        self.power, self.units = power, line_budget(budget) if lines else budget
        radius = squared_radius(self.units.shape).sqrt()
        self.log_density = (1 - radius).clamp_min(0.01).log().float()

    def for_slices(
        self,
        kspace: Tensor,
        reconstruct: Reconstruct,
        shared: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        if generator is None:
            return super().for_slices(kspace, reconstruct, shared)
        n, (rows, columns) = len(kspace), self.units.shape
        least = max(1, self.units.n_acs)
        number = torch.randint(least, self.units.n_samples + 1, (n, 1), generator=generator)
        power = self.power * torch.rand(n, 1, 1, generator=generator)
        clock = torch.empty(n, rows, columns).exponential_(generator=generator).log()
        ranking = (power * self.log_density - clock).masked_fill(self.units.acs, torch.inf)
        place = ranking.flatten(1).argsort(1, descending=True).argsort(1)
        drawn = (place < number).reshape(n, 1, rows, columns)
        return drawn.expand(n, 1, *self.budget.shape).float().to(kspace.device)
