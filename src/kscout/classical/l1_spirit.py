"""SPIRiT with joint sparsity of the coil images (Lustig & Pauly 2010; Murphy et al. 2012)."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from kscout.classical.admm import COUPLING, penalised
from kscout.classical.slicewise import Acs, Advance, each_slice, ignore
from kscout.classical.spirit import Iterations, KernelSize, Regularisation, operator_of
from kscout.classical.wavelets import COARSEST, shrink
from kscout.physics.fourier import image_to_kspace, kspace_to_image


def l1_spirit(
    kspace: Tensor,
    mask: Tensor,
    acs: Acs,
    *,
    kernel_size: KernelSize = 5,
    regularisation: Regularisation = 0.01,
    n_iterations: Iterations = 20,
    sparsity: Annotated[
        float, Field(ge=0, description="weight of wavelets, of the largest pixel")
    ] = 0.003,
    seed: int = 0,
    calibration: Tensor | None = None,
    advance: Advance = ignore,
) -> Tensor:
    r"""Sparse where the kernel leaves open what k-space is.

    .. math:: \min_x \tfrac12 \|(G - I)\,x\|^2 + \lambda \sum_r \|(\Psi F^{-1} x)_r\|_2
        \quad\text{with}\quad D x = y

    with the norm over coils at every wavelet coefficient r but the coarsest, by ADMM
    (:mod:`kscout.classical.admm`). The basis moves at every step (cycle spinning), so that what is
    minimised is this on the average over shifts, and only nearly. The fixed number of steps is part
    of the regularisation: twice as many give another image.

    Parameters
    ----------
    kspace, mask, acs, calibration, advance : as for :func:`~kscout.classical.spirit.spirit`
    n_iterations : of ADMM
    sparsity : :math:`\lambda` in units of the largest modulus of the zero-filled coil images
    seed : of the shifts of the basis

    Returns
    -------
    complex ``(slice, coil, ky, kx)``
    """

    def reconstruct(y: Tensor, mask: Tensor, centre: Tensor) -> Tensor:
        operator = operator_of(centre, mask, kernel_size, regularisation)
        generator = torch.Generator().manual_seed(seed)
        threshold = sparsity * float(kspace_to_image(y).abs().max()) / COUPLING

        def shrink_somewhere(images: Tensor) -> Tensor:
            y0, x0 = torch.randint(COARSEST, (2,), generator=generator).tolist()
            return shrink(images, threshold, (y0, x0))

        return penalised(
            y,
            mask,
            operator,
            shrink_somewhere,
            n_iterations,
            forward=kspace_to_image,
            adjoint=image_to_kspace,
            normal=1.0,
        )

    return each_slice(reconstruct, kspace, mask, acs, calibration, advance)
