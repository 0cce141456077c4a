"""Fit a SPIRiT stack to a fixed mask by least squares, block by block, without gradient steps."""

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from kscout.data.slices import KspaceSet
from kscout.physics.calibration import normal_equations, solve_kernel
from kscout.recon.spirit_net import SpiritNet


@torch.no_grad()
def fit_closed_form(
    net: SpiritNet,
    mask: Tensor,
    data: KspaceSet,
    *,
    seed: int,
    n_slices: Annotated[int, Field(ge=1, description="training slices")] = 100,
    n_equations: Annotated[int, Field(ge=1, description="equations of a block")] = 200_000,
    regularisation: Annotated[float, Field(gt=0, description="relative Tikhonov weight")] = 1e-6,
    advance: Callable[[], None] = lambda: None,
) -> None:
    r"""Set every kernel of ``net`` to the best one for ``mask``, first block to last.

    Block :math:`b` predicts the missing points of the target from the current estimate :math:`x`:
    :math:`\min_g \sum_{p \notin m} |(g * x)(p) - t(p)|^2 + \lambda |g|^2`, the calibration equation
    of Lustig & Pauly (2010) over training slices in place of an ACS.

    Parameters
    ----------
    net : changed in place
    mask : bool ``(ky, kx)``
    data : training slices; drawn at random over positions and scans, because a fit on one position
        generalises badly
    seed : of the draw
    n_slices : how many slices, all of them if there are fewer
    n_equations : missing points per block over all slices; many slices with few points each
        generalise better than the reverse, at the same cost
    regularisation : relative to the mean eigenvalue of the normal equations
    advance : called after every block, for a progress bar
    """
    device = net.kernels.device
    generator = torch.Generator().manual_seed(seed)
    chosen = data.select(torch.randperm(len(data), generator=generator)[:n_slices])
    mask = mask.to(device).float()
    kspace, target = chosen.kspace.to(device) * mask, chosen.target.to(device)
    missing = torch.nonzero(mask == 0)
    if len(missing) == 0:
        return
    n_points = min(len(missing), max(1, n_equations // len(chosen)))
    estimate = kspace.clone()
    for block in range(net.n_blocks):
        points = [
            missing[torch.randperm(len(missing), generator=generator)[:n_points].to(device)]
            for _ in range(len(chosen))
        ]
        gram, cross = normal_equations(estimate, target, points, net.kernel_size, net.boundary)
        net.kernels[block] = solve_kernel(gram, cross, net.kernel_size, regularisation)
        for i in range(0, len(chosen), 8):
            part = slice(i, i + 8)
            estimate[part] = kspace[part] + net.estimate(block, estimate[part], 1 - mask)
        advance()
