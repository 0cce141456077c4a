"""SENSE with a Gaussian image prior: the best linear reconstruction that the data allow."""

import copy
from typing import Annotated, Self

import torch
from pydantic import Field
from torch import Tensor

from kscout.physics.coils import low_resolution
from kscout.physics.fourier import image_to_kspace, kspace_to_image
from kscout.physics.gaussian import GaussianScan
from kscout.physics.spectrum import N_RADII, on_plane, radial_mean
from kscout.recon.base import Reconstructor

AcsSize = Annotated[int, Field(ge=4, description="points along an axis that coil maps come from")]

DEFAULT_ACS_SIZE = 16

N_SLICES = 100
"""Training slices that the prior is estimated from."""

FLOOR = 0.03
"""Expected magnitude where the low-resolution image shows nothing, in units of its maximum."""

NOISE_SHARE = 0.25
"""Of the power of the weakest ring of a scan, where nothing else tells of its noise.

The rest is signal: on three real scans the air around the head says 0.11 to 0.44.
"""

LEAST_POWER = 1e-10
"""Of a ring, in units of the strongest: a scan filled up with zeros has noise all the same."""


class GaussianSense(Reconstructor):
    r"""The posterior mean under a Gaussian prior, with coils known from the scan itself.

    Sensitivities and the expected magnitude come from the ``acs_size`` x ``acs_size`` centre of the
    scan at hand, so that coils it was not trained for are no harder. Texture and noise come from
    the training slices. The posterior mean is approached by conjugate gradients, which stop early
    (:class:`~kscout.physics.gaussian.GaussianScan`): regularised SENSE (Pruessmann et al. 2001;
    Lin et al. 2004) with the phase in the maps.

    Parameters
    ----------
    n_coils : coils of the data
    seed : unused
    acs_size : width of the fully sampled centre
    n_iterations : of conjugate gradients, towards the posterior mean
    """

    models_noise = True
    has_bound = True
    coil_scale: Tensor
    spectra: Tensor
    noise_std: Tensor

    def __init__(
        self,
        n_coils: int,
        seed: int = 0,
        *,
        acs_size: AcsSize = DEFAULT_ACS_SIZE,
        n_iterations: Annotated[int, Field(ge=1, description="conjugate gradients")] = 20,
    ) -> None:
        super().__init__()
        self.acs_size, self.n_iterations = acs_size, n_iterations
        self.register_buffer("coil_scale", torch.ones(n_coils))
        self.register_buffer("spectra", torch.ones(2, N_RADII))
        self.register_buffer("noise_std", torch.tensor(1.0))

    @torch.no_grad()
    def calibrate(self, kspace: Tensor, target: Tensor, coil_scale: Tensor, seed: int) -> None:
        """Set noise level and texture spectrum from training slices."""
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(kspace), generator=generator)[:N_SLICES]
        self.coil_scale.copy_(coil_scale)
        scale = coil_scale[:, None, None]
        measured, clean = kspace[chosen] / scale, target[chosen] / scale
        noise = (measured - clean).abs().square().mean(dtype=torch.float64)
        if noise == 0:  # not known: no more than the weakest ring of k-space holds
            noise = radial_mean(measured.abs().square().mean((0, 1)).double()).min()
        self.noise_std.copy_(noise.sqrt())
        maps, magnitude = self._calibrated(measured)
        combined = (maps.conj() * kspace_to_image(clean)).sum(1)
        for part, spectrum in zip((combined.real, combined.imag), self.spectra, strict=True):
            power = image_to_kspace((part / magnitude).to(clean.dtype)).abs().square()
            spectrum.copy_(radial_mean(power.mean(0)))

    @torch.no_grad()
    def for_scan(self, kspace: Tensor, mask: Tensor) -> Self:
        """The same with noise level and texture of one scan, of any number of coils and any scale.

        For scans unlike all that it was calibrated with. Both come from the acquired points alone,
        as mean power on rings around DC: :data:`NOISE_SHARE` of the weakest ring is noise, all
        else is signal. How much of its phase the maps hold is not known, so the image is taken as
        circular.

        Parameters
        ----------
        kspace : complex ``(slice, coil, ky, kx)``, zero where nothing was acquired
        mask : {0, 1} ``(ky, kx)``; its ``acs_size`` x ``acs_size`` centre is acquired
        """
        adapted = copy.deepcopy(self)
        adapted.coil_scale = kspace.new_ones(kspace.shape[1], dtype=self.coil_scale.dtype)
        power = _acquired_mean(kspace.abs().square().mean((0, 1)).double(), mask.double())
        power = power.clamp_min(LEAST_POWER * power.max())
        noise = NOISE_SHARE * power.min()
        signal = (power - noise) * kspace.shape[1]  # the maps' squares add up to 1 over coils
        _, magnitude = self._calibrated(kspace)
        adapted.noise_std.copy_(noise.sqrt())
        adapted.spectra.copy_((signal / magnitude.square().mean() / 2).expand(2, -1))
        return adapted

    def _calibrated(self, kspace: Tensor) -> tuple[Tensor, Tensor]:
        """Sensitivities ``(batch, coil, y, x)`` and expected magnitude ``(batch, y, x)``."""
        images = low_resolution(kspace, self.acs_size)
        magnitude = images.abs().square().sum(1).sqrt()
        maps = images / magnitude.clamp_min(1e-12)[:, None]
        peak = magnitude.amax((-2, -1), keepdim=True).clamp_min(1e-12)
        return maps, (magnitude**2 + (FLOOR * peak) ** 2).sqrt()

    def scan(self, kspace: Tensor) -> GaussianScan:
        """The model of the scan at hand, from its unscaled k-space ``(batch, coil, ky, kx)``."""
        maps, magnitude = self._calibrated(kspace)
        plane = (kspace.shape[-2], kspace.shape[-1])
        spectra = torch.stack([on_plane(spectrum, plane) for spectrum in self.spectra])
        return GaussianScan(maps, magnitude, spectra, float(self.noise_std))

    def predict(self, kspace: Tensor, mask: Tensor) -> Tensor:
        scale = self.coil_scale[:, None, None]
        acquired = kspace / scale
        with torch.no_grad():
            scan = self.scan(acquired)
        image = scan.reconstruct(acquired, mask, self.n_iterations)
        return image_to_kspace(scan.maps * image[:, None]) * scale


def _acquired_mean(plane: Tensor, mask: Tensor) -> Tensor:
    """Mean over the acquired points of each ring; the nearest ring's where it has none."""
    seen = radial_mean(mask)
    filled = torch.nonzero(seen).flatten()
    nearest = (torch.arange(N_RADII, device=seen.device)[:, None] - filled).abs().argmin(1)
    return (radial_mean(plane * mask)[filled] / seen[filled])[nearest]
