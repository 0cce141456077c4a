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
    reconstruct: Reconstruct,
    kspace: Tensor,
    mask: Tensor,
    acs: Acs,
    calibration: Tensor | None,
    advance: Advance,
) -> Tensor:
    """``reconstruct`` of every slice, brought to a largest modulus of about 1 and back.

    Coils that hold nothing but zeros stay so, and the others are reconstructed without them.

    Parameters
    ----------
    kspace : complex ``(slice, coil, ky, kx)``; what the mask leaves out is not looked at
    mask : {0, 1} ``(ky, kx)``
    acs : rows and columns around DC that the mask acquires, or of ``calibration``
    calibration : complex ``(slice, coil, rows, columns)``, the centre of a separate scan of the
        same coils, on the same grid of k-space; of ``kspace`` itself if None

    Raises
    ------
    UserError
        if shapes do not fit, the mask is not binary or lacks a point of the centre, or an acquired
        point is not finite
    """
    _refuse_odd(kspace, mask)
    if calibration is None:
        _refuse_no_centre(mask, acs)
    else:
        _refuse_odd_centre(calibration, kspace, acs)
    rows, columns = centre_block(mask.shape, acs)
    sampled = mask.to(kspace.device) != 0
    weights = sampled.to(kspace.real.dtype)

    completed = torch.empty_like(kspace)
    for i in range(len(kspace)):
        y = torch.where(sampled, kspace[i : i + 1], 0)
        if not torch.isfinite(torch.view_as_real(y)).all():
            raise UserError(f"slice {i} holds NaN or infinity at acquired points")

        def of_slice(y: Tensor, alive: Tensor, i: int = i) -> Tensor:
            centre = y[0][:, rows, columns]
            if calibration is not None:
                centre = calibration[i].to(y)[alive]
                centre = centre / _size(centre)
            silent = (centre == 0).flatten(1).all(1)
            if silent.any():
                coil = int(torch.nonzero(alive)[silent][0])
                raise UserError(f"coil {coil} holds nothing but zeros in the fully sampled centre")
            return reconstruct(y, weights, centre)

        completed[i] = heard(of_slice, y, (mask.shape[0], mask.shape[1]))[0]
        advance(i + 1, len(kspace))
    return completed


def heard(
    reconstruct: Callable[[Tensor, Tensor], Tensor], y: Tensor, shape: tuple[int, int]
) -> Tensor:
    """``reconstruct`` of one slice without silent coils, at a largest modulus of about 1, and back.

    Parameters
    ----------
    reconstruct : of the coils that are left, and which these are, bool ``(coil,)``
    y : complex ``(1, coil, ...)``, finite: what was acquired
    shape : ``(ky, kx)`` of what is completed

    Returns
    -------
    complex ``(1, coil, ky, kx)``, zero in coils of nothing but zeros
    """
    completed = y.new_zeros(1, y.shape[1], *shape)
    alive = (y[0] != 0).flatten(1).any(1)
    if alive.any():
        scale = _size(y)
        completed[:, alive] = reconstruct(y[:, alive] / scale, alive) * scale
    return completed


def _size(y: Tensor) -> Tensor:
    """About the largest modulus: a power of two, so that it is there and back to the bit."""
    largest = y.abs().max().clamp_min(torch.finfo(y.real.dtype).tiny)
    return torch.exp2(largest.log2().round())


def _refuse_odd_centre(calibration: Tensor, kspace: Tensor, acs: Acs) -> None:
    valid = (*kspace.shape[:2], *acs)
    if calibration.shape != valid or not calibration.is_complex():
        given = f"{calibration.dtype} {tuple(calibration.shape)}"
        raise UserError(f"calibration is {given}: valid is complex {valid}")
    if not torch.isfinite(torch.view_as_real(calibration)).all():
        raise UserError("calibration holds NaN or infinity")


def _refuse_odd(kspace: Tensor, mask: Tensor) -> None:
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


def _refuse_no_centre(mask: Tensor, acs: Acs) -> None:
    plane = tuple(mask.shape)
    if not all(0 < size <= n for size, n in zip(acs, plane, strict=True)):
        raise UserError(f"a fully sampled centre of {acs} is impossible: the plane is {plane}")
    absent = int((mask[centre_block(plane, acs)] == 0).sum())
    if absent:
        raise UserError(
            f"the mask lacks {absent} points of the {acs[0]}x{acs[1]} centre: valid is the largest "
            "centred block that it acquires (kscout.sampling.pattern.find_acs)"
        )
