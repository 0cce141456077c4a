"""SPIRiT on one scan, calibrated on its own centre (Lustig & Pauly 2010)."""

from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from kscout.classical.slicewise import Acs, Advance, each_slice, ignore
from kscout.physics.calibration import calibrate
from kscout.physics.solvers import conjugate_gradients, slice_inner
from kscout.physics.spirit import SpiritOperator, odd

KernelSize = Annotated[
    int, Field(ge=3, le=15, description="width of the kernel, odd"), AfterValidator(odd)
]
Regularisation = Annotated[
    float, Field(gt=0, description="Tikhonov of the kernel, of the mean eigenvalue")
]
Damping = Annotated[float, Field(ge=0, description="Tikhonov of the points that were not acquired")]
Iterations = Annotated[int, Field(ge=1, description="that are taken")]


def spirit(
    kspace: Tensor,
    mask: Tensor,
    acs: Acs,
    *,
    kernel_size: KernelSize = 5,
    regularisation: Regularisation = 0.01,
    n_iterations: Iterations = 30,
    damping: Damping = 0.01,
    data_weight: Annotated[
        float | None, Field(gt=0, description="of acquired points; else they stay as they are")
    ] = None,
    calibration: Tensor | None = None,
    advance: Advance = ignore,
) -> Tensor:
    r"""Least squares by conjugate gradients.

    Lustig & Pauly (2010), arbitrary Cartesian sampling. Without ``data_weight`` the acquired points
    stay, and

    .. math:: \min_x \|(G - I)\,x\|^2 + \varepsilon \|x_\text{missing}\|^2
        \quad\text{with}\quad D x = y

    With it, :math:`w`, they may give way to noise,
    :math:`\min_x \|(G - I)\,x\|^2 + w \|D x - y\|^2 + \varepsilon \|x_\text{missing}\|^2`.
    The damping :math:`\varepsilon` keeps noise from growing with every iteration where the
    coils tell little, in place of stopping early.

    Parameters
    ----------
    kspace : complex ``(slice, coil, ky, kx)``, zero where nothing was acquired
    mask : {0, 1} ``(ky, kx)``
    acs : rows and columns of the fully sampled block around DC; each slice's kernel is fitted on it
    calibration : complex ``(slice, coil, rows, columns)``, such a block of a separate scan; else
        that of ``kspace``
    advance : called after every slice with done and total

    Returns
    -------
    complex ``(slice, coil, ky, kx)``
    """

    def reconstruct(y: Tensor, mask: Tensor, centre: Tensor) -> Tensor:
        operator = operator_of(centre, mask, kernel_size, regularisation)
        missing = 1 - mask
        project, damp = missing, damping * missing
        if data_weight is not None:
            project, damp = torch.ones_like(mask), damp + data_weight * mask

        def normal(x: Tensor) -> Tensor:
            return project * operator.normal(x) + damp * x

        change = conjugate_gradients(
            normal, -project * operator.normal(y), n_iterations, inner=slice_inner
        )
        return y + change

    return each_slice(reconstruct, kspace, mask, acs, calibration, advance)


def spirit_pocs(
    kspace: Tensor,
    mask: Tensor,
    acs: Acs,
    *,
    kernel_size: KernelSize = 5,
    regularisation: Regularisation = 0.01,
    n_iterations: Iterations = 20,
    calibration: Tensor | None = None,
    advance: Advance = ignore,
) -> Tensor:
    """Projections in turn: onto what the kernel expects, and onto what was acquired.

    Lustig & Pauly (2010), POCS: x becomes G x, and the acquired points are put back. As G
    is no true projection, it comes to amplify what no coil sees, and the error grows again. It
    ends where a step is larger than the one before; that is late, so the default is few steps.

    Parameters
    ----------
    kspace, mask, acs, calibration, advance : as for :func:`spirit`

    Returns
    -------
    complex ``(slice, coil, ky, kx)``
    """

    def reconstruct(y: Tensor, mask: Tensor, centre: Tensor) -> Tensor:
        operator, x = operator_of(centre, mask, kernel_size, regularisation), y
        moved = float("inf")
        for _ in range(n_iterations):
            change = (1 - mask) * operator.forward(x)
            before, moved = moved, float(change.norm())
            if moved > before:
                break
            x = x + change
        return x

    return each_slice(reconstruct, kspace, mask, acs, calibration, advance)


def operator_of(
    centre: Tensor, mask: Tensor, kernel_size: int, regularisation: float
) -> SpiritOperator:
    """The operator of a kernel that is fitted to the centre, on the plane of the mask."""
    kernel = calibrate(centre, kernel_size, regularisation)
    return SpiritOperator(kernel, (mask.shape[0], mask.shape[1]))
