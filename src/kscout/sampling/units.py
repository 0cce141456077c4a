"""What is acquired at once, where points are not chosen one by one."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from kscout.errors import UserError
from kscout.sampling.budget import Budget, squared_radius, take_highest
from kscout.sampling.tiles import repeat_tile

UnitKind = Literal["lines", "points", "tile"]


@dataclass(frozen=True)
class Units:
    """What can be acquired at once: lines, points, or all points at one place of a repeated tile.

    Attributes
    ----------
    plane : int64 ``(ky, kx)``, the unit that every point belongs to
    """

    plane: Tensor
    kind: UnitKind

    @staticmethod
    def of(
        shape: tuple[int, int],
        kind: UnitKind = "lines",
        tile: tuple[int, int] = (4, 4),
    ) -> "Units":
        """Columns, single points, or the places of a tile of which one falls on DC."""
        rows, columns = (torch.arange(n) for n in shape)
        if kind == "lines":
            return Units(columns.expand(shape).contiguous(), kind)
        if kind == "points":
            return Units(rows[:, None] * shape[1] + columns, kind)
        if kind != "tile":
            raise UserError(
                f"units '{kind}' are not known: valid is {', '.join(get_args(UnitKind))}"
            )
        places = torch.arange(tile[0] * tile[1]).reshape(tile)
        return Units(repeat_tile(places, shape), kind)

    @property
    def n(self) -> int:
        return int(self.plane.max()) + 1

    @property
    def distance(self) -> Tensor:
        """Of each unit's nearest point from DC, float64 ``(unit,)``; 1 at the middle of an edge."""
        radius = squared_radius((self.plane.shape[0], self.plane.shape[1])).sqrt()
        least = torch.full((self.n,), torch.inf, dtype=radius.dtype)
        return least.scatter_reduce(0, self.plane.flatten(), radius.flatten(), "amin")

    def mask(self, acquired: Tensor) -> Tensor:
        """Bool ``(batch, unit)`` to float ``(batch, 1, ky, kx)``."""
        return acquired[:, self.plane.to(acquired.device)].unsqueeze(1).float()

    def nearest(self, n: int) -> Tensor:
        """The ``n`` units nearest to DC, bool ``(unit,)``; of equals the lower index."""
        none = torch.zeros(1, self.n, dtype=torch.bool)
        if n == 0:
            return none[0]
        return take_highest(-self.distance[None], Budget((1, self.n), n, none))[0]
