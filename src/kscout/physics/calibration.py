"""Calibration of a SPIRiT kernel: least squares over the points of fully sampled k-space."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from kscout.errors import UserError
from kscout.physics.spirit import Boundary


def neighbours(x: Tensor, kernel_size: int, boundary: Boundary) -> Tensor:
    """Every point's window: complex ``(coil, ky, kx)`` to a view ``(coil, kh, kw, ky, kx)``."""
    half = kernel_size // 2
    mode = "constant" if boundary == "zero" else "circular"
    padded = functional.pad(x[None], (half,) * 4, mode=mode)[0]
    windows = padded.unfold(1, kernel_size, 1).unfold(2, kernel_size, 1)
    return windows.permute(0, 3, 4, 1, 2)


def calibrate(acs: Tensor, kernel_size: int, regularisation: float) -> Tensor:
    r"""The kernel of a fully sampled block, from all windows that lie inside it.

    Lustig & Pauly, Magn Reson Med 64:457 (2010), calibration: every point of the block is
    one equation, :math:`\min_g \|A g - y\|^2 + \lambda \|g\|^2`.

    Parameters
    ----------
    acs : complex ``(coil, ky, kx)``
    kernel_size : odd
    regularisation : :math:`\lambda` in units of the mean eigenvalue of :math:`A^H A`

    Returns
    -------
    complex kernel ``(coil_out, coil_in, kh, kw)``, of the dtype of ``acs``

    Raises
    ------
    UserError
        if the kernel's size is even, the block gives fewer equations than the kernel has weights,
        or a coil has no signal
    """
    if kernel_size % 2 == 0:
        raise UserError(f"a kernel of {kernel_size}x{kernel_size} has no centre: valid is odd")
    n_coils, *shape = acs.shape
    n_windows, n_weights = count_equations(shape, n_coils, kernel_size)
    if n_windows < n_weights:
        raise UserError(
            f"a fully sampled centre of {shape[0]}x{shape[1]} gives {n_windows} equations for the "
            f"{n_weights} weights of a {kernel_size}x{kernel_size} kernel in {n_coils} coils: "
            "valid is a larger centre, a smaller kernel, or fewer coils (compressed)"
        )
    silent = torch.nonzero(acs.abs().amax((1, 2)) == 0).flatten().tolist()
    if silent:
        raise UserError(f"coil {silent[0]} holds nothing but zeros in the fully sampled centre")
    half = kernel_size // 2
    inside = torch.cartesian_prod(*(torch.arange(half, n - half) for n in shape))
    equations = normal_equations(acs[None], acs[None], [inside.to(acs.device)], kernel_size, "zero")
    return solve_kernel(*equations, kernel_size, regularisation).to(acs.dtype)


def count_equations(shape: Sequence[int], n_coils: int, kernel_size: int) -> tuple[int, int]:
    """Equations that a fully sampled block of a shape gives, and weights of a coil's kernel."""
    n_windows = math.prod(max(0, n - kernel_size + 1) for n in shape)
    return n_windows, n_coils * kernel_size**2 - 1


def solve_kernel(gram: Tensor, cross: Tensor, kernel_size: int, regularisation: float) -> Tensor:
    r"""Tikhonov-regularised least squares with the weight of the point itself held at zero.

    Minimises :math:`\|A w_c - b_c\|^2 + \lambda \|w_c\|^2` subject to :math:`w_c[\text{own}_c] = 0`
    for every coil :math:`c`, with :math:`\lambda` = ``regularisation`` times the mean eigenvalue of
    :math:`A^H A`. One factorisation serves all coils: the constraint's Lagrange multiplier needs
    only the solution for the unit vector of the point itself.

    Parameters
    ----------
    gram : complex128 ``(n, n)``, :math:`A^H A`
    cross : complex128 ``(n, coil)``, :math:`A^H b`

    Returns
    -------
    complex128 kernel ``(coil_out, coil_in, kh, kw)``
    """
    n, n_coils = cross.shape
    load = regularisation * gram.diagonal().real.mean()
    if not load > 0:
        raise UserError("the kernel cannot be fitted: all samples around the missing points are 0")
    factor, failed = torch.linalg.cholesky_ex(gram + load * torch.eye(n, device=gram.device))
    if failed:
        raise UserError(
            f"the kernel cannot be fitted: too few equations for {n} weights at a regularisation "
            f"of {regularisation:g}: take more n_equations or more regularisation"
        )
    coils = torch.arange(n_coils, device=gram.device)
    own = coils * kernel_size**2 + kernel_size**2 // 2
    unit = torch.zeros_like(cross)
    unit[own, coils] = 1
    free, pinned = torch.cholesky_solve(torch.cat([cross, unit], 1), factor).split(n_coils, 1)
    weights = free - pinned * (free[own, coils] / pinned[own, coils])
    return weights.mT.reshape(n_coils, n_coils, kernel_size, kernel_size)


def normal_equations(
    estimate: Tensor, target: Tensor, points: Sequence[Tensor], kernel_size: int, boundary: Boundary
) -> tuple[Tensor, Tensor]:
    r"""Sums of :math:`A^H A` and :math:`A^H b` over slices.

    Parameters
    ----------
    estimate, target : complex ``(slice, coil, ky, kx)``
    points : for each slice int64 ``(point, 2)``, where the target is predicted

    Returns
    -------
    complex128 ``(n, n)`` and ``(n, coil)``, n = coils times kernel points
    """
    n_coils = estimate.shape[1]
    n = n_coils * kernel_size**2
    gram = torch.zeros((n, n), dtype=torch.complex128, device=estimate.device)
    cross = torch.zeros((n, n_coils), dtype=torch.complex128, device=estimate.device)
    for x, t, where in zip(estimate, target, points, strict=True):
        rows, columns = where.unbind(1)
        a = neighbours(x, kernel_size, boundary)[..., rows, columns].flatten(0, 2)
        conjugate = a.conj().resolve_conj()
        gram += conjugate @ a.mT
        cross += conjugate @ t[:, rows, columns].mT
    return gram, cross
