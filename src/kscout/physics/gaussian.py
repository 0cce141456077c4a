r"""Scans of images with a Gaussian prior: the best linear reconstruction, its expected error.

The image is magnitude times texture, :math:`x = W\,(T_1 v_1 + i\,T_2 v_2)`: :math:`v_1, v_2` are
white and real, :math:`T_j = F^H P_j^{1/2} F` gives them their power spectra, and :math:`W` is the
expected magnitude, small outside the head. Coils of sensitivity :math:`S_c` see
:math:`y_c = m\,(F S_c x + n_c)`, the noise white with :math:`\mathrm{E}|n|^2 = \sigma^2`. With
:math:`B` from :math:`v = v_1 + i v_2` to k-space, the posterior mean and covariance of :math:`v`
are (Tarantola 2005, sec. 3.2)

.. math:: \hat v = \tfrac{2}{\sigma^2} H^{-1} B^T m y, \qquad
   H = I + \tfrac{2}{\sigma^2} B^T m B, \qquad \mathrm{Cov}(v | y) = H^{-1},

the adjoint being that of real vectors, of real and imaginary parts. With
:math:`P_1 = P_2` this is a circular complex image; with :math:`P_2 = 0` all of its phase is in the
sensitivities (phase-constrained SENSE, Willig-Onwuachi et al. 2005). Real scans lie in between.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from kscout.physics.fourier import (
    corner_fft,
    corner_ifft,
    image_to_kspace,
    kspace_to_image,
    to_centre,
    to_corner,
)
from kscout.physics.solvers import conjugate_gradients


@dataclass(frozen=True)
class GaussianScan:
    """Coils, prior and noise of one or more slices.

    Attributes
    ----------
    maps : complex ``(..., coil, y, x)``, sensitivities with a root sum of squares of 1 (or 0)
    magnitude : float ``(..., y, x)`` or ``(y, x)``, W: the expected magnitude of the image
    spectra : float ``(2, ky, kx)``, power of the texture's real and imaginary part, relative to the
        phase in ``maps``; symmetric, so that each part is real
    noise_std : root mean square modulus of the noise of a k-space point
    is_centred : centres are at index n // 2 of each axis; else at 0, which is faster inside loops
    """

    maps: Tensor
    magnitude: Tensor
    spectra: Tensor
    noise_std: float
    is_centred: bool = True

    @cached_property
    def cornered(self) -> "GaussianScan":
        """The same scan with its centres at index 0."""
        return replace(
            self,
            maps=to_corner(self.maps),
            magnitude=to_corner(self.magnitude),
            spectra=to_corner(self.spectra),
            is_centred=False,
        )

    def _kspace(self, image: Tensor) -> Tensor:
        return image_to_kspace(image) if self.is_centred else corner_fft(image)

    def _image(self, kspace: Tensor) -> Tensor:
        return kspace_to_image(kspace) if self.is_centred else corner_ifft(kspace)

    @cached_property
    def _amplitudes(self) -> tuple[Tensor, Tensor]:
        """Half the sum and half the difference of the two square roots."""
        real, imag = self.spectra.sqrt()
        return (real + imag) / 2, (real - imag) / 2

    @property
    def information(self) -> float:
        """One over the variance of the noise in a real or imaginary part."""
        return 2 / self.noise_std**2

    @property
    def signal(self) -> Tensor:
        """Expected energy of the image: float ``(...)``."""
        return self.magnitude.square().sum((-2, -1)) * self.spectra.sum(0).mean()

    def white(self, generator: torch.Generator) -> Tensor:
        """White images, real and imaginary part of variance 1: complex ``(..., y, x)``."""
        shape = (*self.maps.shape[:-3], *self.maps.shape[-2:])
        made = torch.randn(
            shape, dtype=self.maps.dtype, generator=generator, device=generator.device
        )
        return 2**0.5 * made.to(self.maps.device)

    def _filter(self, v: Tensor, half_sum: Tensor, half_difference: Tensor) -> Tensor:
        """Real and imaginary part each through a symmetric filter of its own, at one transform.

        The transform of the real part is the even half of V, (V(k) + V(-k)*) / 2.
        """
        spectrum = self._kspace(v)
        mirrored = mirror(spectrum.conj(), self.is_centred)
        return self._image(half_sum * spectrum + half_difference * mirrored)

    def texture(self, v: Tensor) -> Tensor:
        """White to textured images, ``(..., y, x)``: its own adjoint."""
        return self._filter(v, *self._amplitudes)

    def image(self, v: Tensor) -> Tensor:
        """The image that white coefficients stand for: ``(..., y, x)`` to the same."""
        return self.magnitude * self.texture(v)

    def image_adjoint(self, x: Tensor) -> Tensor:
        """Adjoint of :meth:`image`."""
        return self.texture(self.magnitude * x)

    def measure(self, v: Tensor) -> Tensor:
        """All of k-space without noise, B: ``(..., y, x)`` to ``(..., coil, ky, kx)``."""
        return self._kspace(self.maps * self.image(v).unsqueeze(-3))

    def measure_adjoint(self, kspace: Tensor) -> Tensor:
        """Adjoint of :meth:`measure`, for real vectors."""
        return self.image_adjoint((self.maps.conj() * self._image(kspace)).sum(-3))

    def precision(self, v: Tensor, mask: Tensor) -> Tensor:
        """H v. ``mask``: real in [0, 1], ``(ky, kx)`` or ``(..., 1, ky, kx)``."""
        return v + self.information * self.measure_adjoint(mask * self.measure(v))

    def jacobi(self, mask: Tensor) -> Tensor:
        """What H does to each frequency of either part alone: float ``(2, ..., ky, kx)``."""
        n = mask.shape[-2] * mask.shape[-1]
        seen = image_to_kspace(self.maps * self.magnitude.unsqueeze(-3)).abs().square().sum(-3)
        mask = mask.squeeze(-3) if mask.ndim > 2 else mask
        # Correlation of the mask with what one frequency spreads to, as products of transforms.
        product = image_to_kspace(mask.to(seen.dtype)).conj() * image_to_kspace(seen)
        spread = image_to_kspace(product).real.clamp_min(0) / math.sqrt(n)
        both = (spread + mirror(spread)) / self.noise_std**2
        return 1 + torch.stack([spectrum * both for spectrum in self.spectra])

    def solve(self, b: Tensor, mask: Tensor, n_iterations: int) -> Tensor:
        """H^-1 b by preconditioned conjugate gradients; shapes as for :meth:`precision`."""
        scan, mask, diagonal = (
            self.cornered,
            to_corner(mask),
            to_corner(self.jacobi(mask)),
        )
        real, imag = 1 / diagonal
        halves = (real + imag) / 2, (real - imag) / 2

        def weaken(r: Tensor) -> Tensor:
            return scan._filter(r, *halves)

        def operator(v: Tensor) -> Tensor:
            return scan.precision(v, mask)

        v = conjugate_gradients(operator, to_corner(b), n_iterations, precondition=weaken)
        return to_centre(v)

    def reconstruct(self, kspace: Tensor, mask: Tensor, n_iterations: int = 20) -> Tensor:
        """The posterior mean of the image, ``(..., y, x)``.

        Differentiable in k-space and mask, but not in the scan's own properties.

        Parameters
        ----------
        kspace : complex ``(..., coil, ky, kx)``, zero where nothing was acquired
        mask : real in [0, 1], ``(ky, kx)`` or ``(..., 1, ky, kx)``
        """
        mean: Tensor = _PosteriorMean.apply(kspace, mask, self, n_iterations)  # type: ignore[no-untyped-call]
        return mean


class _PosteriorMean(torch.autograd.Function):
    """Its gradient takes one more solve, where a record of all iterations would fill memory."""

    @staticmethod
    def forward(ctx: Any, kspace: Tensor, mask: Tensor, scan: GaussianScan, n: int) -> Tensor:
        v = scan.solve(scan.information * scan.measure_adjoint(kspace), mask, n)
        ctx.save_for_backward(mask, v)
        ctx.scan, ctx.n = scan, n
        return scan.image(v)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (mask, v), scan = gradients, ctx.saved_tensors, ctx.scan
        u = scan.solve(scan.image_adjoint(gradient), mask, ctx.n)
        grad_kspace = scan.information * scan.measure(u)
        grad_mask = None
        if ctx.needs_input_grad[1]:
            grad_mask = -(grad_kspace.conj() * scan.measure(v)).real.sum_to_size(mask.shape)
        return grad_kspace, grad_mask, None, None


def mirror(plane: Tensor, is_centred: bool = True) -> Tensor:
    """Values at -k: ``(..., ky, kx)``, DC at n // 2 of each axis or at 0."""
    shifts = [1 - n % 2 if is_centred else 1 for n in plane.shape[-2:]]
    return plane.flip(-2, -1).roll(shifts, (-2, -1))
