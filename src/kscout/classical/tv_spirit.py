"""SPIRiT with the total variation of the coil images (Lustig & Pauly 2010; Block et al. 2007)."""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from kscout.classical.admm import COUPLING, penalised
from kscout.classical.slicewise import Acs, Advance, each_slice, ignore
from kscout.classical.spirit import Iterations, KernelSize, Regularisation, operator_of
from kscout.physics.fourier import image_to_kspace, kspace_to_image


def tv_spirit(
    kspace: Tensor,
    mask: Tensor,
    acs: Acs,
    *,
    kernel_size: KernelSize = 5,
    regularisation: Regularisation = 0.01,
    n_iterations: Iterations = 20,
    sparsity: Annotated[
        float, Field(ge=0, description="weight of differences, of the largest pixel")
    ] = 0.002,
    calibration: Tensor | None = None,
    advance: Advance = ignore,
) -> Tensor:
    r"""Piecewise smooth where the kernel leaves open what k-space is.

    .. math:: \min_x \tfrac12 \|(G - I)\,x\|^2 + \lambda \sum_r \|(\nabla F^{-1} x)_r\|_2
        \quad\text{with}\quad D x = y

    with the norm over coils and both directions at every pixel r, and differences of neighbours
    that go round the edges, by ADMM (:mod:`kscout.classical.admm`). As with
    :func:`~kscout.classical.l1_spirit.l1_spirit` the number of steps is part of the regularisation.

    Parameters
    ----------
    kspace, mask, acs, calibration, advance : as for :func:`~kscout.classical.spirit.spirit`
    n_iterations : of ADMM
    sparsity : :math:`\lambda` in units of the largest modulus of the zero-filled coil images

    Returns
    -------
    complex ``(slice, coil, ky, kx)``
    """
    normal = difference_power((mask.shape[0], mask.shape[1])).to(kspace.device)

    def reconstruct(y: Tensor, mask: Tensor, centre: Tensor) -> Tensor:
        operator = operator_of(centre, mask, kernel_size, regularisation)
        threshold = sparsity * float(kspace_to_image(y).abs().max()) / COUPLING
        return penalised(
            y,
            mask,
            operator,
            lambda found: shrink_jointly(found, threshold),
            n_iterations,
            forward=lambda x: differences(kspace_to_image(x)),
            adjoint=lambda found: image_to_kspace(differences_adjoint(found)),
            normal=normal,
        )

    return each_slice(reconstruct, kspace, mask, acs, calibration, advance)


def differences(images: Tensor) -> Tensor:
    """To the next pixel, round the edges: ``(..., y, x)`` to ``(2, ..., y, x)``."""
    return torch.stack([images.roll(-1, axis) - images for axis in (-2, -1)])


def differences_adjoint(found: Tensor) -> Tensor:
    """Adjoint of :func:`differences`: ``(2, ..., y, x)`` to ``(..., y, x)``."""
    down, right = found
    return down.roll(1, -2) - down + right.roll(1, -1) - right


def difference_power(plane: tuple[int, int]) -> Tensor:
    """Differences and their adjoint, which multiply k-space: float ``(ky, kx)``, 0 at DC."""
    y, x = (4 * torch.sin(math.pi * (torch.arange(n) - n // 2) / n) ** 2 for n in plane)
    return y[:, None] + x


def shrink_jointly(found: Tensor, threshold: float) -> Tensor:
    r"""The proximal step of :math:`\lambda \sum_r \|\cdot_r\|_2` over directions and coils.

    Parameters
    ----------
    found : complex ``(direction, ..., coil, y, x)``
    threshold : :math:`\lambda`
    """
    power = found.real**2 + found.imag**2
    size = power.sum((0, -3), keepdim=True).sqrt()
    tiny = torch.finfo(size.dtype).tiny
    return found * (1 - threshold / size.clamp_min(max(threshold, tiny)))
