"""What every sampler is."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from kscout.sampling.budget import Budget

Reconstruct = Callable[[Tensor, Tensor], Tensor]
"""``(kspace * mask, mask)`` to completed k-space, as every reconstructor does."""


class Sampler(nn.Module):
    """Gives masks of exactly ``budget.n_samples`` points, the ACS among them.

    ``forward(generator)`` is the mask of one training step: float ``(ky, kx)`` of zeros and ones,
    through which gradients reach whatever the sampler learns. ``mask()`` is the mask to take to
    the scanner.

    Attributes
    ----------
    adaptive : whether every slice gets a mask of its own, by what was seen of it
    any_number : whether training ends scans at any number of points, as validation must then
    """

    adaptive: ClassVar[bool] = False
    any_number: bool = False

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self.budget = budget

    def forward(self, generator: torch.Generator | None = None) -> Tensor:
        raise NotImplementedError

    @torch.no_grad()
    def mask(self) -> Tensor:
        """The final binary mask: bool ``(ky, kx)``.

        Of an adaptive sampler, what it would acquire without looking.
        """
        return self(None).bool()

    @property
    def networks(self) -> list[nn.Parameter]:
        """Weights that begin at the reconstructor's learning rate, not the mask's; none here."""
        return []

    def for_slices(
        self,
        kspace: Tensor,
        reconstruct: Reconstruct,
        shared: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The mask of each slice: by default one for all, whatever is seen.

        Parameters
        ----------
        kspace : complex ``(batch, coil, ky, kx)``, of which only what was acquired is looked at
        reconstruct : makes the reconstructions between stages
        shared : ``forward(generator)``, where it was already made
        generator : of the noise of a training step

        Returns
        -------
        float zeros and ones, ``(ky, kx)`` or ``(batch, 1, ky, kx)``
        """
        return self(generator) if shared is None else shared


class FixedSampler(Sampler):
    """One mask that never changes.

    Parameters
    ----------
    budget : what the mask must spend
    mask : {0, 1} or bool ``(ky, kx)``
    """

    fixed: Tensor

    def __init__(self, budget: Budget, mask: Tensor) -> None:
        super().__init__(budget)
        self.register_buffer("fixed", mask.bool().clone())  # masks of lines share their rows

    def forward(self, generator: torch.Generator | None = None) -> Tensor:
        return self.fixed.float()
