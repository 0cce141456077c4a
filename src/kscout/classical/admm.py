"""SPIRiT with a penalty on its images, by the alternating direction method of multipliers."""

from collections.abc import Callable

import torch
from torch import Tensor

from kscout.physics.solvers import conjugate_gradients, slice_inner
from kscout.physics.spirit import SpiritOperator

COUPLING = 0.1
"""Weight of the split, in units of the kernel's operator.

Fixed, as is ``INNER``, and tried on the scans of ``benchmarks/classical.py`` at 20 iterations,
which end before ADMM has converged: NRMSE there is within 0.0025 for 0.02 to 0.5 with wavelets;
with total variation it is within 0.001 for 0.02 to 0.1, and 0.003 to 0.005 larger at 0.5.
"""

INNER = 4
"""Conjugate gradients in every step, each from where the last ended."""


def penalised(
    y: Tensor,
    mask: Tensor,
    operator: SpiritOperator,
    shrink: Callable[[Tensor], Tensor],
    n_iterations: int,
    *,
    forward: Callable[[Tensor], Tensor],
    adjoint: Callable[[Tensor], Tensor],
    normal: Tensor | float,
) -> Tensor:
    r"""Missing points x that the kernel and a penalty P agree on; the acquired ones stay.

    .. math:: \min_x \tfrac12 \|(G - I)\,x\|^2 + P(T x) \quad\text{with}\quad D x = y

    Boyd et al., Found Trends Mach Learn 3:1 (2011), sec. 3.1, split at T x.

    Parameters
    ----------
    y : complex ``(1, coil, ky, kx)``, zero where nothing was acquired
    mask : float {0, 1} ``(ky, kx)``
    operator : G - I of the slice's kernel
    shrink : the proximal step of P / COUPLING
    forward, adjoint : T, of k-space, and its adjoint
    normal : :math:`T^H T`, which multiplies each point of k-space

    Returns
    -------
    complex ``(1, coil, ky, kx)``
    """
    missing, x = 1 - mask, y
    seen = forward(x)
    dual = torch.zeros_like(seen)

    def of_change(change: Tensor) -> Tensor:
        return missing * (operator.normal(change) + COUPLING * normal * change)

    for _ in range(n_iterations):
        sparse = shrink(seen + dual)
        against = COUPLING * (adjoint(sparse - dual) - normal * x) - operator.normal(x)
        x = x + conjugate_gradients(of_change, missing * against, INNER, inner=slice_inner)
        seen = forward(x)
        dual = dual + seen - sparse
    return x
