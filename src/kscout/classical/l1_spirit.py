"""SPIRiT with joint sparsity of the coil images (Lustig & Pauly 2010; Murphy et al. 2012)."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from kscout.classical.slicewise import Acs, Advance, each_slice, ignore
from kscout.classical.spirit import Iterations, KernelSize, Regularisation, operator_of
from kscout.classical.wavelets import COARSEST, shrink
from kscout.physics.fourier import image_to_kspace, kspace_to_image
from kscout.physics.solvers import conjugate_gradients, slice_inner

COUPLING = 0.1
"""Weight of the split in ADMM, in units of the kernel's operator.

Fixed, as is ``INNER``, and tried on the scans of ``benchmarks/classical.py``: NRMSE there is within
0.0025 for 0.02 to 0.5 at the default number of iterations, which ends before ADMM has converged.
"""

INNER = 4
"""Conjugate gradients in every step of ADMM, each from where the last ended."""


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
    advance: Advance = ignore,
) -> Tensor:
    r"""Sparse where the kernel leaves open what k-space is.

    .. math:: \min_x \tfrac12 \|(G - I)\,x\|^2 + \lambda \sum_r \|(\Psi F^{-1} x)_r\|_2
        \quad\text{with}\quad D x = y

    with the norm over coils at every wavelet coefficient r but the coarsest, by ADMM (Boyd et al.
    2011, sec. 3.1). The basis moves at every step (cycle spinning), so that what is minimised is
    this on the average over shifts, and only nearly. The fixed number of steps is part of the
    regularisation: twice as many give another image.

    Parameters
    ----------
    kspace, mask, acs, advance : as for :func:`~kscout.classical.spirit.spirit`
    n_iterations : of ADMM
    sparsity : :math:`\lambda` in units of the largest modulus of the zero-filled coil images
    seed : of the shifts of the basis

    Returns
    -------
    complex ``(slice, coil, ky, kx)``
    """

    def reconstruct(y: Tensor, mask: Tensor, centre: Tensor) -> Tensor:
        operator, missing = operator_of(centre, mask, kernel_size, regularisation), 1 - mask
        generator = torch.Generator().manual_seed(seed)
        image = kspace_to_image(y)
        threshold = sparsity * float(image.abs().max()) / COUPLING
        x, dual = y, torch.zeros_like(image)

        def normal(change: Tensor) -> Tensor:
            return missing * operator.normal(change) + COUPLING * change

        for _ in range(n_iterations):
            shift = torch.randint(COARSEST, (2,), generator=generator).tolist()
            sparse = shrink(image + dual, threshold, (shift[0], shift[1]))
            against = COUPLING * (image_to_kspace(sparse - dual) - x) - operator.normal(x)
            x = x + conjugate_gradients(normal, missing * against, INNER, inner=slice_inner)
            image = kspace_to_image(x)
            dual = dual + image - sparse
        return x

    return each_slice(reconstruct, kspace, mask, acs, advance)
