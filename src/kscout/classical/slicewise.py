"""Slice after slice: each has a kernel, maps and memory of its own."""

from collections.abc import Callable

import torch
from torch import Tensor

from kscout.errors import UserError
from kscout.physics.fourier import centre_block

Advance = Callable[[int, int], None]
"""Called with how many slices are done, and of how many."""

Acs = tuple[int, int]
"""Rows and columns of the fully sampled block around DC."""

Reconstruct = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of one slice: k-space ``(1, coil, ky, kx)``, mask and fully sampled centre to completed k-space.

The mask is float ``(ky, kx)``, the centre complex ``(coil, rows, columns)``.
"""


def ignore(done: int, total: int) -> None:
    """No progress is shown."""


@torch.no_grad()
def each_slice(
    reconstruct: Reconstruct, kspace: Tensor, mask: Tensor, acs: Acs, advance: Advance
) -> Tensor:
    """``reconstruct`` of every slice, brought to a largest modulus of about 1 and back.

    Coils that hold nothing but zeros stay so, and the others are reconstructed without them.

    Parameters
    ----------
    kspace : complex ``(slice, coil, ky, kx)``; what the mask leaves out is not looked at
    mask : {0, 1} ``(ky, kx)``
    acs : rows and columns around DC that the mask acquires

    Raises
    ------
    UserError
        if shapes do not fit, the mask is not binary or lacks a point of the centre, or an acquired
        point is not finite
    """
    _refuse_odd(kspace, mask, acs)
    rows, columns = centre_block(mask.shape, acs)
    sampled = mask.to(kspace.device) != 0
    weights = sampled.to(kspace.real.dtype)

    def of_slice(y: Tensor) -> Tensor:
        return reconstruct(y, weights, y[0][:, rows, columns])

    completed = torch.empty_like(kspace)
    for i in range(len(kspace)):
        y = torch.where(sampled, kspace[i : i + 1], 0)
        if not torch.isfinite(torch.view_as_real(y)).all():
            raise UserError(f"slice {i} holds NaN or infinity at acquired points")
        completed[i] = heard(of_slice, y, (mask.shape[0], mask.shape[1]))[0]
        advance(i + 1, len(kspace))
    return completed


def heard(reconstruct: Callable[[Tensor], Tensor], y: Tensor, shape: tuple[int, int]) -> Tensor:
    """``reconstruct`` of one slice without silent coils, at a largest modulus of about 1, and back.

    Parameters
    ----------
    y : complex ``(1, coil, ...)``, finite: what was acquired
    shape : ``(ky, kx)`` of what is completed

    Returns
    -------
    complex ``(1, coil, ky, kx)``, zero in coils of nothing but zeros
    """
    completed = y.new_zeros(1, y.shape[1], *shape)
    alive = (y[0] != 0).flatten(1).any(1)
    if alive.any():
        largest = y.abs().max().clamp_min(torch.finfo(y.real.dtype).tiny)
        scale = torch.exp2(largest.log2().round())  # a power of two: there and back to the bit
        completed[:, alive] = reconstruct(y[:, alive] / scale) * scale
    return completed


def _refuse_odd(kspace: Tensor, mask: Tensor, acs: Acs) -> None:
    if kspace.ndim != 4 or not kspace.is_complex():
        raise UserError(
            f"k-space is {kspace.dtype} {tuple(kspace.shape)}: valid is complex "
            "(slice, coil, ky, kx)"
        )
    plane = tuple(kspace.shape[-2:])
    if tuple(mask.shape) != plane or not ((mask == 0) | (mask == 1)).all():
        raise UserError(
            f"the mask is {mask.dtype} {tuple(mask.shape)}: valid is 0 and 1 of {plane}"
        )
    if not all(0 < size <= n for size, n in zip(acs, plane, strict=True)):
        raise UserError(f"a fully sampled centre of {acs} is impossible: the plane is {plane}")
    absent = int((mask[centre_block(plane, acs)] == 0).sum())
    if absent:
        raise UserError(
            f"the mask lacks {absent} points of the {acs[0]}x{acs[1]} centre: valid is the largest "
            "centred block that it acquires (kscout.sampling.pattern.find_acs)"
        )
