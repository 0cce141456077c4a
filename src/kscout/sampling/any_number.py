"""Masks of any number of units, for reconstructors that must serve them all."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from kscout.errors import UserError
from kscout.sampling.base import FixedSampler, Reconstruct
from kscout.sampling.budget import Budget
from kscout.sampling.units import UnitKind, Units

Power = Annotated[float, Field(ge=0, le=20, description="highest power of the densities drawn")]
Width = Annotated[int, Field(ge=1)]


class AnyNumberSampler(FixedSampler):
    r"""In training every slice gets a mask of its own, of any number of units up to the budget.

    Always there are the units of the ACS and the ``n_initial`` nearest to DC. The others are drawn
    from densities :math:`(1 - r)^p`, r the distance from DC, with a p from 0 to ``power`` that is
    drawn too. In validation likewise, the same in every epoch. What is tested is the full budget of
    the units nearest to DC.

    Parameters
    ----------
    budget : the most that a mask spends, whole units
    seed : unused, as a test draws nothing
    power : largest p
    unit, tile : what is acquired at once, and the size of the tile if it is that
    n_initial : units that every mask has

    Raises
    ------
    UserError
        if the budget is not of whole units, or too small for those that every mask has
    """

    any_number = True

    def __init__(
        self,
        budget: Budget,
        seed: int,
        *,
        power: Power = 6.0,
        unit: UnitKind = "lines",
        tile: tuple[Width, Width] = (4, 4),
        n_initial: Annotated[int, Field(ge=0, description="units in every mask")] = 0,
    ) -> None:
        self.units, self.power = Units.of(budget.shape, unit, tile), power
        always = self.units.nearest(min(n_initial, self.units.n))
        always[self.units.plane[budget.acs]] = True
        distance = self.units.distance.masked_fill(always, -1.0)
        order = distance.argsort(stable=True)
        spent = self.units.plane.flatten().bincount()[order].cumsum(0)
        if budget.n_samples not in spent:
            below, above = (spent[spent < budget.n_samples], spent[spent > budget.n_samples])
            valid = [int(near) for near in (*below[-1:], *above[:1])]
            raise UserError(
                f"a budget of {budget.n_samples} points is not of whole {unit}: valid near it is "
                f"{' or '.join(map(str, valid))}"
            )
        self.n_always, self.n_most = int(always.sum()), int((spent <= budget.n_samples).sum())
        if self.n_always > self.n_most:
            raise UserError(
                f"{self.n_always} units are in every mask, and the budget has {self.n_most}: valid "
                "is a smaller n_initial or ACS"
            )
        full = torch.zeros(1, self.units.n, dtype=torch.bool)
        full[0, order[: self.n_most]] = True
        super().__init__(budget, self.units.mask(full)[0, 0])
        self.always, self.log_density = always, (1 - distance).clamp_min(0.01).log().float()

    def for_slices(
        self,
        kspace: Tensor,
        reconstruct: Reconstruct,
        shared: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        if generator is None:
            return super().for_slices(kspace, reconstruct, shared)
        n, least = len(kspace), max(1, self.n_always)
        number = torch.randint(least, self.n_most + 1, (n, 1), generator=generator)
        power = self.power * torch.rand(n, 1, generator=generator)
        clock = torch.empty(n, self.units.n).exponential_(generator=generator).log()
        ranking = (power * self.log_density - clock).masked_fill(self.always, torch.inf)
        place = ranking.argsort(1, descending=True).argsort(1)
        return self.units.mask(place < number).to(kspace.device)
