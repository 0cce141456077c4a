"""GRAPPA, by pygrappa (an optional package)."""

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from kscout.classical.slicewise import Acs, Advance, each_slice, ignore
from kscout.classical.spirit import KernelSize
from kscout.errors import UserError


def grappa(
    kspace: Tensor,
    mask: Tensor,
    acs: Acs,
    *,
    kernel_size: KernelSize = 5,
    regularisation: Annotated[float, Field(ge=0, description="Tikhonov of the weights")] = 0.01,
    calibration: Tensor | None = None,
    advance: Advance = ignore,
) -> Tensor:
    """Each missing point from the acquired ones around it, with weights fitted on the centre.

    Griswold et al., Magn Reson Med 47:1202 (2002). Every arrangement of acquired neighbours has
    weights of its own: a lattice has a few, an irregular mask thousands, which take ten seconds.
    Points that have no acquired neighbour within the kernel stay zero.

    Parameters
    ----------
    kspace, mask, acs, calibration, advance : as for :func:`~kscout.classical.spirit.spirit`

    Returns
    -------
    complex ``(slice, coil, ky, kx)``

    Raises
    ------
    UserError
        if pygrappa is not installed, or the centre is smaller than the kernel
    """
    try:
        from pygrappa import mdgrappa  # cgrappa is further off on lattices
    except ImportError as error:
        raise UserError("grappa needs pygrappa: pip install 'kscout[grappa]'") from error
    if min(acs) < kernel_size:
        raise UserError(
            f"a fully sampled centre of {acs[0]}x{acs[1]} is too small for a kernel of "
            f"{kernel_size}x{kernel_size}"
        )

    def reconstruct(y: Tensor, mask: Tensor, centre: Tensor) -> Tensor:
        plane, block = (x.cpu().numpy().astype(np.complex128) for x in (y[0], centre))
        with np.errstate(invalid="ignore"):  # where a kernel has nothing to see
            filled = mdgrappa(
                plane,
                np.ascontiguousarray(block),
                kernel_size=(kernel_size, kernel_size),
                coil_axis=0,
                lamda=regularisation,
            )
        return ((1 - mask) * torch.from_numpy(np.asarray(filled)).to(y) + y[0])[None]

    return each_slice(reconstruct, kspace, mask, acs, calibration, advance)
