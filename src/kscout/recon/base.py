"""What every reconstructor is."""

from torch import Tensor, nn


class Reconstructor(nn.Module):
    """Completes k-space: ``(kspace * mask, mask) -> kspace``, the acquired points untouched.

    A reconstructor says in :meth:`predict` what it expects at every point; calling it puts the
    acquired points back.
    """

    def predict(self, kspace: Tensor, mask: Tensor) -> Tensor:
        """What is expected at every point, the acquired ones too.

        Parameters
        ----------
        kspace : complex ``(batch, coil, ky, kx)``, zero where nothing was acquired
        mask : {0, 1} ``(ky, kx)`` or ``(batch, 1, ky, kx)``

        Returns
        -------
        complex ``(batch, coil, ky, kx)``
        """
        raise NotImplementedError

    def forward(self, kspace: Tensor, mask: Tensor) -> Tensor:
        """The prediction with the acquired points put back; shapes as for :meth:`predict`."""
        return kspace * mask + (1 - mask) * self.predict(kspace, mask)
