"""The network that all learned policies share: a number for every unit of a slice."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from kscout.acquisition.process import State
from kscout.errors import UserError
from kscout.sampling.units import Units

TINY = 1e-4
"""Of the mean square, in the logarithm of energies: what lies below is nothing."""

LEAST = 1e-30
"""That is divided by, of a slice without any signal."""

LARGEST = 64
"""Points along an axis of an image that is looked at; larger ones are averaged down."""

POOLED = 8
"""Places along each axis that are left of it behind the convolutions."""


class View(NamedTuple):
    """What a network sees of slices, on a scale of their own in each.

    Attributes
    ----------
    acquired : bool ``(batch, unit)``
    energy : float ``(batch, unit)``, decades of the mean square of the reconstructed k-space
    image : float ``(batch, 1, y, x)``, magnitude
    """

    acquired: Tensor
    energy: Tensor
    image: Tensor


class UnitNetwork(nn.Module):
    """Values of the units of every slice, by what was acquired and what is seen of the slice.

    Seen are the energy that the reconstruction has in every unit, and, through convolutions, the
    magnitude image. The value of a unit is that of the state plus that of the unit above the mean
    (Wang et al. 2016, dueling networks).

    Parameters
    ----------
    units : of the plane
    seed : of the weights
    sees_slice : else it sees what was acquired alone, so that all slices get one order
    n_hidden : width of the layers
    n_channels : of the convolutions
    """

    plane: Tensor
    size: Tensor

    def __init__(
        self,
        units: Units,
        seed: int,
        *,
        sees_slice: bool = True,
        n_hidden: int = 256,
        n_channels: int = 16,
    ) -> None:
        super().__init__()
        self.sees_slice = sees_slice
        self.register_buffer("plane", units.plane.flatten(), persistent=False)
        self.register_buffer("size", units.plane.flatten().bincount(), persistent=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.image = nn.Sequential(
                nn.Conv2d(1, n_channels, 5, stride=2, padding=2),
                nn.ReLU(),
                nn.Conv2d(n_channels, n_channels, 3, padding=1),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(POOLED),
                nn.Flatten(),
                nn.Linear(n_channels * POOLED**2, n_hidden),
                nn.ReLU(),
            )
            n_seen = units.n + (units.n + n_hidden if sees_slice else 0)
            self.layers = nn.Sequential(
                nn.Linear(n_seen, n_hidden),
                nn.ReLU(),
                nn.Linear(n_hidden, n_hidden),
                nn.ReLU(),
                nn.Linear(n_hidden, 1 + units.n),
            )

    def forward(self, acquired: Tensor, energy: Tensor, image: Tensor) -> Tensor:
        """Float ``(batch, unit)``, of the parts of a :class:`View`."""
        seen = [acquired.float()]
        if self.sees_slice:
            seen += [energy, self.image(image)]
        of_state, of_units = self.layers(torch.cat(seen, 1)).split([1, acquired.shape[1]], 1)
        value: Tensor = of_state + of_units - of_units.mean(1, keepdim=True)
        return value

    @torch.no_grad()
    def see(self, state: State) -> View:
        """What there is to be seen of slices in the middle of their scans."""
        energy = self.mean_square(state.kspace)
        whole = energy.mean(1, keepdim=True).clamp_min(LEAST)
        scale = state.image.square().mean((-2, -1), keepdim=True).sqrt()
        image = state.image / scale.clamp_min(LEAST)
        size = (min(image.shape[-2], LARGEST), min(image.shape[-1], LARGEST))
        small = nn.functional.adaptive_avg_pool2d(image[:, None], size)
        return View(state.acquired, (energy / whole + TINY).log10(), small)

    def mean_square(self, kspace: Tensor) -> Tensor:
        """Over the points of every unit, all coils together: float ``(batch, unit)``."""
        energy = kspace.abs().square().sum(1).flatten(1)
        total = energy.new_zeros(len(energy), len(self.size))
        total.scatter_add_(1, self.plane.expand_as(energy), energy)
        return total / self.size


class NetworkPolicy:
    """The unit of the highest value."""

    def __init__(self, network: UnitNetwork) -> None:
        self.network = network

    @torch.no_grad()
    def preferences(self, state: State) -> Tensor:
        values: Tensor = self.network(*self.network.see(state))
        if not torch.isfinite(values).all():
            raise UserError("the values of units are not finite: use a lower learning rate")
        return values
