"""Laws that every part must keep: each check takes the part and raises where the law is broken."""

from collections.abc import Callable

import torch
from torch import Tensor

from kscout.recon import Reconstructor
from kscout.sampling import Budget

Shape = tuple[int, ...]


def complex_normal(
    shape: Shape, seed: int = 0, dtype: torch.dtype = torch.complex64
) -> torch.Tensor:
    """Complex white noise of unit variance."""
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def relative_error(value: Tensor, expected: Tensor) -> float:
    """Largest error over the largest modulus expected."""
    return float((value - expected).abs().max() / expected.abs().max())


def linear(operator: Callable[[Tensor], Tensor], shape: Shape) -> None:
    """A(a x + y) = a A x + A y, in complex128."""
    x, y = (complex_normal(shape, seed, torch.complex128) for seed in (1, 2))
    factor = 0.7 - 1.3j
    expected = factor * operator(x) + operator(y)
    assert relative_error(operator(factor * x + y), expected) < 1e-12


def adjoint(
    forward: Callable[[Tensor], Tensor],
    backward: Callable[[Tensor], Tensor],
    x_shape: Shape,
    y_shape: Shape,
) -> None:
    """<A x, y> = <x, A^H y>, in complex128."""
    x, y = (
        complex_normal(x_shape, 1, torch.complex128),
        complex_normal(y_shape, 2, torch.complex128),
    )
    forwards, backwards = forward(x), backward(y)
    assert forwards.shape == y_shape
    assert backwards.shape == x_shape
    left = torch.vdot(y.flatten(), forwards.flatten())
    right = torch.vdot(backwards.flatten(), x.flatten())
    assert abs(left - right) <= 1e-10 * x.norm() * y.norm()


def exact_budget(mask: Tensor, budget: Budget) -> None:
    """A binary mask on the plane, to the point, with the ACS in it."""
    assert mask.shape == budget.shape
    assert ((mask == 0) | (mask == 1)).all()
    assert int(mask.sum()) == budget.n_samples
    assert mask.bool()[budget.acs].all()


def completes(reconstructor: Reconstructor, kspace: Tensor, mask: Tensor) -> Tensor:
    """Finite k-space in the shape and dtype in which it went in; returns it."""
    completed: Tensor = reconstructor(kspace * mask, mask)
    assert completed.shape == kspace.shape
    assert completed.dtype == kspace.dtype
    assert completed.isfinite().all()
    return completed


def data_consistent(reconstructor: Reconstructor, kspace: Tensor, mask: Tensor) -> None:
    """It completes k-space, and the acquired points come back bit for bit."""
    completed = completes(reconstructor, kspace, mask)
    where = mask.bool().expand(kspace.shape)
    assert torch.equal(completed[where], kspace[where])


def deterministic(make: Callable[[int], Tensor], *, differs: bool) -> None:
    """The seed alone decides, the global generator is neither read nor moved."""
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = make(1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert torch.equal(make(1), first)
    if differs:
        assert not torch.equal(make(2), first)
