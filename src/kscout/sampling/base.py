"""What every sampler is."""

import torch
from torch import Tensor, nn

from kscout.sampling.budget import Budget


class Sampler(nn.Module):
    """Gives masks of exactly ``budget.n_samples`` points, the ACS among them.

    ``forward(generator)`` is the mask of one training step: float ``(ky, kx)`` of zeros and ones,
    through which gradients reach whatever the sampler learns. ``mask()`` is the mask to take to
    the scanner.
    """

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self.budget = budget

    def forward(self, generator: torch.Generator | None = None) -> Tensor:
        raise NotImplementedError

    @torch.no_grad()
    def mask(self) -> Tensor:
        """The final binary mask: bool ``(ky, kx)``."""
        return self(None).bool()


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
        self.register_buffer("fixed", mask.bool())

    def forward(self, generator: torch.Generator | None = None) -> Tensor:
        return self.fixed.float()
