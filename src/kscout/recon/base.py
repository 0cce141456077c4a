"""What every reconstructor is."""

from typing import ClassVar

from torch import Tensor, nn


class Reconstructor(nn.Module):
    """Completes k-space: ``(kspace * mask, mask) -> kspace``.

    A reconstructor says in :meth:`predict` what it expects at every point. Calling it puts the
    acquired points back, bit for bit; unless it models the noise, and then the acquired points
    are better off without theirs.

    Attributes
    ----------
    models_noise : what is predicted at acquired points is kept, as the estimate free of noise
    has_bound : its expected error is that of :mod:`kscout.learning.design`, so that the bound there
        is one for it; of others it says nothing
    acs_size : points along an axis of the fully sampled centre that it takes coil sensitivities
        from, in every scan; 0 where it needs none
    """

    models_noise: ClassVar[bool] = False
    has_bound: ClassVar[bool] = False
    acs_size: int = 0

    def calibrate(self, kspace: Tensor, target: Tensor, coil_scale: Tensor, seed: int) -> None:
        """Take from training slices what needs no gradient descent; nothing by default.

        Called once, before any training, for every mask alike.

        Parameters
        ----------
        kspace, target : complex ``(slice, coil, ky, kx)``, fully sampled; with and without noise
        coil_scale : float ``(coil,)``, the factor that each coil was multiplied by
        seed : of the draw, where not all slices are taken
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
        """The prediction, with the acquired points put back; shapes as for :meth:`predict`."""
        if not len(kspace):  # some FFT libraries refuse an empty transform
            return kspace
        predicted = self.predict(kspace, mask)
        if self.models_noise:
            return predicted
        return kspace * mask + (1 - mask) * predicted
