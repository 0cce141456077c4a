"""An unrolled variational network for coils that it has not seen."""

import copy
from typing import Annotated, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from kscout.physics.fourier import image_to_kspace, kspace_to_image
from kscout.physics.gaussian import GaussianScan
from kscout.physics.spectrum import N_RADII, ring_of
from kscout.recon.base import Reconstructor
from kscout.recon.gaussian_sense import DEFAULT_ACS_SIZE, AcsSize, GaussianSense
from kscout.recon.unet import Unet


class VarNet(Reconstructor):
    r"""Gradient steps on the data term, each with a small U-Net as its regulariser.

    .. math:: x \leftarrow x - \eta\,g + \mathrm{U}(x, g), \qquad
       g = S^H F^H m\,(F S x - y)

    as in the variational networks of Hammernik et al. (2018, Magn. Reson. Med. 79:3055) and, end to
    end with U-Nets, Sriram et al. (2020, MICCAI, arXiv:2004.06688), on the image of all coils
    together. Sensitivities come from the centre of the scan at hand, as in the latter, but by
    :func:`~kscout.physics.coils.low_resolution` in place of a network. It starts from the linear
    reconstruction (:class:`~kscout.recon.gaussian_sense.GaussianSense`), which is most of the way:
    a small network and little training are left. Acquired points come back as far as they are to
    be trusted, which is learned for each distance from DC.

    Parameters
    ----------
    n_coils : coils of the data
    seed : of the initial weights
    acs_size : width of the fully sampled centre
    n_iterations : of conjugate gradients, in the linear start
    n_cascades : steps, each with a U-Net of its own
    n_channels, n_levels : of every U-Net
    """

    models_noise = True

    def __init__(
        self,
        n_coils: int,
        seed: int = 0,
        *,
        acs_size: AcsSize = DEFAULT_ACS_SIZE,
        n_iterations: Annotated[int, Field(ge=1, description="of the linear start")] = 12,
        n_cascades: Annotated[int, Field(ge=1)] = 2,
        n_channels: Annotated[int, Field(ge=1)] = 8,
        n_levels: Annotated[int, Field(ge=1, le=6)] = 2,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.acs_size = acs_size
        self.start = GaussianSense(n_coils, acs_size=acs_size, n_iterations=n_iterations)
        self.unets = nn.ModuleList(
            Unet(4, 2, n_channels, n_levels, generator) for _ in range(n_cascades)
        )
        self.steps = nn.Parameter(torch.full((n_cascades,), 0.5))
        self.strengths = nn.Parameter(torch.full((n_cascades,), 0.1))  # the start is a good one
        self.trust = nn.Parameter(torch.full((N_RADII,), -2.0))

    def calibrate(self, kspace: Tensor, target: Tensor, coil_scale: Tensor, seed: int) -> None:
        """Calibrate the linear start."""
        self.start.calibrate(kspace, target, coil_scale, seed)

    def for_scan(self, kspace: Tensor, mask: Tensor) -> Self:
        """The same network from a linear start for one scan, see :meth:`GaussianSense.for_scan`."""
        adapted = copy.deepcopy(self)
        adapted.start = self.start.for_scan(kspace, mask)
        return adapted

    def predict(self, kspace: Tensor, mask: Tensor) -> Tensor:
        scale = self.start.coil_scale[:, None, None]
        acquired = kspace / scale
        with torch.no_grad():
            scan = self.start.scan(acquired)
        image = scan.reconstruct(acquired, mask, self.start.n_iterations).to(kspace.dtype)
        unit = scan.magnitude.amax((-2, -1), keepdim=True)
        image, acquired = image / unit, acquired / unit[:, None]
        for unet, step, strength in zip(self.unets, self.steps, self.strengths, strict=True):
            gradient = self._gradient(scan, image, acquired, mask)
            image = image - step * gradient + strength * _correction(unet, image, gradient)
        full = image_to_kspace(scan.maps * image[:, None])
        trust = torch.sigmoid(self.trust)[ring_of((mask.shape[-2], mask.shape[-1])).to(mask.device)]
        return (full + trust * (acquired - mask * full)) * unit[:, None] * scale

    def _gradient(
        self, scan: GaussianScan, image: Tensor, acquired: Tensor, mask: Tensor
    ) -> Tensor:
        residual = mask * image_to_kspace(scan.maps * image[:, None]) - acquired
        return (scan.maps.conj() * kspace_to_image(residual)).sum(1)


def _correction(unet: nn.Module, *images: Tensor) -> Tensor:
    channels = torch.cat([torch.view_as_real(image) for image in images], -1).movedim(-1, 1)
    return torch.view_as_complex(unet(channels).movedim(1, -1).contiguous())
