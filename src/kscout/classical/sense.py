"""SENSE by conjugate gradients, with coil maps from the scan's own centre."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from kscout.classical.slicewise import Acs, Advance, each_slice, ignore
from kscout.classical.spirit import Iterations
from kscout.classical.wavelets import COARSEST, shrink
from kscout.physics.espirit import espirit_maps
from kscout.physics.fourier import image_to_kspace, kspace_to_image
from kscout.physics.solvers import conjugate_gradients, slice_inner

Crop = Annotated[float, Field(ge=0, lt=1, description="eigenvalue below which a pixel has no map")]
Maps = Annotated[int, Field(ge=1, le=2, description="per pixel; 2 where the object folds over")]


def sense(
    kspace: Tensor,
    mask: Tensor,
    acs: Acs,
    *,
    n_maps: Maps = 1,
    crop: Crop = 0.8,
    n_iterations: Iterations = 30,
    damping: Annotated[float, Field(ge=0, description="Tikhonov of the image")] = 0.01,
    calibration: Tensor | None = None,
    advance: Advance = ignore,
) -> Tensor:
    r"""The image that explains what was acquired, by least squares.

    Pruessmann et al., Magn Reson Med 46:638 (2001), with ESPIRiT maps S (Uecker et al. 2014):

    .. math:: \min_m \|D F S m - y\|^2 + \varepsilon \|m\|^2

    Parameters
    ----------
    kspace : complex ``(slice, coil, ky, kx)``, zero where nothing was acquired
    mask : {0, 1} ``(ky, kx)``
    acs : fully sampled block that the maps of each slice come from
    calibration : such a block of a separate scan, see :func:`~kscout.classical.spirit.spirit`
    damping : :math:`\varepsilon`; the coils' sensitivities have unit norm at every pixel
    advance : called after every slice with done and total

    Returns
    -------
    complex ``(slice, coil, ky, kx)``, the k-space of the image in all coils; the acquired points
    are the image's too, without their noise and without what lies outside of the maps
    """

    def reconstruct(y: Tensor, mask: Tensor, centre: Tensor) -> Tensor:
        maps = _maps(centre, mask, n_maps, crop)

        def normal(m: Tensor) -> Tensor:
            return _weighted(maps, mask * _coils(maps, m)) + damping * m

        m = conjugate_gradients(normal, _weighted(maps, y), n_iterations, inner=slice_inner)
        return _coils(maps, m)

    return each_slice(reconstruct, kspace, mask, acs, calibration, advance)


def l1_sense(
    kspace: Tensor,
    mask: Tensor,
    acs: Acs,
    *,
    n_maps: Maps = 1,
    crop: Crop = 0.8,
    n_iterations: Iterations = 50,
    sparsity: Annotated[
        float, Field(ge=0, description="weight of wavelets, of the largest pixel")
    ] = 0.002,
    seed: int = 0,
    calibration: Tensor | None = None,
    advance: Advance = ignore,
) -> Tensor:
    r"""SENSE of an image that is sparse in wavelets, by FISTA (Beck & Teboulle 2009).

    .. math:: \min_m \tfrac12 \|D F S m - y\|^2 + \lambda \sum_r \|(\Psi m)_r\|_2

    with the norm over the maps, of which there is one or two, at every wavelet coefficient r but
    the coarsest. The basis moves at every step, as in l1-SPIRiT.

    Parameters
    ----------
    kspace, mask, acs, calibration, advance : as for :func:`sense`
    sparsity : :math:`\lambda` in units of the zero-filled image's largest modulus
    seed : of the shifts of the basis

    Returns
    -------
    complex ``(slice, coil, ky, kx)``
    """

    def reconstruct(y: Tensor, mask: Tensor, centre: Tensor) -> Tensor:
        maps = _maps(centre, mask, n_maps, crop)
        generator = torch.Generator().manual_seed(seed)
        start = _weighted(maps, y)
        threshold, momentum = sparsity * float(start.abs().max()), 1.0
        m = ahead = torch.zeros_like(start)
        for _ in range(n_iterations):  # the normal operator's norm is at most 1, and so the step
            shift = torch.randint(COARSEST, (2,), generator=generator).tolist()
            moved = ahead + start - _weighted(maps, mask * _coils(maps, ahead))
            before, m = m, shrink(moved, threshold, (shift[0], shift[1]))
            next_momentum = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
            ahead = m + (momentum - 1) / next_momentum * (m - before)
            momentum = next_momentum
        return _coils(maps, m)

    return each_slice(reconstruct, kspace, mask, acs, calibration, advance)


def _maps(centre: Tensor, mask: Tensor, n_maps: int, crop: float) -> Tensor:
    return espirit_maps(centre, (mask.shape[0], mask.shape[1]), n_maps=n_maps, crop=crop)


def _coils(maps: Tensor, m: Tensor) -> Tensor:
    """F S m: complex ``(1, map, y, x)`` to ``(1, coil, ky, kx)``."""
    return image_to_kspace((maps * m[0][:, None]).sum(0))[None]


def _weighted(maps: Tensor, y: Tensor) -> Tensor:
    """S^H F^H y, the adjoint of :func:`_coils`."""
    return (maps.conj() * kspace_to_image(y[0])).sum(1)[None]
