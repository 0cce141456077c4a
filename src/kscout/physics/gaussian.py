r"""Scans of images with a Gaussian prior: the best linear reconstruction, its expected error.

The image is :math:`x = W F^H P^{1/2} F\,v` with white :math:`v`: texture of power spectrum
:math:`P` times the expected magnitude :math:`W`, small outside the head. Coils of sensitivity
:math:`S_c` see :math:`y_c = m\,(F S_c x + n_c)`, the noise white with
:math:`\mathrm{E}|n|^2 = \sigma^2`. With :math:`B = F S W F^H P^{1/2} F` the posterior mean and
covariance of :math:`v` are (Tarantola 2005, sec. 3.2)

.. math:: \hat v = H^{-1} B^H m y / \sigma^2, \qquad H = I + B^H m B / \sigma^2, \qquad
   \mathrm{Cov}(v | y) = H^{-1}.

Where the phase of the image is in the sensitivities, :math:`x` and :math:`v` are real, and twice
the real part takes the place of :math:`B^H m B` (phase-constrained SENSE, Willig-Onwuachi et al.
2005).
"""

import math
from collections.abc import Callable
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

TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class GaussianScan:
    """Coils, prior and noise of one or more slices.

    Attributes
    ----------
    maps : complex ``(..., coil, y, x)``, sensitivities with a root sum of squares of 1 (or 0)
    magnitude : float ``(..., y, x)`` or ``(y, x)``, W: the expected magnitude of the image
    spectrum : float ``(ky, kx)``, P: power of the texture; symmetric, so that the texture is real
    noise_std : root mean square modulus of the noise of a k-space point
    is_real : the phase of the image is in ``maps``
    is_centred : centres are at index n // 2 of each axis; else at 0, which is faster inside loops
    """

    maps: Tensor
    magnitude: Tensor
    spectrum: Tensor
    noise_std: float
    is_real: bool = True
    is_centred: bool = True

    @cached_property
    def cornered(self) -> "GaussianScan":
        """The same scan with its centres at index 0."""
        return replace(
            self,
            maps=to_corner(self.maps),
            magnitude=to_corner(self.magnitude),
            spectrum=to_corner(self.spectrum),
            is_centred=False,
        )

    def _kspace(self, image: Tensor) -> Tensor:
        return image_to_kspace(image) if self.is_centred else corner_fft(image)

    def _image(self, kspace: Tensor) -> Tensor:
        return kspace_to_image(kspace) if self.is_centred else corner_ifft(kspace)

    @cached_property
    def _amplitude(self) -> Tensor:
        return self.spectrum.sqrt()

    @property
    def information(self) -> float:
        """What one unit of squared signal is worth: 1 / variance of the noise it competes with."""
        return (2.0 if self.is_real else 1.0) / self.noise_std**2

    def white(self, generator: torch.Generator) -> Tensor:
        """White images, one per slice: ``(..., y, x)``, real or complex as the scan's."""
        shape = (*self.maps.shape[:-3], *self.maps.shape[-2:])
        dtype = torch.float32 if self.is_real else torch.complex64
        made = torch.randn(shape, dtype=dtype, generator=generator, device=generator.device)
        return made.to(self.maps.device)

    def _kept(self, x: Tensor) -> Tensor:
        return x.real if self.is_real else x

    def texture(self, v: Tensor) -> Tensor:
        """``P^(1/2)`` in the image domain, its own adjoint: ``(..., y, x)``."""
        spectrum = self._amplitude * self._kspace(v.to(self.maps.dtype))
        return self._kept(self._image(spectrum))

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
        """Adjoint of :meth:`measure` (its real part for real images)."""
        combined = (self.maps.conj() * self._image(kspace)).sum(-3)
        return self.image_adjoint(self._kept(combined))

    def precision(self, v: Tensor, mask: Tensor) -> Tensor:
        """H v. ``mask``: real in [0, 1], ``(ky, kx)`` or ``(..., 1, ky, kx)``."""
        return v + self.information * self.measure_adjoint(mask * self.measure(v))

    def jacobi(self, mask: Tensor) -> Tensor:
        """Diagonal of H in the Fourier domain: float ``(..., ky, kx)``.

        Of the complex image; for a real one the mean over a frequency and its mirror image, twice.
        """
        n = mask.shape[-2] * mask.shape[-1]
        seen = image_to_kspace(self.maps * self.magnitude.unsqueeze(-3)).abs().square().sum(-3)
        mask = mask.squeeze(-3) if mask.ndim > 2 else mask
        # Correlation of the mask with what one frequency spreads to, as products of transforms.
        product = image_to_kspace(mask.to(seen.dtype)).conj() * image_to_kspace(seen)
        spread = image_to_kspace(product).real.clamp_min(0) / math.sqrt(n)
        diagonal = self.spectrum * spread / self.noise_std**2
        if self.is_real:
            diagonal = diagonal + mirror(diagonal)
        return 1 + diagonal

    def solve(self, b: Tensor, mask: Tensor, n_iterations: int) -> Tensor:
        """H^-1 b by preconditioned conjugate gradients; shapes as for :meth:`precision`."""
        scan, mask, diagonal = self.cornered, to_corner(mask), to_corner(self.jacobi(mask))

        def weaken(r: Tensor) -> Tensor:
            return scan._kept(corner_ifft(corner_fft(r.to(self.maps.dtype)) / diagonal))

        def operator(v: Tensor) -> Tensor:
            return scan.precision(v, mask)

        return to_centre(conjugate_gradients(operator, to_corner(b), weaken, n_iterations))

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


def mirror(plane: Tensor) -> Tensor:
    """Values at -k: ``(..., ky, kx)``."""
    shifts = [1 - n % 2 for n in plane.shape[-2:]]
    return plane.flip(-2, -1).roll(shifts, (-2, -1))


def conjugate_gradients(
    operator: Callable[[Tensor], Tensor],
    b: Tensor,
    precondition: Callable[[Tensor], Tensor],
    n_iterations: int,
) -> Tensor:
    """Solve A x = b for a positive operator on ``(..., y, x)``, each leading index for itself.

    Preconditioned conjugate gradients (Saad 2003, alg. 9.1), from zero; a system that is solved
    stays as it is.
    """
    x, r = torch.zeros_like(b), b
    z = precondition(r)
    p, rho = z, _inner(r, z)
    for _ in range(n_iterations):
        q = operator(p)
        step = rho / _inner(p, q).clamp_min(TINY)
        x, r = x + step * p, r - step * q
        z = precondition(r)
        before, rho = rho, _inner(r, z)
        p = z + rho / before.clamp_min(TINY) * p
    return x


def _inner(a: Tensor, b: Tensor) -> Tensor:
    product = (a.conj() * b).real if a.is_complex() else a * b
    return product.sum((-2, -1), keepdim=True)
