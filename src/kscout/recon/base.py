"""What every reconstructor is."""

from torch import Tensor, nn


class Reconstructor(nn.Module):
    """Completes k-space: ``(kspace * mask, mask) -> kspace``, the acquired points untouched.

    Shapes of ``forward``: complex ``(batch, coil, ky, kx)`` and a {0, 1} mask ``(ky, kx)`` or
    ``(batch, 1, ky, kx)``; returns complex ``(batch, coil, ky, kx)``.
    """

    def forward(self, kspace: Tensor, mask: Tensor) -> Tensor:
        raise NotImplementedError
