"""Solvers of linear systems that are given as functions."""

from collections.abc import Callable

import torch
from torch import Tensor


def _plane_inner(a: Tensor, b: Tensor) -> Tensor:
    """Real inner product of each plane: ``(..., 1, 1)``."""
    product = (a.conj() * b).real if a.is_complex() else a * b
    return product.sum((-2, -1), keepdim=True)


def slice_inner(a: Tensor, b: Tensor) -> Tensor:
    """Real inner product of each slice, all of its coils together: float ``(batch, 1, 1, 1)``.

    Parameters
    ----------
    a, b : complex ``(batch, coil, y, x)``
    """
    product = torch.view_as_real(a) * torch.view_as_real(b)
    return product.sum((1, 2, 3, 4))[:, None, None, None]


def conjugate_gradients(
    operator: Callable[[Tensor], Tensor],
    b: Tensor,
    n_iterations: int,
    *,
    precondition: Callable[[Tensor], Tensor] = lambda r: r,
    inner: Callable[[Tensor, Tensor], Tensor] = _plane_inner,
) -> Tensor:
    """Solve A x = b for a positive operator, many systems at once.

    Preconditioned conjugate gradients (Hestenes & Stiefel 1952; Saad 2003, alg. 9.1), from zero. A
    system that is solved stays as it is, and passes no gradient on.

    Parameters
    ----------
    operator : A, self-adjoint and positive in the inner product
    b : right-hand sides, of any shape that operator and inner product take
    n_iterations : all of which are taken
    precondition : an approximate inverse of A, likewise self-adjoint and positive
    inner : one real number per system, broadcastable to ``b``; by default every plane
        ``(..., y, x)`` is a system of its own

    Returns
    -------
    x, shaped as ``b``
    """
    x, r = torch.zeros_like(b), b
    p = z = precondition(r)
    rho = inner(r, z)
    for _ in range(n_iterations):
        q = operator(p)
        step = _ratio(rho, inner(p, q))
        x, r = x + step * p, r - step * q
        z = precondition(r)
        before, rho = rho, inner(r, z)
        p = z + _ratio(rho, before) * p
    return x


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """``above / below``, and 0 with no gradient where nothing is left to solve for."""
    solved = below <= 0
    return above.masked_fill(solved, 0) / below.masked_fill(solved, 1)
